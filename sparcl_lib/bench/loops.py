"""The latent losses as one would first write them: a loop over the classes of a batch.

What `sparcl_lib.losses` is compared with, in value and in time. Shapes as there: features
(B, D, h, w), labels (B, h, w), prototypes (K, D).

`released_*` write the losses of `sparcl_lib.losses.released` in the way of the authors' release
(github.com/LTTM/SDR, 2021, utils/loss.py): a mask over all entries for each class.
"""

import torch
from torch import Tensor

from sparcl_lib.labels import BACKGROUND, VOID


def _rows(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """(N, D) features, their N labels, and the classes that are there."""
    return features.permute(0, 2, 3, 1).flatten(0, 2), labels.flatten(), _classes(labels)


def matching(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """Mean distance of class means from their prototypes, background left out."""
    rows, ids, classes = _rows(features, labels)
    gaps = [(rows[ids == c].mean(0) - prototypes[c]).norm() for c in classes if c != BACKGROUND]
    return torch.stack(gaps).mean()


def attraction(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """Mean distance of features from the prototype of their class, a class counting once."""
    rows, ids, classes = _rows(features, labels)
    gaps = [(rows[ids == c] - prototypes[c]).norm(dim=1).mean() for c in classes]
    return torch.stack(gaps).mean()


def repulsion(features: Tensor, labels: Tensor) -> Tensor:
    """Mean of 1 / distance over pairs of class means."""
    rows, ids, classes = _rows(features, labels)
    means = [rows[ids == c].mean(0) for c in classes]
    gaps = [(a - b).norm() for n, a in enumerate(means) for b in means[:n]]
    return torch.stack([1 / gap for gap in gaps]).mean()


def sparsification(features: Tensor, labels: Tensor) -> Tensor:
    """Sum of exponentials over the sum of entries, at each location, scaled by the class."""
    rows, ids, classes = _rows(features, labels)
    found = []
    for c in classes:
        chosen = rows[ids == c]
        scaled = chosen / chosen.max()
        found.append(scaled.exp().sum(1) / scaled.sum(1).clamp(min=1))
    return torch.cat(found).mean()


def released_matching(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """Mean squared difference of old prototypes from means of entries that are read as (n, D)."""
    classes, dim = [c for c in _classes(labels) if c != BACKGROUND], features.shape[1]
    means = [_masked(features, labels, c).view(-1, dim).mean(0) for c in classes]
    gaps = [(mean - prototypes[c]).square().mean() for c, mean in zip(classes, means, strict=True)]
    return torch.stack(gaps).mean()


def released_attraction(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """Mean squared difference from the prototypes, divided after each class."""
    classes, dim = _classes(labels), features.shape[1]
    total = features.new_zeros(())
    for c in classes:
        gaps = _masked(features, labels, c).view(dim, -1) - prototypes[c].unsqueeze(1)
        total = (total + gaps.square().mean()) / len(classes)
    return total


def released_repulsion(features: Tensor, labels: Tensor) -> Tensor:
    """Mean of 1 / distance over all distances of class means that are not zero."""
    dim = features.shape[1]
    means = [_masked(features, labels, c).view(dim, -1).mean(1) for c in _classes(labels)]
    gaps = torch.cdist(torch.stack(means), torch.stack(means))
    return (1 / gaps[gaps > 0]).mean()


def released_sparsification(features: Tensor, labels: Tensor) -> Tensor:
    """As `sparsification`, of negative values and void as well, and without a floor."""
    scale = torch.ones_like(features)
    for c in labels.unique().tolist():
        mask = (labels == c).unsqueeze(1)
        peak = features.masked_fill(~mask, -torch.inf).max()
        scale = torch.where(mask, peak, scale)
    return ((features / scale).exp().sum(1) / (features / scale).sum(1)).mean()


def _classes(labels: Tensor) -> list[int]:
    return [c for c in labels.unique().tolist() if c != VOID]


def _masked(features: Tensor, labels: Tensor, c: int) -> Tensor:
    """(n * D,) entries of a class, image after image, channel after channel in each."""
    return features[(labels == c).unsqueeze(1).expand_as(features)]
