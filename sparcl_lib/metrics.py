"""From one int64 confusion matrix per step to mIoU old / new / all, forgetting and the step matrix.

IoU is taken per class over all pixels of the evaluation images (never per image), in percent.
A class of which the truth holds no pixel has no IoU (NaN, null in JSON) and enters no mean,
whatever is predicted: means of several runs are then over the same classes. What is predicted as
such a class is a miss of another one, and counted there. The background is no exception: it has no
IoU where data.zero and data.future leave all its pixels out.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sparcl_lib.tasks.classes import BACKGROUND_NAME

if TYPE_CHECKING:
    import pandas as pd


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """(K, K) counts, rows truth, columns prediction -> (K,) IoU in percent, NaN for a class without
    a pixel in the truth.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    known = confusion.any(axis=1)
    return np.where(known, 100 * hit / np.where(known, union, 1), np.nan)


def mean_iou(ious: Iterable[float]) -> float:
    """Mean over the classes that have an IoU; NaN if none has."""
    known = [iou for iou in ious if not np.isnan(iou)]
    return float(np.mean(known)) if known else float("nan")


def untested_classes(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Classes known after the last of these steps of which no tested pixel is, so that they are in
    no mean; steps: as of `StepMatrix.to_results`. Background is not meant: it may be left out."""
    known = steps[-1]["class_iou"] if steps else {}
    return [name for name, iou in known.items() if iou is None and name != BACKGROUND_NAME]


@dataclass
class StepMatrix:
    """IoU of every class after every step: rows steps, columns classes in learning order.

    step_classes: names of the classes that each step adds, without background.
    "old" is everything learned before the step. SDR counts background as old, MiB's tables leave
    it out (`_no_bg`): both are given (method names as in results.json). At step 0 nothing is old.
    Published tables of several steps part the classes otherwise, whatever step they are of: step 0
    against all later ones (`miou_first`, `miou_later`).
    """

    step_classes: Sequence[Sequence[str]]
    rows: dict[int, dict[str, float]] = field(default_factory=dict)
    """step -> class name -> IoU in percent."""

    def add(self, step: int, ious: Mapping[str, float]) -> None:
        """Record the IoU of each class seen so far. Raises ValueError for other classes."""
        expected = [BACKGROUND_NAME, *self.seen(step)]
        if list(ious) != expected:
            raise ValueError(f"step {step} has the classes {expected}, got {list(ious)}")
        self.rows[step] = {name: float(iou) for name, iou in ious.items()}

    def seen(self, step: int) -> list[str]:
        """Classes learned up to and including step, without background."""
        return [name for names in self.step_classes[: step + 1] for name in names]

    def old(self, step: int) -> list[str]:
        """Classes learned before step, without background; none at step 0."""
        return self.seen(step - 1) if step > 0 else []

    def _mean(self, step: int, names: Iterable[str]) -> float:
        return mean_iou(self.rows[step][name] for name in names)

    def miou_old(self, step: int) -> float:
        """Percent, after step, of background and the classes of earlier steps; NaN at step 0."""
        old = self.old(step)
        return self._mean(step, [BACKGROUND_NAME, *old] if old else [])

    def miou_old_no_bg(self, step: int) -> float:
        """Percent, after step, of the classes of earlier steps; NaN at step 0."""
        return self._mean(step, self.old(step))

    def miou_new(self, step: int) -> float:
        """Percent, after step, of the classes that it adds."""
        return self._mean(step, self.step_classes[step])

    def miou_all(self, step: int) -> float:
        """Percent, after step, of background and all classes seen so far."""
        return self._mean(step, [BACKGROUND_NAME, *self.seen(step)])

    def miou_all_no_bg(self, step: int) -> float:
        """Percent, after step, of all classes seen so far."""
        return self._mean(step, self.seen(step))

    def miou_first(self, step: int) -> float:
        """Percent, after step, of background and the classes of step 0: what published tables, such
        as those of 15-1, call old."""
        return self._mean(step, [BACKGROUND_NAME, *self.step_classes[0]])

    def miou_first_no_bg(self, step: int) -> float:
        """Percent, after step, of the classes of step 0."""
        return self._mean(step, self.step_classes[0])

    def miou_later(self, step: int) -> float:
        """Percent, after step, of the classes of all steps from 1 on, up to it: what published
        tables call new; NaN at step 0."""
        return self._mean(step, self.seen(step)[len(self.step_classes[0]) :])

    def average_miou(self) -> float:
        """Percent: mean over the recorded steps of miou_all ("avg" of the MiB and PLOP tables)."""
        return mean_iou(self.miou_all(step) for step in self.rows)

    def forgetting(self) -> dict[str, float]:
        """Per class of an earlier step: best IoU at an earlier step minus the last one, in points.

        Source: Chaudhry et al. (ECCV 2018), equation 3, with IoU for accuracy. Negative when a
        class got better; empty for fewer than two steps. NaN for a class without an IoU
        after the last step: no test image shows it.
        """
        steps = sorted(self.rows)
        last, earlier = steps[-1:], steps[:-1]
        result = {}
        for name in self.old(last[0]) if last else []:
            history = [self.rows[s][name] for s in earlier if name in self.rows[s]]
            known = [iou for iou in history if not np.isnan(iou)]
            if known:
                result[name] = max(known) - self.rows[last[0]][name]
        return result

    def intransigence(self, joint: "StepMatrix") -> dict[str, float]:
        """Per class of a later step: IoU of joint training minus that right after it, in points.

        joint: the matrix of joint training on the same task; without rows there is no class.

        Source: Chaudhry et al. (ECCV 2018), intransigence measure, with IoU for accuracy. There
        the reference of a step is trained on the classes up to it; here one network that learned
        all classes of the task serves every step. Negative where a class is learned better.
        """
        reference = joint.rows[max(joint.rows)] if joint.rows else {}
        result = {}
        for step in sorted(set(self.rows) - {0}):
            for name in self.step_classes[step]:
                gap = reference.get(name, np.nan) - self.rows[step][name]
                if not np.isnan(gap):
                    result[name] = gap
        return result

    def until(self, step: int) -> "StepMatrix":
        """The matrix as it was after a step."""
        return StepMatrix(self.step_classes, {k: r for k, r in self.rows.items() if k <= step})

    def to_frame(self) -> "pd.DataFrame":
        """Rows steps, columns classes (background first); NaN where not learned yet."""
        import pandas as pd  # here: it is slow to import, and no training needs it

        last = max(self.rows, default=0)
        frame = pd.DataFrame.from_dict(self.rows, orient="index")
        return frame.reindex(index=sorted(self.rows), columns=[BACKGROUND_NAME, *self.seen(last)])

    def to_results(self) -> list[dict[str, Any]]:
        """The "steps" of results.json and metrics.json: percent, None where there is no value."""
        names = ("miou_old", "miou_new", "miou_all", "miou_old_no_bg", "miou_all_no_bg")
        return [
            {
                "step": step,
                **{name: json_number(getattr(self, name)(step)) for name in names},
                "class_iou": {n: json_number(iou) for n, iou in self.rows[step].items()},
            }
            for step in sorted(self.rows)
        ]

    @classmethod
    def from_results(
        cls, step_classes: Sequence[Sequence[str]], steps: Iterable[Mapping[str, Any]]
    ) -> "StepMatrix":
        """The inverse of `to_results`."""
        matrix = cls(step_classes)
        for entry in steps:
            ious = {n: np.nan if v is None else v for n, v in entry["class_iou"].items()}
            matrix.add(entry["step"], ious)
        return matrix


def json_number(value: float) -> float | None:
    """Four digits after the point; None for NaN, which JSON does not have."""
    return None if np.isnan(value) else round(value, 4)


def format_mean(mean: float | None, deviation: float = float("nan")) -> str:
    """`61.2`, `61.2 ± 0.4`, or a dash for no value."""
    if mean is None or np.isnan(mean):
        return "–"
    text = f"{mean:z.1f}"  # no -0.0
    return text if np.isnan(deviation) else f"{text} ± {deviation:.1f}"


def mean_columns(table: "pd.DataFrame", titles: Mapping[str, str]) -> dict[str, list[str]]:
    """Title -> the column as `format_mean` has it, with its deviations (`_std`)."""
    return {
        title: [format_mean(m, d) for m, d in zip(table[name], table[f"{name}_std"], strict=True)]
        for name, title in titles.items()
    }


def dump_json(content: Any) -> str:
    """Stable, readable JSON without NaN (which JSON does not have)."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
