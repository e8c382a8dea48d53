"""Every method on MiniVOC under the same conditions: the tables of docs/minivoc_comparison.html.

    python benchmarks/studies/minivoc_comparison/minivoc_comparison.py [--store runs/minivoc]
    python benchmarks/studies/minivoc_comparison/minivoc_comparison.py --page

6-4 in the three setups and 6-1 overlapped (200 iterations for each of its smaller steps) on three
seeds, on five for the methods in question, and for those 6-1 in another class order. Runs go to
the store, so that a second call trains only what is missing. Writes results.csv beside this file (a
row per run and step) and, from it, the page; --page writes the page alone and trains nothing.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from sparcl_lib.data import open_source, partition, scan
from sparcl_lib.experiments.base import RunBase, open_store
from sparcl_lib.experiments.comparison import (
    Block,
    compare,
    comparison_text,
    write_comparison_page,
)
from sparcl_lib.methods import METHODS
from sparcl_lib.report import ReportRun
from sparcl_lib.report.tables import MEASURES
from sparcl_lib.tasks import get_task
from sparcl_lib.writing import write_atomically

HERE = Path(__file__).parent
TABLE = HERE / "results.csv"
PAGE = HERE.parents[2] / "docs" / "minivoc_comparison.html"
# From where the command is given: a run is kept under the name of its task.
PERMUTED = os.path.relpath(HERE / "permuted.yaml")
COMMAND = "python benchmarks/studies/minivoc_comparison/minivoc_comparison.py"
IN_QUESTION = ("FT", "MiB", "SDR", "SDR+MiB", "Joint")
TASKS = [("6-4", "sequential"), ("6-4", "disjoint"), ("6-4", "overlapped"), ("6-1", "overlapped")]


def blocks() -> list[Block]:
    """All runs of the comparison; those of the first seeds come first."""
    all_methods = [b for where in TASKS for b in sides(*where, METHODS, range(3))]
    more_seeds = [b for where in TASKS for b in sides(*where, IN_QUESTION, range(3, 5))]
    return [*all_methods, *more_seeds, *sides(PERMUTED, "overlapped", IN_QUESTION, range(3))]


def sides(task: str, setup: str, methods: Iterable[str], seeds: range) -> list[Block]:
    """Continual methods, whose steps of one class are shorter, and joint training."""
    shorter = () if task == "6-4" else ({"optim": {"iterations": [600, 200]}},)
    base = RunBase(dataset="minivoc", task=task, setup=setup)
    continual = [method for method in methods if method != "Joint"]
    return [
        Block(replace(base, overrides=shorter), continual, seeds),
        Block(base, ["Joint"], seeds),
    ]


def runs_of(table: pd.DataFrame) -> list[ReportRun]:
    """The runs as far as results.csv knows them: means after every step, no class by itself."""
    source = open_source("minivoc")
    presence = scan(source, "train")
    data = RunBase(dataset="minivoc", task="6-4", setup="disjoint").config("FT", 0).data
    runs = []
    for _, rows in table.groupby("run", sort=False):
        first = rows.iloc[0]
        name = first.task if first.task != "6-1 permuted" else str(HERE / "permuted.yaml")
        task = get_task("minivoc", name, classes=source.classes)
        images = partition(presence, task, first.setup)
        steps = [
            {"step": row.step, "class_iou": {},
             **{m: None if pd.isna(row[m]) else row[m] for m in MEASURES}}
            for _, row in rows.iterrows()
        ]  # fmt: skip
        metrics = {
            **{key: first[key] for key in ("dataset", "task", "setup", "method", "seed")},
            "classes": [[task.classes[c] for c in step] for step in task.steps],
            "label_policy": {"border": data.border, "future": data.future},
            "images": {"0": len(set().union(*images.values()))} if first.method == "Joint"
            else {str(step): len(ids) for step, ids in images.items()},
            "seconds": rows.seconds.tolist(), "steps": steps,
        }  # fmt: skip
        runs.append(ReportRun(metrics))
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, help="runs side by side; one per core if not given")
    parser.add_argument("--store", type=Path, default=Path("runs", "minivoc"))
    parser.add_argument("--page", action="store_true", help="make the page from results.csv alone")
    arguments = parser.parse_args()
    errors: list[str] = []
    if not arguments.page:
        comparison = compare(blocks(), open_store(arguments.store), arguments.jobs)
        measured = comparison.table().round(4)
        write_atomically(TABLE, lambda draft: measured.to_csv(draft, index=False))
        print(comparison_text(comparison))
        errors = comparison.errors
    table = pd.read_csv(TABLE)
    write_comparison_page(runs_of(table), table, PAGE, [COMMAND], links=False)
    sys.exit("\n".join(errors) or 0)


if __name__ == "__main__":
    main()
