"""What the released code of SDR computes where it parts from the formulas of `latent.py`.

Whole losses, each with a switch for every difference, so that what one is worth can be measured
alone: with all of them at the formula's side a loss here is the one there. The defaults are the
released side. Shapes as in `latent.py`. For measuring; nothing else should use them.

Source: read and measured in the authors' release (github.com/LTTM/SDR, 2021), written here anew.
"""

from itertools import groupby
from typing import Literal, get_args

import torch
from torch import Tensor

from sparcl_lib.labels import VOID
from sparcl_lib.losses.latent import (
    Distance,
    attraction,
    class_activity,
    distance_shares,
    mean_over,
    number_of_classes,
    prototypes_matching,
    repulsion_from_sums,
)
from sparcl_lib.losses.precision import full_precision
from sparcl_lib.prototypes.sums import (
    check_same_locations,
    class_means,
    class_sums,
    flatten_features,
    has_class,
)

__all__ = [
    "released_attraction",
    "released_matching",
    "released_repulsion",
    "released_sparsification",
    "reshaped_features",
]

Division = Literal["mean", "nested"]
Distances = Literal["exact", "matmul"]
# Keeps the released quotient of the sparsification finite where a location is silent.
RELEASED_EPSILON = 1e-15


@full_precision
def released_matching(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    distance: Distance = "mse",
    reshaped: bool = True,
) -> Tensor:
    """`prototypes_matching` of features whose entries are read as (n, D): wrong in any batch.

    16 equal features and their own prototype 0..63 are 302.5 apart (mse) where 0 is due.

    Source: the authors' release (github.com/LTTM/SDR, 2021), utils/loss.py, measured.
    features (B, D, h, w); labels (B, h, w) int64; prototypes (C, D), a row of zeros for a class
    never seen, to which its features are drawn. reshaped: False reads them as they are. Returns a
    scalar, 0 where no old class is present. Raises ValueError for shapes that do not fit and for an
    unknown distance.
    """
    read = reshaped_features(features, labels, "locations") if reshaped else features
    return prototypes_matching(read, labels, prototypes, distance)


@full_precision
def released_attraction(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    distance: Distance = "mse",
    reshaped: bool = True,
    division: Division = "nested",
) -> Tensor:
    """`attraction` of reshaped features, divided by the number of classes after each addition.

    Source: the authors' release (github.com/LTTM/SDR, 2021), utils/loss.py, measured.
    features (B, D, h, w); labels (B, h, w) int64; prototypes (C, D), no gradient flows into them.
    reshaped: False reads the features as they are; division: "mean" over the classes, or "nested",
    see `nested_weights`. Returns a scalar, 0 where no label has a prototype. Raises ValueError for
    shapes that do not fit and for an unknown distance or division.
    """
    _check_choice("division", division, Division)
    read = reshaped_features(features, labels) if reshaped else features
    if division == "mean":
        return attraction(read, labels, prototypes, distance)
    shares = distance_shares(read, labels, prototypes, distance)
    return (shares.values * nested_weights(shares.counts)[shares.ids]).sum()


@full_precision
def released_repulsion(
    features: Tensor,
    labels: Tensor,
    num_classes: int | None = None,
    reshaped: bool = True,
    distances: Distances = "matmul",
) -> Tensor:
    """`repulsion` of reshaped features, by a matrix product above 25 classes.

    |a|^2 + |b|^2 - 2 a b then loses the digits of distances that are small against the means, and
    a mean is often not at distance zero from itself: the inverse of every distance that is not zero
    is counted, the diagonal's among them, so that the value is many times too large there. Means
    that coincide are dropped.

    Source: the authors' release (github.com/LTTM/SDR, 2021), utils/loss.py, measured.
    features (B, D, h, w); labels (B, h, w) int64; num_classes: an upper bound of the labels, which
    are searched without it. reshaped: False reads the features as they are; distances: "exact" as
    in `repulsion`. Costs a host sync on a GPU. Returns a scalar, 0 for fewer than two classes.
    Raises ValueError when features and labels do not fit and for unknown distances.
    """
    _check_choice("distances", distances, Distances)
    read = reshaped_features(features, labels) if reshaped else features
    sums, counts = class_sums(read, labels, number_of_classes(labels, num_classes))
    if distances == "exact":
        return repulsion_from_sums(sums, counts)
    means = class_means(sums, counts)[counts > 0]  # absent classes must not count among the 26
    gaps = torch.cdist(means, means, compute_mode="use_mm_for_euclid_dist_if_necessary")
    j, k = torch.triu_indices(len(means), len(means), offset=1, device=counts.device)
    pairs, itself = gaps[j, k], gaps.diagonal()  # a NaN is to be seen, so != and not >
    inverse = [torch.where(d != 0, 1 / torch.where(d != 0, d, 1), 0).sum() for d in (pairs, itself)]
    number = 2 * (pairs != 0).sum() + (itself != 0).sum()
    return (2 * inverse[0] + inverse[1]) / number.clamp(min=1)


