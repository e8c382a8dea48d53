"""What a method does around the loop of a step: named hooks, each of which may be left out.

A mechanism is one class. One of the library says itself whether a method has it (`of`), from the
method's settings, and stands in `MECHANISMS` of sparcl_lib/methods/method.py. One of a user's is
registered by `@mechanism`: sparcl_lib.methods.added_mechanisms.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from torch import Tensor

from sparcl_lib.models import Segmenter

if TYPE_CHECKING:
    from sparcl_lib.data.loading.dataset import StepBatch
    from sparcl_lib.methods.context import StepContext
    from sparcl_lib.methods.method import Method
    from sparcl_lib.training.step import StepTrainer


class LossValues(NamedTuple):
    """The weighted sum, and every term as it is before its weight."""

    total: Tensor
    terms: dict[str, Tensor]


class Mechanism:
    """One step of one mechanism: made anew for every step, its hooks called in this order."""

    name: str
    """Under which its state is in the checkpoint."""
    reads_gradients: bool = False
    """Whether it needs gradients as they are: those of 16-mixed are scaled, and are refused."""

    @classmethod
    def of(cls, method: "Method", step: int) -> Self | None:
        """The mechanism with the settings of the method; None where it has nothing to do. One that
        is registered needs none."""
        raise NotImplementedError

    def prepare(self, student: Segmenter, before: Mapping[str, Any] | None) -> None:
        """Before the optimiser is made. before: checkpoint of the previous step, None at step 0.

        Raises UserError for a checkpoint that lacks what the mechanism needs.
        """

    def before_step(self, trainer: "StepTrainer", batches: "Iterable[StepBatch]") -> None:
        """Before the first iteration, networks on their device, before they are set to train.
        trainer: has student, teacher (or None), bank, optimizer, plan (step, iterations, num_old)
        and fabric (device). batches: may be gone through."""

    def progress(self) -> dict[str, Any] | None:
        """What `before_step` found and the iterations since have moved, for a save inside the
        step; None: nothing."""
        return None

    def go_on(self, trainer: "StepTrainer", progress: Mapping[str, Any] | None) -> None:
        """In place of `before_step` where a step goes on that was saved inside: networks are on
        their device, the student as the step begins still. progress: of `progress`."""

    def batch(self, batch: "StepBatch") -> "StepBatch":
        """What is trained on in place of a batch of the step's images: more of them, or others."""
        return batch

    def context_extras(self, batch: "StepBatch") -> Mapping[str, Tensor]:
        """What the terms find in `StepContext.extras` for this batch."""
        return {}

    def prototype_sums(self, context: "StepContext") -> tuple[Tensor, Tensor] | None:
        """Class sums (K, D) and counts (K,) for the prototypes in place of `context.sums`."""
        return None

    def penalty(self) -> LossValues | None:
        """What comes to the losses of the terms, for the log alone: the gradient is added in
        `after_backward`."""
        return None

    def after_backward(self) -> None:
        """Gradients are there, the optimiser has not moved yet."""

    def after_update(self) -> None:
        """The optimiser has moved."""

    def after_step(self) -> None:
        """After the last iteration, before the student is evaluated and saved."""

    def state_dict(self) -> dict[str, Any] | None:
        """What the next step must know, for the checkpoint; None: nothing. It may be called before
        the first iteration, too, to see whether it can be saved."""
        return None


def state_of(mechanism: Mechanism, before: Mapping[str, Any]) -> Any:
    """What a mechanism left in the checkpoint of the step before, None where it left nothing."""
    return before.get("mechanisms", {}).get(mechanism.name)
