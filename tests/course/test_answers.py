"""Answers that a reader may well give: the wrong ones are found, the right ones are not refused.

Each was given by somebody; an answer stands after the sample solution and may call it.
"""

import pytest
from chapter_exercises import EXERCISES, exercise_id, run_check

from sparcl_lib.course.chapter import solution

CHECKS = {exercise_id(entry): entry for entry in EXERCISES}

RIGHT = {
    "a sum over classes": ("7.5", """
def channel_loss(features, labels):
    means = [features[labels == c].mean(dim=0) for c in labels.unique()]
    return sum(mean.sum() / mean.norm() for mean in means)
"""),
    "the largest channel of a class": ("7.5", """
def channel_loss(features, labels):
    means = [features[labels == c].mean(dim=0) for c in labels.unique()]
    return torch.stack([1 - mean.max() / mean.sum() for mean in means]).mean()
"""),
}  # fmt: skip

WRONG = {
    "the first step ends at class 3 in every task": ("0.1", """
def old_and_new(ious, num_old, with_background):
    first = 0 if with_background else 1
    return np.mean(ious[first:3]), np.mean(ious[num_old:])
"""),
    "the last two classes are new": ("0.1", """
def old_and_new(ious, num_old, with_background):
    first = 0 if with_background else 1
    return np.mean(ious[first:num_old]), np.mean(ious[-2:])
"""),
    "a median of the new classes": ("0.1", """
def old_and_new(ious, num_old, with_background):
    first = 0 if with_background else 1
    return np.mean(ious[first:num_old]), np.median(ious[num_old:])
"""),
    "only the step before the last": ("0.2", """
def forgetting(rows):
    return {n: rows[-2][n] - rows[-1][n] for n in rows[-2]}
"""),
    "the latest earlier step": ("0.2", """
def forgetting(rows):
    best = {}
    for row in rows[:-1]:
        best.update(row)
    return {name: iou - rows[-1][name] for name, iou in best.items()}
"""),
    "what the first case wants": ("0.2", """
def forgetting(rows):
    return {"cat": 40.0, "dog": -5.0}
"""),
    "the best step, the last among them": ("0.2", """
def forgetting(rows):
    return {n: max(row.get(n, 0) for row in rows) - rows[-1][n] for n in rows[-2]}
"""),
    "the first class of each step": ("1.1", """
def disjoint_step(values, steps):
    return max((k for k, s in enumerate(steps) if s[0] in values), default=-1)
"""),
    "the last class of each step": ("1.1", """
def disjoint_step(values, steps):
    return max((k for k, s in enumerate(steps) if s[-1] in values), default=-1)
"""),
    "three steps in every task": ("1.1", """
def disjoint_step(values, steps):
    return max((k for k in range(3) if values & set(steps[k])), default=-1)
"""),
    "an unused class is ignored": ("1.2", """
def test_table(steps, step, num_raw, future):
    table = np.full(256, 255)
    table[0] = 0
    for new in steps[step + 1 :]:
        table[list(new)] = future
    seen = [c for new in steps[: step + 1] for c in new]
    table[seen] = np.arange(1, len(seen) + 1)
    return table
"""),
    "an unused class is background": ("1.2", """
right = test_table
def test_table(steps, step, num_raw, future):
    table = right(steps, step, num_raw, future)
    table[[c for c in range(1, num_raw) if not any(c in new for new in steps)]] = 0
    return table
"""),
    "the step before alone is old": ("1.4", """
def hidden_shares(mask, table, steps, step):
    hidden = mask[table[mask] == 0]
    if not len(hidden):
        return 0.0, 0.0
    old = steps[step - 1] if step else ()
    future = [c for later in steps[step + 1 :] for c in later]
    return float(np.isin(hidden, old).mean()), float(np.isin(hidden, future).mean())
"""),
    "whatever is not old is to come": ("1.4", """
def hidden_shares(mask, table, steps, step):
    hidden = mask[table[mask] == 0]
    if not len(hidden):
        return 0.0, 0.0
    old = np.isin(hidden, [c for earlier in steps[:step] for c in earlier])
    return float(old.mean()), float((~old & (hidden != 0) & (hidden != 255)).mean())
"""),
    "written in place": ("5.1", """
def merge_banks(p_a, n_a, p_b, n_b):
    p_a *= n_a[:, None]
    p_a += p_b * n_b[:, None]
    n_a += n_b
    p_a /= n_a.clamp(min=1)[:, None]
    return p_a, n_a
"""),
    "one ratio for rows and columns": (
        "2.1",
        """
def labels_at_features(labels, h, w):
    H, W = labels.shape[1:]
    rows, columns = (torch.arange(n) * H // h for n in (h, w))
    return labels[:, rows[:, None], columns.clamp(max=W - 1)]
""",
    ),
    "a mean for each image first": (
        "3.3",
        """
def cosine_drift(before, after, labels, num_classes):
    drift = 1 - F.cosine_similarity(before, after, dim=1)
    found = []
    for c in range(num_classes):
        each = [d[y == c].mean() for d, y in zip(drift, labels) if (y == c).any()]
        found.append(torch.stack(each).mean() if each else torch.tensor(float("nan")))
    return torch.stack(found)
""",
    ),
    "another distance": (
        "3.4",
        """
def nearest_class_mean(features, labels, queries, num_classes):
    present = [c for c in range(num_classes) if (labels == c).any()]
    means = torch.stack([features[labels == c].mean(dim=0) for c in present])
    return torch.tensor(present)[torch.cdist(queries, means, p=1).argmin(dim=1)]
""",
    ),
    "background alone may hide an old class": (
        "4.2",
        """
right = unbiased_push
def unbiased_push(logits, label, num_old):
    if label == 0 or label >= num_old:
        return right(logits, label, num_old)
    return nn.functional.one_hot(torch.tensor(label), len(logits)) - logits.softmax(dim=0)
""",
    ),
    "a division by nothing": (
        "4.3",
        """
def equal_weight(teacher, c, mean_over_classes):
    lead = float(teacher[c] - teacher[0])
    return math.inf if lead < 0 else (len(teacher) if mean_over_classes else 1) / lead
""",
    ),
    "more than there is": (
        "9.1",
        """
def second_hold(kappa, nu, wanted):
    alone = kappa / (kappa + nu)
    return math.inf if wanted == alone else kappa / (alone - wanted) - kappa - nu
""",
    ),
    "no ranks": (
        "9.4",
        """
def by_chance(x, y):
    first, second = (np.asarray(v, float) - np.mean(v) for v in (x, y))
    sizes = np.abs(np.array(list(itertools.permutations(second))) @ first)
    return float((sizes >= abs(second @ first) - 1e-9).mean())
""",
    ),
    "blind to what was lost": (
        "9.5",
        """
def predicted_gain(lost, gained, new):
    return min(gained), max(gained)
""",
    ),
    "one too many where it is exact": (
        "10.1",
        """
def iterations_for(share, momentum):
    return math.ceil(math.log(1 - share) / math.log(1 - momentum))
""",
    ),
    "one decimal whatever is printed": (
        "10.2",
        """
right = counts_background
def counts_background(*row):
    return right(*row[:5])
""",
    ),
    "names in a circle": (
        "10.3",
        """
def other_names(loss):
    features, labels, prototypes = scene()
    name = torch.tensor([0, 2, 3, 1])
    renamed = torch.where(labels == 255, 255, name[labels.clamp(max=3)])
    rows = torch.empty_like(prototypes)
    rows[name] = prototypes
    return loss(features, labels, prototypes), loss(features, renamed, rows)
""",
    ),
    "the last two rows": (
        "11.4",
        """
def loudest(log, weights):
    weighted = {name: weight * log.tail(2)[name].mean() for name, weight in weights.items()}
    name = max(weighted, key=weighted.get)
    return name, weighted[name] / sum(weighted.values())
""",
    ),
    "a median of the rows": (
        "11.4",
        """
def loudest(log, weights):
    last = log.tail(max(1, len(log) // 10))
    weighted = {name: weight * last[name].median() for name, weight in weights.items()}
    name = max(weighted, key=weighted.get)
    return name, weighted[name] / sum(weighted.values())
""",
    ),
    "two old classes whatever the batch has": ("5.2", """
right = distance_at_rest
def distance_at_rest(p, u, kappa, weight, distance, num_present):
    return right(p, u, kappa, weight, distance, 2 if distance == "l2" else num_present)
"""),
    "three channels whatever the features have": ("5.2", """
right = distance_at_rest
def distance_at_rest(p, u, kappa, weight, distance, num_present):
    longer = [torch.cat([x, torch.zeros(3 - len(x))]) for x in (p, u)]
    return right(*longer, kappa, weight, distance, num_present)
"""),
    "a loss without a gradient": ("5.3", """
right = confident_matching
def confident_matching(features, *others):
    return right(features.detach(), *others)
"""),
    "a loss that is a number of Python": ("5.3", """
right = confident_matching
def confident_matching(*arguments):
    return right(*arguments).item()
"""),
    "the first location of a class alone": ("5.4", """
def moved_within(before, after, labels, num_classes):
    found = np.full(num_classes, np.nan)
    for c in set(labels) - {255}:
        rows, way = before[labels == c], (after - before)[labels == c]
        found[c] = np.linalg.norm(way[0]) / np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean()
    return found
"""),
    "whether anything has moved": ("5.4", """
def moved_within(before, after, labels, num_classes):
    found = np.full(num_classes, np.nan)
    for c in set(labels) - {255}:
        found[c] = float((before != after)[labels == c].any())
    return found
"""),
    "the first two classes alone": ("6.5", """
right = separation
def separation(features, labels):
    two = np.isin(labels, [c for c in np.unique(labels) if c != 255][:2])
    return right(features[two], labels[two])
"""),
    "with the floor": ("7.1", """
def value_of(n, dim, x=1.0):
    return (n * math.exp(x) + dim - n) / max(n * x, 1)
"""),
    "four channels whatever the features have": ("7.2", """
def sparseness(features):
    length = features.norm(dim=1)
    return torch.where(length > 0, 2 - features.sum(dim=1) / length.clamp(min=1e-12), 0)
"""),
    "a gradient of something else": ("7.5", """
right = channel_loss
def channel_loss(features, labels):
    return right(features.detach(), labels) + 1e-6 * features.sum()
"""),
    "each location by itself": ("7.5", """
def channel_loss(features, labels):
    return (features.sum(dim=1) / features.norm(dim=1)).mean()
"""),
    "all classes as one": ("7.5", """
right = channel_loss
def channel_loss(features, labels):
    return right(features, torch.zeros_like(labels))
"""),
    "a median": ("8.1", """
def main_effect(runs, term):
    means = runs.groupby(["seed", term])["score"].median().unstack()
    return means[True] - means[False]
"""),
    "without seeds": ("8.1", """
right = main_effect
def main_effect(runs, term):
    return right(runs, term).tolist()
"""),
    "a spread that is ignored": ("8.4", """
right = luck
def luck(few, many, s):
    return right(few, many, 1.0)
"""),
    "more than a point": ("8.5", """
def by_rule(runs, one, other, holds):
    means = runs.groupby(["seed", one, other])["score"].mean().unstack([one, other])
    gain = means[True] - means[False]
    late = means.xs(True, level=other, axis=1) - means.xs(False, level=other, axis=1)
    found = {one: gain.mean(axis=1), other: late.mean(axis=1)}
    found["interaction"] = (gain[True] - gain[False]) / 2
    return {
        name: ("helps" if x.mean() > 0 else "harms") if holds(x) else "not shown"
        for name, x in found.items()
    }
def analyse(runs, one, other):
    return by_rule(runs, one, other, lambda x: abs(x.mean()) > 1)
"""),
}  # fmt: skip
for deviations, title in ((1.0, "one deviation"), (2 / 4**0.5, "two standard errors")):
    WRONG[f"beyond {title}"] = ("8.5", WRONG["more than a point"][1] + f"""
def analyse(runs, one, other):
    return by_rule(runs, one, other, lambda x: abs(x.mean()) > {deviations} * x.std())
""")  # fmt: skip


def verdict(number: str, answer: str) -> str:
    chapter, exercise, check = CHECKS[number]
    return run_check(chapter, f"{solution(exercise.source)}\n{answer}", check.source)


@pytest.mark.parametrize("name", RIGHT)
def test_another_right_answer_is_right(name):
    number, answer = RIGHT[name]
    assert f"Exercise {number}: right." in verdict(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_not(name):
    number, answer = WRONG[name]
    told = verdict(number, answer)
    assert f"Exercise {number}: " in told and "Hint: " in told
