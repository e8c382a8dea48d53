"""One continual step: the loop over its iterations."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, distributed, nn

from sparcl_lib.config import OptimConfig, at_step
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.definitions import Definition
from sparcl_lib.errors import LossDiverged, OutsideFailed
from sparcl_lib.methods import TERMS, Guarded, LossValues, Mechanism, StepContext, labelled_sums
from sparcl_lib.models import (
    BACKBONES,
    Segmenter,
    SegmenterOutput,
    synchronise_batch_norm,
    train_mode,
)
from sparcl_lib.progress import tqdm
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.seeding import random_state, set_random_state
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


@torch.no_grad()
def share_statistics(model: nn.Module) -> None:
    """Give the running statistics of the first process, which are saved, to all others.

    Without synchronised batch norm each process has its own, of its share of the images.
    """
    if distributed.is_available() and distributed.is_initialized():
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def broken_weight(model: nn.Module) -> str | None:
    """The first entry of its state that holds what is not finite."""
    values = model.state_dict().items()
    broken = (name for name, x in values if x.is_floating_point() and not x.isfinite().all())
    return next(broken, None)


def check_weights(student: nn.Module, plan: StepPlan) -> None:
    """Raise LossDiverged for a network that no checkpoint may hold."""
    broken = broken_weight(student)
    if broken:
        raise LossDiverged(
            f"the network is not a number after {plan.label}, in {broken}: not saved{plan.kept}; "
            f"lower optim.lr or the weights"
        )


@dataclass
class StepTrainer:
    """One step in training: all that the loop holds. Networks and bank are changed in place."""

    fabric: Fabric
    plan: StepPlan
    student: Segmenter
    """The network that learns; `model` is the same as set up by Fabric."""
    teacher: Segmenter | None
    """The network of the previous step, frozen, if a term or a mechanism asks for it."""
    bank: PrototypeBank
    mechanisms: Sequence[Mechanism] = ()
    """What the method does around the loop, prepared."""
    done: int = field(default=0, init=False)
    """Iterations that are behind it."""
    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list, init=False)
    """What was logged: iteration on the log's axis, and values."""
    _begun: bool = field(default=False, init=False)
    _random: dict[str, Any] | None = field(default=None, init=False)
    """Random state with which the loop goes on."""

    def __post_init__(self) -> None:
        if self.plan.sync_batch_norm:
            synchronise_batch_norm(self.student)
        self.student.to(memory_format=torch.channels_last)
        optimizer = make_optimizer(self.student, self.plan.optim, self.plan.step)
        self.model, self.optimizer = self.fabric.setup(self.student, optimizer)
        self.bank.to(self.fabric.device)
        if self.teacher is not None:
            self.teacher.to(self.fabric.device).to(memory_format=torch.channels_last)

    def fit(
        self,
        batches: Iterable[StepBatch],
        log: Log = lambda values, iteration: None,
        after_iteration: Callable[["StepTrainer"], None] = lambda trainer: None,
    ) -> None:
        """Train over `plan.iterations` batches, fill the prototypes, keep what mechanisms learn.

        batches: those that are left, if `go_on` was called. log gets loss terms and learning rate
        every LOG_EVERY iterations. Raises LossDiverged as soon as the loss is not finite, before
        the optimiser sees it. after_iteration: is called between two iterations, for a save.
        """
        plan = self.plan
        self.begin(batches)
        train_mode(self.student, plan.batch_norm if plan.step > 0 else "train")
        base = at_step(plan.optim.lr, plan.step)
        left = itertools.islice(batches, plan.iterations - self.done)  # a cut bar looks stopped
        hidden = not self.fabric.is_global_zero
        bar = tqdm(left, plan.label, plan.iterations, initial=self.done, disable=hidden)
        for batch in bar:
            self._restore_random_state()  # behind the first batch: a loader that begins draws, too
            iteration = self.done
            for group in self.optimizer.param_groups:
                group["lr"] = poly_lr(base, iteration, plan.iterations, plan.optim.power)
            for mechanism in self.mechanisms:
                batch = mechanism.batch(batch)
            values = self._update(self._context(batch), iteration)
            if iteration % LOG_EVERY == 0 or iteration == plan.iterations - 1:
                scalars = {name: float(value) for name, value in values.terms.items()}
                shown = {name: f"{value:.3g}" for name, value in scalars.items()}
                bar.set_postfix(shown, refresh=False)
                rate = self.optimizer.param_groups[0]["lr"]
                scalars |= {"total": float(values.total), "lr": rate}
                self.rows.append((plan.iterations_before + iteration, scalars))
                log(scalars, plan.iterations_before + iteration)
            self.done += 1
            after_iteration(self)
        self._restore_random_state()  # where no batch was left
        self._end()

    def begin(self, batches: Iterable[StepBatch]) -> None:
        """What mechanisms do before the first iteration, once; they may go through `batches`. `fit`
        calls it too, and after `go_on` there is nothing to do."""
        for mechanism in self.mechanisms if not self._begun else ():
            mechanism.before_step(self, batches)
        self._begun = True

    def teacher_pass(
        self, batches: Iterable[StepBatch], label: str
    ) -> Iterator[tuple[StepBatch, SegmenterOutput]]:
        """The teacher on every image of the step once, or on those that its iterations reach, under
        a bar. ValueError without one."""
        shown = itertools.islice(batches, self.plan.batches_per_pass)
        hidden, label = not self.fabric.is_global_zero, f"{self.plan.label} {label}"
        for batch in tqdm(shown, label, disable=hidden, leave=False):
            output = self._teacher_output(batch)
            if output is None:
                raise ValueError(f"{self.plan.label} has no previous model")
            yield batch, output

    @property
    def may_fail_at_the_end(self) -> bool:
        """Whether code that is not the library's is still to be called after the last iteration."""
        return any(isinstance(mechanism, Guarded) for mechanism in self.mechanisms)

    def mechanism_states(self) -> dict[str, object]:
        """What the next step must know, by the name of the mechanism."""
        states = {m.name: m.state_dict() for m in self.mechanisms}
        return {name: state for name, state in states.items() if state is not None}

    def progress(self) -> dict[str, Any]:
        """All that has moved in the step and is the same in every process: with `progress_here`
        what `go_on` takes. Networks and tensors are not copied."""
        moved = {m.name: m.progress() for m in self.mechanisms if not isinstance(m, Guarded)}
        return {
            "iteration": self.done,
            "model": self.student.state_dict(),
            "bank": self.bank.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "mechanisms": {name: state for name, state in moved.items() if state is not None},
            "log": self.rows,
        }

    def progress_here(self) -> dict[str, Any]:
        """What has moved and may be another in the next process: the random state, and what
        mechanisms that are not the library's have seen of the images here, on the CPU.

        Raises UserError for what cannot be saved.
        """
        moved = {m.name: m.progress() for m in self.mechanisms if isinstance(m, Guarded)}
        added = {name: state for name, state in moved.items() if state is not None}
        return {
            "random": random_state(self.fabric.device),
            "added": move_data_to_device(added, torch.device("cpu")),
        }

    def go_on(self, progress: Mapping[str, Any], here: Mapping[str, Any]) -> None:
        """Stand where `progress` was read, in place of the beginning of the step.

        here: of `progress_here`, of this process. Raises KeyError, RuntimeError, TypeError or
        ValueError for what is not of such a network and method.
        """
        moved = {**progress["mechanisms"], **here["added"]}
        for mechanism in self.mechanisms:
            mechanism.go_on(self, moved.get(mechanism.name))
        self.student.load_state_dict(progress["model"])
        self.bank.load_state_dict(progress["bank"])
        self.optimizer.load_state_dict(progress["optimizer"])
        self.fabric.strategy.precision.load_state_dict(progress["precision"])
        self.rows = [(iteration, dict(values)) for iteration, values in progress["log"]]
        self.done, self._begun, self._random = progress["iteration"], True, here["random"]

    def _end(self) -> None:
        """What mechanisms do after the last iteration. Raises OutsideFailed where one of a user's
        leaves a network that no checkpoint may hold, LossDiverged where it was so before."""
        if self.may_fail_at_the_end:
            check_weights(self.student, self.plan)
        for mechanism in self.mechanisms:
            mechanism.after_step()
            broken = broken_weight(self.student) if isinstance(mechanism, Guarded) else None
            if broken:
                raise OutsideFailed(
                    f"mechanism {mechanism.name}: after_step() leaves what is not a number in "
                    f"{broken} of the network"
                )

    def _restore_random_state(self) -> None:
        if self._random is not None:
            set_random_state(self._random, self.fabric.device)
            self._random = None

    @torch.no_grad()
    def _teacher_output(self, batch: StepBatch) -> SegmenterOutput | None:
        if self.teacher is None:
            return None
        with self.fabric.autocast():
            output = self.teacher(batch.images, maps=self.plan.method.needs_maps(self.plan.step))
        # As the student's comes: in 16 bits classes tie, and the first of them is the guess.
        converted: SegmenterOutput = self.fabric.strategy.precision.convert_output(output)
        return converted

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
            both_unbiased=plan.method.both_unbiased(plan.step),
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
                f"({listed}): stopped before the update{self.plan.kept}; {_cure(terms)}"
            )
        self.optimizer.zero_grad()
        self._backward(values.total, iteration)
        for mechanism in self.mechanisms:
            mechanism.after_backward()
        self.optimizer.step()
        for mechanism in self.mechanisms:
            mechanism.after_update()
        return LossValues(total, terms)

    def _backward(self, total: Tensor, iteration: int) -> None:
        """Gradients. Raises OutsideFailed where code that is not the library's has broken them."""
        try:
            self.fabric.backward(total)
        except RuntimeError as error:
            method, spec = self.plan.method, self.student.spec
            used: list[Definition] = [TERMS[t.name] for t in method.active_terms(self.plan.step)]
            used += [BACKBONES[spec.backbone]] if spec else []
            outside = [found.title for found in used if not found.of_library]
            outside += [m.found.title for m in self.mechanisms if isinstance(m, Guarded)]
            if "inplace operation" not in str(error) or not outside:
                raise
            raise OutsideFailed(
                f"{self.plan.label}, iteration {iteration}: something was changed in place, as by "
                f"x += 1, x[mask] = 0 or ReLU(inplace=True), of which the gradient needs what it "
                f"was: look in the {' and '.join(outside)}, and write x = x + 1 and torch.where"
            ) from error


def _cure(terms: Mapping[str, Tensor]) -> str:
    """What to do about a loss that is no number; terms: the values of its terms."""
    broken = [name for name, value in terms.items() if not value.isfinite()]
    own = [name for name in broken if name in TERMS and not TERMS[name].of_library]
    if own and len(broken) < len(terms):  # a network that ran off breaks all of them
        return f"look in {' and '.join(own)} for a division by 0 or the logarithm of 0"
    return "lower optim.lr or the weights"
