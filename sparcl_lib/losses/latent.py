"""The latent losses of SDR: plain functions of features, labels and prototypes.

B images, D channels, h x w feature map, C classes, N = B * h * w locations.
f_i is the feature vector at location i, p_c the running prototype of class c, p^_c the mean of the
features of class c in the batch. Labels are at the feature resolution; 255, and any label without
a prototype, takes no part and gets exactly zero gradient, where features are numbers. A sum over
nothing is 0 and keeps its path to the features, so that `backward` works.

Source of all: SDR (Michieli & Zanuttigh, CVPR 2021, arXiv 2103.06342), section 4. What the authors'
released code computes instead is `released.py`.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sparcl_lib.losses.precision import full_precision
from sparcl_lib.prototypes.sums import (
    check_same_locations,
    class_means,
    class_sums,
    count_classes,
    flatten_features,
    has_class,
    is_whole,
    shown_number,
)

__all__ = [
    "attraction",
    "matching_from_sums",
    "prototypes_matching",
    "repulsion",
    "repulsion_from_sums",
    "sparsification",
    "vector_distance",
]

Distance = Literal["l2", "mse"]

# Two class means closer than this have no direction to be pushed in: the value is capped
# (at 1 / MIN_DISTANCE) and the gradient is zero.
MIN_DISTANCE = 1e-4
# The push on an almost silent location grows with the square of its silence: with 1e-3 here, one
# of four runs on real photographs collapsed in a single iteration (docs/real_voc_subset.md). One is
# the activity of a single channel at its class's peak.
MIN_ACTIVITY = 1.0
# Numbers in the differences of all pairs of means, pairs x D, above which repulsion does without
# them: from 65 classes on with 2,048 channels.
MANY_GAPS = 2**22


@full_precision
def vector_distance(difference: Tensor, distance: Distance) -> Tensor:
    """(..., D) -> (...): Euclidean norm ("l2") or mean of squares over the channels ("mse").

    l2 = sqrt(D * mse), so weights do not transfer between the two. The gradient of l2 at zero is 0.
    Raises ValueError for another name.
    """
    if distance == "l2":
        norm: Tensor = torch.linalg.vector_norm(difference, dim=-1)
        return norm
    if distance == "mse":
        return difference.square().mean(dim=-1)
    raise ValueError(f"unknown distance {distance!r}: expected 'l2' or 'mse'")


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of values where chosen, 0 if none is, without a host sync."""
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp(min=1)


@full_precision
def prototypes_matching(
    features: Tensor, labels: Tensor, prototypes: Tensor, distance: Distance = "l2"
) -> Tensor:
    """Mean over the old classes present of the distance between p^_c and p_c.

    Source: SDR (Michieli & Zanuttigh, CVPR 2021), section 4.
    features (B, D, h, w); labels (B, h, w) int64 (pseudo-labels of the old model where old classes
    are not annotated); prototypes (C, D) of the old classes, no gradient flows into them; row 0 is
    background, which takes no part: its meaning moves. Returns a scalar, 0 where no old class is
    present. Raises ValueError for shapes that do not fit, labels that are not int64 and an unknown
    distance.
    """
    _check_prototypes(features, labels, prototypes)
    sums, counts = class_sums(features, labels, prototypes.shape[0])
    return matching_from_sums(sums, counts, prototypes, distance)


@full_precision
def matching_from_sums(
    sums: Tensor, counts: Tensor, prototypes: Tensor, distance: Distance = "l2"
) -> Tensor:
    """`prototypes_matching` from class sums (C, D) and counts (C,) that are already there.

    Raises ValueError where these and the prototypes are not of as many classes.
    """
    if sums.shape != prototypes.shape or counts.shape != sums.shape[:1]:
        raise ValueError(
            f"sums (C, D), counts (C,) and prototypes (C, D) must be of the same classes, got "
            f"{tuple(sums.shape)}, {tuple(counts.shape)} and {tuple(prototypes.shape)}: take the "
            f"rows of the old classes of each"
        )
    distances = vector_distance(class_means(sums, counts) - prototypes.detach(), distance)
    present = counts > 0
    not_background = torch.arange(len(counts), device=counts.device) > 0
    return mean_over(distances, present & not_background)


