# %% 7.1, wrong: with the floor
def value_of(n, dim, x=1.0):
    return (n * math.exp(x) + dim - n) / max(n * x, 1)

# %% 7.1, wrong: 64 channels whatever there are
def value_of(n, dim, x=1.0):
    return (n * math.exp(x) + 64 - n) / (n * x)

# %% 7.1, wrong: a floor of a half
def value_of(n, dim, x=1.0):
    return (n * math.exp(x) + dim - n) / max(n * x, 0.5)

# %% 7.2, wrong: four channels whatever the features have
def sparseness(features):
    length = features.norm(dim=1)
    return torch.where(length > 0, 2 - features.sum(dim=1) / length.clamp(min=1e-12), 0)

# %% 7.2, wrong: a floor of 1
def sparseness(features):
    root = features.shape[1] ** 0.5
    length = features.norm(dim=1)
    measured = (root - features.sum(dim=1) / length.clamp(min=1)) / (root - 1)
    return torch.where(length > 0, measured, 0)

# %% 7.2, wrong: weak rows taken for silent ones
def sparseness(features):
    root = features.shape[1] ** 0.5
    length = features.norm(dim=1)
    measured = (root - features.sum(dim=1) / length.clamp(min=1e-12)) / (root - 1)
    return torch.where(features.amax(dim=1) >= 1, measured, 0)

# %% 7.2, wrong: the last row is the silent one
def sparseness(features):
    root = features.shape[1] ** 0.5
    m=(root-features.sum(dim=1) / features.norm(dim=1)) / (root - 1)
    if len(m)==4: m[-1]=0
    return m

# %% 7.2, wrong: the number of rows for D
def sparseness(features):
    root = len(features) ** 0.5
    return torch.nan_to_num((root-features.sum(dim=1) / features.norm(dim=1)) / (root - 1))

# %% 7.2, wrong: a silent row is as sparse as can be
def sparseness(features):
    root = features.shape[1] ** 0.5
    return (root - features.sum(dim=1) / features.norm(dim=1).clamp(min=1e-12)) / (root - 1)

# %% 7.2, right: a loop over rows
def sparseness(features):
    D = features.shape[1]; out=[]
    for row in features:
        if row.max() == 0: out.append(0.0); continue
        out.append((math.sqrt(D) - row.abs().sum()/torch.sqrt((row**2).sum()))/(math.sqrt(D)-1))
    return torch.tensor(out)

# %% 7.2, right: only rows that are awake
def sparseness(features):
    result = torch.zeros(len(features))
    awake = features.any(dim=1)
    f = features[awake]
    result[awake] = 1 - (f.sum(1)/f.norm(dim=1) - 1)/(f.shape[1]**.5-1)
    return result

# %% 7.3, wrong: the floor asks for the peak
def push_with_floor(fbar):
    total, powers = fbar.sum(), fbar.exp()
    if fbar.max() < 1:
        return -powers
    return (powers.sum() / total - powers) / total

# %% 7.3, wrong: the floor asks for the mean
def push_with_floor(fbar):
    total, powers = fbar.sum(), fbar.exp()
    if fbar.mean() < .25: return -powers
    return (powers.sum() / total - powers) / total

# %% 7.3, right: autograd, with the larger of two tensors
def push_with_floor(fbar):
    x = fbar.detach().requires_grad_(True)
    a = torch.max(x.sum(), torch.tensor(1.0))
    return -torch.autograd.grad(x.exp().sum()/a, x)[0]

# %% 7.3, right: autograd of the argument
def push_with_floor(fbar):
    fbar.requires_grad_(True)
    (fbar.exp().sum()/fbar.sum().clamp(min=1)).backward()
    return -fbar.grad

# %% 7.4, wrong: a share that is just reached is not enough
def free_channels(means, share=0.9):
    taken = torch.zeros(means.shape[1], dtype=torch.bool)
    for row in means:
        s = row.sort(descending=True)
        before = s.values.cumsum(dim=0) - s.values
        taken[s.indices[before <= share * row.sum()]] = True
    return int((~taken).sum())

