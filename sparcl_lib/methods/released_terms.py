"""The latent losses of SDR as its released code computes them: terms of their own.

`method.variant=released` puts each in the place of its formula; docs/paper_and_released.md is the
table of what they do otherwise. Options have the released side as default.
"""

from typing import Literal

from torch import Tensor

from sparcl_lib import losses
from sparcl_lib.losses.latent import Distance
from sparcl_lib.losses.released import Distances, Division
from sparcl_lib.methods.context import StepContext
from sparcl_lib.methods.registry import term

Labels = Literal["raw", "completed"]
"""raw: the labels of the step, hidden old classes being background, whose prototype may be zero;
completed: with the teacher's guesses where old classes are hidden."""


@term(needs_teacher=True)
def released_matching(
    context: StepContext, *, distance: Distance = "mse", reshaped: bool = True
) -> Tensor:
    """Prototypes matching of reshaped features; a class never seen is drawn to zero.

    distance: l2, the Euclidean norm, or mse, the mean of squares over the channels.
    reshaped: false reads the features as they are.
    """
    prototypes = context.bank.prototypes[: context.num_old]
    return losses.released_matching(
        context.output.features, context.completed_labels, prototypes, distance, reshaped
    )


@term(needs_teacher=True, first_step=0)
def released_attraction(
    context: StepContext,
    *,
    distance: Distance = "mse",
    reshaped: bool = True,
    division: Division = "nested",
    labels: Labels = "raw",
) -> Tensor:
    """Attraction of reshaped features by the labels of the step, the last class ruling.

    distance: l2, the Euclidean norm, or mse, the mean of squares over the channels.
    reshaped: false reads the features as they are.
    division: by the number of classes after each addition, nested, or once, mean.
    labels: those of the step, raw, or completed by the teacher's guesses.
    """
    prototypes = context.bank.prototypes
    return losses.released_attraction(
        context.output.features, _contrasted(context, labels), prototypes, distance, reshaped,
        division,
    )  # fmt: skip


@term(needs_teacher=True, first_step=0)
def released_repulsion(
    context: StepContext,
    *,
    reshaped: bool = True,
    distances: Distances = "matmul",
    labels: Labels = "raw",
) -> Tensor:
    """Repulsion of reshaped features by the labels of the step, over a matrix product.

    reshaped: false reads the features as they are.
    distances: by a matrix product above 25 classes, matmul, or exact.
    labels: those of the step, raw, or completed by the teacher's guesses.
    """
    ids = _contrasted(context, labels)
    return losses.released_repulsion(
        context.output.features, ids, context.num_classes, reshaped, distances
    )


@term(needs_teacher=True, first_step=0)
def released_sparsification(
    context: StepContext,
    *,
    floor: float = 0.0,
    signed: bool = True,
    labels: Labels = "raw",
    void: bool = True,
) -> Tensor:
    """Sparsification without a floor, by the labels of the step, 255 being one more class.

    floor: of a location's activity; 0 is none.
    signed: false counts negative features as zero.
    labels: those of the step, raw, or completed by the teacher's guesses.
    void: false leaves 255 out.
    """
    ids = context.completed_labels if labels == "completed" else context.labels
    return losses.released_sparsification(
        context.output.features, ids, context.num_classes, floor, signed, void
    )


def _contrasted(context: StepContext, labels: Labels) -> Tensor:
    """(B, h, w): completed labels without classes that have no prototype, or raw ones."""
    return context.anchored_labels if labels == "completed" else context.labels
