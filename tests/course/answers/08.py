# %% 8.1, wrong: a median
def main_effect(runs, term):
    means = runs.groupby(["seed", term])["score"].median().unstack()
    return means[True] - means[False]

# %% 8.1, wrong: without seeds
right = main_effect
def main_effect(runs, term):
    return right(runs, term).tolist()

# %% 8.4, wrong: a spread that is ignored
right = luck
def luck(few, many, s):
    return right(few, many, 1.0)

# %% 8.5, wrong: more than a point
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

# %% 8.5, wrong: beyond one deviation
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

def analyse(runs, one, other):
    return by_rule(runs, one, other, lambda x: abs(x.mean()) > 1.0 * x.std())

# %% 8.5, wrong: beyond two standard errors
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

def analyse(runs, one, other):
    return by_rule(runs, one, other, lambda x: abs(x.mean()) > 1.0 * x.std())
