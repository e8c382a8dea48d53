"""Golden values: what the first iterations of every method train, loss by loss.

Small enough for a test, and whole: images are read and remapped, networks made, grown and evaluated
as in any run. The last digits differ between processors and releases of PyTorch, so values are
compared by a tolerance: above what was measured, and far below what a changed formula does.
"""

import csv
import dataclasses
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparcl_lib.config import RunConfig, all_settings, parse_settings, resolve
from sparcl_lib.data import minivoc
from sparcl_lib.experiments.pool import one_thread
from sparcl_lib.experiments.store import RunStore, run_keys
from sparcl_lib.methods import METHODS
from sparcl_lib.plain import as_plain
from sparcl_lib.progress import tqdm
from sparcl_lib.revision.recorded import Record, Values
from sparcl_lib.tasks import SETUPS
from sparcl_lib.training import RunDirectory, open_workspace, train
from sparcl_lib.training import step as training_step

TASK = "6-2"  # three steps: what a second later step does differently is seen, too
TRAIN_IMAGES, TEST_IMAGES, SIDE = 36, 24, 32
# Whole images, because torchvision rounds resized crops otherwise on each processor; few and small
# updates, because one ReLU that flips changes all that follows.
SETTINGS = (
    "optim.iterations=[5,3]",
    "optim.lr=1e-3",
    "data.size=32",
    "data.batch_size=4",
    "data.scale=null",
)
# Without the class that most pixels have, the teacher of step 1 recognises others; a quarter of the
# terms is zero unless it does.
NO_BACKGROUND = "data.zero=ignore"
# Methods that treat old classes otherwise where they are labelled, or hidden in more images.
SEVERAL_SETUPS = ("FT", "CIL", "MiB", "PLOP", "SDR", "SSUL-like")
# Beside the methods: name -> method and settings. The large network barely moves, for batch norm
# over so few pixels is wild.
VARIANTS = {
    "SDR released": ("SDR", "method.variant=released"),
    "FT with MobileNetV2": (
        "FT",
        "model.backbone=mobilenet_v2",
        "model.output_stride=16",
        "model.head=aspp",
        "optim.lr=1e-5",
        "optim.iterations=1",
    ),
}
CROPPED_BATCHES = 4
DIGITS = 7
# Largest relative differences between AVX512, AVX2 and SSE4.1 instructions on one machine: 3e-4 for
# the images of random crops, 5e-5 for all else.
TOLERANCE = 1e-3
NEGLIGIBLE = 1e-9


def configurations(data_root: str) -> dict[str, RunConfig]:
    """The runs, by name: all methods and variants, some in all setups."""

    def config(method: str, setup: str, *more: str) -> RunConfig:
        zero = (NO_BACKGROUND,) if setup == "disjoint" else ()
        settings = parse_settings([*SETTINGS, *zero, *more])
        return resolve("minivoc", method, [settings], task=TASK, setup=setup, data_root=data_root)

    asked = {method: (method,) for method in METHODS} | VARIANTS
    return {
        f"{name}, {setup}": config(method, setup, *more)
        for name, (method, *more) in asked.items()
        for setup in (SETUPS if name in SEVERAL_SETUPS else ("disjoint",))
    }


def golden_defaults() -> dict[str, Any]:
    """Every setting of those runs that has a default, and may change a number -> that default."""
    found = {}
    for config in configurations("").values():
        for key, setting in all_settings(config).items():
            if setting.default is not dataclasses.MISSING and setting.acts != "never":
                found[key] = as_plain(setting.default)
    return dict(sorted(found.items()))


