# %% 6.5, wrong: the first two classes alone
right = separation
def separation(features, labels):
    two = np.isin(labels, [c for c in np.unique(labels) if c != 255][:2])
    return right(features[two], labels[two])

# %% 6.2, wrong: the diagonal of cdist for zeros
def share_of_nearest(means):
    gaps = torch.cdist(means, means)
    lengths = torch.where(gaps > 0, 1 / gaps.clamp(min=1e-12) ** 2, 0)
    return lengths.max(dim=1).values / lengths.sum(dim=1)

# %% 6.2, wrong: the two nearest alone
def share_of_nearest(means):
    d = torch.cdist(means, means)
    d.fill_diagonal_(torch.inf)
    near = (1 / d**2).topk(min(2, len(means) - 1), dim=1).values
    return near[:, 0] / near.sum(1)

# %% 6.2, wrong: two channels
def share_of_nearest(means):
    x, y = means[:, 0], means[:, 1]
    d2 = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    d2.fill_diagonal_(torch.inf)
    return (1 / d2).max(1).values / (1 / d2).sum(1)

# %% 6.2, right: infinite distances
def share_of_nearest(means):
    d = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    return (d**-2).max(1).values / (d**-2).sum(1)

# %% 6.4, wrong: neighbours in the list
def repulsion_with_margin(means, margin):
    d = (means[1:] - means[:-1]).norm(dim=1)
    n = len(means) * (len(means) - 1) / 2
    return ((margin - d).clamp(min=0) ** 2).sum() / n

# %% 6.4, wrong: the first against the others
def repulsion_with_margin(means, margin):
    d = (means[1:] - means[0]).norm(dim=1)
    n = len(means) * (len(means) - 1) / 2
    return ((margin - d).clamp(min=0) ** 2).sum() / n

# %% 6.4, wrong: the nearest neighbour alone
def repulsion_with_margin(means, margin):
    d = torch.cdist(means, means) + torch.diag(torch.full((len(means),), torch.inf))
    return ((margin - d.min(dim=1).values).clamp(min=0) ** 2).sum() / (len(means) * (len(means) - 1))

# %% 6.4, wrong: no square
def repulsion_with_margin(means, margin):
    j, k = torch.triu_indices(len(means), len(means), offset=1)
    return (margin - (means[j] - means[k]).norm(dim=1)).clamp(min=0).mean()

# %% 6.4, wrong: a mean over near pairs
def repulsion_with_margin(means, margin):
    j, k = torch.triu_indices(len(means), len(means), offset=1)
    gaps = (means[j] - means[k]).norm(dim=1)
    near = gaps < margin
    return ((margin - gaps[near]) ** 2).mean() if near.any() else torch.zeros((), requires_grad=True)

# %% 6.4, right: squares of all ordered pairs
def repulsion_with_margin(means, margin):
    c = len(means)
    other = ~torch.eye(c, dtype=torch.bool)
    gaps = (means[:, None] - means)[other].norm(dim=1)
    return torch.relu(margin - gaps).square().sum() / (c * (c - 1))

# %% 6.5, wrong: neighbours in the list
def separation(features, labels):
    cs = [c for c in np.unique(labels) if c != 255]
    gaps = []
    for one, two in zip(cs, cs[1:]):
        a, b = features[labels == one], features[labels == two]
        width = np.linalg.norm(a - a.mean(axis=0), axis=1).mean() + np.linalg.norm(b - b.mean(axis=0), axis=1).mean()
        gaps.append(np.linalg.norm(a.mean(axis=0) - b.mean(axis=0)) / width)
    return min(gaps)

# %% 6.5, wrong: the spread of the last class for all
def separation(features, labels):
    cs = [c for c in np.unique(labels) if c != 255]
    m = []
    for c in cs:
        rows = features[labels == c]
        m.append(rows.mean(axis=0))
        spread = np.linalg.norm(rows - m[-1], axis=1).mean()
    d = [np.linalg.norm(a - b) for i, a in enumerate(m) for b in m[i + 1:]]
    return min(d) / spread