@full_precision
def attraction(
    features: Tensor, labels: Tensor, prototypes: Tensor, distance: Distance = "l2"
) -> Tensor:
    """Mean over the classes present of the mean distance of their features to p_c.

    Source: SDR (Michieli & Zanuttigh, CVPR 2021), section 4.
    features (B, D, h, w); labels (B, h, w) int64; prototypes (C, D), no gradient flows into them.
    Background counts as a class like any other: set its labels to 255 to leave it out. Set those of
    a class that the bank has not seen to 255, too: its row is zero, and draws features to zero.
    Returns a scalar, 0 where no label is below C. Raises ValueError for shapes that do not fit,
    labels that are not int64 and an unknown distance.
    """
    shares = distance_shares(features, labels, prototypes, distance)
    return shares.values.sum() / (shares.counts > 0).sum().clamp(min=1)


class DistanceShares(NamedTuple):
    """What each location adds to the mean distance of its class."""

    values: Tensor
    """(N,): distance to the prototype / locations of the class; 0 for a label without one."""
    ids: Tensor
    """(N,) class of each location, 0 where `values` is 0 for want of one."""
    counts: Tensor
    """(C,) locations of each class."""


def distance_shares(
    features: Tensor, labels: Tensor, prototypes: Tensor, distance: Distance
) -> DistanceShares:
    """The parts of `attraction`, before the mean over the classes."""
    _check_prototypes(features, labels, prototypes)
    num_classes, ids = prototypes.shape[0], labels.flatten()
    known = has_class(ids, num_classes)
    if num_classes == 0:  # one row to look up, which nothing is measured by
        prototypes, num_classes = F.pad(prototypes, (0, 0, 0, 1)), 1
    ids = torch.where(known, ids, 0)
    targets = prototypes.detach()[ids]  # (N, D)
    distances = vector_distance(flatten_features(features) - targets, distance)  # (N,)
    # Each location weighs 1 / (locations of its class): the mean over classes of means.
    counts = torch.zeros(num_classes, dtype=distances.dtype, device=ids.device)
    counts = counts.index_add(0, ids, known.to(distances.dtype))
    share = known / counts.clamp(min=1)[ids]
    return DistanceShares(torch.where(known, distances, 0) * share, ids, counts)


@full_precision
def repulsion(features: Tensor, labels: Tensor, num_classes: int | None = None) -> Tensor:
    """Mean over ordered pairs (j, k) of classes present of 1 / ||p^_j - p^_k||.

    Source: SDR (Michieli & Zanuttigh, CVPR 2021), section 4.
    features (B, D, h, w); labels (B, h, w) int64. num_classes: how many there are, labels from
    there on take no part; without it the labels are searched, which costs a host sync on a GPU and
    a break in a compiled graph. Background counts as a class: set its labels to 255 to leave it
    out. Returns a scalar: 0 for fewer than two classes, at most 1e4. Means that are closer than
    1e-4 add that and have no gradient: nothing says into which direction to push them. Raises
    ValueError when features and labels do not fit or labels are not int64.
    """
    sums, counts = class_sums(features, labels, number_of_classes(labels, num_classes))
    return repulsion_from_sums(sums, counts)


