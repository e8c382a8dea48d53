# %% 10.1, wrong: one too many where it is exact
def iterations_for(share, momentum):
    return math.ceil(math.log(1 - share) / math.log(1 - momentum))

# %% 10.2, wrong: one decimal whatever is printed
right = counts_background
def counts_background(*row):
    return right(*row[:5])

# %% 10.3, wrong: names in a circle
def other_names(loss):
    features, labels, prototypes = scene()
    name = torch.tensor([0, 2, 3, 1])
    renamed = torch.where(labels == 255, 255, name[labels.clamp(max=3)])
    rows = torch.empty_like(prototypes)
    rows[name] = prototypes
    return loss(features, labels, prototypes), loss(features, renamed, rows)