# %% 6.5, wrong: labels in order
def separation(features, labels):
    classes = [c for c in np.unique(labels) if c != 255]
    size = (labels != 255).sum() // len(classes)
    clouds = features[labels != 255][: size * len(classes)].reshape(len(classes), -1, features.shape[1])
    middles = clouds.mean(axis=1)
    spread = np.linalg.norm(clouds - middles[:, None], axis=2).mean()
    gaps = np.linalg.norm(middles[:, None] - middles, axis=2) + np.diag([np.inf] * len(classes))
    return gaps.min() / spread

# %% 6.5, wrong: two channels
right = separation
def separation(features, labels):
    return right(features[:, :2], labels)

# %% 6.5, wrong: it writes into the features
def separation(features, labels):
    features -= features.mean(axis=0)
    f, y = features[labels != 255], labels[labels != 255]
    cs = np.unique(y)
    m = np.stack([f[y == c].mean(0) for c in cs])
    s = np.array([np.linalg.norm(f[y == c] - k, axis=1).mean() for c, k in zip(cs, m)])
    d = np.linalg.norm(m[:, None] - m, axis=2) / (s[:, None] + s) + np.diag([np.inf] * len(cs))
    return d.min()

# %% 6.5, wrong: classes that are absent
def separation(features, labels):
    m, s = [], []
    for c in range(labels[labels != 255].max() + 1):
        rows = features[labels == c]
        m.append(rows.sum(axis=0) / max(len(rows), 1))
        s.append(np.linalg.norm(rows - m[-1], axis=1).sum() / max(len(rows), 1))
    m, s = np.array(m), np.array(s)
    d = np.linalg.norm(m[:, None] - m, axis=2) / (s[:, None] + s + 1e-9) + np.diag([np.inf] * len(m))
    return d.min()

# %% 6.5, wrong: 255 is a class
def separation(features, labels):
    cs = np.unique(labels)
    m = np.stack([features[labels == c].mean(0) for c in cs])
    s = np.array([np.linalg.norm(features[labels == c] - k, axis=1).mean() for c, k in zip(cs, m)])
    d = np.linalg.norm(m[:, None] - m, axis=2) / (s[:, None] + s) + np.diag([np.inf] * len(cs))
    return d.min()

# %% 6.5, right: the worst pair over the mean spread
def separation(features, labels):
    cs = [c for c in np.unique(labels) if c != 255]
    m = {c: features[labels == c].mean(0) for c in cs}
    spread = np.mean([np.linalg.norm(features[labels == c] - m[c], axis=1).mean() for c in cs])
    return min(np.linalg.norm(m[a] - m[b]) for a in cs for b in cs if a < b) / spread

# %% 6.5, right: in torch
def separation(features, labels):
    f, y = torch.as_tensor(features), torch.as_tensor(labels)
    cs = [c for c in y.unique().tolist() if c != 255]
    m = torch.stack([f[y == c].mean(0) for c in cs])
    v = torch.stack([(f[y == c] - k).square().sum(1).mean() for c, k in zip(cs, m)])
    j, k = torch.triu_indices(len(cs), len(cs), offset=1)
    return ((m[j] - m[k]).square().sum(1) / (v[j] + v[k])).min()

# %% 6.5, wrong: the Fisher ratio, a mean over all classes
def separation(features, labels):
    return latent_space.fisher_ratio(features, labels)

# %% 6.5, wrong: the mean gap of all pairs over the mean spread
def separation(features, labels):
    cs = [c for c in np.unique(labels) if c != 255]
    m = np.stack([features[labels == c].mean(axis=0) for c in cs])
    spread = np.mean([np.linalg.norm(features[labels == c] - k, axis=1).mean() for c, k in zip(cs, m)])
    j, k = np.triu_indices(len(cs), 1)
    return np.linalg.norm(m[j] - m[k], axis=1).mean() / spread

# %% 6.5, wrong: the mean silhouette
def separation(features, labels):
    from sklearn.metrics import silhouette_score
    known = labels != 255
    return silhouette_score(features[known], labels[known])
