"""Loss terms: each wires one loss function to the context of a training step."""

import math
from functools import partial

import torch
from torch import Tensor

from sparcl_lib import losses
from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.losses.latent import Distance
from sparcl_lib.losses.pseudo_labels import Pseudo
from sparcl_lib.methods.context import StepContext
from sparcl_lib.methods.registry import term


@term(
    hidden_old=("unbiased", "pseudo", "labelled_only"),
    needs_teacher=("pseudo",),
    acts_later=("fold_labels",),
)
def ce(
    context: StepContext,
    *,
    unbiased: bool = False,
    pseudo: Pseudo = "none",
    labelled_only: bool = False,
    fold_labels: bool = False,
) -> Tensor:
    """Cross-entropy on the labels of the step.

    unbiased: MiB's: background means "background or an old class", where old classes hide in it.
    pseudo: PLOP's: the teacher's sure guesses become labels where old classes hide in background.
    labelled_only: CIL's: background is no label from step 1 on, where old classes hide in it.
    fold_labels: the unbiased loss counts labels of old classes, which only the sequential setup
    has, as background, as SDR's released code does.

    In the sequential setup none hides, and the first three are the plain loss.
    """
    target = context.target
    if unbiased and (fold_labels or not context.old_labelled):
        if context.shares_exponentials:
            return context.unbiased_means[0]
        loss = partial(losses.unbiased_cross_entropy, num_old=context.num_old)
        return context.mean_over_pixels(loss, target, counted=target != VOID)
    if pseudo != "none" and context.hides_old:
        target, share = context.pseudo_target(pseudo)
        adaptive = partial(losses.adaptive_cross_entropy, share=share)
        return context.mean_over_pixels(adaptive, target)  # its mean counts ignored pixels, too
    if labelled_only and context.hides_old:
        target = torch.where(target == BACKGROUND, VOID, target)
    return context.mean_over_pixels(losses.cross_entropy, target, counted=target != VOID)


@term(hidden_old=("threshold",), needs_teacher=("threshold",))
def bce(context: StepContext, *, threshold: float = 1.0) -> Tensor:
    """Binary cross-entropy on the labels of the step: one sigmoid per class.

    threshold: the teacher's guesses with a larger sigmoid become labels on background (SSUL: 0.7;
    1: none do).
    """
    target = context.binary_target(threshold)
    loss = losses.binary_cross_entropy
    return context.mean_over_pixels(loss, target, counted=target != VOID, binary=True)


@term(needs_teacher=True)
def kd(context: StepContext, *, unbiased: bool = False) -> Tensor:
    """Output distillation from the teacher.

    unbiased: MiB's: new classes count as background, where the teacher saw them.
    """
    if unbiased and context.shares_exponentials:
        return context.unbiased_means[1]
    loss = losses.unbiased_knowledge_distillation if unbiased else losses.knowledge_distillation
    return context.mean_over_pixels(loss, teacher=True)


@term(needs_teacher=True)
def bce_kd(context: StepContext) -> Tensor:
    """Binary distillation: the teacher's sigmoid is the target of the old classes."""
    return context.mean_over_pixels(losses.binary_knowledge_distillation, teacher=True)


@term(needs_teacher=True)
def entropy_kd(context: StepContext, *, strength: float = 1.0) -> Tensor:
    """CIL's distillation on pixels without a label, stronger where the teacher is in doubt.

    strength: how much a bit of the teacher's entropy adds to a pixel's weight of 1.
    """
    unlabelled = (context.target == BACKGROUND) | (context.target == VOID)
    loss = partial(losses.entropy_weighted_distillation, strength=strength)
    return context.mean_over_pixels(loss, unlabelled, counted=unlabelled, teacher=True)


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
        folded = losses.fold_new_classes(scores, context.num_old)
        values.append(logits * losses.local_pod(folded, old_scores))
    growth = context.num_classes / (context.num_classes - context.num_old)
    first, *others = values
    return math.sqrt(growth) * sum(others, start=first) / len(context.output.maps)


@term(needs_teacher=True)
def matching(context: StepContext, *, distance: Distance = "l2") -> Tensor:
    """Prototypes matching: class means of the batch stay at the old classes' prototypes.

    distance: l2, the Euclidean norm, or mse, the mean of squares over the channels.
    """
    old = slice(0, context.num_old)
    sums, counts = context.anchored_sums
    return losses.matching_from_sums(sums[old], counts[old], context.bank.prototypes[old], distance)


@term(needs_teacher=True, first_step=0)
def attraction(context: StepContext, *, distance: Distance = "l2") -> Tensor:
    """Features of a class gather around its prototype.

    distance: l2, the Euclidean norm, or mse, the mean of squares over the channels.
    """
    features, prototypes = context.output.features, context.bank.prototypes
    return losses.attraction(features, context.anchored_labels, prototypes, distance)


@term(needs_teacher=True, first_step=0)
def repulsion(context: StepContext) -> Tensor:
    """Class means of the batch move apart."""
    return losses.repulsion_from_sums(*context.anchored_sums)


@term(needs_teacher=True, first_step=0)
def sparsification(context: StepContext) -> Tensor:
    """Few channels carry the activation of a location."""
    features, labels = context.output.features, context.completed_labels
    return losses.sparsification(features, labels, context.num_classes)
