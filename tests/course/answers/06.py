# %% 6.5, wrong: the first two classes alone
right = separation
def separation(features, labels):
    two = np.isin(labels, [c for c in np.unique(labels) if c != 255][:2])
    return right(features[two], labels[two])
