# %% 5.1, wrong: written in place
def merge_banks(p_a, n_a, p_b, n_b):
    p_a *= n_a[:, None]
    p_a += p_b * n_b[:, None]
    n_a += n_b
    p_a /= n_a.clamp(min=1)[:, None]
    return p_a, n_a

# %% 5.2, wrong: two old classes whatever the batch has
right = distance_at_rest
def distance_at_rest(p, u, kappa, weight, distance, num_present):
    return right(p, u, kappa, weight, distance, 2 if distance == "l2" else num_present)

# %% 5.2, wrong: three channels whatever the features have
right = distance_at_rest
def distance_at_rest(p, u, kappa, weight, distance, num_present):
    longer = [torch.cat([x, torch.zeros(3 - len(x))]) for x in (p, u)]
    return right(*longer, kappa, weight, distance, num_present)

# %% 5.3, wrong: a loss without a gradient
right = confident_matching
def confident_matching(features, *others):
    return right(features.detach(), *others)

# %% 5.3, wrong: a loss that is a number of Python
right = confident_matching
def confident_matching(*arguments):
    return right(*arguments).item()

# %% 5.4, wrong: the first location of a class alone
def moved_within(before, after, labels, num_classes):
    found = np.full(num_classes, np.nan)
    for c in set(labels) - {255}:
        rows, way = before[labels == c], (after - before)[labels == c]
        found[c] = np.linalg.norm(way[0]) / np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean()
    return found

# %% 5.4, wrong: whether anything has moved
def moved_within(before, after, labels, num_classes):
    found = np.full(num_classes, np.nan)
    for c in set(labels) - {255}:
        found[c] = float((before != after)[labels == c].any())
    return found

# %% 5.1, wrong: a class that neither has seen keeps a prototype
def merge_banks(p_a, n_a, p_b, n_b):
    n = n_a + n_b
    mean = (p_a * n_a[:, None] + p_b * n_b[:, None]) / n.clamp(min=1)[:, None]
    return torch.where(n[:, None] > 0, mean, p_a), n

# %% 5.1, wrong: from the first to the second
def merge_banks(p_a, n_a, p_b, n_b):
    n = n_a + n_b
    return torch.lerp(p_a, p_b, (n_b / n.clamp(min=1))[:, None]), n

# %% 5.2, wrong: the spring of the toy
def distance_at_rest(p, u, kappa, weight, distance, num_present):
    reach = float((u - p).norm())
    if distance == "mse":
        mu = 2 * weight / (len(p) * num_present)
        return kappa * reach / (kappa + mu)
    return max(0.0, reach - 2 * weight / num_present)

# %% 5.2, wrong: always five apart
def distance_at_rest(p, u, kappa, weight, distance, num_present):
    if distance == "mse":
        mu = 2 * weight / (len(p) * num_present)
        return kappa * 5 / (kappa + mu)
    return max(0.0, 5 - weight / num_present / kappa)

# %% 5.3, wrong: half a location at least
def confident_matching(features, guesses, confidence, prototypes):
    found = []
    for c in range(1, len(prototypes)):
        w = confidence * (guesses == c)
        if w.sum() >= 0.5:
            mean = (w[:, None] * features).sum(0) / w.sum()
            found.append((mean - prototypes[c]).square().mean())
    return torch.stack(found).mean() if found else 0 * features.sum()

# %% 5.3, wrong: sure guesses alone
def confident_matching(features, guesses, confidence, prototypes):
    found = []
    for c in range(1, len(prototypes)):
        m = (guesses == c) & (confidence > 0.2)
        w = confidence * m
        if m.any():
            mean = (w[:, None] * features).sum(0) / w.sum()
            found.append((mean - prototypes[c]).square().mean())
    return torch.stack(found).mean() if found else 0 * features.sum()

# %% 5.3, wrong: a floor below the weights
def confident_matching(features, guesses, confidence, prototypes):
    found = []
    for c in range(1, len(prototypes)):
        w = confidence * (guesses == c)
        if w.sum() > 0:
            mean = (w[:, None] * features).sum(0) / w.sum().clamp(min=0.1)
            found.append((mean - prototypes[c]).square().mean())
    return torch.stack(found).mean() if found else 0 * features.sum()

# %% 5.3, wrong: two channels
def confident_matching(features, guesses, confidence, prototypes):
    found = []
    for c in range(1, len(prototypes)):
        w = confidence * (guesses == c)
        if w.sum() > 0:
            mean = (w[:, None] * features).sum(0) / w.sum()
            found.append(0.5 * (mean - prototypes[c]).square().sum())
    return torch.stack(found).mean() if found else 0 * features.sum()

# %% 5.3, wrong: classes 1 and 2
def confident_matching(features, guesses, confidence, prototypes):
    found = []
    for c in (1, 2):
        w = confidence * (guesses == c)
        if w.sum() > 0:
            mean = (w[:, None] * features).sum(0) / w.sum()
            found.append((mean - prototypes[c]).square().mean())
    return torch.stack(found).mean() if found else 0 * features.sum()

# %% 5.4, wrong: neighbours in the list
def moved_within(before, after, labels, num_classes):
    out = np.full(num_classes, np.nan)
    for c in range(num_classes):
        a, b = before[labels == c], after[labels == c]
        if len(a):
            width = np.linalg.norm(a - a.mean(axis=0), axis=1).mean()
            out[c] = np.linalg.norm(np.diff(b - a, axis=0), axis=1).mean() / width
    return out

