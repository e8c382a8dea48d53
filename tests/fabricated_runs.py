"""Runs that nobody trained, for tables and pages."""

import numpy as np

from sparcl_lib.metrics import StepMatrix
from sparcl_lib.report import ReportRun
from sparcl_lib.tasks import get_task

THREE_STEPS = [["disc", "square", "ring"], ["bar"], ["moon", "star"]]
KEEP = {"FT": 0.05, "MiB": 0.9, "SDR": 0.8, "Joint": 1.0}


def make_run(method, seed=0, classes=THREE_STEPS, last=None, pictures=True, **names) -> ReportRun:
    """A plausible run: each class starts at 70 + seed and keeps a share of it at every step."""
    last = len(classes) - 1 if last is None else last
    matrix = StepMatrix(classes)
    joint = method.startswith("Joint")
    for step in [last] if joint else range(last + 1):
        ious = {"background": 90.0}
        for k, added in enumerate(classes[: step + 1]):
            ious |= dict.fromkeys(added, (70 + seed) * KEEP.get(method, 0.5) ** (step - k))
        matrix.add(step, ious)
    steps = matrix.to_results()
    metrics = {
        "task": "mine", "setup": "disjoint", "method": method, "dataset": "minivoc", "seed": seed,
        "label_policy": {"border": "background", "future": "ignore"}, "classes": classes,
        "images": {str(k): 100 + k for k in range(1 if joint else len(classes))}, "steps": steps,
        "forgetting": {}, "seconds": [10.0] * len(steps), **names,
    }  # fmt: skip
    return ReportRun(metrics, make_pictures(seed) if pictures else None)


def voc_run(method, task="15-1", **names) -> ReportRun:
    """The same in the classes of VOC, which published rows are for."""
    voc = get_task("voc", task)
    classes = [[voc.classes[c] for c in step] for step in voc.steps]
    return make_run(method, classes=classes, pictures=False, dataset="voc", task=task, **names)


def scored_run(method, seed, value, **names) -> ReportRun:
    """One with this mIoU of all classes after the last of two steps."""
    run = make_run(method, seed, [["disc"], ["bar"]], pictures=False, **names)
    run.metrics["steps"][-1]["miou_all"] = value
    return run


def make_pictures(seed=0, n=6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, (n, 4, 4), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    images = rng.integers(0, 255, (n, 64, 64, 3), dtype=np.uint8)
    return {"images": images, "truth": truth, "prediction": np.roll(truth, 1 + seed, 2)}
