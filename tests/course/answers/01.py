# %% 1.1, wrong: the first class of each step
def disjoint_step(values, steps):
    return max((k for k, s in enumerate(steps) if s[0] in values), default=-1)

# %% 1.1, wrong: the last class of each step
def disjoint_step(values, steps):
    return max((k for k, s in enumerate(steps) if s[-1] in values), default=-1)

# %% 1.1, wrong: three steps in every task
def disjoint_step(values, steps):
    return max((k for k in range(3) if values & set(steps[k])), default=-1)

# %% 1.2, wrong: an unused class is ignored
def test_table(steps, step, num_raw, future):
    table = np.full(256, 255)
    table[0] = 0
    for new in steps[step + 1 :]:
        table[list(new)] = future
    seen = [c for new in steps[: step + 1] for c in new]
    table[seen] = np.arange(1, len(seen) + 1)
    return table

# %% 1.2, wrong: an unused class is background
right = test_table
def test_table(steps, step, num_raw, future):
    table = right(steps, step, num_raw, future)
    table[[c for c in range(1, num_raw) if not any(c in new for new in steps)]] = 0
    return table

# %% 1.4, wrong: the step before alone is old
def hidden_shares(mask, table, steps, step):
    hidden = mask[table[mask] == 0]
    if not len(hidden):
        return 0.0, 0.0
    old = steps[step - 1] if step else ()
    future = [c for later in steps[step + 1 :] for c in later]
    return float(np.isin(hidden, old).mean()), float(np.isin(hidden, future).mean())

# %% 1.4, wrong: whatever is not old is to come
def hidden_shares(mask, table, steps, step):
    hidden = mask[table[mask] == 0]
    if not len(hidden):
        return 0.0, 0.0
    old = np.isin(hidden, [c for earlier in steps[:step] for c in earlier])
    return float(old.mean()), float((~old & (hidden != 0) & (hidden != 255)).mean())
