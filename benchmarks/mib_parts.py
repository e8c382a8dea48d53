"""MiB on MiniVOC 6-4 disjoint without each of its three parts, over seeds: the table of chapter 04.

    python benchmarks/mib_parts.py [--seeds 0 1 2] [--jobs 2]

Writes benchmarks/mib_parts.csv: mIoU in percent after step 1, old without background. Runs are kept
in the course's cache, so that a second call trains only what is new.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import torch

from sparcl_lib.course import minivoc_config, run_or_load

TABLE = Path(__file__).with_suffix(".csv")
VARIANTS = {
    "MiB": (),
    "biased CE": ("method.terms.ce.unbiased=false",),
    "biased KD": ("method.terms.kd.unbiased=false",),
    "random start": ("method.classifier_init=random",),
}


def measure(variant: str, seed: int) -> dict[str, object]:
    """One row of the table."""
    torch.set_num_threads(1)
    matrix = run_or_load(minivoc_config("MiB", *VARIANTS[variant], seed=seed)).matrix
    scores = {"old": matrix.miou_old_no_bg(1), "new": matrix.miou_new(1), "all": matrix.miou_all(1)}
    rounded = {name: round(score, 2) for name, score in scores.items()}
    return {"variant": variant, "seed": seed, **rounded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    arguments = parser.parse_args()
    for seed in arguments.seeds:  # step 0 of each seed once, before runs that share it
        measure("MiB", seed)
    jobs = [(variant, seed) for variant in VARIANTS for seed in arguments.seeds]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        rows = list(pool.map(measure, *zip(*jobs)))
    table = pd.DataFrame(rows)
    table.to_csv(TABLE, index=False)
    print(table.groupby("variant", sort=False)[["old", "new", "all"]].agg(["mean", "std"]).round(1))


if __name__ == "__main__":
    main()
