# %% 8.1, wrong: a median
def main_effect(runs, term):
    means = runs.groupby(["seed", term])["score"].median().unstack()
    return means[True] - means[False]

# %% 8.1, wrong: without seeds
right = main_effect
def main_effect(runs, term):
    return right(runs, term).tolist()

# %% 8.1, wrong: seeds 3 and 7 alone
def main_effect(runs, term):
    on, off = runs[runs[term]], runs[~runs[term]]
    return pd.Series({s: on[on.seed == s].score.mean() - off[off.seed == s].score.mean() for s in (3, 7)})

# %% 8.1, wrong: pairs by their place
def main_effect(runs, term):
    on, off = runs[runs[term]], runs[~runs[term]]
    d = pd.Series(on.score.values - off.score.values, index=on.seed.values)
    return d.groupby(level=0).mean()

# %% 8.1, wrong: a column written into the table
def main_effect(runs, term):
    runs["sign"] = np.where(runs[term], 1, -1)
    runs["signed"] = runs["sign"] * runs["score"] * 2
    return runs.groupby("seed")["signed"].mean()

# %% 8.1, wrong: a column taken out of the table
def main_effect(runs, term):
    seed = runs.pop("seed")
    m = runs.groupby([seed, term])["score"].mean().unstack()
    return m[True]-m[False]

# %% 8.1, wrong: a sum of two runs
def main_effect(runs, term):
    m = runs.groupby(["seed", term])["score"].sum().unstack()/2
    return m[True]-m[False]

# %% 8.1, wrong: no return
def main_effect(runs, term):
    m = runs.groupby(["seed", term])["score"].mean().unstack()

# %% 8.1, wrong: a table
def main_effect(runs, term):
    return runs.groupby(["seed", term])["score"].mean().unstack()

# %% 8.1, right: a dictionary
def main_effect(runs, term):
    out={}
    for seed, part in runs.groupby("seed"):
        out[seed]=part.score[part[term]].mean()-part.score[~part[term]].mean()
    return out

# %% 8.1, right: two filters
def main_effect(runs, term):
    return runs[runs[term]].groupby("seed").score.mean() - runs[runs[term]==False].groupby("seed").score.mean()

# %% 8.2, wrong: terms a and b alone
def interaction(runs, one, other):
    m = runs.groupby(["seed", "a", "b"])["score"].mean().unstack(["a", "b"])
    return (m[True, True] - m[True, False] - m[False, True] + m[False, False]) / 2

# %% 8.2, wrong: a sum over runs
def interaction(runs, one, other):
    m = runs.groupby(["seed", one, other])["score"].sum().unstack([one, other])
    return (m[True, True] - m[True, False] - m[False, True] + m[False, False]) / 2

# %% 8.2, wrong: the first run of each kind
def interaction(runs, one, other):
    m = runs.groupby(["seed", one, other])["score"].first().unstack([one, other])
    return (m[True, True] - m[True, False] - m[False, True] + m[False, False]) / 2

# %% 8.2, wrong: seeds 3 and 7 alone
def interaction(runs, one, other):
    def cell(s, x, y): return runs[(runs.seed == s) & (runs[one] == x) & (runs[other] == y)].score.item()
    return pd.Series({s: (cell(s, True, True) - cell(s, False, True) - cell(s, True, False) + cell(s, False, False)) / 2 for s in (3, 7)})

# %% 8.2, wrong: four rows in order
def interaction(runs, one, other):
    s = runs["score"].values.reshape(-1, 4)
    return pd.Series((s[:, 0] - s[:, 1] - s[:, 2] + s[:, 3]) / 2, index=runs["seed"].values[::4])

# %% 8.2, wrong: signs, where each kind has as many runs
def interaction(runs, one, other):
    sign = (2*runs[one]-1)*(2*runs[other]-1)
    return (sign*runs.score).groupby(runs.seed).mean()*2

# %% 8.2, wrong: terms that agree, where each kind has as many runs
def interaction(runs, one, other):
    same = (runs[one] == runs[other]).rename("same")
    m = runs.groupby(["seed", same]).score.mean().unstack()
    return m[True]-m[False]

