"""PLOP's pseudo-labels in a run: their thresholds are measured before a step.

The rule itself is of tensors alone: `sparcl_lib.losses.pseudo_labels`.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, cast, get_args

import torch
from torch import Tensor

from sparcl_lib.labels import BACKGROUND
from sparcl_lib.losses.pseudo_labels import Pseudo, entropy_histogram, entropy_thresholds
from sparcl_lib.methods.hooks import Mechanism

if TYPE_CHECKING:
    from sparcl_lib.data.loading.dataset import StepBatch
    from sparcl_lib.methods.method import Method
    from sparcl_lib.training.step import StepTrainer


_RULES = tuple(rule for rule in get_args(Pseudo) if rule != "none")


class PseudoLabels(Mechanism):
    """PLOP's thresholds, measured in one pass of the teacher over the step's images.

    The next step needs nothing of it: it measures its own.
    """

    name = "pseudo_labels"

    def __init__(self, rule: Pseudo) -> None:
        self.rule: Pseudo = rule
        self.thresholds: Tensor | None = None
        """(K_old,) in nats; None where nothing is hidden."""

    @classmethod
    def of(cls, method: "Method", step: int) -> Self | None:
        """By the option `pseudo` of a term that is active, where it is one of the rules: a term of
        the user's may call something else so."""
        asked = (term.options.get("pseudo") for term in method.active_terms(step))
        rule = next((rule for rule in asked if rule in _RULES), None)
        return cls(rule) if rule and step > 0 else None

    def before_step(self, trainer: "StepTrainer", batches: "Iterable[StepBatch]") -> None:
        if trainer.plan.setup == "sequential":
            return
        num_classes, histogram = len(trainer.bank.counts), torch.zeros((), dtype=torch.int64)
        for batch, output in trainer.teacher_pass(batches, "pseudo-labels"):
            for logits, unlabelled in output.strips(batch.labels == BACKGROUND):
                found = entropy_histogram(logits, unlabelled, num_classes, self.rule)
                histogram = histogram + found
        total = cast(Tensor, trainer.fabric.all_reduce(histogram, reduce_op="sum"))
        self.thresholds = entropy_thresholds(total, num_classes, self.rule)

    def progress(self) -> dict[str, Any] | None:
        return None if self.thresholds is None else {"thresholds": self.thresholds}

    def go_on(self, trainer: "StepTrainer", progress: Mapping[str, Any] | None) -> None:
        found = None if progress is None else progress["thresholds"]
        self.thresholds = None if found is None else found.to(trainer.fabric.device)

    def context_extras(self, batch: "StepBatch") -> Mapping[str, Tensor]:
        return {} if self.thresholds is None else {"thresholds": self.thresholds}
