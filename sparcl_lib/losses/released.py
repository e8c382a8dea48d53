"""What the released code of SDR computes where it parts from the formulas, as plain functions.

Each is the opposite number of one line of `latent.py` and there for measuring what that line is
worth; nothing else should use them. Shapes as there.

Source: read and measured in the authors' release (github.com/LTTM/SDR, 2021), written here anew.
"""

from typing import Literal

import torch
from torch import Tensor

from sparcl_lib.prototypes.class_sums import check_same_locations

__all__ = ["reshaped_features"]

# Keeps the released quotient of the sparsification finite where a location is silent.
RELEASED_EPSILON = 1e-15


def reshaped_features(
    features: Tensor, labels: Tensor, first: Literal["channels", "locations"] = "channels"
) -> Tensor:
    """(B, D, h, w): the entries of each class in another order, as the released code reads them.

    A mask over (B, D, h, w) picks the n D entries of a class as one vector, image after image,
    channel after channel in each. It is then read as first="channels": (D, n), which is right for
    one image and mixes channels and images for more (prototypes, attraction, repulsion); or as
    first="locations": (n, D), which mixes channels in any batch (prototypes matching).

    features (B, D, h, w); labels (B, h, w) int64, each value a class of its own. Costs a host sync
    per class on a GPU. Raises ValueError when features and labels do not fit.
    """
    check_same_locations(features, labels)
    dim, rows = features.shape[1], features.movedim(1, -1).clone()  # (B, h, w, D)
    for label in torch.unique(labels):
        members = labels == label
        entries = features[members.unsqueeze(1).expand_as(features)]  # (n * D,)
        as_rows = entries.view(dim, -1).T if first == "channels" else entries.view(-1, dim)
        rows[members] = as_rows
    return rows.movedim(-1, 1)


def nested_weights(counts: Tensor) -> Tensor:
    """(C,) weights of the classes when their sum is divided by their number after each addition.

    counts (C,): locations of each class. The i-th of n classes present is divided n + 1 - i times:
    1 / n^(n + 1 - i), where a mean has 1 / n. Meaningless for absent classes.
    """
    present = counts > 0
    number = present.sum().clamp(min=1).to(counts.dtype)
    return number ** (present.cumsum(0) - 1 - number)


def matmul_distances(means: Tensor) -> Tensor:
    """(n, n) distances between n means (n, D), from 26 on by a matrix product.

    |a|^2 + |b|^2 - 2 a b then loses the digits of distances that are small against the means.
    """
    return torch.cdist(means, means, compute_mode="use_mm_for_euclid_dist_if_necessary")