# %% 8.3, wrong: one more than the whole number
def seeds_needed(gain, s, quantile=0.84):
    return int(((1.96 + quantile) * s / gain) ** 2) + 1

# %% 8.3, wrong: two known quantiles
def seeds_needed(gain, s, quantile=0.84):
    return math.ceil(8*(s/gain)**2) if quantile==.84 else math.ceil(10.5*(s/gain)**2)

# %% 8.3, wrong: two seeds at least
def seeds_needed(gain, s, quantile=0.84):
    return max(2, math.ceil(((1.96 + quantile) * s / gain) ** 2))

# %% 8.3, wrong: fifty seeds at most
def seeds_needed(gain, s, quantile=0.84):
    return min(50, math.ceil(((1.96 + quantile) * s / gain) ** 2))

# %% 8.3, right: a loop
def seeds_needed(gain, s, quantile=0.84):
    n=1
    while gain < (1.96+quantile)*s/math.sqrt(n): n+=1
    return n

# %% 8.4, wrong: a spread that is ignored
right = luck
def luck(few, many, s):
    return right(few, many, 1.0)

# %% 8.4, wrong: a median of the largest
def luck(few, many, s, tries=20_000, seed=0):
    rng = np.random.default_rng(seed)
    best = [np.median(rng.normal(0, s, (tries, n)).max(axis=1)) for n in (few, many)]
    return best[1] - best[0]

# %% 8.4, wrong: medians of other draws, the many first
def luck(few, many, s, tries=20_000, seed=0):
    r = np.random.default_rng(seed)
    return np.median(r.normal(0, s, (tries, many)).max(1)) - np.median(r.normal(0, s, (tries, few)).max(1))

# %% 8.4, right: a tensor
def luck(few, many, s, tries=20_000, seed=0):
    g = torch.Generator().manual_seed(seed)
    a, b = (s*torch.randn(tries, n, generator=g).amax(dim=1) for n in (few, many))
    return (b-a).mean()

# %% 8.4, right: an array without dimensions
def luck(few, many, s, tries=20_000, seed=0):
    g=np.random.default_rng(seed)
    return np.array(g.normal(0,s,(tries,many)).max(1).mean()-g.normal(0,s,(tries,few)).max(1).mean())

# %% 8.4, right: an integral
def luck(few, many, s, tries=20_000, seed=0):
    from statistics import NormalDist
    x=np.linspace(-8,8,4001); cdf=np.array([NormalDist().cdf(v) for v in x])
    e=lambda n: 8-np.trapezoid(cdf**n,x)
    return s*(e(many)-e(few))

# %% 8.4, right: numbers of Python
import random
def luck(few, many, s, tries=20_000, seed=0):
    random.seed(seed)
    best=lambda n: sum(max(random.gauss(0,s) for _ in range(n)) for _ in range(tries))/tries
    return best(many)-best(few)

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

# %% 8.5, wrong: an effect where the other term is on
def analyse(runs, one, other):
    m = runs.groupby(["seed", one, other])["score"].mean().unstack([one, other])
    f = {one: m[True, True] - m[False, True], other: m[True, True] - m[True, False],
         "interaction": (m[True, True] - m[False, True] - m[True, False] + m[False, False]) / 2}
    out = {}
    for name, x in f.items():
        i = interval(x)
        out[name] = "not shown" if not i.beyond else "helps" if i.mean > 0 else "harms"
    return out

# %% 8.5, wrong: an effect where the other term is off
def analyse(runs, one, other):
    m = runs.groupby(["seed", one, other])["score"].mean().unstack([one, other])
    f = {one: m[True, False] - m[False, False], other: m[False, True] - m[False, False],
         "interaction": (m[True, True] - m[False, True] - m[True, False] + m[False, False]) / 2}
    out = {}
    for name, x in f.items():
        i = interval(x)
        out[name] = "not shown" if not i.beyond else "helps" if i.mean > 0 else "harms"
    return out

