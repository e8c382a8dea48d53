"""Does a run that was killed on the GPU and resumed end as one that was left alone?

MiniVOC, 6-4, disjoint, by the command, each run in processes of its own: trained twice, and once
more, killed inside both steps and resumed. What parts the first two is what a GPU's algorithms do
by themselves; no more than that may part the third from the first.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from parts.items import Job
from sparcl_lib.plain import flatten
from sparcl_lib.training import RunDirectory
from sparcl_lib.training.checkpoint import read_progress

METHODS = ("SDR", "PLOP")
MODES = {"deterministic": "true", "default": "false"}
PATIENCE = 120
"""Seconds in which a run has to come to its first save."""


def measure(job: Job) -> None:
    """job.only: one of the modes; both if empty."""
    modes = [job.only] if job.only else list(MODES)
    methods = METHODS[:1] if job.tiny else METHODS
    for mode in modes[:1] if job.tiny else modes:
        for method in methods:
            job.item(f"resume-{mode}-{method}", 90, partial(_compare, job, mode, method))


def _compare(job: Job, mode: str, method: str) -> dict[str, Any]:
    folder = job.work / "resume" / f"{mode}-{method}"
    shutil.rmtree(folder, ignore_errors=True)
    alone, again, killed = (folder / name for name in ("alone", "again", "killed"))
    command = partial(_command, job, MODES[mode], method)
    for run in (alone, again):
        subprocess.run(command(run), check=True, stdout=subprocess.DEVNULL)
    moments = [_kill_inside(command(killed), killed, step) for step in (0, 1)]
    subprocess.run(command(killed), check=True, stdout=subprocess.DEVNULL)
    return {
        "method": method, "mode": mode, "killed after": moments,
        "a second time": _apart(alone, again), "killed and resumed": _apart(alone, killed),
    }  # fmt: skip


def _command(job: Job, deterministic: str, method: str, run: Path) -> list[str]:
    large = ["optim.iterations=[300,200]", "save_minutes=0.005"]
    small = ["optim.iterations=60", "save_minutes=0", "data.batch_size=4", "data.size=32"]
    settings = [f"deterministic={deterministic}", *(small if job.tiny else large)]
    return [
        sys.executable, "-m", "sparcl_lib", "train", "--dataset", "minivoc", "--task", "6-4",
        "--method", method, "--accelerator", "gpu" if job.device == "cuda" else "cpu",
        "--devices", "1", "--resume", "--out", str(run),
        *(part for setting in settings for part in ("--set", setting)),
    ]  # fmt: skip


def _kill_inside(command: list[str], run: Path, step: int) -> str:
    """Start the command, kill it when it has saved the step twice; returns where that was."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    last, before = RunDirectory(run).progress_files(step)
    until = time.monotonic() + PATIENCE
    while not (saved := last.exists() and before.exists()):
        if process.poll() is not None or time.monotonic() > until:
            break
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if not saved:
        raise RuntimeError(f"step {step} ended, or came to no save, before it was killed")
    return f"{read_progress(last, step)['iteration']} iterations of step {step}"


def _apart(one: Path, other: Path) -> dict[str, Any]:
    """How far the last networks and mIoUs of two runs are apart."""
    step = max(RunDirectory(one).steps_done())
    states = [flatten(RunDirectory(run).load_checkpoint(step)["model"]) for run in (one, other)]
    floats = [
        (a.double(), states[1][name].double())
        for name, a in states[0].items()
        if isinstance(a, torch.Tensor) and a.is_floating_point()
    ]
    metrics = [json.loads((run / "metrics.json").read_text("utf-8")) for run in (one, other)]
    ends = [found["steps"][-1]["miou_all"] for found in metrics]
    return {
        "the same bits": all(torch.equal(a, b) for a, b in floats),
        "largest difference of a weight": max((a - b).abs().max().item() for a, b in floats),
        "largest weight": max(a.abs().max().item() for a, _ in floats),
        "mIoU": ends,
    }
