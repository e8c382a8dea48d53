"""How to share the cores: one run after another on all threads, or side by side on one thread each.

    python benchmarks/studies/lanes/lanes.py [--iterations 100] [--repeats 3]

Trains two steps of SDR on MiniVOC 6-4; arrangements alternate, the table shows medians: seconds of
the two steps as the run says them, and runs that would be done in an hour. Run it on an idle
machine. Writes lanes.csv beside this file.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from sparcl_lib.cores import cores
from sparcl_lib.training.run_directory import RunDirectory

TABLE = Path(__file__).with_suffix(".csv")
RUN = ["train", "--dataset", "minivoc", "--task", "6-4", "--method", "SDR", "--accelerator", "cpu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    arrangements = [(1, 1), (1, cores()), (cores(), 1)]
    rounds = [lanes for _ in range(arguments.repeats) for lanes in arrangements]
    rows = [
        {"runs side by side": lanes, "threads a run": threads, "seconds": seconds}
        for lanes, threads in tqdm(rounds, "rounds")
        for seconds in together(lanes, threads, arguments.iterations)
    ]
    names = ["runs side by side", "threads a run"]
    table = pd.DataFrame(rows).groupby(names)["seconds"].median().round(1).reset_index()
    table["runs per hour"] = (3600 * table["runs side by side"] / table["seconds"]).round(0)
    table["machine"] = f"{platform.machine()}, {cores()} cores"
    table["torch"] = torch.__version__
    table.to_csv(TABLE, index=False)
    print(table.to_string(index=False))


def together(lanes: int, threads: int, iterations: int) -> list[float]:
    """Seconds of the training and evaluation of each of several runs begun at the same time."""
    settings = ["--set", f"optim.iterations=[{iterations}, {iterations}]"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, str(lane)) for lane in range(lanes)]
        commands = [
            [sys.executable, "-m", "sparcl_lib", *RUN, *settings, "--out", place]
            for place in places
        ]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        begun = [subprocess.Popen(command, env=environment, **quiet) for command in commands]
        statuses = [process.wait() for process in begun]  # wait for all, whatever the first says
        if any(statuses):
            sys.exit(f"a training run failed; try it alone: sparcl {' '.join(RUN)} --out DIR")
        return [sum(RunDirectory(place).metrics()["seconds"]) for place in places]


if __name__ == "__main__":
    main()
