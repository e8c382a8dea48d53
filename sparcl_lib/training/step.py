"""One continual step: the loop over its iterations."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import nn
from tqdm.auto import tqdm

from sparcl_lib.config import OptimConfig, at_step
from sparcl_lib.data.dataset import StepBatch
from sparcl_lib.errors import UserError
from sparcl_lib.methods import LossValues, Method, StepContext, labelled_sums
from sparcl_lib.models import Segmenter, train_mode
from sparcl_lib.prototypes import PrototypeBank

LOG_EVERY = 10


@dataclass(frozen=True)
class StepPlan:
    """What is fixed during a step."""

    method: Method
    step: int
    iterations: int
    num_old: int
    """Classes of earlier steps with background; 1 at step 0."""
    setup: str
    batch_norm: str
    optim: OptimConfig
    iterations_before: int = 0
    """Iterations of the earlier steps: where this step starts on the log's axis."""

    @property
    def label(self) -> str:
        return f"{self.method.name} step {self.step}"

    @property
    def counts_background(self) -> bool:
        """Whether background features enter the prototypes: see methods.labelled_sums."""
        return self.step == 0 and self.setup != "overlapped"


def poly_lr(base: float, iteration: int, iterations: int, power: float) -> float:
    """base * (1 - i / n) ** power: a pure function of the iteration, nothing to restore."""
    return base * (1 - iteration / iterations) ** power


def make_optimizer(model: nn.Module, optim: OptimConfig, step: int) -> torch.optim.SGD:
    return torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=at_step(optim.lr, step),
        momentum=optim.momentum,
        nesterov=optim.momentum > 0,
        weight_decay=optim.weight_decay,
    )


def fit_step(
    fabric: Fabric,
    plan: StepPlan,
    student: Segmenter,
    teacher: Segmenter | None,
    bank: PrototypeBank,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[StepBatch],
    log: Callable[[dict[str, float], int], None] = lambda values, iteration: None,
) -> None:
    """Train `student` and fill `bank` in place over `plan.iterations` batches.

    student and optimizer as set up by Fabric; log gets loss terms and learning rate every
    LOG_EVERY iterations. Raises UserError as soon as the loss is not finite,
    before the optimiser sees it.
    """
    train_mode(student, plan.batch_norm if plan.step > 0 else "train")
    base = at_step(plan.optim.lr, plan.step)
    bar = tqdm(batches, plan.label, plan.iterations, disable=not fabric.is_global_zero, leave=False)
    for iteration, batch in enumerate(itertools.islice(bar, plan.iterations)):
        for group in optimizer.param_groups:
            group["lr"] = poly_lr(base, iteration, plan.iterations, plan.optim.power)
        values = _iterate(fabric, plan, student, teacher, bank, optimizer, batch, iteration)
        if iteration % LOG_EVERY == 0 or iteration == plan.iterations - 1:
            scalars = {name: float(value) for name, value in values.terms.items()}
            bar.set_postfix({name: f"{value:.3g}" for name, value in scalars.items()})
            scalars |= {"total": float(values.total), "lr": optimizer.param_groups[0]["lr"]}
            log(scalars, plan.iterations_before + iteration)


def _iterate(fabric, plan, student, teacher, bank, optimizer, batch, iteration) -> LossValues:
    """Forward, loss, backward, update: one iteration."""
    context = StepContext(
        output=student(batch.images),
        target=batch.labels,
        teacher=_ask(fabric, teacher, batch),
        bank=bank,
        num_old=plan.num_old,
        old_labelled=plan.setup == "sequential",
        step=plan.step,
    )
    # Before the losses, so that a new class has a prototype from its first batch on.
    bank.add(*labelled_sums(context, plan.counts_background))
    values = plan.method.losses(context)
    terms = {name: value.detach() for name, value in values.terms.items()}
    # One host sync an iteration, the price of never stepping on a broken gradient.
    if not torch.isfinite(values.total):
        listed = ", ".join(f"{name}={float(value):.3g}" for name, value in terms.items())
        raise UserError(
            f"the loss is not a number at {plan.label}, iteration {iteration} ({listed}): "
            f"stopped before the update, earlier steps are kept; lower optim.lr or the weights"
        )
    optimizer.zero_grad()
    fabric.backward(values.total)
    optimizer.step()
    return LossValues(values.total.detach(), terms)


@torch.no_grad()
def _ask(fabric: Fabric, teacher: Segmenter | None, batch: StepBatch):
    if teacher is None:
        return None
    with fabric.autocast():
        return teacher(batch.images)
