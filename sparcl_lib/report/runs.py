"""Runs as they come from disk, checked, ordered and grouped."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sparcl_lib.errors import UserError
from sparcl_lib.methods import method_to_plain
from sparcl_lib.metrics import StepMatrix
from sparcl_lib.tasks.classes import BACKGROUND_NAME
from sparcl_lib.training.run_directory import RunDirectory

KEYS = ("dataset", "task", "setup", "method")


class ReportRun(NamedTuple):
    """What a report needs of a run."""

    metrics: dict[str, Any]
    """Contents of metrics.json."""
    predictions: dict[str, Any] | None = None
    """Of the last step: images (n, S, S, 3), truth and prediction (n, S, S), uint8."""
    settings: dict[str, Any] | None = None
    """Of the method, as `sparcl_lib.methods.method_to_plain` gives them; None: not known."""

    @property
    def finished(self) -> bool:
        """Whether the last step of the task was evaluated."""
        last: int = self.metrics["steps"][-1]["step"]
        return last == len(self.metrics["classes"]) - 1

    @property
    def method(self) -> str:
        """The method's name, with the last step of an unfinished run."""
        name, last = self.metrics["method"], self.metrics["steps"][-1]["step"]
        return name if self.finished else f"{name} (until step {last})"

    @property
    def joint(self) -> bool:
        """Whether all classes of several steps were learned at once, whatever the method's name."""
        return len(self.metrics["images"]) == 1 < len(self.metrics["classes"])

    @property
    def group(self) -> tuple[str, str, str]:
        """Data set, task and setup: what runs must share to be compared."""
        return self.metrics["dataset"], self.metrics["task"], self.metrics["setup"]

    def matrix(self) -> StepMatrix:
        """IoU of every class after every step."""
        return StepMatrix.from_results(self.metrics["classes"], self.metrics["steps"])


def load_runs(paths: Iterable[str | Path]) -> list[ReportRun]:
    """Read run directories.

    Raises:
        UserError: a path that is none, two runs that a table could not tell apart, or two of one
            dataset, task and setup with other classes or label rules.
    """
    paths = list(paths)
    runs = [_load(RunDirectory(path)) for path in paths]
    if not runs:
        raise UserError("no run to report: give at least one run directory")
    for k, (path, run) in enumerate(zip(paths, runs)):
        for earlier, other in zip(paths[:k], runs[:k]):
            _check_pair(earlier, other.metrics, path, run.metrics)
    return runs


def _load(directory: RunDirectory) -> ReportRun:
    if not directory.path.is_dir():
        raise UserError(f"{directory.path} is no run directory: give the --out of sparcl train")
    metrics = directory.metrics()
    if not metrics["steps"]:
        raise UserError(f"{directory.path} has no evaluated step: train it first")
    predictions = directory.predictions(len(metrics["steps"]) - 1)
    return ReportRun(metrics, predictions, method_settings(directory))


def method_settings(directory: RunDirectory) -> dict[str, Any] | None:
    """What `ReportRun.settings` is of a run; None where its configuration cannot be read."""
    try:
        return method_to_plain(directory.config().method)
    except UserError:
        return None


def label_policy(metrics: dict[str, Any]) -> dict[str, str]:
    """Label rules of a run; one from before there was a rule for value 0 took it as background."""
    return {"zero": "background", **metrics["label_policy"]}


def protocol_of_test(metrics: dict[str, Any]) -> str:
    """crop or whole, as the setting data.test; a run from before there was a choice has crop."""
    found: str = metrics.get("test", {}).get("images", "crop")
    return found


def tested_on(metrics: dict[str, Any]) -> str:
    """What of the test images was tested."""
    if protocol_of_test(metrics) == "whole":
        return "whole images at their own resolution"
    size = metrics.get("test", {}).get("size")
    return "the centre squares of the images" + (f", {size} pixels wide" if size else "")


def trained_on(runs: Iterable[ReportRun]) -> str:
    """Kinds of devices that trained the steps of some runs, such as `cpu and cuda`, as torch calls
    them; empty where a step does not say, as those of version 0.3 and before."""
    devices = {device for run in runs for device in run.metrics.get("accelerators", [None])}
    return "" if None in devices else " and ".join(sorted(devices))


def _check_pair(
    path: str | Path, one: dict[str, Any], other_path: str | Path, other: dict[str, Any]
) -> None:
    if any(one[key] != other[key] for key in KEYS[:3]):
        return
    for name, of in (
        ("classes", lambda run: run["classes"]),
        ("label policy", label_policy),
        ("test", protocol_of_test),
    ):
        if of(one) != of(other):
            raise UserError(
                f"{path} and {other_path} cannot share a table: their {name} differ; "
                f"report them one by one"
            )
    if (one["method"], one["seed"]) == (other["method"], other["seed"]):
        raise UserError(
            f"{path} and {other_path} are both {one['method']} with seed {one['seed']}: give one "
            f"of them, or train one with --set method.name=NAME"
        )


def ordered(runs: Iterable[ReportRun]) -> list[ReportRun]:
    """Groups in order of coming; in each, FT first and joint training last."""
    runs = list(runs)
    groups = list(dict.fromkeys(run.group for run in runs))

    def place(run: ReportRun) -> tuple[int, int]:
        rank = 2 if run.joint else int(run.metrics["method"] != "FT")
        return groups.index(run.group), rank

    return sorted(runs, key=place)


def by_group(runs: Iterable[ReportRun]) -> dict[tuple[str, str, str], list[ReportRun]]:
    """(dataset, task, setup) -> its runs, ordered."""
    groups: dict[tuple[str, str, str], list[ReportRun]] = {}
    for run in ordered(runs):
        groups.setdefault(run.group, []).append(run)
    return groups


def by_method(runs: Iterable[ReportRun]) -> dict[str, list[ReportRun]]:
    """Method -> its runs (seeds), ordered."""
    methods: dict[str, list[ReportRun]] = {}
    for run in ordered(runs):
        methods.setdefault(run.method, []).append(run)
    return methods


def mean_matrix(matrices: Sequence[StepMatrix]) -> StepMatrix:
    """Mean IoU over seeds of every class at every step; a seed without an IoU does not count."""
    frames = pd.concat(matrix.to_frame() for matrix in matrices)
    mean = StepMatrix(matrices[0].step_classes)
    for step, row in frames.groupby(level=0).mean().iterrows():
        mean.add(step, row[[BACKGROUND_NAME, *mean.seen(step)]].to_dict())
    return mean
