"""Whole runs on real photographs, side by side on the one GPU: real_one_by_one's task and settings.

At its 128 pixels the numbers compare with those of the CPU; at 256 they are new.
"""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from parts.items import Job, say
from sparcl_lib.config import RunConfig
from sparcl_lib.cores import cores
from sparcl_lib.experiments.base import RunBase, read_variants
from sparcl_lib.experiments.store import RunStore, run_keys
from sparcl_lib.plain import read_yaml
from sparcl_lib.training import RunDirectory, open_workspace, train

STUDY = Path(__file__).parents[2] / "real_one_by_one"
METHODS = ("Joint", "FT", "MiB", "SDR", "SDR+MiB")
# Name -> settings over those of the study, and seeds.
STAGES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "128-fp32": ({}, (0, 1)),
    "256-bf16": ({"precision": "bf16-mixed", "data.size": 256, "data.test_size": 320}, (0, 1)),
    "256-fp32": ({"data.size": 256, "data.test_size": 320}, (0, 1)),
}
TINY = {"data.size": 32, "data.test_size": 32, "data.batch_size": 2, "optim.iterations": [2, 1],
        "model.head_channels": 8}  # fmt: skip
# What one run takes at most when fifteen share the GPU, from the imports on: a guess.
LONGEST = 45


def measure(job: Job) -> None:
    """Seed 0 of every stage first. A run that the time ends goes on in the next call."""
    asked = [
        (stage, method, seed)
        for seed in (0, 1)
        for method in METHODS
        for stage, (_, seeds) in STAGES.items()
        if seed in seeds
    ]
    if job.tiny:
        asked = [("256-fp32", "FT", 0), ("256-fp32", "SDR", 0)]
    missing = [a for a in asked if not job.file(label(*a)).exists()]
    if not missing or job.left() < (0 if job.tiny else LONGEST):
        say(f"real: {len(missing)} runs left, {job.left():.0f} s")
        return
    if job.tiny:
        for one in missing:
            run(job, *one)
        return
    # What reading the masks and photographs finds is kept, so that no process does it again.
    config = config_of(job, *missing[0])
    run_keys(config)
    open_workspace(config, progress=False)
    context = multiprocessing.get_context("spawn")
    jobs = cores() // 2 if job.only else cores() - 1  # beside others, or alone
    pool = ProcessPoolExecutor(max(1, jobs), context, initializer=begin)
    futures = [pool.submit(run, job, *one) for one in missing]
    unfinished = wait(futures, timeout=max(1.0, job.left())).not_done
    for one, future in zip(missing, futures, strict=True):
        if future not in unfinished and future.exception():
            say(f"{label(*one)}: {future.exception()!r}")
    if unfinished:
        say(f"real: {len(unfinished)} runs stay for the next call")
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(0)  # a pool whose processes were killed may wait for them at exit
    pool.shutdown()


def label(stage: str, method: str, seed: int) -> str:
    return f"real-{stage}-{method}-{seed}"


def begin() -> None:
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, until the process ends


def run(job: Job, stage: str, method: str, seed: int) -> None:
    """One run; runs that share their step 0 wait for the one that trains it."""
    job.item(label(stage, method, seed), 0, partial(whole_run, job, stage, method, seed))


def whole_run(job: Job, stage: str, method: str, seed: int) -> dict[str, Any]:
    began = time.time()
    config = config_of(job, stage, method, seed)
    fit = partial(train, accelerator=job.device, devices=1)
    store = RunStore((job.work / "real",), fit)
    keys = run_keys(config)
    found = store.fetch(config, keys)
    metrics = found.metrics
    if method == "SDR" and seed == 0:
        keep_last(store.roots[-1] / keys.run, job.work / f"run-{stage}")
    return {
        "stage": stage, "method": method, "seed": seed, "steps": metrics["steps"],
        "forgetting": metrics["forgetting"], "seconds": metrics["seconds"],
        "wall": round(time.time() - began, 1),
        "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if job.device == "cuda" else None,
    }  # fmt: skip


def config_of(job: Job, stage: str, method: str, seed: int) -> RunConfig:
    variants = {v.name: v for v in read_variants(STUDY / "variants.yaml")}
    settings = {**STAGES[stage][0], **(TINY if job.tiny else {})}
    base = RunBase(
        dataset="voc", task=str(STUDY / "task.yaml"), setup="overlapped",
        data_root=str(job.data_root), overrides=(read_yaml(STUDY / "settings.yaml"),),
    )  # fmt: skip
    weights = None if job.weights is None else str(job.weights)
    config = base.config(variants[method], seed, settings, {"model.weights": weights})
    # One loader process beside the one that trains; it acts on no number.
    return replace(config, data=replace(config.data, workers=0 if job.tiny else 1))


def keep_last(run: Path, out: Path) -> None:
    """The last step without its optimiser, small enough to be taken home and tested on a CPU."""
    directory, kept = RunDirectory(run), RunDirectory(out)
    last = directory.steps_done()[-1]
    state = directory.load_checkpoint(last)
    del state["optimizer"]
    out.mkdir(parents=True, exist_ok=True)
    kept.save_checkpoint(last, state)
    kept.predictions_file(last).write_bytes(directory.predictions_file(last).read_bytes())
    # The metrics last: what has them is whole, and is packed.
    for file in (directory.config_file, directory.metrics_file):
        (out / file.name).write_bytes(file.read_bytes())