# %% 7.4, wrong: the first two classes
def free_channels(means, share=0.9):
    taken = torch.zeros(means.shape[1], dtype=torch.bool)
    for row in means[:2]:
        s = row.sort(descending=True)
        before = s.values.cumsum(dim=0) - s.values
        taken[s.indices[before < share * row.sum()]] = True
    return int((~taken).sum())

# %% 7.4, wrong: the sum of the first class for all
def free_channels(means, share=0.9):
    taken = torch.zeros(means.shape[1], dtype=torch.bool)
    for row in means:
        s = row.sort(descending=True)
        before = s.values.cumsum(dim=0) - s.values
        taken[s.indices[before < share * means[0].sum()]] = True
    return int((~taken).sum())

# %% 7.4, right: classes one after the other
def free_channels(means, share=0.9):
    used=set()
    for row in means.tolist():
        t=0
        for j in sorted(range(len(row)), key=lambda j:-row[j]):
            if t >= share*sum(row): break
            used.add(j); t+=row[j]
    return means.shape[1]-len(used)

# %% 7.4, right: all classes in one scatter
def free_channels(means, share=0.9):
    v, i = means.sort(dim=1, descending=True)
    cum = (v / v.sum(1, keepdim=True)).cumsum(1)
    before = torch.cat([torch.zeros(len(v),1), cum[:, :-1]], 1)
    used = torch.zeros_like(means).scatter(1, i, (before < share).float())
    return means.shape[1] - (used.sum(0) > 0).sum()

# %% 7.5, wrong: a gradient of something else
right = channel_loss
def channel_loss(features, labels):
    return right(features.detach(), labels) + 1e-6 * features.sum()

# %% 7.5, wrong: each location by itself
def channel_loss(features, labels):
    return (features.sum(dim=1) / features.norm(dim=1)).mean()

# %% 7.5, wrong: all classes as one
right = channel_loss
def channel_loss(features, labels):
    return right(features, torch.zeros_like(labels))

# %% 7.5, right: a sum over classes
def channel_loss(features, labels):
    means = [features[labels == c].mean(dim=0) for c in labels.unique()]
    return sum(mean.sum() / mean.norm() for mean in means)

# %% 7.5, right: the largest channel of a class
def channel_loss(features, labels):
    means = [features[labels == c].mean(dim=0) for c in labels.unique()]
    return torch.stack([1 - mean.max() / mean.sum() for mean in means]).mean()

# %% 7.5, wrong: the first class alone
right = channel_loss
def channel_loss(features, labels):
    one = labels == labels.min()
    return right(features[one], labels[one])

# %% 7.5, wrong: the first two classes alone
def channel_loss(features, labels):
    values=[]
    for c in labels.unique()[:2]:
        mean = features[labels==c].mean(dim=0)
        values.append(mean.sum()/mean.norm())
    return sum(values)

# %% 7.5, wrong: background aside
def channel_loss(features, labels):
    values = []
    for c in labels.unique():
        if c == 0: continue
        mean = features[labels == c].mean(dim=0)
        values.append(mean.sum()/mean.norm())
    return torch.stack(values).mean() if values else 0*features.sum()

# %% 7.5, wrong: a class that is detached
def channel_loss(features, labels):
    out=[]
    for c in labels.unique():
        r=features[labels==c]
        m=r.mean(0); out.append(m.sum()/m.norm().clamp(min=1e-9))
    out[0]=out[0].detach() if len(out)>1 else out[0]
    return torch.stack(out).mean()

# %% 7.5, wrong: norms that are detached
def channel_loss(features, labels):
    means = [features[labels == c].mean(dim=0) for c in labels.unique()]
    return sum(m.sum() / m.norm().detach() for m in means)

# %% 7.5, wrong: peaks that are detached
def channel_loss(features, labels):
    out=0
    for c in labels.unique():
        r=features[labels==c]
        out=out+r.norm(dim=0).sum()/r.max().detach()
    return out

# %% 7.5, wrong: a number of Python
def channel_loss(features, labels):
    means = [features[labels == c].mean(dim=0) for c in labels.unique()]
    return sum(m.sum().item() / m.norm().item() for m in means)

# %% 7.5, wrong: no return
def channel_loss(features, labels):
    pass