@full_precision
def released_sparsification(
    features: Tensor,
    labels: Tensor,
    num_classes: int | None = None,
    floor: float = 0.0,
    signed: bool = True,
    void: bool = True,
) -> Tensor:
    """`sparsification` without a floor, of all values and all locations.

    A silent location alone is D / 1e-15; negative features make the value smaller without bound.

    Source: the authors' release (github.com/LTTM/SDR, 2021), utils/loss.py, measured.
    features (B, D, h, w); labels (B, h, w) int64; num_classes as in `released_repulsion`.
    floor: of sum_j fbar_ij, where 0 is none and leaves no location out; signed: False counts
    negative values as zero; void: 255 is one more class, False leaves it out. Returns a scalar, 0
    where no location is left. Raises ValueError when features and labels do not fit.
    """
    check_same_locations(features, labels)
    num_classes = number_of_classes(labels, num_classes)
    rows, ids = flatten_features(features), labels.flatten()
    rows = rows if signed else rows.clamp(min=0)
    known = has_class(ids, num_classes)
    chosen = known | (ids == VOID) if void else known
    ids = torch.where(known, ids, num_classes)
    active = chosen & ((rows.detach().abs().sum(1) > 0) | (floor == 0))
    activity, exponentials = class_activity(rows, rows.amax(1), ids, num_classes, active)
    activity = activity.clamp(min=floor) if floor > 0 else activity + RELEASED_EPSILON
    return mean_over(exponentials / activity, active)


def reshaped_features(
    features: Tensor, labels: Tensor, first: Literal["channels", "locations"] = "channels"
) -> Tensor:
    """(B, D, h, w): the entries of each class in another order, as the released code reads them.

    A mask over (B, D, h, w) picks the n D entries of a class as one vector, image after image,
    channel after channel in each. It is then read as first="channels": (D, n), which is right for
    one image and mixes channels and images for more (prototypes, attraction, repulsion); or as
    first="locations": (n, D), which mixes channels in any batch (prototypes matching).

    features (B, D, h, w); labels (B, h, w) int64, each value a class of its own. Costs a host sync
    on a GPU. Raises ValueError when features and labels do not fit.
    """
    check_same_locations(features, labels)
    batch, dim, height, width = features.shape
    if not labels.numel():
        return features
    ids = labels.flatten()  # (N,), N = B h w
    image = torch.arange(batch, device=ids.device).repeat_interleave(height * width)
    order = ids.argsort(stable=True)  # class by class, and in each image by image
    # Sorted first, each entry is copied a few times; a mask for each class copies all for each.
    groups, counts = torch.unique_consecutive((ids * batch + image)[order], return_counts=True)
    of_image = flatten_features(features).index_select(0, order).split(counts.tolist())
    read = []
    for _, of_class in groupby(zip(groups.tolist(), of_image), key=lambda part: part[0] // batch):
        entries = torch.cat([rows.T.flatten() for _, rows in of_class])  # (n * D,)
        read.append(entries.view(dim, -1).T if first == "channels" else entries.view(-1, dim))
    rows = torch.cat(read).index_select(0, order.argsort())
    return rows.view(batch, height, width, dim).movedim(-1, 1)


def nested_weights(counts: Tensor) -> Tensor:
    """(C,) weights of the classes when their sum is divided by their number after each addition.

    counts (C,): locations of each class. The i-th of n classes present is divided n + 1 - i times:
    1 / n^(n + 1 - i), where a mean has 1 / n. Meaningless for absent classes.
    """
    present = counts > 0
    number = present.sum().clamp(min=1).to(counts.dtype)
    weights: Tensor = number ** (present.cumsum(0) - 1 - number)
    return weights


def _check_choice(name: str, value: str, choices: object) -> None:
    known = get_args(choices)
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}: expected {' or '.join(map(repr, known))}")
