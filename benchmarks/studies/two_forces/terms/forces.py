"""Attraction and repulsion of objects alone, and of directions: `sparcl ... --plugin FILE.py`."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sparcl_lib import losses, term
from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.methods.context import StepContext
from sparcl_lib.prototypes import class_means, class_sums


def object_labels(context: StepContext) -> Tensor:
    """(B, h, w): `anchored_labels` with 255 for background."""
    labels = context.anchored_labels
    return torch.where(labels == BACKGROUND, VOID, labels)


@term(needs_teacher=True, first_step=0)
def attraction_of_objects(context: StepContext) -> Tensor:
    """Attraction by mean squares, of object classes alone."""
    features, prototypes = context.output.features, context.bank.prototypes
    return losses.attraction(features, object_labels(context), prototypes, "mse")


@term(needs_teacher=True, first_step=0)
def repulsion_of_objects(context: StepContext) -> Tensor:
    """Repulsion between object classes alone."""
    return losses.repulsion(context.output.features, object_labels(context), context.num_classes)


@term(needs_teacher=True, first_step=0)
def repulsion_of_directions(context: StepContext) -> Tensor:
    """Repulsion of features of length 1, which longer features do not satisfy."""
    directions = F.normalize(context.output.features, dim=1)
    return losses.repulsion(directions, context.anchored_labels, context.num_classes)


@term(needs_teacher=True, first_step=0)
def repulsion_up_to_a_margin(context: StepContext, *, margin: float = 0.6) -> Tensor:
    """Mean square of what pairs of means of directions lack to a distance: the push ends there."""
    directions = F.normalize(context.output.features, dim=1)
    sums, counts = class_sums(directions, context.anchored_labels, context.num_classes)
    lack = (margin - torch.pdist(class_means(sums, counts)[counts > 0])).clamp(min=0)
    return lack.square().sum() / max(1, len(lack))
