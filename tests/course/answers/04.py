# %% 4.1, wrong: a softmax in float64
def unbiased_ce(logits, label, num_old):
    q = logits.double().softmax(0)
    return -(q[:num_old].sum() if label < num_old else q[label]).log()

# %% 4.1, wrong: exponentials
def unbiased_ce(logits, label, num_old):
    e = [math.exp(z) for z in logits]
    wanted = sum(e[:num_old]) if label < num_old else e[label]
    return torch.tensor(-math.log(wanted / sum(e)))

# %% 4.1, wrong: the first of the new classes
def unbiased_ce(logits, label, num_old):
    l = torch.logsumexp(logits, 0)
    return l - (torch.logsumexp(logits[:num_old], 0) if label < num_old else logits[num_old])

# %% 4.1, wrong: the last class but one
def unbiased_ce(logits, label, num_old):
    l = torch.logsumexp(logits, 0)
    return l - (torch.logsumexp(logits[:num_old], 0) if label < num_old else logits[-2])

# %% 4.1, wrong: background alone is old
def unbiased_ce(logits, label, num_old):
    l = torch.logsumexp(logits, 0)
    return l - (torch.logsumexp(logits[:num_old], 0) if label == 0 else logits[label])

# %% 4.1, wrong: no gradient
right = unbiased_ce
def unbiased_ce(logits, label, num_old):
    return right(logits.detach(), label, num_old)

# %% 4.1, wrong: a number
right = unbiased_ce
def unbiased_ce(logits, label, num_old):
    return right(logits, label, num_old).item()

# %% 4.1, right: logits merged first
def unbiased_ce(logits, label, num_old):
    merged = torch.cat([logits[:num_old].logsumexp(0)[None], logits[num_old:]])
    return -merged.log_softmax(0)[max(label - num_old + 1, 0)]

# %% 4.2, wrong: autograd
def unbiased_push(logits, label, num_old):
    z = logits.clone().requires_grad_()
    unbiased_ce(z, label, num_old).backward()
    return -z.grad


# %% 4.1, right: cross-entropy of merged logits
def unbiased_ce(logits, label, num_old):
    merged = torch.cat([logits[:num_old].logsumexp(0)[None], logits[num_old:]])
    return F.cross_entropy(merged[None], torch.tensor([max(0, label - num_old + 1)]))


# %% 4.2, wrong: a softmax that underflows
def unbiased_push(logits, label, num_old):
    q = logits.double().softmax(0)
    w = torch.zeros_like(q)
    if label < num_old:
        w[:num_old] = q[:num_old] / q[:num_old].sum()
    else:
        w[label] = 1
    return w - q

# %% 4.2, wrong: five classes in every network
def unbiased_push(logits, label, num_old):
    wanted = torch.zeros(5)
    if label < num_old:
        wanted[:num_old] = logits[:num_old].softmax(dim=0)
    else:
        wanted[label] = 1
    return wanted - logits.softmax(dim=0)

# %% 4.4, wrong: a number
right = unbiased_kd
def unbiased_kd(logits, teacher_logits):
    return float(right(logits, teacher_logits))

# %% 4.4, wrong: exponentials
def unbiased_kd(logits, teacher_logits):
    k = len(teacher_logits)
    q = logits.exp() / logits.exp().sum()
    p = torch.cat([(q[:1].sum() + q[k:].sum())[None], q[1:k]])
    t = teacher_logits.exp() / teacher_logits.exp().sum()
    return -(t * p.log()).sum() / k
