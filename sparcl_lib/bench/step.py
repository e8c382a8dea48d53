"""An iteration of step 1, as the trainer does it, against its floor: random weights and pixels."""

import itertools
import math
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from sparcl_lib.bench.timing import TimedBatches, seconds_of
from sparcl_lib.config import OptimConfig, RunConfig
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.data.loading.transforms import normalise
from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.methods import Mechanism
from sparcl_lib.models import Segmenter, build_segmenter, freeze, grow
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.tasks import Task
from sparcl_lib.training import make_fabric
from sparcl_lib.training.plan import StepPlan
from sparcl_lib.training.restore import first_spec
from sparcl_lib.training.step import StepTrainer

BLOCKS = 8
"""Labels are blocks, so many along each side."""
FEW = 4
"""Images that batch norm's first statistics are of."""


def step_row(config: RunConfig, task: Task, accelerator: str, seconds: float) -> dict[str, Any]:
    """Seconds of an iteration, of its floor and of the update, and the memory that it took.

    The floor is what no loss can do without: the student forward and backward, and the teacher
    forward where the method has one. Memory is the allocator's peak on a GPU, and on a CPU the
    most that this process has held, so call it in a process of its own.
    """
    device = make_fabric(config.precision, accelerator=accelerator, devices=1).device
    batches = random_batches(config, task, device)
    trainer = random_trainer(config, task, accelerator, batches)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timed = TimedBatches(itertools.cycle(batches), device, seconds)
    trainer.fit(timed)
    taken = median(timed.times())
    memory = peak_gib(device)
    floor, update = floor_of(trainer, batches, seconds / 2)
    return {
        "method": config.method.name, "classes": sum(class_counts(config, task)),
        "backbone": config.model.backbone, "size": config.data.size,
        "batch": config.data.batch_size, "precision": config.precision,
        "seconds": taken, "floor": floor, "of its floor": taken / floor, "update": update,
        "images per second": config.data.batch_size / taken, "peak GiB": memory,
    }  # fmt: skip


def class_counts(config: RunConfig, task: Task) -> tuple[int, ...]:
    """Channels of the classifier by step: old and new ones, or all at once in joint training."""
    old, new = task.num_classes(0), len(task.steps[1])
    return (old + new,) if config.method.joint else (old, new)


def random_batches(config: RunConfig, task: Task, device: torch.device) -> list[StepBatch]:
    """Two batches of noise, whose labels are blocks of background, new classes and void."""
    first, *new = class_counts(config, task)
    size, images = config.data.size, config.data.batch_size
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(2):
        pixels = torch.randint(0, 256, (images, 3, size, size), generator=generator)
        blocks = torch.randint(0, first + sum(new), (images, BLOCKS, BLOCKS), generator=generator)
        if new:  # what is old hides in the background
            blocks = torch.where(blocks < first, BACKGROUND, blocks)
        blocks[:, 0, 0] = VOID
        labels = nn.functional.interpolate(blocks[:, None].float(), (size, size))[:, 0].long()
        made.append(StepBatch(normalise(pixels.to(torch.uint8)).to(device), labels.to(device)))
    return made


def random_trainer(
    config: RunConfig, task: Task, accelerator: str, batches: list[StepBatch]
) -> StepTrainer:
    """The trainer of step 1, or of joint training, whose networks have learned nothing."""
    method = config.method
    first, *new = class_counts(config, task)
    torch.manual_seed(0)
    previous = build_segmenter(first_spec(config, first))
    images = batches[0].images[:FEW]
    settle(previous.to(images.device), images)
    if not new:
        at_first = method.around(0)
        for mechanism in at_first:
            mechanism.prepare(previous, None)
        return _trainer(config, accelerator, 0, 1, previous, None, at_first)
    states = _first_states(config, accelerator, first, previous, batches)
    before = {"step": 0, "mechanisms": states, "model": previous.state_dict()}
    student = grow(previous, sum(new), method.classifier_init)
    mechanisms = method.around(1)
    for mechanism in mechanisms:
        mechanism.prepare(student, before)
    teacher = freeze(previous) if method.needs_teacher(1) else None
    return _trainer(config, accelerator, 1, first, student, teacher, mechanisms)


def _trainer(
    config: RunConfig,
    accelerator: str,
    step: int,
    num_old: int,
    student: Segmenter,
    teacher: Segmenter | None,
    mechanisms: Sequence[Mechanism],
) -> StepTrainer:
    assert student.spec is not None  # of a network that build_segmenter made
    classes = sum(student.spec.classes)
    bank = PrototypeBank(classes, student.backbone.dim)
    bank.add(torch.rand(bank.sums.shape) * 100, torch.full((classes,), 100))
    plan = StepPlan(
        method=config.method, step=step, iterations=2**31, num_old=num_old, setup=config.setup,
        batch_norm=config.model.batch_norm,
        optim=OptimConfig(lr=(1e-9,)),  # it must not diverge: noise has no answer
        batches_per_pass=1,
    )  # fmt: skip
    fabric = make_fabric(config.precision, accelerator=accelerator, devices=1)
    return StepTrainer(fabric, plan, student, teacher, bank, mechanisms)


def _first_states(
    config: RunConfig,
    accelerator: str,
    classes: int,
    network: Segmenter,
    batches: list[StepBatch],
) -> dict[str, object]:
    """What the method's mechanisms know of step 0, after a single iteration of it."""
    mechanisms = config.method.around(0)
    if not mechanisms:
        return {}
    for mechanism in mechanisms:
        mechanism.prepare(network, None)
    images, labels = batches[0]
    known = torch.where((labels >= classes) & (labels != VOID), BACKGROUND, labels)
    trainer = _trainer(config, accelerator, 0, 1, network, None, mechanisms)
    trainer.fit([StepBatch(images, known)])
    return trainer.mechanism_states()


@torch.no_grad()
def settle(network: nn.Module, images: Tensor) -> None:
    """Running statistics of batch norm as of these images: random weights explode without."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    network(images)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def floor_of(trainer: StepTrainer, batches: list[StepBatch], seconds: float) -> tuple[float, float]:
    """Seconds of the passes through the networks, and of the update besides."""
    device, given = trainer.fabric.device, itertools.cycle(batches)

    def passes() -> None:
        batch = next(given)
        trainer._teacher_output(batch)
        output = trainer.model(batch.images, maps=False)
        trainer.optimizer.zero_grad()
        trainer.fabric.backward(output.logits.float().mean() + output.features.float().mean())

    floor = seconds_of(passes, device, seconds)
    return floor, seconds_of(trainer.optimizer.step, device, seconds / 5)


def peak_gib(device: torch.device) -> float:
    """The most memory that was in use at once: on the GPU, or by this process (NaN on Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return math.nan
    import resource  # Windows has no such module

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**30 if sys.platform == "darwin" else 2**20)
