"""What an iteration costs at the size of the papers: ResNet-101, 512 pixels, task 15-5, step 1.

Random weights, random pixels and blocks of random labels. Seconds are medians of CUDA events
between iterations of the trainer's own loop; memory is the allocator's peak.
"""

import itertools
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from parts.items import Job
from sparcl_lib.bench.latent import Sizes, latent_rows
from sparcl_lib.bench.step import floor_of, random_batches, random_trainer
from sparcl_lib.bench.timing import TimedBatches
from sparcl_lib.config import RunConfig, resolve
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.data.loading.transforms import normalise
from sparcl_lib.models import segmenter
from sparcl_lib.tasks import get_task
from sparcl_lib.training.step import StepTrainer

METHODS = ("SDR", "FT", "MiB", "PLOP", "SDR+MiB", "Joint")
TASKS = {21: ("voc", "15-5"), 151: ("ade20k", "100-50")}
"""Classes, background included -> data set and task."""
PLAIN = 2**62
"""More upsampled logits than any image has: they are held in one piece."""
ARITHMETIC = ("bf16", "tf32", "fp32")


def measure(job: Job) -> None:
    """The rows that matter most first."""
    size, batch = (32, 2) if job.tiny else (512, 24)
    rows = [(m, a, "channels last", batch) for m in METHODS[:3] for a in ARITHMETIC]
    rows += [(m, a, "channels last", batch) for m in METHODS[3:] for a in ARITHMETIC]
    rows += [(m, a, "contiguous", batch) for m in METHODS[:2] for a in ARITHMETIC]
    rows += [(m, a, "channels last", 8) for m in METHODS[:3] for a in ARITHMETIC]
    for n, (method, arithmetic, layout, images) in enumerate(rows[: 2 if job.tiny else None]):
        name = f"speed-{method}-{arithmetic}-{layout.replace(' ', '-')}-{images}"
        job.item(name, 8, partial(iteration, job, method, arithmetic, layout, images, size))
        if n == 0:
            job.item("latent-21", 12, partial(latent, job, 21))
    job.item("latent-101", 15, partial(latent, job, 101))
    job.item("syncs", 12, partial(syncs, job))
    if job.device == "cuda":
        job.item("speed-cudnn-benchmark", 15, partial(searched, job))
        job.item("speed-compiled", 90, partial(changed, job, compiled))
    job.item("speed-fused", 10, partial(changed, job, fused))
    for method in ("SDR", "MiB"):
        for form in ("strips", "plain"):
            name = f"speed-{method}-bf16-151-classes-{form}"
            job.item(name, 12, partial(many_classes, job, method, form))


def many_classes(job: Job, method: str, form: str) -> dict[str, Any]:
    """151 classes, bf16. form: upsampled logits in strips, as SPARCL has them, or in one piece."""
    size, batch = (32, 2) if job.tiny else (512, 8)
    most = segmenter.MAX_LOGITS_PER_IMAGE
    segmenter.MAX_LOGITS_PER_IMAGE = PLAIN if form == "plain" else 0 if job.tiny else most
    try:
        row = iteration(job, method, "bf16", "channels last", batch, size, classes=151)
    finally:
        segmenter.MAX_LOGITS_PER_IMAGE = most
    return {**row, "form": form}


def searched(job: Job) -> dict[str, Any]:
    """With cuDNN's search for the fastest algorithm, which no setting of ours turns on."""
    torch.backends.cudnn.benchmark = True
    try:
        return changed(job, lambda trainer: None)
    finally:
        torch.backends.cudnn.benchmark = False


def changed(job: Job, change: Callable[[StepTrainer], None]) -> dict[str, Any]:
    """SDR in bf16, with what no setting of ours turns on."""
    size, batch = (32, 2) if job.tiny else (512, 24)
    return iteration(job, "SDR", "bf16", "channels last", batch, size, change)


def fused(trainer: StepTrainer) -> None:
    """The update of all weights in one kernel."""
    for group in trainer.optimizer.param_groups:
        group["fused"] = True


def compiled(trainer: StepTrainer) -> None:
    """The networks through torch.compile, which the first iterations pay for."""
    for network in filter(None, (trainer.student, trainer.teacher)):
        network.compile()


