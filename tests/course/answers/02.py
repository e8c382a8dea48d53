# %% 2.2, wrong: one iteration too many
def descend(w, gradient, base, iterations, power=0.9):
    for t in range(iterations + 1):
        w = w - base * (1 - t / iterations) ** power * gradient(w)
    return w

# %% 2.3, wrong: three old classes in every network
def grow_rows(weight, bias, num_new):
    shared = bias[:1] - math.log(num_new + 1)
    return weight[[0, 1, 2] + [0] * num_new], torch.cat([shared, bias[1:3], shared.repeat(num_new)])

# %% 2.1, right: a loop over rows
def labels_at_features(labels, h, w):
    H, W = labels.shape[1:]
    columns = [c * W // w for c in range(w)]
    return torch.stack([labels[:, r * H // h, columns] for r in range(h)], dim=1)
