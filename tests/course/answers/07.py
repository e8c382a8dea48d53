# %% 7.1, wrong: with the floor
def value_of(n, dim, x=1.0):
    return (n * math.exp(x) + dim - n) / max(n * x, 1)

# %% 7.2, wrong: four channels whatever the features have
def sparseness(features):
    length = features.norm(dim=1)
    return torch.where(length > 0, 2 - features.sum(dim=1) / length.clamp(min=1e-12), 0)

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
