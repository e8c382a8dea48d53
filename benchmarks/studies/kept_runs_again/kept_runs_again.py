"""Are the runs that come with the course what this code trains? Three of them trained anew.

    python kept_runs_again.py           # trains with every set of instructions; writes results.csv
    python kept_runs_again.py --one     # this processor's own alone, printed

Step 0, FT and MiB on 6-4, disjoint, seed 0, in an empty store and on one thread. The instructions
of older processors stand for other machines: what they differ by is what a kept run may differ by.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from io import StringIO
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from sparcl_lib.config import resolve
from sparcl_lib.course.runs import SHIPPED
from sparcl_lib.experiments.pool import one_thread
from sparcl_lib.experiments.store import RunStore, run_keys
from sparcl_lib.training import RunDirectory, train

METHODS = ("FT", "MiB")
INSTRUCTIONS = {
    "own": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "AVX2"},
    "SSE4.1": {"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41"},
}
RESULTS = Path(__file__).with_name("results.csv")
COLUMNS = ["run", "step", "measure"]


def numbers(run: Path) -> dict[tuple[str, int, str], float]:
    """(kind of run, step, measure) -> value: mIoU and class IoU in percent, last logged losses."""
    directory, kind = RunDirectory(run), run.name.partition("-")[0]
    found = {}
    for row in directory.metrics()["steps"]:
        if kind == "first" or row["step"] > 0:
            key = kind, row["step"]
            found[(*key, "miou_all")] = row["miou_all"]
            found |= {(*key, f"IoU {name}"): iou for name, iou in row["class_iou"].items()}
    for log in sorted(run.glob("logs/step-*/metrics.csv")):
        step = int(log.parent.name.removeprefix("step-"))
        last = pd.read_csv(log).iloc[-1].drop(["step", "lr"])
        found |= {(kind, step, f"last {name}"): value for name, value in last.items()}
    return found


def shipped_and_again() -> pd.DataFrame:
    """Index COLUMNS, columns shipped and again."""
    shipped, again = {}, {}
    with tempfile.TemporaryDirectory() as folder, one_thread():
        store = RunStore((Path(folder),), partial(train, accelerator="cpu"))
        for method in METHODS:
            config = resolve("minivoc", method, task="6-4", setup="disjoint", seed=0)
            keys = run_keys(config)
            store.fetch(config, keys)
            for name in keys:
                shipped |= numbers(SHIPPED / name)
                again |= numbers(Path(folder, name))
    table = pd.DataFrame({"shipped": shipped, "again": again})
    return table.rename_axis(COLUMNS)


def with_instructions(variables: dict[str, str]) -> pd.DataFrame:
    done = subprocess.run(
        [sys.executable, __file__, "--one"],
        env={**os.environ, **variables, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return pd.read_csv(StringIO(done.stdout), index_col=COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", action="store_true", help="train once, print, write nothing")
    if parser.parse_args().one:
        shipped_and_again().round(4).to_csv(sys.stdout)
        return
    tables = {name: with_instructions(INSTRUCTIONS[name]) for name in tqdm(INSTRUCTIONS)}
    columns = {"shipped": tables["own"]["shipped"]}
    columns |= {name: table["again"] for name, table in tables.items()}
    table = pd.DataFrame(columns)
    table.to_csv(RESULTS)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    print(table.drop(columns="shipped").sub(table["shipped"], axis=0).round(2).to_string())


if __name__ == "__main__":
    main()
