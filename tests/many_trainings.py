"""Trainings one after the other in one process: memory, files, threads and drafts stay as they are.

    python tests/many_trainings.py        100 trainings and the table of docs/reliability.md

Linux alone: what a process holds is read from /proc.
"""

import argparse
import gc
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, as a script

from sparcl_lib.config import parse_settings, resolve
from sparcl_lib.data.minivoc import generate
from sparcl_lib.training import train

WARM_UP = 10
METHODS = ("FT", "MiB", "SDR", "EWC", "PLOP")
SETTINGS = ["optim.iterations=1", "data.batch_size=2", "data.workers=0", "data.size=32"]


@dataclass(frozen=True)
class Held:
    """What this process holds."""

    memory: float
    """MB in memory."""
    files: int
    """Open files, pipes and sockets."""
    threads: int
    temporary: int
    """Files and folders in the folder for temporary ones."""


def held() -> Held:
    gc.collect()
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines()
    )
    temporary = sum(1 for _ in Path(tempfile.gettempdir()).rglob("*"))
    return Held(
        int(status["VmRSS"].split()[0]) / 1024,
        len(os.listdir("/proc/self/fd")),
        int(status["Threads"]),
        temporary,
    )


def trainings(root: Path, count: int) -> list[Held]:
    """What is held after each; methods take turns, and each run is deleted when it is done."""
    minivoc, found = root / "minivoc", []
    generate(minivoc, train=40, val=4, size=32, progress=False)
    for number in range(count):
        method = METHODS[number % len(METHODS)]
        layers = [parse_settings([*SETTINGS, f"seed={number}"])]
        config = resolve("minivoc", method, layers, task="6-4", data_root=str(minivoc))
        train(config, root / "run", accelerator="cpu")
        shutil.rmtree(root / "run")
        found.append(held())
    return found


def growth(found: list[Held], warm_up: int) -> Held:
    """Median of the last ten minus that of the first ten after the warm-up; fewer if there are."""
    few = min(10, (len(found) - warm_up) // 2)
    first, last = found[warm_up : warm_up + few], found[-few:]
    return Held(**{
        part.name: statistics.median(getattr(h, part.name) for h in last)
        - statistics.median(getattr(h, part.name) for h in first)
        for part in fields(Held)
    })  # fmt: skip


def run_from_shell() -> int:
    parser = argparse.ArgumentParser(description="Trainings in one process.")
    parser.add_argument("--trainings", type=int, default=100)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "temporary").mkdir()
        tempfile.tempdir = str(Path(folder) / "temporary")
        started = time.monotonic()
        found = trainings(Path(folder), chosen.trainings)
        seconds = time.monotonic() - started
    grown = growth(found, WARM_UP)
    print(f"{chosen.trainings} trainings of two steps in {seconds:.0f} s\n")
    print(f"| | after {WARM_UP} trainings | after {chosen.trainings} | growth |")
    print("|---|---|---|---|")
    for part, title in (("memory", "memory, MB"), ("files", "open files"), ("threads", "threads"),
                        ("temporary", "temporary files")):  # fmt: skip
        first, last, more = (getattr(h, part) for h in (found[WARM_UP], found[-1], grown))
        print(f"| {title} | {first:.0f} | {last:.0f} | {more:.0f} |")
    return not is_flat(grown)


def is_flat(grown: Held) -> bool:
    """Memory may vary by what the allocator keeps; all else may not."""
    return grown.memory < 20 and (grown.files, grown.threads, grown.temporary) == (0, 0, 0)


if __name__ == "__main__":
    sys.exit(run_from_shell())
