"""The latent losses as one would first write them: a loop over the classes of a batch.

What `sparcl_lib.losses` is compared with, in value and in time. Shapes as there: features
(B, D, h, w), labels (B, h, w), prototypes (K, D).
"""

import torch
from torch import Tensor

from sparcl_lib.labels import BACKGROUND, VOID


def _rows(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """(N, D) features, their N labels, and the classes that are there."""
    ids = labels.flatten()
    classes = [c for c in ids.unique().tolist() if c != VOID]
    return features.permute(0, 2, 3, 1).flatten(0, 2), ids, classes


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