# %% 5.4, wrong: halves of the list
def moved_within(before, after, labels, num_classes):
    out = np.full(num_classes, np.nan)
    for c in range(num_classes):
        a, b = before[labels == c], after[labels == c]
        if len(a):
            way, half = b - a, len(a) // 2
            parted = way[:half].mean(axis=0) - way[half:].mean(axis=0)
            out[c] = np.linalg.norm(parted) / np.linalg.norm(a - a.mean(axis=0), axis=1).mean()
    return out

# %% 5.4, wrong: first and last
def moved_within(before, after, labels, num_classes):
    out = np.full(num_classes, np.nan)
    for c in range(num_classes):
        a, b = before[labels == c], after[labels == c]
        if len(a):
            way = b - a
            out[c] = np.linalg.norm(way[0] - way[-1]) / np.linalg.norm(a[0] - a[-1])
    return out

# %% 5.4, wrong: a unit from all rows, 255 too
def moved_within(before, after, labels, num_classes):
    unit = np.linalg.norm(after - after.mean(axis=0), axis=1).mean()
    out = np.full(num_classes, np.nan)
    for c in range(num_classes):
        way = (after - before)[labels == c]
        if len(way):
            out[c] = np.linalg.norm(way - way.mean(axis=0), axis=1).mean() / unit
    return out

# %% 5.4, wrong: as many classes as there are labels
def moved_within(before, after, labels, num_classes):
    out = []
    for c in range(labels[labels != 255].max() + 1):
        a, b = before[labels == c], after[labels == c]
        if not len(a):
            out.append(np.nan)
            continue
        way = (b - a) - (b - a).mean(axis=0)
        out.append(np.linalg.norm(way, axis=1).mean() / np.linalg.norm(a - a.mean(axis=0), axis=1).mean())
    return np.array(out)

# %% 5.4, wrong: below zero for halves that come together
def moved_within(before, after, labels, num_classes):
    def width(x):
        return np.linalg.norm(x - x.mean(axis=0), axis=1).mean()
    numbers = np.full(num_classes, np.nan)
    for c in range(num_classes):
        a, b = before[labels == c], after[labels == c]
        if len(a):
            numbers[c] = width(b) / width(a) - 1
    return numbers

# %% 5.4, wrong: one channel
def moved_within(before, after, labels, num_classes):
    numbers = np.full(num_classes, np.nan)
    for c in range(num_classes):
        a, b = before[labels == c], after[labels == c]
        if len(a):
            numbers[c] = (b - a)[:, 0].std() / np.linalg.norm(a - a.mean(axis=0), axis=1).mean()
    return numbers

# %% 5.4, wrong: it writes into the features
def moved_within(before, after, labels, num_classes):
    unit = before[labels != 255].std()
    before /= unit
    after /= unit
    out = np.full(num_classes, np.nan)
    for c in range(num_classes):
        a, b = before[labels == c], after[labels == c]
        if len(a):
            way = (b - a) - (b - a).mean(axis=0)
            out[c] = np.linalg.norm(way, axis=1).mean()
    return out

# %% 5.4, wrong: it writes into the labels
def moved_within(before, after, labels, num_classes):
    labels[labels == 255] = num_classes
    out = np.full(num_classes, np.nan)
    for c in range(num_classes):
        a, b = before[labels == c], after[labels == c]
        if len(a):
            way = b - a
            out[c] = np.linalg.norm(way - way.mean(axis=0), axis=1).mean() / np.linalg.norm(a - a.mean(axis=0), axis=1).mean()
    return out

# %% 5.4, right: torch
def moved_within(before, after, labels, num_classes):
    a, b, y = torch.as_tensor(before), torch.as_tensor(after), torch.as_tensor(labels)
    out = torch.full((num_classes,), float("nan"), dtype=a.dtype)
    for c in range(num_classes):
        m = y == c
        if m.any():
            way = (b - a)[m]
            out[c] = (way - way.mean(0)).norm(dim=1).mean() / (a[m] - a[m].mean(0)).norm(dim=1).mean()
    return out

# %% 5.4, right: the width by channel
def moved_within(before, after, labels, num_classes):
    out = np.full(num_classes, np.nan)
    for c in range(num_classes):
        a, b = before[labels == c], after[labels == c]
        if len(a):
            out[c] = np.abs(b.std(axis=0) / a.std(axis=0) - 1).mean()
    return out

# %% 5.4, right: the way by channel
def moved_within(before, after, labels, num_classes):
    out = np.full(num_classes, np.nan)
    for c in range(num_classes):
        a, b = before[labels == c], after[labels == c]
        if len(a):
            way = (b - a) - (b - a).mean(axis=0)
            out[c] = np.abs(way / a.std(axis=0)).mean()
    return out

# %% 5.4, right: the volume of the cloud
def moved_within(before, after, labels, num_classes):
    out = np.full(num_classes, np.nan)
    for c in range(num_classes):
        a, b = before[labels == c], after[labels == c]
        if len(a):
            out[c] = abs(np.linalg.slogdet(np.cov(b.T))[1] - np.linalg.slogdet(np.cov(a.T))[1])
    return out

# %% 5.4, wrong: the way of the mean
def moved_within(before, after, labels, num_classes):
    out = np.full(num_classes, np.nan)
    for c in range(num_classes):
        a, b = before[labels == c], after[labels == c]
        if len(a):
            out[c] = np.linalg.norm(a.mean(0) - b.mean(0)) / b.std()
    return out
