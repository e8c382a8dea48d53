"""Three losses that do what "sparsification" says, as terms: `sparcl ... --plugin FILE.py`.

f (N, D) are the features of the labelled locations of a batch, not negative; fbar = f / (peak of
the location's class in the batch) as in `sparcl_lib.losses.sparsification`. All fall as channels of
a location fall silent. Chapter 07 derives them.
"""

import torch
from torch import Tensor

from sparcl_lib import losses, term
from sparcl_lib.methods.context import StepContext


def active_rows(context: StepContext) -> tuple[Tensor, Tensor]:
    """Features (n, D) of the labelled locations in which some channel is active, classes (n,)."""
    rows = context.output.features.float().movedim(1, -1).flatten(0, 2).clamp(min=0)
    ids = context.completed_labels.flatten()
    active = (ids < context.num_classes) & (rows.detach().sum(1) > 0)
    return rows[active], ids[active]


@term(needs_teacher=True, first_step=0)
def l1_share(context: StepContext) -> Tensor:
    """The mean of fbar over channels: the share of the class's peak that an average channel has."""
    rows, ids = active_rows(context)
    peaks = rows.new_zeros(context.num_classes).scatter_reduce(0, ids, rows.amax(1), "amax")
    return (rows / peaks[ids].unsqueeze(1)).mean()


@term(needs_teacher=True, first_step=0)
def hoyer(context: StepContext) -> Tensor:
    """1 - Hoyer's sparseness: 0 for one active channel, 1 where all are equal.

    Source: Hoyer, Non-negative Matrix Factorization with Sparseness Constraints, JMLR 5, 2004,
    section 3.1.
    """
    rows, _ = active_rows(context)
    root = rows.shape[1] ** 0.5
    return ((rows.sum(1) / torch.linalg.vector_norm(rows, dim=1)).mean() - 1) / (root - 1)


@term(needs_teacher=True, first_step=0)
def ratio_turned(context: StepContext) -> Tensor:
    """Minus the ratio of `sparsification`, floor and all."""
    features, labels = context.output.features, context.completed_labels
    return -losses.sparsification(features, labels, context.num_classes)