@full_precision
def repulsion_from_sums(sums: Tensor, counts: Tensor) -> Tensor:
    """`repulsion` from class sums (C, D) and counts (C,) that are already there.

    Raises ValueError where these are not of as many classes.
    """
    if sums.ndim != 2 or counts.shape != sums.shape[:1]:
        raise ValueError(
            f"sums (C, D) and counts (C,) must be of the same classes, got {tuple(sums.shape)} "
            f"and {tuple(counts.shape)}"
        )
    means, present = class_means(sums, counts), counts > 0
    j, k = torch.triu_indices(len(means), len(means), offset=1, device=counts.device)
    if len(j) * means.shape[1] > MANY_GAPS:
        gaps = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist")[j, k]
    else:
        gaps = torch.linalg.vector_norm(means[j] - means[k], dim=1)  # (pairs,)
    return mean_over(1 / gaps.clamp(min=MIN_DISTANCE), present[j] & present[k])


@full_precision
def sparsification(features: Tensor, labels: Tensor, num_classes: int | None = None) -> Tensor:
    """Mean over labelled locations of sum_j exp(fbar_ij) / sum_j fbar_ij.

    fbar = f / (maximum of f over all locations of the same class and all channels), so fbar is in
    0..1. Despite the name the ratio falls with every channel that becomes active: n of D channels
    at the peak are e + (D - n) / n, from e + D - 1 down to e.

    Source: SDR (Michieli & Zanuttigh, CVPR 2021), section 4.
    features (B, D, h, w), not negative (after a ReLU; negative values count as zero, which the
    formula would reward without bound); labels (B, h, w) int64. num_classes as in `repulsion`.
    Locations in which no channel is active have no pattern to be made sparse and are left out of
    the mean; sum_j fbar_ij is taken as at least 1 (MIN_ACTIVITY), a floor that is ours. Returns a
    scalar, 0 where no labelled location is active. Raises ValueError when features and labels do
    not fit or labels are not int64.
    """
    check_same_locations(features, labels)
    num_classes = number_of_classes(labels, num_classes)
    rows, ids = flatten_features(features).clamp(min=0), labels.flatten()
    known = has_class(ids, num_classes)
    ids = torch.where(known, ids, num_classes)
    largest = rows.amax(1)  # (N,)
    active = known & ~(largest <= 0)  # NaN is to be seen
    activity, exponentials = class_activity(rows, largest, ids, num_classes, active)
    return mean_over(exponentials / activity.clamp(min=MIN_ACTIVITY), active)


def class_activity(
    rows: Tensor, largest: Tensor, ids: Tensor, num_classes: int, active: Tensor
) -> tuple[Tensor, Tensor]:
    """sum_j fbar_ij and sum_j exp(fbar_ij), both (N,), of feature vectors (N, D).

    largest (N,): of each vector. ids (N,): classes, num_classes for a location of none of them;
    active (N,) bool: which count.
    """
    start = torch.zeros(num_classes + 1, dtype=rows.dtype, device=rows.device)
    peaks = start.scatter_reduce(0, ids, largest, "amax", include_self=False)[ids]
    # Rows that take no part become zero: their exponential must not overflow into the gradient.
    scale = torch.where(active, torch.where(peaks != 0, peaks, 1), torch.inf)
    normalised = rows / scale.unsqueeze(1)
    return normalised.sum(1), normalised.exp().sum(1)


def number_of_classes(labels: Tensor, num_classes: int | None) -> int:
    """num_classes, or as many as the labels have. Raises ValueError for what is no number, and for
    less than none."""
    if num_classes is not None and (not is_whole(num_classes) or num_classes < 0):
        raise ValueError(
            f"num_classes is {shown_number(num_classes)}: give how many there are, or None"
        )
    return count_classes(labels) if num_classes is None else num_classes


def _check_prototypes(features: Tensor, labels: Tensor, prototypes: Tensor) -> None:
    check_same_locations(features, labels)
    if not isinstance(prototypes, Tensor):
        raise ValueError(
            f"prototypes must be a tensor (C, D), got {type(prototypes).__name__}: a bank has one, "
            f"bank.prototypes"
        )
    if prototypes.ndim != 2 or prototypes.shape[1] != features.shape[1]:
        raise ValueError(
            f"prototypes must be (C, D) with D = {features.shape[1]} channels as the features, "
            f"got {tuple(prototypes.shape)}"
        )
