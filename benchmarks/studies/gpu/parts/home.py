"""What a GPU trained, on a CPU: evaluated again, and gone on with."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sparcl_lib.training import RunDirectory, evaluate, train


def check(run: Path, data_root: Path | None) -> dict[str, Any]:
    """A run as the GPU left it, against its copy that the CPU evaluates and trains again.

    Largest difference of an IoU in points; share of the pixels of its pictures that are equal; and,
    where step 0 is there, what all classes reach when the CPU trains the later steps anew.
    """
    given = RunDirectory(run)
    before = {row["step"]: row for row in given.metrics()["steps"]}
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place, "run")
        shutil.copytree(run, copy)
        root = None if data_root is None else str(data_root)
        after = evaluate(copy, data_root=root, accelerator="cpu", devices=1)["steps"]
        here = RunDirectory(copy)
        found: dict[str, Any] = {
            f"step {row['step']}": {
                "largest difference of an IoU": _apart(before[row["step"]], row),
                "equal pixels": _equal(given, here, row["step"]),
            }
            for row in after
        }
        steps = here.steps_done()
        if steps[0] == 0 and len(steps) > 1:
            for step in steps[1:]:
                shutil.rmtree(copy / f"step-{step}")
            again = train(here.config(), copy, resume=True, accelerator="cpu", devices=1)["steps"]
            found["trained on by the CPU"] = {
                "miou_all": again[-1]["miou_all"], "on the GPU": before[steps[-1]]["miou_all"]
            }  # fmt: skip
    return found


def _apart(a: dict[str, Any], b: dict[str, Any]) -> float:
    pairs = zip(a["class_iou"].values(), b["class_iou"].values(), strict=True)
    return max((abs(x - y) for x, y in pairs if x is not None and y is not None), default=0.0)


def _equal(a: RunDirectory, b: RunDirectory, step: int) -> float | None:
    pictures = a.predictions(step), b.predictions(step)
    if None in pictures:
        return None
    maps = [p["prediction"] for p in pictures if p is not None]
    return float(np.mean(maps[0] == maps[1]))
