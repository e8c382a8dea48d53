"""Per-class sums of feature vectors: the matrix product that prototypes and losses share.

Shapes: B images, D channels, h x w feature map, C classes, N = B * h * w locations.
"""

from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparcl_lib.labels import VOID


def flatten_features(features: Tensor) -> Tensor:
    """(B, D, h, w) -> (N, D), one row per location, in the order of `labels.flatten()`."""
    return features.movedim(1, -1).flatten(0, 2)


def class_sums(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sum and count of the feature vectors of each class.

    features (B, D, h, w); labels (B, h, w) int64. 255, and labels outside 0..num_classes-1, belong
    to no class and get exactly zero gradient.
    Returns sums (C, D) and counts (C,), both float32, or float64 as the features; also inside
    autocast. A feature that is infinite or NaN, under whatever label, makes all sums so.
    Raises ValueError when features and labels differ in B, h or w, or labels are not int64.
    """
    check_same_locations(features, labels)
    rows, ids = flatten_features(features), labels.flatten()
    rows = rows if rows.dtype == torch.float64 else rows.float()
    known = has_class(ids, num_classes)
    # By hand: F.one_hot looks through all labels for one out of range, which a GPU has to wait for.
    column, found = torch.where(known, ids, 0).unsqueeze(1), known.unsqueeze(1).to(rows)
    members = rows.new_zeros(len(ids), max(num_classes, 1)).scatter_(1, column, found)  # (N, C)
    members = members[:, :num_classes]  # none at all where no location has a class
    sums: Tensor = _Sums.apply(rows, members, torch.where(known, ids, num_classes))
    return sums, members.sum(0)


class _Sums(torch.autograd.Function):
    """members.T @ rows, (N, C) and (N, D) to (C, D), whose gradient is looked up, not multiplied.

    The gradient of a product is a product, which runs in 16 bits where `backward` is called, or was
    compiled, inside autocast: with weights as small as SDR's, float16 then loses two thirds of it.
    Without a `jvp`, which `torch.compile` does not take: derivatives are of the backward kind.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, members: Tensor, places: Tensor) -> Tensor:
        """places (N,): the class of each row, C for those without one."""
        with outside_autocast(rows.device.type):
            return members.T @ rows

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, sums: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return F.pad(sums, (0, 0, 0, 1)).index_select(0, places), None, None


def outside_autocast(device: str) -> AbstractContextManager[Any]:
    """Inside, nothing is cast; `meta` knows no autocast."""
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def has_class(ids: Tensor, num_classes: int) -> Tensor:
    """Which labels are a class: 0..num_classes-1, but for 255, which is void however many there
    are."""
    known = (ids >= 0) & (ids < num_classes)
    return known & (ids != VOID) if num_classes > VOID else known


def class_means(sums: Tensor, counts: Tensor) -> Tensor:
    """(C, D) means of what `class_sums` gives; the row of an absent class is zero and carries no
    gradient. Raises ValueError for other shapes, such as those of features and labels."""
    if getattr(sums, "ndim", 0) != 2 or getattr(counts, "shape", None) != sums.shape[:1]:
        raise ValueError(
            f"class_means takes sums (C, D) and counts (C,), as class_sums gives them, "
            f"got {shape_of(sums)} and {shape_of(counts)}"
        )
    return sums / counts.clamp(min=1).unsqueeze(1)


def check_same_locations(features: Tensor, labels: Tensor) -> None:
    if not isinstance(features, Tensor):
        raise ValueError(f"features must be a Tensor (B, D, h, w), got {_kind(features)}")
    check_labels(labels, "labels")
    if features.ndim != 4 or labels.shape != (features.shape[0], *features.shape[2:]):
        raise ValueError(
            f"features (B, D, h, w) and labels (B, h, w) must cover the same locations, "
            f"got {tuple(features.shape)} and {tuple(labels.shape)}; "
            f"bring labels to the feature resolution first (nearest)"
        )


def check_labels(labels: Tensor, name: str) -> None:
    """Raise ValueError unless labels, which the message calls `name`, are a tensor of int64."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise ValueError(
            f"{name} must be a Tensor of torch.int64, got {_kind(labels)}: "
            f"torch.as_tensor({name}).long() is one"
        )


def shape_of(value: object) -> str:
    """What a message says that was given in place of a tensor of another shape."""
    return f"{tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def is_whole(value: object) -> bool:
    """Whether this is a number of classes: Python's, NumPy's or a compiled graph's."""
    return isinstance(value, (Integral, torch.SymInt))


def shown_number(value: object) -> str:
    """What a message says that was given in place of a number."""
    return f"a Tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else str(value)


def _kind(value: object) -> str:
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ + (f" of {dtype}" if dtype is not None else "")


def count_classes(labels: Tensor) -> int:
    """1 + the largest label that is not void; 0 if there is none. Costs a host sync on a GPU.

    Raises ValueError for labels that are not int64.
    """
    check_labels(labels, "labels")
    known = labels[labels != VOID]
    return max(int(known.max()) + 1, 0) if known.numel() else 0