def golden_values() -> Values:
    """Train all of them, in a folder of their own and on one thread."""
    with tempfile.TemporaryDirectory() as folder, one_thread(), _every_iteration_logged():
        data, runs = Path(folder, "data"), Path(folder, "runs")
        minivoc.generate(data, train=TRAIN_IMAGES, val=TEST_IMAGES, size=SIDE, progress=False)
        configs = configurations(str(data))
        values = {"batches": _batches(next(iter(configs.values())))}
        store = RunStore((runs,), partial(train, accelerator="cpu"))
        shown: set[str] = set()  # step 0 is shared, and stands with the run that came first
        for name, config in tqdm(configs.items(), "golden values", leave=False):
            keys = run_keys(config)
            store.fetch(config, keys)
            values[name] = {} if keys.first in shown else _numbers(runs / keys.first)
            values[name] |= _numbers(runs / keys.run)
            shown.add(keys.first)
    return values


@contextmanager
def _every_iteration_logged() -> Iterator[None]:
    before, training_step.LOG_EVERY = training_step.LOG_EVERY, 1
    try:
        yield
    finally:
        training_step.LOG_EVERY = before


def _batches(config: RunConfig) -> dict[str, list[float]]:
    """What the loaders give: a mean over each batch's labels, exact, and the norm of its images.

    In training random crops of step 1, which no run above has.
    """
    data = dataclasses.replace(config.data, scale=(0.5, 1.0))
    workspace = open_workspace(dataclasses.replace(config, data=data), progress=False)
    found = {}
    for name, batches in (
        ("crops", workspace.training_batches(1, CROPPED_BATCHES, seed=0, rank=0, world=1)),
        ("test", workspace.evaluation_batches(1)),
    ):
        listed = list(batches)
        found[f"{name} images"] = [_rounded(math.sqrt(_square(b.images))) for b in listed]
        found[f"{name} labels"] = [_rounded(float(b.labels.double().mean())) for b in listed]
    return found


def _numbers(run: Path) -> dict[str, list[float]]:
    """Of the steps that were trained here: every loss, the norms of what is left, pixels tested."""
    numbers = {}
    for log in sorted(run.glob("logs/step-*/metrics.csv")):
        step = int(log.parent.name.removeprefix("step-"))
        with log.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for name in sorted(rows[0].keys() - {"step"}):
            numbers[f"step {step} {name}"] = [_rounded(float(row[name])) for row in rows]
        checkpoint = RunDirectory(run).load_checkpoint(step)
        for name, norm in _norms(checkpoint).items():
            numbers[f"step {step} norm of {name}"] = [_rounded(norm)]
        numbers[f"step {step} pixels of each class"] = checkpoint["confusion"].sum(dim=1).tolist()
    return numbers


def _norms(checkpoint: dict[str, Any]) -> dict[str, float]:
    """Of all weights and statistics of backbone, head and classifier, and of the prototypes."""
    squares = {"prototypes": _square(checkpoint["bank"]["sums"])}
    for name, tensor in checkpoint["model"].items():
        part = name.partition(".")[0]
        squares[part] = squares.get(part, 0.0) + _square(tensor)
    return {name: math.sqrt(square) for name, square in squares.items()}


def _square(tensor: Tensor) -> float:
    return float(tensor.to(torch.float64).square().sum())


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def moved(record: Record, values: Values, defaults: Mapping[str, Any]) -> list[str]:
    """Where this is not what was recorded, a line each; what one side alone has is new or gone."""
    lines = [
        f"default of {key}: recorded {default!r}, now {defaults[key]!r}"
        for key, default in record.defaults.items()
        if key in defaults and defaults[key] != default
    ]
    for run in record.values.keys() & values.keys():
        before, after = record.values[run], values[run]
        lines += [
            f"{run}, {name}: recorded {_shown(before.get(name))}, now {_shown(after.get(name))}"
            for name in before.keys() | after.keys()
            if not _close(before.get(name), after.get(name))
        ]
    return sorted(lines)


def _close(before: list[float] | None, after: list[float] | None) -> bool:
    if before is None or after is None or len(before) != len(after):
        return False
    pairs = zip(before, after, strict=True)
    return all(math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=NEGLIGIBLE) for a, b in pairs)


def _shown(values: list[float] | None) -> str:
    return "nothing" if values is None else " ".join(f"{value:.6g}" for value in values)
