"""Where are the old classes lost, asked among the same names before a step and after it?

    python benchmarks/studies/old_names/old_names.py [--store runs/minivoc]

The runs of latent_terms (MiniVOC 6-1 overlapped), latent_chapters (6-4 disjoint) and
on_top_of_others (6-4 in both setups) that stand below, seeds 0, 1, 2; missing ones are trained.
Writes old_names.csv beside this file, or into --out: a row per run and step with the drift of the
class means since step 0, in percent of their mean distance there, and what `old_read` of
sparcl_lib.experiments.feature_table measures of the six classes of step 0, in percent of their
locations on the test images.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from sparcl_lib.experiments.base import RunBase, Variant, open_store, read_variants
from sparcl_lib.experiments.feature_table import feature_table, old_read
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.writing import write_csv

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
ONE_BY_ONE = RunBase(
    dataset="minivoc", task="6-1", setup="overlapped",
    overrides=({"optim": {"iterations": [600, 200]}},),
)  # fmt: skip
FOUR_AT_ONCE = {
    setup: RunBase(dataset="minivoc", task="6-4", setup=setup)
    for setup in ("disjoint", "overlapped")
}
BASES = ("FT", "LwF", "ILT", "MiB", "PLOP", "SSUL-like", "MiB+EWF")


def of_study(study: str, *names: str) -> list[Variant]:
    """Rows of a study's variants.yaml."""
    known = {v.name: v for v in read_variants(HERE.parent / study / "variants.yaml")}
    return [known[name] for name in names]


def blocks() -> list[tuple[RunBase, list[str | Variant]]]:
    """What is measured: a task and setup, and methods."""
    terms = ("UCE", "UCE + matching", "UCE + repulsion", "MiB + matching", "MiB + repulsion")
    with_terms = of_study("latent_chapters", *terms)
    ladder = of_study(
        "latent_terms", "UCE", "UCE + matching 0.1", "LwF", "MiB", "MiB + matching 0.1"
    )
    return [
        (ONE_BY_ONE, [*ladder]),
        (FOUR_AT_ONCE["disjoint"], [*with_terms, *BASES]),
        (FOUR_AT_ONCE["overlapped"], [*BASES]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, help="runs side by side; one per core if not given")
    parser.add_argument("--store", type=Path, default=Path("runs", "minivoc"))
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the table")
    arguments = parser.parse_args()
    store, tables, errors = open_store(arguments.store), [], []
    for base, methods in blocks():
        configs = [base.config(method, seed) for method in methods for seed in SEEDS]
        runs, failed = run_all(configs, store, arguments.jobs)
        trained = [run for run in runs if run is not None]
        rows, missing = feature_table(trained, old_read, arguments.jobs)
        rows.insert(0, "task", base.task)
        rows.insert(1, "setup", base.setup)
        tables.append(rows)
        errors += [*failed, *missing]
    write_csv(arguments.out / "old_names.csv", pd.concat(tables).round(2))
    sys.exit("\n".join(errors) or 0)


if __name__ == "__main__":
    main()
