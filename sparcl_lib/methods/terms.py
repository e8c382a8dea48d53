"""Loss terms: each wires one loss function to the context of a training step."""

import math
from typing import Literal

import torch
from torch import Tensor

from sparcl_lib import losses
from sparcl_lib.losses.latent import MIN_ACTIVITY, Distance, Distances, Division
from sparcl_lib.methods.context import StepContext
from sparcl_lib.methods.pseudo_labels import Pseudo
from sparcl_lib.methods.registry import term
from sparcl_lib.tasks.labels import BACKGROUND, VOID

Labels = Literal["completed", "raw"]


@term(hidden_old=("unbiased", "pseudo", "labelled_only"), needs_teacher=("pseudo",))
def ce(
    context: StepContext,
    *,
    unbiased: bool = False,
    pseudo: Pseudo = "none",
    labelled_only: bool = False,
    fold_labels: bool = False,
) -> Tensor:
    """Cross-entropy on the labels of the step. What to do about old classes in the background:

    unbiased: MiB's, background means "background or old"; pseudo: PLOP's, the teacher's sure
    guesses become labels; labelled_only: CIL's, background is no label from step 1 on.
    In the sequential setup old classes are labelled, none hides, and all three are the plain loss;
    fold_labels: the unbiased one counts those labels as background all the same, as released.
    """
    logits, target = context.output.logits, context.target
    if unbiased and (fold_labels or not context.old_labelled):
        return losses.unbiased_cross_entropy(logits, target, context.num_old)
    if pseudo != "none" and context.hides_old:
        return losses.adaptive_cross_entropy(logits, *context.pseudo_target)
    if labelled_only and context.hides_old:
        target = torch.where(target == BACKGROUND, VOID, target)
    return losses.cross_entropy(logits, target)


@term(hidden_old=("threshold",), needs_teacher=("threshold",))
def bce(context: StepContext, *, threshold: float = 1.0) -> Tensor:
    """Binary cross-entropy on the labels of the step: one yes or no per class.

    threshold: the teacher's guesses with a larger sigmoid become labels on background (SSUL: 0.7;
    1: none do).
    """
    target = context.binary_target(threshold)
    return losses.binary_cross_entropy(context.output.binary_logits, target)


@term(needs_teacher=True)
def kd(context: StepContext, *, unbiased: bool = False) -> Tensor:
    """Output distillation from the teacher; unbiased: MiB's, new classes hide in background."""
    loss = losses.unbiased_knowledge_distillation if unbiased else losses.knowledge_distillation
    return loss(context.output.logits, context.teacher_output.logits)


@term(needs_teacher=True)
def bce_kd(context: StepContext) -> Tensor:
    """Binary distillation: the teacher's sigmoid is the target of the old classes."""
    return losses.binary_knowledge_distillation(
        context.output.logits, context.teacher_output.logits
    )


@term(needs_teacher=True)
def entropy_kd(context: StepContext, *, strength: float = 1.0) -> Tensor:
    """CIL's distillation on pixels without a label, stronger where the teacher is in doubt."""
    unlabelled = (context.target == BACKGROUND) | (context.target == VOID)
    return losses.entropy_weighted_distillation(
        context.output.logits, context.teacher_output.logits, unlabelled, strength
    )


@term(needs_teacher=True)
def feature_kd(context: StepContext) -> Tensor:
    """Feature distillation: the encoder's output stays where the teacher's is."""
    return losses.feature_distillation(context.output.features, context.teacher_output.features)


@term(needs_teacher=True, needs_maps=True)
def pod(context: StepContext, *, logits: float = 0.05) -> Tensor:
    """PLOP's local POD, mean over the maps, times sqrt(all classes / new classes).

    logits: weight of the logits' map relative to the others; the new classes' logits count as
    background's there.
    """
    *now, scores = context.output.maps
    *before, old_scores = context.teacher_output.maps
    values = [losses.local_pod(*pair) for pair in zip(now, before, strict=True)]
    if logits > 0:
        folded = losses.fold_new_classes(scores.float(), context.num_old)
        values.append(logits * losses.local_pod(folded, old_scores))
    growth = context.num_classes / (context.num_classes - context.num_old)
    first, *others = values
    return math.sqrt(growth) * sum(others, start=first) / len(context.output.maps)


@term(needs_teacher=True)
def matching(context: StepContext, *, distance: Distance = "l2", reshaped: bool = False) -> Tensor:
    """Prototypes matching: class means of the batch stay at the old classes' prototypes.

    reshaped: as released, see losses.reshaped_features, here wrong even for one image.
    """
    old = slice(0, context.num_old)
    prototypes = context.bank.prototypes[old]
    if reshaped:
        labels = context.anchored_labels
        features = losses.reshaped_features(context.output.features, labels, "locations")
        return losses.prototypes_matching(features, labels, prototypes, distance)
    sums, counts = context.anchored_sums
    return losses.matching_from_sums(sums[old], counts[old], prototypes, distance)


@term(needs_teacher=True, first_step=0)
def attraction(
    context: StepContext,
    *,
    distance: Distance = "l2",
    division: Division = "mean",
    labels: Labels = "completed",
    reshaped: bool = False,
) -> Tensor:
    """Features of a class gather around its prototype.

    Released: division nested; labels raw, see `_contrasted`; reshaped, losses.reshaped_features.
    """
    prototypes = context.bank.prototypes
    return losses.attraction(
        *_contrasted(context, labels, reshaped), prototypes, distance, division
    )


@term(needs_teacher=True, first_step=0)
def repulsion(
    context: StepContext,
    *,
    distances: Distances = "exact",
    labels: Labels = "completed",
    reshaped: bool = False,
) -> Tensor:
    """Class means of the batch move apart.

    Released: distances by a matrix product; labels raw, see `_contrasted`; reshaped,
    losses.reshaped_features.
    """
    if labels == "completed" and not reshaped:
        return losses.repulsion_from_sums(*context.anchored_sums, distances)
    inputs = _contrasted(context, labels, reshaped)
    return losses.repulsion(*inputs, context.num_classes, distances)


def _contrasted(context: StepContext, labels: Labels, reshaped: bool) -> tuple[Tensor, Tensor]:
    """Features (B, D, h, w) and labels (B, h, w) of the contrastive terms.

    completed: pseudo-labels where old classes are hidden, no class without a prototype; raw: the
    labels of the step, hidden old classes being background, whose prototype may be zero.
    """
    ids = context.anchored_labels if labels == "completed" else context.labels
    features = context.output.features
    return losses.reshaped_features(features, ids) if reshaped else features, ids


@term(needs_teacher=True, first_step=0)
def sparsification(
    context: StepContext,
    *,
    floor: float = MIN_ACTIVITY,
    signed: bool = False,
    labels: Labels = "completed",
) -> Tensor:
    """Few channels carry the activation of a location.

    Released: floor 0 and signed, see losses.sparsification; labels raw, those of the step.
    """
    ids = context.completed_labels if labels == "completed" else context.labels
    features = context.output.features
    return losses.sparsification(features, ids, context.num_classes, floor, signed)
