"""Every method on MiniVOC under the same conditions: the tables of docs/minivoc_comparison.html.

    python benchmarks/studies/minivoc_comparison/minivoc_comparison.py [--store runs/minivoc]

6-4 in the three setups and 6-1 overlapped (200 iterations for each of its smaller steps) on three
seeds, on five for the methods in question, and for those 6-1 in another class order. Runs go to
the store, so that a second call trains only what is missing. Writes results.csv beside this file (a
row per run and step) and the page.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sparcl_lib.experiments.base import RunBase, open_store
from sparcl_lib.experiments.comparison import (
    Block,
    compare,
    comparison_text,
    write_comparison,
)
from sparcl_lib.methods import METHODS

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, help="runs side by side; one per core if not given")
    parser.add_argument("--store", type=Path, default=Path("runs", "minivoc"))
    arguments = parser.parse_args()
    comparison = compare(blocks(), open_store(arguments.store), arguments.jobs)
    write_comparison(comparison, TABLE, PAGE, [COMMAND])
    print(comparison_text(comparison))
    sys.exit("\n".join(comparison.errors) or 0)


if __name__ == "__main__":
    main()
