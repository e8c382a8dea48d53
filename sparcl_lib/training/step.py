"""One continual step: the loop over its iterations."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import nn

from sparcl_lib.config import OptimConfig, at_step
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.errors import LossDiverged
from sparcl_lib.methods import LossValues, Mechanism, StepContext, labelled_sums
from sparcl_lib.models import Segmenter, SegmenterOutput, train_mode
from sparcl_lib.progress import tqdm
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training.plan import StepPlan

LOG_EVERY = 10
Log = Callable[[dict[str, float], int], None]


def poly_lr(base: float, iteration: int, iterations: int, power: float) -> float:
    """base * (1 - i / n) ** power: a pure function of the iteration, nothing to restore."""
    share: float = (1 - iteration / iterations) ** power
    return base * share


def make_optimizer(model: nn.Module, optim: OptimConfig, step: int) -> torch.optim.SGD:
    return torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=at_step(optim.lr, step),
        momentum=optim.momentum,
        nesterov=optim.momentum > 0,
        weight_decay=optim.weight_decay,
    )


@dataclass
class StepTrainer:
    """One step in training: all that the loop holds. Networks and bank are changed in place."""

    fabric: Fabric
    plan: StepPlan
    student: Segmenter
    """The network that learns; `model` is the same as set up by Fabric."""
    teacher: Segmenter | None
    """The network of the previous step, frozen, if a term asks for it."""
    bank: PrototypeBank
    mechanisms: Sequence[Mechanism] = ()
    """What the method does around the loop, prepared."""

    def __post_init__(self) -> None:
        self.student.to(memory_format=torch.channels_last)
        optimizer = make_optimizer(self.student, self.plan.optim, self.plan.step)
        self.model, self.optimizer = self.fabric.setup(self.student, optimizer)
        self.bank.to(self.fabric.device)
        if self.teacher is not None:
            self.teacher.to(self.fabric.device).to(memory_format=torch.channels_last)

    def fit(self, batches: Iterable[StepBatch], log: Log = lambda values, iteration: None) -> None:
        """Train over `plan.iterations` batches, fill the prototypes, keep what mechanisms learn.

        log gets loss terms and learning rate every LOG_EVERY iterations. A mechanism may go through
        `batches` once more before. Raises LossDiverged as soon as the loss is not finite, before
        the optimiser sees it.
        """
        plan = self.plan
        for mechanism in self.mechanisms:
            mechanism.before_step(self, batches)
        train_mode(self.student, plan.batch_norm if plan.step > 0 else "train")
        base = at_step(plan.optim.lr, plan.step)
        some = itertools.islice(batches, plan.iterations)  # a bar that is cut would look stopped
        hidden = not self.fabric.is_global_zero
        bar = tqdm(some, plan.label, plan.iterations, disable=hidden)
        for iteration, batch in enumerate(bar):
            for group in self.optimizer.param_groups:
                group["lr"] = poly_lr(base, iteration, plan.iterations, plan.optim.power)
            values = self._update(self._context(batch), iteration)
            if iteration % LOG_EVERY == 0 or iteration == plan.iterations - 1:
                scalars = {name: float(value) for name, value in values.terms.items()}
                shown = {name: f"{value:.3g}" for name, value in scalars.items()}
                bar.set_postfix(shown, refresh=False)
                rate = self.optimizer.param_groups[0]["lr"]
                scalars |= {"total": float(values.total), "lr": rate}
                log(scalars, plan.iterations_before + iteration)
        for mechanism in self.mechanisms:
            mechanism.after_step()

    def teacher_pass(
        self, batches: Iterable[StepBatch], label: str
    ) -> Iterator[tuple[StepBatch, SegmenterOutput]]:
        """The teacher on every image of the step once, under a bar. ValueError without one."""
        shown = itertools.islice(batches, self.plan.batches_per_pass)
        hidden, label = not self.fabric.is_global_zero, f"{self.plan.label} {label}"
        for batch in tqdm(shown, label, disable=hidden, leave=False):
            output = self._teacher_output(batch)
            if output is None:
                raise ValueError(f"{self.plan.label} has no previous model")
            yield batch, output

    def mechanism_states(self) -> dict[str, object]:
        """What the next step must know, by the name of the mechanism."""
        states = {m.name: m.state_dict() for m in self.mechanisms}
        return {name: state for name, state in states.items() if state is not None}

    @torch.no_grad()
    def _teacher_output(self, batch: StepBatch) -> SegmenterOutput | None:
        if self.teacher is None:
            return None
        with self.fabric.autocast():
            output: SegmenterOutput = self.teacher(
                batch.images, maps=self.plan.method.needs_maps(self.plan.step)
            )
        return output

    def _context(self, batch: StepBatch) -> StepContext:
        """Student and teacher on one batch; the bank has seen it too."""
        plan = self.plan
        context = StepContext(
            output=self.model(batch.images, maps=plan.method.needs_maps(plan.step)),
            target=batch.labels,
            teacher=self._teacher_output(batch),
            bank=self.bank,
            num_old=plan.num_old,
            old_labelled=plan.setup == "sequential",
            step=plan.step,
            extras={k: v for m in self.mechanisms for k, v in m.context_extras(batch).items()},
        )
        # Before the losses, so that a new class has a prototype from its first batch on.
        given = (mechanism.prototype_sums(context) for mechanism in self.mechanisms)
        sums = next((found for found in given if found is not None), None)
        self.bank.add(*labelled_sums(context, plan.counts_background, sums))
        return context

    def _update(self, context: StepContext, iteration: int) -> LossValues:
        """Losses, backward, update."""
        values = self.plan.method.losses(context)
        terms = {name: value.detach() for name, value in values.terms.items()}
        total = values.total.detach()
        for penalty in filter(None, (m.penalty() for m in self.mechanisms)):
            terms |= penalty.terms
            total = total + penalty.total
        # One host sync an iteration, the price of never stepping on a broken gradient.
        if not torch.isfinite(total):
            listed = ", ".join(f"{name}={float(value):.3g}" for name, value in terms.items())
            raise LossDiverged(
                f"the loss is not a number at {self.plan.label}, iteration {iteration} "
                f"({listed}): stopped before the update, earlier steps are kept; lower optim.lr "
                f"or the weights"
            )
        self.optimizer.zero_grad()
        self.fabric.backward(values.total)
        for mechanism in self.mechanisms:
            mechanism.after_backward()
        self.optimizer.step()
        for mechanism in self.mechanisms:
            mechanism.after_update()
        return LossValues(total, terms)