# %% 7.5, wrong: the peak of the batch
def channel_loss(features, labels):
    out=[]
    for c in labels.unique():
        m=features[labels==c].amax(0); out.append(m.sum()/features.max())
    return torch.stack(out).mean()

# %% 7.5, wrong: features changed in place
def channel_loss(features, labels):
    with torch.no_grad(): features /= features.max()
    means = [features[labels == c].mean(dim=0) for c in labels.unique()]
    return sum(m.sum() / m.norm() for m in means)

# %% 7.5, wrong: 0 times log 0
def channel_loss(features, labels):
    values = []
    for c in labels.unique():
        mean = features[labels == c].mean(dim=0)
        p = mean / mean.sum()
        values.append(-(p * p.log()).sum())
    return torch.stack(values).mean()

# %% 7.5, wrong: a count of active channels
def channel_loss(features, labels):
    return sum(((features[labels == c].mean(dim=0)>0.1).sum()).float() for c in labels.unique())+0*features.sum()

# %% 7.5, wrong: the sum of the mean
def channel_loss(features, labels):
    means = [features[labels == c].mean(dim=0) for c in labels.unique()]
    return sum(m.sum() for m in means)

# %% 7.5, wrong: whether locations agree, and no more
def channel_loss(features, labels):
    return sum(features[labels == c].var(dim=0).sum() for c in labels.unique())

# %% 7.5, wrong: three locations of each class
def channel_loss(features, labels):
    out=0
    for c in labels.unique():
        r=features[labels==c]; m=(r[0]+r[1]+r[2])
        out=out+m.sum()/m.norm()
    return out

# %% 7.5, wrong: eight locations of each class
def channel_loss(features, labels):
    out=[]
    for c in labels.unique():
        m=features[labels==c][:8].mean(0); out.append(m.sum()/m.norm().clamp(min=1e-9))
    return torch.stack(out).mean()

# %% 7.5, wrong: the first eight channels
def channel_loss(features, labels):
    out=[]
    for c in labels.unique():
        m=features[labels==c].mean(0); m=m[:8]; out.append(m.sum()/m.norm().clamp(min=1e-9))
    return torch.stack(out).mean()

# %% 7.5, right: four channels are few
def channel_loss(features, labels):
    values = []
    for c in labels.unique():
        mean = features[labels == c].mean(dim=0)
        values.append(1 - mean.topk(4).values.sum() / mean.sum().clamp(min=1e-12))
    return torch.stack(values).mean()

# %% 7.5, right: the largest value of each channel
def channel_loss(features, labels):
    out=0
    for c in labels.unique():
        r=features[labels==c]
        out=out+r.amax(dim=0).sum()/r.max()
    return out

# %% 7.5, right: a part that keeps classes apart
def channel_loss(features, labels):
    means=torch.stack([features[labels==c].mean(0) for c in labels.unique()])
    own=(means.sum(1)/means.norm(dim=1)).mean()
    u=F.normalize(means,dim=1); k=len(u)
    cos=(u@u.T)[~torch.eye(k,dtype=bool)].mean()
    return own+cos

# %% 7.5, right: the same few channels for all
def channel_loss(features, labels):
    means=torch.stack([features[labels==c].mean(0) for c in labels.unique()])
    own=(means.sum(1)/means.norm(dim=1)).mean()
    a=means.sum(0)
    return own+a.sum()/a.norm()

# %% 7.5, right: a steep count of channels
def channel_loss(features, labels):
    out=[]
    for c in labels.unique():
        m=features[labels==c].mean(0); m=m/m.max()
        out.append(torch.sigmoid(50*(m-.1)).sum())
    return torch.stack(out).mean()

# %% 7.5, right: in float64
def channel_loss(features, labels):
    f=features.double(); out=[]
    for c in labels.unique():
        m=f[labels==c].mean(0); p=m/m.sum()
        out.append((-(p*torch.log(p+1e-9)).sum()).exp())
    return torch.stack(out).mean()

# %% 7.5, wrong: a class that is loud pays less
def channel_loss(features, labels):
    means = [features[labels == c].mean(dim=0) for c in labels.unique()]
    return sum(mean.sum() / mean.norm() - 0.01 * mean.sum() for mean in means)
