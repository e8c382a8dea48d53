"""All of it, each part in a process of its own, and the tables."""

import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sparcl_lib.bench.latent import Sizes, latent_rows
from sparcl_lib.bench.loading import loading_rows
from sparcl_lib.bench.step import step_row
from sparcl_lib.config import RunConfig
from sparcl_lib.cores import cores
from sparcl_lib.data import open_source
from sparcl_lib.environment import DISTRIBUTION
from sparcl_lib.errors import UserError
from sparcl_lib.models import build_backbone
from sparcl_lib.plugins import files_of, load_files, outside
from sparcl_lib.progress import tqdm
from sparcl_lib.tasks import Task, get_task
from sparcl_lib.training import make_fabric
from sparcl_lib.writing import write_csv, write_text

PACKAGES = (DISTRIBUTION, "torch", "torchvision", "lightning-fabric")
Rows = list[dict[str, Any]]
Tables = dict[str, pd.DataFrame]


def measure(configs: Sequence[RunConfig], accelerator: str = "auto", seconds: float = 3) -> Tables:
    """The tables `step`, with a row for each configuration, `latent` and `loading`.

    The last two are of the last configuration; `loading` is left out where its data are in a folder
    that is not given. Nothing else should run meanwhile.

    Args:
        configs: methods of one task with more than one step.
        accelerator: auto, cpu, gpu.
        seconds: of each measurement.

    Raises:
        UserError: a task of one step, a device that is not there, data that are wrong, or a part
            whose process died.
    """
    last = configs[-1]
    task = _open_task(last)
    if task.num_steps < 2:
        raise UserError(
            f"task {task.name} has one step: what is measured is a step after the first"
        )
    make_fabric(last.precision, accelerator=accelerator, devices=1)
    calls: list[tuple[str, Callable[..., Rows], tuple[Any, ...]]] = [
        ("step", _step, (config, task, accelerator, seconds)) for config in configs
    ]
    calls.append(("latent", _latent, (last, task, accelerator, seconds / 3)))
    if _has_images(last):
        calls.append(("loading", _loading, (last, accelerator, seconds)))
    rows: dict[str, Rows] = {}
    with tqdm(total=len(calls), desc="measurements") as bar:
        for table, call, arguments in calls:
            rows.setdefault(table, []).extend(_apart(call, arguments, configs))
            bar.update()
    return {table: pd.DataFrame(found) for table, found in rows.items()}


def write_tables(tables: Tables, out: Path, device: dict[str, Any]) -> None:
    """A CSV file for each table, and device.json."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "device.json", json.dumps(device, indent=1) + "\n")
    for name, table in tables.items():
        write_csv(out / f"{name}.csv", table.map(_short))


def device_facts(accelerator: str = "auto") -> dict[str, Any]:
    """What the numbers were measured on, with versions and the day."""
    device = make_fabric(accelerator=accelerator, devices=1).device
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "instructions": None if on_gpu else torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "cuda": torch.version.cuda if on_gpu else None,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _open_task(config: RunConfig) -> Task:
    if _has_images(config):
        source = open_source(config.dataset, config.data_root)
        return source.task(config.task, config.class_order)
    return get_task(config.dataset, config.task, config.class_order)


def _has_images(config: RunConfig) -> bool:
    """MiniVOC is made here, and a YAML file says where its images are."""
    return config.data_root is not None or config.dataset not in ("voc", "ade20k")


def _apart(
    call: Callable[..., Rows], arguments: tuple[Any, ...], configs: Iterable[RunConfig]
) -> Rows:
    """In a fresh process, so that its peak memory is its own."""
    files = files_of(outside(configs))
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, context, initializer=_begin, initargs=(files,)) as pool:
            return pool.submit(call, *arguments).result()
    except BrokenProcessPool:
        raise UserError(
            f"the process that measured {arguments[0].method.name} died, perhaps for lack of "
            f"memory: try a smaller data.batch_size or data.size"
        ) from None


def _begin(files: Mapping[str, Path]) -> None:
    """Bars of trainings that are cut off are not for the eye; errors come as exceptions."""
    load_files(files)
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # until the process ends


def _step(config: RunConfig, task: Task, accelerator: str, seconds: float) -> Rows:
    return [step_row(config, task, accelerator, seconds)]


def _latent(config: RunConfig, task: Task, accelerator: str, seconds: float) -> Rows:
    model, data = config.model, config.data
    with torch.device("meta"):
        dim = build_backbone(model.backbone, model.output_stride).dim
    side = -(-data.size // model.output_stride)
    sizes = Sizes(data.batch_size, dim, side, task.num_classes(1))
    device = make_fabric(config.precision, accelerator=accelerator, devices=1).device
    return list(latent_rows(sizes, device, seconds))


def _loading(config: RunConfig, accelerator: str, seconds: float) -> Rows:
    return list(loading_rows(config, accelerator, seconds))


def _processor() -> str:
    """Its name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text("utf-8").splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _short(value: object) -> object:
    """Four digits, more than ever agree."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
