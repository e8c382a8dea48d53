"""Three losses for the readers of chapter 10 to examine: in each a fault is planted.

Nothing else may use them. What is wrong with each is said in tests/course/test_planted_faults.py
and not here, for here they are meant to be met as one meets the code of others.
"""

from itertools import combinations

import torch
from torch import Tensor

from sparcl_lib import losses
from sparcl_lib.losses.latent import MIN_DISTANCE
from sparcl_lib.prototypes.sums import class_means, class_sums, count_classes

__all__ = ["planted_attraction", "planted_matching", "planted_repulsion"]


def planted_matching(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """Mean over the classes present, without background, of the mean square of p^_c - p_c.

    features (B, D, h, w); labels (B, h, w) int64; prototypes (C, D). Returns a scalar.
    """
    rows = features.movedim(1, -1).flatten(0, 2)  # (N, D)
    ids = labels.transpose(1, 2).flatten()  # (N,)
    present = [c for c in range(1, len(prototypes)) if (ids == c).any()]
    squares = [(rows[ids == c].mean(dim=0) - prototypes[c]).square().mean() for c in present]
    return torch.stack(squares).mean() if squares else 0 * features.sum()


def planted_attraction(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """Mean over the classes present of the mean of the mean squares of f_i - p_c.

    features (B, D, h, w); labels (B, h, w) int64; prototypes (C, D). Returns a scalar.
    """
    total = 0 * features.sum()
    for image, label in zip(features.split(1), labels.split(1), strict=True):
        total = total + losses.attraction(image, label, prototypes, "mse")
    return total


def planted_repulsion(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """Mean over the pairs of classes present of 1 / ||p^_j - p^_k||.

    features (B, D, h, w); labels (B, h, w) int64; prototypes are not looked at, and taken so that
    all three are called alike. Returns a scalar.
    """
    sums, counts = class_sums(features, labels, count_classes(labels))
    means = class_means(sums, counts)[counts > 0]
    inverse = [
        1 / (means[j] - means[k].detach()).norm().clamp(min=MIN_DISTANCE)
        for j, k in combinations(range(len(means)), 2)
    ]
    return torch.stack(inverse).mean() if inverse else 0 * features.sum()
