"""Could workers of dask on this machine stand in for our pool of processes? Seconds of either.

    python benchmarks/studies/pool_or_dask/pool_or_dask.py [--repeats 3] [--iterations 40]

The same eight runs of FT on MiniVOC, two at a time, in an empty store each time: by the pool that
`compare`, `ablate` and `sweep` use, and by a LocalCluster of dask with two workers of one thread,
reached as `--cluster` reaches any. Both begin with nothing started, each time in a process of its
own: dask leaves MALLOC_TRIM_THRESHOLD_ in the environment of the process that has started it, and
what is trained from there later is slower for it. Writes results.csv beside this script, and says
whether the numbers are the same.
"""

import argparse
import csv
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from sparcl_lib.config import RunConfig, resolve
from sparcl_lib.experiments.cluster import Cluster
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.experiments.store import RunStore
from sparcl_lib.training import train

HERE = Path(__file__).parent
SEEDS = range(8)
SIDE_BY_SIDE = 2
Numbers = list[list[float]]
Way = Callable[[list[RunConfig], Path], Numbers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=40, help="of each step")
    arguments = parser.parse_args()
    settings = {"optim.iterations": [arguments.iterations] * 2}
    configs = [
        resolve("minivoc", "FT", [settings, {"seed": seed}], task="6-4", setup="disjoint")
        for seed in SEEDS
    ]
    rows, numbers = [], []
    for repeat in range(arguments.repeats):
        for name, way in {"pool": by_pool, "dask": by_dask}.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own:
                found, seconds = own.submit(timed, way, configs).result()
            numbers.append(found)
            rows.append({"way": name, "repeat": repeat, "seconds": round(seconds, 1)})
            print(rows[-1], flush=True)
    same = all(found == numbers[0] for found in numbers)
    print(f"the same numbers: {'yes' if same else 'no'}")
    with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def timed(way: Way, configs: list[RunConfig]) -> tuple[Numbers, float]:
    """What a way finds, in an empty store, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        return way(configs, Path(folder)), time.perf_counter() - began


def by_pool(configs: list[RunConfig], folder: Path) -> Numbers:
    store = RunStore((folder,), partial(train, accelerator="cpu", devices=1))
    return numbers_of(configs, store)


def by_dask(configs: list[RunConfig], folder: Path) -> Numbers:
    import distributed

    with distributed.LocalCluster(
        n_workers=SIDE_BY_SIDE, threads_per_worker=1, memory_limit=0, dashboard_address=":0"
    ) as workers:
        cluster = Cluster(workers.scheduler_address)
        try:
            return numbers_of(configs, cluster.store((folder,), "cpu"))
        finally:
            cluster.close()


def numbers_of(configs: list[RunConfig], store: RunStore) -> Numbers:
    """mIoU of all classes by step. Raises RuntimeError if a run failed."""
    outcomes = run_all(configs, store, SIDE_BY_SIDE)
    if outcomes.errors:
        raise RuntimeError(outcomes.errors[0])
    return [[s["miou_all"] for s in run.metrics["steps"]] for run in outcomes.runs if run]


if __name__ == "__main__":
    main()