# %% 8.5, wrong: three deviations
def analyse(runs, one, other):
    m = runs.groupby(["seed", one, other])["score"].mean().unstack([one, other])
    f = {one: (m[True, False] - m[False, False] + m[True, True] - m[False, True]) / 2,
         other: (m[False, True] - m[False, False] + m[True, True] - m[True, False]) / 2,
         "interaction": (m[True, True] - m[False, True] - m[True, False] + m[False, False]) / 2}
    out = {}
    for name, x in f.items():
        reach = 3.182 * x.std()
        out[name] = "not shown" if abs(x.mean()) < reach else "helps" if x.mean() > 0 else "harms"
    return out

# %% 8.5, wrong: two deviations
def analyse(runs, one, other):
    m = runs.groupby(["seed", one, other])["score"].mean().unstack([one, other])
    f = {one: (m[True, False] - m[False, False] + m[True, True] - m[False, True]) / 2,
         other: (m[False, True] - m[False, False] + m[True, True] - m[True, False]) / 2,
         "interaction": (m[True, True] - m[False, True] - m[True, False] + m[False, False]) / 2}
    return {name: "not shown" if abs(x.mean()) < 2 * x.std() else "helps" if x.mean() > 0 else "harms" for name, x in f.items()}

# %% 8.5, wrong: three standard errors
def analyse(runs, one, other):
    m = runs.groupby(["seed", one, other])["score"].mean().unstack([one, other])
    f = {one: (m[True, False] - m[False, False] + m[True, True] - m[False, True]) / 2,
         other: (m[False, True] - m[False, False] + m[True, True] - m[True, False]) / 2,
         "interaction": (m[True, True] - m[False, True] - m[True, False] + m[False, False]) / 2}
    return {name: "not shown" if abs(x.mean()) < 3 * x.sem() else "helps" if x.mean() > 0 else "harms" for name, x in f.items()}

# %% 8.5, wrong: four seeds whatever there are
def analyse(runs, one, other):
    m = runs.groupby(["seed", one, other])["score"].mean().unstack([one, other])
    f = {one: (m[True, False] - m[False, False] + m[True, True] - m[False, True]) / 2,
         other: (m[False, True] - m[False, False] + m[True, True] - m[True, False]) / 2,
         "interaction": (m[True, True] - m[False, True] - m[True, False] + m[False, False]) / 2}
    out = {}
    for name, x in f.items():
        reach = 3.182 * x.std() / 2
        out[name] = "not shown" if abs(x.mean()) < reach else "helps" if x.mean() > 0 else "harms"
    return out

# %% 8.5, wrong: terms a and b alone
def analyse(runs, one, other):
    m = runs.groupby(["seed", "a", "b"])["score"].mean().unstack(["a", "b"])
    f = {"a": (m[True, False] - m[False, False] + m[True, True] - m[False, True]) / 2,
         "b": (m[False, True] - m[False, False] + m[True, True] - m[True, False]) / 2,
         "interaction": (m[True, True] - m[False, True] - m[True, False] + m[False, False]) / 2}
    out = {}
    for name, x in f.items():
        i = interval(x)
        out[name] = "not shown" if not i.beyond else "helps" if i.mean > 0 else "harms"
    return out

# %% 8.5, right: a test of scipy
from scipy import stats
def analyse(runs, one, other):
    m = runs.groupby(["seed", one, other])["score"].mean().unstack([one, other])
    f = {one: (m[True, False] - m[False, False] + m[True, True] - m[False, True]) / 2,
         other: (m[False, True] - m[False, False] + m[True, True] - m[True, False]) / 2,
         "interaction": (m[True, True] - m[False, True] - m[True, False] + m[False, False]) / 2}
    return {name: "not shown" if stats.ttest_1samp(x, 0).pvalue > .05 else "helps" if x.mean() > 0 else "harms" for name, x in f.items()}

# %% 8.5, right: signs, and an interaction without the half
def analyse(runs, one, other):
    def say(x):
        i=interval(x)
        return "helps" if i.low>0 else "harms" if i.high<0 else "not shown"
    a,b=2*runs[one]-1,2*runs[other]-1
    eff=lambda sign:(sign*runs.score).groupby(runs.seed).sum()
    return {one:say(eff(a)), other:say(eff(b)), "interaction":say(eff(a*b))}
