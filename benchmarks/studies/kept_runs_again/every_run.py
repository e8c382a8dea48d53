"""All runs that come with the course trained anew, beside what ships, and the chapters on them.

    python every_run.py [--store FOLDER] [--jobs N]     # or: make again

Writes runs.csv (mIoU and IoU after every step, of what ships and of the new run) and chapters.csv
(seconds, and what failed: a chapter asserts what it says). Exit 1 if a chapter's claim does not
hold with the new runs. --store keeps the runs; called again with it, the command goes on where it
stopped.
"""

import argparse
import re
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode

from sparcl_lib.config import RunConfig
from sparcl_lib.course.build import execute
from sparcl_lib.course.chapter import NOTEBOOKS, read_chapters, render
from sparcl_lib.course.runs import CACHE_VARIABLE, SHIPPED
from sparcl_lib.experiments.pool import run_all, title
from sparcl_lib.experiments.store import RunStore, run_keys
from sparcl_lib.progress import tqdm
from sparcl_lib.training import RunDirectory, train

HERE = Path(__file__).parent
GOES_ON = "raises-exception"  # nbclient: the cells after it run, too


def shipped_runs() -> dict[str, RunConfig]:
    """Key -> configuration, of all that come with the course but steps 0, which these share."""
    folders = sorted(path for path in SHIPPED.iterdir() if not path.name.startswith("first-"))
    configs = {path.name: RunDirectory(path).config() for path in folders}
    strangers = [name for name, config in configs.items() if run_keys(config).run != name]
    if strangers:
        sys.exit(f"kept under another key than this library looks for: {', '.join(strangers)}")
    return configs


def numbers(folder: Path) -> dict[tuple[int, str], float]:
    """(step, measure) -> percent: mIoU of all, old and new classes, and IoU of each."""
    found = {}
    for row in RunDirectory(folder).metrics()["steps"]:
        ious = {f"IoU {name}": iou for name, iou in row["class_iou"].items()}
        means = {name: row[name] for name in ("miou_all", "miou_old", "miou_new")}
        found |= {(row["step"], name): iou for name, iou in (means | ious).items()}
    return found


def compare(configs: dict[str, RunConfig], store: Path) -> pd.DataFrame:
    """A row per key, step and measure: what ships and what the new run has."""
    firsts = {run_keys(config).first: config for config in configs.values()}
    rows = []
    for key, config in (firsts | configs).items():
        ships, again = numbers(SHIPPED / key), numbers(store / key)
        rows += [
            (key, title(config), *at, ships[at], again.get(at)) for at in ships
            if (key in firsts) or at[0] > 0
        ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["key", "run", "step", "measure", "shipped", "again"])
    return table.dropna(subset="shipped")


def failures(notebook: NotebookNode, store: Path) -> tuple[float, list[str]]:
    """Seconds of a chapter on the runs in `store`, and a line for each cell that failed."""
    watched = [
        cell for cell in notebook.cells
        if cell.cell_type == "code" and GOES_ON not in cell.metadata.setdefault("tags", [])
    ]  # fmt: skip
    for cell in watched:
        cell.metadata.tags.append(GOES_ON)
    seconds = execute(notebook, NOTEBOOKS, {CACHE_VARIABLE: str(store)})
    errors = [output for cell in watched for output in cell.outputs if "ename" in output]
    return seconds, [f"{e.ename} at {line_of(e)} {e.evalue}".strip() for e in errors]


def line_of(error: NotebookNode) -> str:
    """The line of the cell that failed: an assert says nothing else of itself."""
    lines = strip_ansi("\n".join(error.traceback)).splitlines()
    return next((line for line in lines if re.match("-+> ", line)), "an unknown line")


def run_chapters(store: Path) -> pd.DataFrame:
    chapters, rows = read_chapters(NOTEBOOKS / "sources"), []
    for place, chapter in enumerate(tqdm(chapters, "chapters")):
        seconds, failed = failures(render(chapters, place, None), store)
        rows.append((chapter.name, round(seconds, 1), "; ".join(failed)))
    return pd.DataFrame(rows, columns=["chapter", "seconds", "failed"])


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """mIoU of all classes per run and step, with the difference and the class that moved most."""
    moved = (runs.again - runs.shipped).abs()
    worst = moved.groupby([runs.key, runs.run, runs.step], sort=False).max()
    means = runs[runs.measure == "miou_all"].set_index(["key", "run", "step"])
    table = means[["shipped", "again"]].assign(difference=means.again - means.shipped)
    return table.assign(worst_class=worst)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, help="keep the runs there, and go on with them")
    parser.add_argument("--jobs", type=int, help="runs side by side (default: one per core)")
    asked, started = parser.parse_args(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store, configs = asked.store or Path(folder), shipped_runs()
        fit = partial(train, accelerator="cpu")
        errors = run_all(configs.values(), RunStore((store,), fit), asked.jobs).errors
        if errors:
            sys.exit("\n".join(errors))
        trained = time.perf_counter() - started
        runs = compare(configs, store)
        runs.round(4).to_csv(HERE / "runs.csv", index=False)
        chapters = run_chapters(store.resolve())
    chapters.to_csv(HERE / "chapters.csv", index=False)
    minutes = [f"{seconds / 60:.0f}" for seconds in (trained, time.perf_counter() - started)]
    print(summary(runs).round(2).to_string())
    print(chapters.to_string())
    print(f"{len(configs)} runs in {minutes[0]} minutes, with the chapters {minutes[1]}; "
          f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")  # fmt: skip
    sys.exit(1 if chapters.failed.any() else 0)


if __name__ == "__main__":
    main()
