"""What an iteration costs at the size of the papers: ResNet-101, 512 pixels, task 15-5, step 1.

Random weights, random pixels and blocks of random labels. Seconds are medians of CUDA events
between iterations of the trainer's own loop; memory is the allocator's peak.
"""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from parts.items import Job, wait
from sparcl_lib import losses
from sparcl_lib.config import OptimConfig, resolve
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.data.loading.transforms import normalise
from sparcl_lib.models import NetworkSpec, build_segmenter, freeze, grow
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training import make_fabric
from sparcl_lib.training.plan import StepPlan
from sparcl_lib.training.step import StepTrainer

OLD, NEW = 16, 5  # channels of 15-5 before and in step 1
METHODS = ("SDR", "FT", "MiB", "PLOP", "SDR+MiB", "Joint")
ARITHMETIC = ("bf16", "tf32", "fp32")
WARM, REPEATS, SECONDS = 3, 20, 3.0


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


def searched(job: Job) -> dict[str, Any]:
    """With cuDNN's search for the fastest algorithm, which no setting of ours turns on."""
    torch.backends.cudnn.benchmark = True
    try:
        return iteration(job, "SDR", "bf16", "channels last", 24, 512)
    finally:
        torch.backends.cudnn.benchmark = False


class Feed:
    """Batches that are there already, and a mark on the device's clock between iterations."""

    def __init__(self, batches: list[StepBatch], device: str, seconds: float) -> None:
        self.batches, self.device, self.seconds = batches, device, seconds

    def __iter__(self) -> Iterator[StepBatch]:
        self.marks: list[Any] = []
        began = time.perf_counter()
        for n in range(WARM + REPEATS):
            self._mark()
            if n > WARM + 4 and time.perf_counter() - began > self.seconds:
                return
            yield self.batches[n % len(self.batches)]
        self._mark()

    def _mark(self) -> None:
        if self.device != "cuda":
            self.marks.append(time.perf_counter())
            return
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        self.marks.append(mark)

    def times(self) -> list[float]:
        """Seconds of each iteration after the first ones."""
        wait(self.device)
        pairs = list(zip(self.marks, self.marks[1:], strict=False))[WARM:]
        if self.device == "cuda":
            return [a.elapsed_time(b) / 1000 for a, b in pairs]
        return [b - a for a, b in pairs]


def some_batches(job: Job, batch: int, size: int, joint: bool) -> list[StepBatch]:
    generator = torch.Generator(job.device).manual_seed(0)
    draw = partial(torch.randint, generator=generator, device=job.device)
    made = []
    for _ in range(2):
        pixels = draw(0, 256, (batch, 3, size, size), dtype=torch.uint8)
        coarse = draw(0, OLD + NEW, (batch, 8, 8))
        if not joint:  # what is old hides in the background
            coarse = torch.where(coarse < OLD, 0, coarse)
        coarse[:, 0, 0] = 255
        labels = coarse.repeat_interleave(size // 8, 1).repeat_interleave(size // 8, 2)
        last = pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        made.append(StepBatch(normalise(last), labels))
    return made


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


def make_trainer(
    job: Job, name: str, arithmetic: str, layout: str, batches: list[StepBatch]
) -> StepTrainer:
    config = resolve("voc", name, task="15-5", setup="overlapped")
    method, joint = config.method, config.method.joint
    fabric = make_fabric(
        "bf16-mixed" if arithmetic == "bf16" else "32-true", accelerator=job.device, devices=1
    )
    # PyTorch's default is tf32 in convolutions alone.
    torch.backends.cudnn.allow_tf32 = arithmetic == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = False
    classes, model = (OLD + NEW,) if joint else (OLD,), config.model
    spec = NetworkSpec(
        model.backbone, classes, output_stride=model.output_stride, head=model.head,
        head_channels=model.head_channels,
    )  # fmt: skip
    if job.tiny:
        spec = NetworkSpec("mini", classes, output_stride=4, head="conv", head_channels=8)
    torch.manual_seed(0)
    with torch.device(job.device):
        previous = build_segmenter(spec)
    settle(previous, batches[0].images[:4])
    student = previous if joint else grow(previous, NEW, method.classifier_init)
    bank = PrototypeBank(OLD + NEW, previous.backbone.dim)
    bank.add(torch.rand(OLD + NEW, bank.sums.shape[1]) * 100, torch.full((OLD + NEW,), 100))
    step = 0 if joint else 1
    plan = StepPlan(
        method=method, step=step, iterations=WARM + REPEATS, num_old=OLD if step else 1,
        setup="overlapped", batch_norm=config.model.batch_norm,
        optim=OptimConfig(lr=(1e-9,)), batches_per_pass=2,
    )  # fmt: skip
    teacher = freeze(previous) if method.needs_teacher(step) else None
    mechanisms = method.mechanisms(step)
    for mechanism in mechanisms:
        mechanism.prepare(student, {"step": 0} if step else None)
    trainer = StepTrainer(fabric, plan, student, teacher, bank, mechanisms)
    if layout == "contiguous":
        for network in filter(None, (trainer.student, trainer.teacher)):
            network.to(memory_format=torch.contiguous_format)
    return trainer


def iteration(
    job: Job, name: str, arithmetic: str, layout: str, batch: int, size: int
) -> dict[str, Any]:
    batches = some_batches(job, batch, size, name == "Joint")
    if layout == "contiguous":
        batches = [StepBatch(b.images.contiguous(), b.labels) for b in batches]
    trainer = make_trainer(job, name, arithmetic, layout, batches)
    if job.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    logged: dict[str, float] = {}
    feed = Feed(batches, job.device, 0.05 if job.tiny else SECONDS)
    trainer.fit(feed, lambda values, n: logged.update(values))
    times = feed.times()
    row: dict[str, Any] = {
        "method": name, "arithmetic": arithmetic, "layout": layout, "batch": batch, "size": size,
        "seconds": median(times), "slowest": max(times), "iterations": len(times),
        "images per second": batch / median(times), "losses": logged,
    }  # fmt: skip
    if job.device == "cuda":
        row["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
        row["reserved GiB"] = torch.cuda.max_memory_reserved() / 2**30
    if layout == "channels last":
        row["floor"], row["update"] = floor(job, trainer, batches)
        row["over the floor"] = row["seconds"] / row["floor"]
    return row


def floor(job: Job, trainer: StepTrainer, batches: list[StepBatch]) -> tuple[float, float]:
    """Seconds of teacher forward, student forward and backward, and of the update besides."""
    feed = Feed(batches, job.device, 0.05 if job.tiny else SECONDS / 2)
    for batch in feed:
        trainer._teacher_output(batch)
        output = trainer.model(batch.images, maps=False)
        trainer.optimizer.zero_grad()
        trainer.fabric.backward(output.logits.float().mean() + output.features.float().mean())
    passes = median(feed.times())
    updates = Feed(batches, job.device, 0.05 if job.tiny else 0.5)
    for _ in updates:
        trainer.optimizer.step()
    return passes, median(updates.times())


def latent(job: Job, classes: int) -> dict[str, Any]:
    """Milliseconds, forward and backward, of our latent losses and of loops over the classes."""
    batch, dim, side = (2, 8, 4) if job.tiny else (24, 2048, 32)
    torch.backends.cuda.matmul.allow_tf32 = False
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.rand(batch, dim, side, side, generator=generator).to(job.device) for _ in range(2)
    ]
    maps = [m.contiguous(memory_format=torch.channels_last).requires_grad_() for m in maps]
    labels = torch.randint(0, classes, (batch, side, side), generator=generator).to(job.device)
    prototypes = torch.rand(classes, dim, generator=generator).to(job.device)
    bank = PrototypeBank(classes, dim).to(job.device)
    pairs: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
        "matching": (
            lambda f: losses.prototypes_matching(f, labels, prototypes),
            lambda f: loop_matching(f, labels, prototypes),
        ),
        "attraction": (
            lambda f: losses.attraction(f, labels, prototypes),
            lambda f: loop_attraction(f, labels, prototypes),
        ),
        "repulsion": (
            lambda f: losses.repulsion(f, labels, classes),
            lambda f: loop_repulsion(f, labels),
        ),
        "sparsification": (
            lambda f: losses.sparsification(f, labels, classes),
            lambda f: loop_sparsification(f, labels),
        ),
    }
    found: dict[str, Any] = {"classes": classes}
    for name, (ours, loop) in pairs.items():
        values = [float(ours(maps[0]).detach()), float(loop(maps[0]).detach())]
        times = [clock(job, f, maps) for f in (ours, loop)]
        found[name] = {
            "value": values[0],
            "of the loop": values[1],
            "ms": times[0],
            "loop ms": times[1],
            "times": times[1] / times[0],
        }
    found["bank"] = {"ms": clock(job, lambda f: bank.update(f.detach(), labels), maps, False)}
    ours_ms, loop_ms = (sum(found[n][key] for n in pairs) for key in ("ms", "loop ms"))
    found["all"] = {"ms": ours_ms, "loop ms": loop_ms, "times": loop_ms / ours_ms}
    return found


