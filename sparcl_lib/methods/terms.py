"""Loss terms: each wires one loss function to the context of a training step."""

import inspect
from collections.abc import Callable
from typing import get_args

from torch import Tensor

from sparcl_lib import losses
from sparcl_lib.errors import UserError
from sparcl_lib.losses.latent import Distance
from sparcl_lib.methods.context import StepContext

LossTerm = Callable[..., Tensor]


def ce(context: StepContext, *, unbiased: bool = False) -> Tensor:
    """Cross-entropy on the labels of the step; unbiased: MiB's, old classes hide in background."""
    logits, target = context.output.logits, context.target
    if unbiased and not context.old_labelled:
        return losses.unbiased_cross_entropy(logits, target, context.num_old)
    return losses.cross_entropy(logits, target)


def kd(context: StepContext, *, unbiased: bool = False) -> Tensor:
    """Output distillation from the teacher; unbiased: MiB's, new classes hide in background."""
    loss = losses.unbiased_knowledge_distillation if unbiased else losses.knowledge_distillation
    return loss(context.output.logits, context.teacher.logits)


def feature_kd(context: StepContext) -> Tensor:
    """Feature distillation: the encoder's output stays where the teacher's is."""
    return losses.feature_distillation(context.output.features, context.teacher.features)


def matching(context: StepContext, *, distance: Distance = "l2") -> Tensor:
    """Prototypes matching: class means of the batch stay at the old classes' prototypes."""
    sums, counts = context.anchored_sums
    old = slice(0, context.num_old)
    return losses.matching_from_sums(sums[old], counts[old], context.bank.prototypes[old], distance)


def attraction(context: StepContext, *, distance: Distance = "l2") -> Tensor:
    """Features of a class gather around its prototype."""
    return losses.attraction(
        context.output.features, context.anchored_labels, context.bank.prototypes, distance
    )


def repulsion(context: StepContext) -> Tensor:
    """Class means of the batch move apart."""
    return losses.repulsion_from_sums(*context.anchored_sums)


def sparsification(context: StepContext) -> Tensor:
    """Few channels carry the activation of a location."""
    return losses.sparsification(
        context.output.features, context.completed_labels, context.num_classes
    )


TERMS: dict[str, LossTerm] = {
    term.__name__: term
    for term in (ce, kd, feature_kd, matching, attraction, repulsion, sparsification)
}
NEEDS_TEACHER = frozenset({"kd", "feature_kd", "matching"})


def term_options(name: str) -> dict[str, object]:
    """Options of a term and their defaults, beside `weight` and `from_step` that all have."""
    parameters = inspect.signature(TERMS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_option(term: str, name: str, value: object) -> None:
    """Raise UserError for a value that the term's option cannot take."""
    default = term_options(term)[name]
    if isinstance(default, bool) and not isinstance(value, bool):
        raise UserError(f"method.terms.{term}.{name} must be true or false, got {value!r}")
    if name == "distance" and value not in get_args(Distance):
        raise UserError(f"method.terms.{term}.{name} must be l2 or mse, got {value!r}")
