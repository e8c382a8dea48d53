# %% 9.1, wrong: more than there is
def second_hold(kappa, nu, wanted):
    alone = kappa / (kappa + nu)
    return math.inf if wanted == alone else kappa / (alone - wanted) - kappa - nu

# %% 9.4, wrong: no ranks
def by_chance(x, y):
    first, second = (np.asarray(v, float) - np.mean(v) for v in (x, y))
    sizes = np.abs(np.array(list(itertools.permutations(second))) @ first)
    return float((sizes >= abs(second @ first) - 1e-9).mean())

# %% 9.5, wrong: blind to what was lost
def predicted_gain(lost, gained, new):
    return min(gained), max(gained)