def clock(job: Job, loss: Callable[[Tensor], Any], maps: list[Tensor], back: bool = True) -> float:
    """Milliseconds, median."""
    times: list[float] = []
    began = time.perf_counter()
    for n in range(60):
        features = maps[n % 2]
        features.grad = None
        wait(job.device)
        start = time.perf_counter()
        value = loss(features)
        if back:
            value.backward()
        wait(job.device)
        times.append(1000 * (time.perf_counter() - start))
        if n > 8 and time.perf_counter() - began > (0.05 if job.tiny else 1.5):
            break
    return median(times[3:])


def rows_of(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return features.permute(0, 2, 3, 1).flatten(0, 2), labels.flatten()


def loop_matching(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    rows, ids = rows_of(features, labels)
    found = [c for c in ids.unique().tolist() if c not in (0, 255)]
    gaps = [(rows[ids == c].mean(0) - prototypes[c]).norm() for c in found]
    return torch.stack(gaps).mean()


def loop_attraction(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    rows, ids = rows_of(features, labels)
    found = [c for c in ids.unique().tolist() if c != 255]
    gaps = [(rows[ids == c] - prototypes[c]).norm(dim=1).mean() for c in found]
    return torch.stack(gaps).mean()


def loop_repulsion(features: Tensor, labels: Tensor) -> Tensor:
    rows, ids = rows_of(features, labels)
    means = [rows[ids == c].mean(0) for c in ids.unique().tolist() if c != 255]
    pairs = [(a - b).norm() for n, a in enumerate(means) for b in means[:n]]
    return torch.stack([1 / gap for gap in pairs]).mean()


def loop_sparsification(features: Tensor, labels: Tensor) -> Tensor:
    rows, ids = rows_of(features, labels)
    found = []
    for c in ids.unique().tolist():
        if c != 255:
            chosen = rows[ids == c]
            scaled = chosen / chosen.max()
            found.append(scaled.exp().sum(1) / scaled.sum(1).clamp(min=1))
    return torch.cat(found).mean()


def syncs(job: Job) -> dict[str, Any]:
    """Where an iteration waits for the GPU: file and line -> times in three iterations."""
    found = {}
    for name in ("SDR", "PLOP") if not job.tiny else ("SDR",):
        batches = some_batches(job, 2, 32 if job.tiny else 256, False)
        trainer = make_trainer(job, name, "tf32", "channels last", batches)
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
