"""Does this checkout train what an earlier one trained? To the last digit, on one machine.

    python numbers_stay.py record [FILE]     # with the earlier checkout on PYTHONPATH
    python numbers_stay.py compare [FILE]    # with this one; exit 1 names what moved

FILE is before.json beside this script if none is given.

Both train the demo's four runs, and every method in every setup for thirty iterations a step, and
keep what each left: mIoU of every class and step, every logged loss, and a checksum of the weights.
Digits agree on one processor with one thread and one PyTorch only; another gives others.
"""

import argparse
import csv
import hashlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

RECORD = Path(__file__).with_name("before.json")
# Named here and not imported: what is compared is the same, whatever methods either checkout has.
METHODS = (
    "FT", "Joint", "LwF", "LwF-MC", "ILT", "EWC", "RW", "PI", "CIL", "MiB", "PLOP", "SDR",
    "SDR+MiB", "SSUL-like", "MiB+EWF",
)  # fmt: skip
SETUPS = ("sequential", "disjoint", "overlapped")
RELEASED = ("--set", "method.variant=released")
MINIVOC = ("--dataset", "minivoc", "--task", "6-4", "--set", "optim.iterations=30")
# One order of sums.
FIXED = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
# Seconds differ every time; the rest a later edition may add to.
KEPT = ("task", "setup", "method", "dataset", "seed", "label_policy", "classes", "images", "steps",
        "images_sha256", "forgetting")  # fmt: skip


def commands(folder: Path) -> dict[str, list[str]]:
    """Name -> arguments of `sparcl`: everything that is trained."""
    asked = {"demo": ["demo", "--out", str(folder / "demo")]}
    for method, setup in itertools.product(METHODS, SETUPS):
        name = f"{method}-{setup}"
        how = ("--method", method, "--setup", setup, "--out", str(folder / name))
        asked[name] = ["train", *MINIVOC, *how]
    for setup in SETUPS:
        name = f"SDR-released-{setup}"
        how = ("--method", "SDR", "--setup", setup, "--out", str(folder / name), *RELEASED)
        asked[name] = ["train", *MINIVOC, *how]
    return asked


def train_all(folder: Path, jobs: int) -> None:
    def train(arguments: list[str]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "sparcl_lib", *arguments],
            cwd=folder, env={**os.environ, **FIXED}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")

    asked = commands(folder)
    with ThreadPoolExecutor(jobs) as pool:
        list(tqdm(pool.map(train, asked.values()), "runs", len(asked)))


def checksum(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def outcome(run: Path) -> dict[str, Any]:
    """What one run left, times and paths aside."""
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    left = {"metrics": {key: metrics[key] for key in KEPT}, "weights": {}, "logs": {}}
    for file in sorted(run.glob("step-*/checkpoint.pt")):
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        left["weights"][file.parent.name] = {
            part: checksum(checkpoint[part]) for part in ("model", "bank")
        }
    for file in sorted(run.glob("logs/step-*/metrics.csv")):
        with file.open(encoding="utf-8", newline="") as rows:
            left["logs"][file.parent.name] = [_by_first_names(row) for row in csv.DictReader(rows)]
    return left


def _by_first_names(row: dict[str, str]) -> dict[str, str]:
    """The first edition logged the released losses of SDR under the names of their formulas."""
    return {name.removeprefix("released_"): value for name, value in row.items()}


def outcomes(jobs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        train_all(folder, jobs)
        runs = {path.parent.relative_to(folder).as_posix(): path.parent
                for path in sorted(folder.rglob("metrics.json"))}  # fmt: skip
        return {name: outcome(run) for name, run in runs.items()}


def differences(before: Any, now: Any, place: str = "") -> list[str]:
    """Where two outcomes differ, a line each."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(before.keys() | now.keys())
            for line in differences(before.get(key), now.get(key), f"{place}/{key}")
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [line for n, (a, b) in pairs for line in differences(a, b, f"{place}/{n}")]
    return [] if before == now else [f"{place}: {before} before, {now} now"]


def machine() -> dict[str, str]:
    return {
        "processor": platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=Path, nargs="?", default=RECORD)
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    arguments = parser.parse_args()
    found = outcomes(arguments.jobs)
    if arguments.what == "record":
        record = {"machine": machine(), "runs": found}
        arguments.file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"{len(found)} runs recorded in {arguments.file}")
        return
    record = json.loads(arguments.file.read_text(encoding="utf-8"))
    if record["machine"] != machine():
        sys.exit(f"recorded on {record['machine']}, this is {machine()}: record here first")
    moved = differences(record["runs"], found)
    print("\n".join(moved[:40]) or f"{len(found)} runs: every number as recorded")
    sys.exit(1 if moved else 0)


if __name__ == "__main__":
    main()
