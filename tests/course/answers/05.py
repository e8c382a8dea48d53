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
