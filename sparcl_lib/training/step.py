"""One continual step: the loop over its iterations."""

import itertools
from collections.abc import Callable, Iterable

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from sparcl_lib.config import OptimConfig, at_step
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.errors import LossRanOff
from sparcl_lib.methods import (
    LossValues,
    StepContext,
    WeightPenalty,
    entropy_histogram,
    entropy_thresholds,
    labelled_sums,
    salient,
)
from sparcl_lib.models import Segmenter, train_mode
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training.plan import StepPlan

LOG_EVERY = 10


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
    penalty: WeightPenalty | None = None,
) -> None:
    """Train `student` and fill `bank` and `penalty` in place over `plan.iterations` batches.

    student and optimizer as set up by Fabric; log gets loss terms and learning rate every
    LOG_EVERY iterations. A method that measures something over the step's images first goes
    through `batches` once more. Raises LossRanOff as soon as the loss is not finite,
    before the optimiser sees it.
    """
    thresholds = _measure_doubt(fabric, plan, teacher, len(bank.counts), batches)
    train_mode(student, plan.batch_norm if plan.step > 0 else "train")
    base = at_step(plan.optim.lr, plan.step)
    bar = tqdm(batches, plan.label, plan.iterations, disable=not fabric.is_global_zero, leave=False)
    for iteration, batch in enumerate(itertools.islice(bar, plan.iterations)):
        for group in optimizer.param_groups:
            group["lr"] = poly_lr(base, iteration, plan.iterations, plan.optim.power)
        context = _look(fabric, plan, student, teacher, bank, batch, thresholds)
        values = _update(fabric, plan, context, optimizer, penalty, iteration)
        if iteration % LOG_EVERY == 0 or iteration == plan.iterations - 1:
            scalars = {name: float(value) for name, value in values.terms.items()}
            bar.set_postfix({name: f"{value:.3g}" for name, value in scalars.items()})
            scalars |= {"total": float(values.total), "lr": optimizer.param_groups[0]["lr"]}
            log(scalars, plan.iterations_before + iteration)


def _measure_doubt(fabric, plan, teacher, num_classes, batches) -> Tensor | None:
    """(K_old,) thresholds of PLOP's pseudo-labels, from one pass of the teacher over the images.

    Nothing of it is saved: a step that starts again sees the same images and finds the same.
    """
    rule = plan.method.pseudo(plan.step)
    if rule == "none" or plan.setup == "sequential":
        return None
    histogram: Tensor | int = 0
    label, shown = f"{plan.label} pseudo-labels", itertools.islice(batches, plan.batches_per_pass)
    for batch in tqdm(shown, label, disable=not fabric.is_global_zero, leave=False):
        logits = _ask(fabric, plan, teacher, batch).logits
        histogram = histogram + entropy_histogram(logits, batch.labels == 0, num_classes, rule)
    return entropy_thresholds(fabric.all_reduce(histogram, reduce_op="sum"), num_classes, rule)


def _look(fabric, plan, student, teacher, bank, batch, thresholds) -> StepContext:
    """Student and teacher on one batch; the bank has seen it too."""
    context = StepContext(
        output=student(batch.images, maps=plan.method.needs_maps(plan.step)),
        target=batch.labels,
        teacher=_ask(fabric, plan, teacher, batch),
        bank=bank,
        num_old=plan.num_old,
        old_labelled=plan.setup == "sequential",
        step=plan.step,
        thresholds=thresholds,
        salient=salient(batch.images, plan.method.unknown) if plan.method.unknown else None,
    )
    # Before the losses, so that a new class has a prototype from its first batch on.
    reshaped = plan.method.reshaped_prototypes
    bank.add(*labelled_sums(context, plan.counts_background, reshaped))
    return context


def _update(fabric, plan, context, optimizer, penalty, iteration) -> LossValues:
    """Losses, backward, update."""
    values = plan.method.losses(context)
    terms = {name: value.detach() for name, value in values.terms.items()}
    total = values.total.detach()
    if penalty is not None and penalty.importance:
        terms[penalty.row.name] = penalty.value()
        total = total + penalty.row.weight * terms[penalty.row.name]
    # One host sync an iteration, the price of never stepping on a broken gradient.
    if not torch.isfinite(total):
        listed = ", ".join(f"{name}={float(value):.3g}" for name, value in terms.items())
        raise LossRanOff(
            f"the loss is not a number at {plan.label}, iteration {iteration} ({listed}): "
            f"stopped before the update, earlier steps are kept; lower optim.lr or the weights"
        )
    optimizer.zero_grad()
    fabric.backward(values.total)
    if penalty is not None:
        penalty.after_backward()
    optimizer.step()
    if penalty is not None:
        penalty.after_update()
    return LossValues(total, terms)


@torch.no_grad()
def _ask(fabric: Fabric, plan: StepPlan, teacher: Segmenter | None, batch: StepBatch):
    if teacher is None:
        return None
    with fabric.autocast():
        return teacher(batch.images, maps=plan.method.needs_maps(plan.step))