def config_of(
    job: Job, name: str, arithmetic: str, batch: int, size: int, classes: int
) -> RunConfig:
    chosen: dict[str, Any] = {
        "precision": "bf16-mixed" if arithmetic == "bf16" else "32-true",
        "data.size": size, "data.batch_size": batch,
    }  # fmt: skip
    if job.tiny:
        chosen |= {"model.backbone": "mini", "model.output_stride": 4, "model.head": "conv",
                   "model.head_channels": 8}  # fmt: skip
    dataset, task = TASKS[classes]
    return resolve(dataset, name, [chosen], task=task, setup="overlapped")


def make_trainer(
    job: Job, name: str, arithmetic: str, layout: str, batch: int, size: int, classes: int = 21
) -> tuple[StepTrainer, list[StepBatch]]:
    """With two batches on the device."""
    # PyTorch's default is tf32 in convolutions alone.
    torch.backends.cudnn.allow_tf32 = arithmetic == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = False
    config = config_of(job, name, arithmetic, batch, size, classes)
    task = get_task(*TASKS[classes])
    batches = random_batches(config, task, torch.device(job.device))
    trainer = random_trainer(config, task, job.device, batches)
    if layout == "contiguous":
        batches = [StepBatch(b.images.contiguous(), b.labels) for b in batches]
        for network in filter(None, (trainer.student, trainer.teacher)):
            network.to(memory_format=torch.contiguous_format)
    return trainer, batches


def iteration(
    job: Job,
    name: str,
    arithmetic: str,
    layout: str,
    batch: int,
    size: int,
    change: Callable[[StepTrainer], None] = lambda trainer: None,
    classes: int = 21,
) -> dict[str, Any]:
    trainer, batches = make_trainer(job, name, arithmetic, layout, batch, size, classes)
    change(trainer)
    if job.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    logged: dict[str, float] = {}
    timed = TimedBatches(itertools.cycle(batches), trainer.fabric.device, seconds_for(job))
    trainer.fit(timed, lambda values, n: logged.update(values))
    times = timed.times()
    row: dict[str, Any] = {
        "method": name, "arithmetic": arithmetic, "layout": layout, "batch": batch, "size": size,
        "classes": classes,
        "seconds": median(times), "slowest": max(times), "iterations": len(times),
        "images per second": batch / median(times), "losses": logged,
    }  # fmt: skip
    if job.device == "cuda":
        row["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
        row["reserved GiB"] = torch.cuda.max_memory_reserved() / 2**30
    if layout == "channels last":
        row["floor"], row["update"] = floor_of(trainer, batches, seconds_for(job) / 2)
        row["over the floor"] = row["seconds"] / row["floor"]
    return row


def latent(job: Job, classes: int) -> dict[str, Any]:
    """Milliseconds, forward and backward, of our latent losses and of loops over the classes."""
    torch.backends.cuda.matmul.allow_tf32 = False
    sizes = Sizes(2, 8, 4, classes) if job.tiny else Sizes(24, 2048, 32, classes)
    rows = latent_rows(sizes, torch.device(job.device), seconds_for(job) / 2)
    return {"classes": classes, **{row.pop("loss"): row for row in rows}}


def seconds_for(job: Job) -> float:
    return 0.05 if job.tiny else 3.0


def syncs(job: Job) -> dict[str, Any]:
    """Where an iteration waits for the GPU: file and line -> times in three iterations."""
    found = {}
    for name in ("SDR", "PLOP") if not job.tiny else ("SDR",):
        size = 32 if job.tiny else 256
        trainer, batches = make_trainer(job, name, "tf32", "channels last", 2, size)
        for mechanism in trainer.mechanisms:
            mechanism.before_step(trainer, batches)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            if job.device == "cuda":
                torch.cuda.set_sync_debug_mode("warn")
            for n in range(3):
                pixels = torch.zeros(2, 3, 64, 64, dtype=torch.uint8, device=job.device)
                normalise(pixels)
                trainer._update(trainer._context(batches[0]), n)
            if job.device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        places = (f"{Path(w.filename).name}:{w.lineno}: {w.message}"[:160] for w in heard)
        found[name] = dict(Counter(places))
    return found
