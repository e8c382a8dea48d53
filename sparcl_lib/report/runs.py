"""Runs as they come from disk, checked, ordered and grouped."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from sparcl_lib.config import RunConfig
from sparcl_lib.methods import method_to_plain
from sparcl_lib.metrics import StepMatrix
from sparcl_lib.tasks.classes import BACKGROUND_NAME
from sparcl_lib.training.content import Content

KEYS = ("dataset", "task", "setup", "method")


class ReportRun(NamedTuple):
    """What a report needs of a run."""

    metrics: dict[str, Any]
    """Contents of metrics.json."""
    predictions: dict[str, Any] | None = None
    """Of the last step: images (n, S, S, 3), truth and prediction (n, S, S), uint8."""
    config: RunConfig | None = None
    """None: not known."""
    content: Content | None = None
    """What the files of the configuration held; None: not known."""
    known_as: str | None = None
    """The method in published tables; None: its name."""
    other_terms: Mapping[int, Mapping[str, Any]] | None = None
    """Step -> what its checkpoint says of the terms that are not the library's, as of
    `training.identity.outside_facts`; None: not known."""

    @property
    def settings(self) -> dict[str, Any] | None:
        """Of the method, as `sparcl_lib.methods.method_to_plain` gives them; None: not known."""
        return None if self.config is None else method_to_plain(self.config.method)

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
        later = self.metrics["steps"][0]["step"] > 0  # whoever learns step by step begins at 0
        return bool(later and len(self.metrics["images"]) == 1)

    @property
    def group(self) -> tuple[str, str, str]:
        """Data set, task and setup: what runs must share to be compared."""
        return self.metrics["dataset"], self.metrics["task"], self.metrics["setup"]

    def named(self, method: str) -> "ReportRun":
        """The same under another name."""
        return self._replace(metrics={**self.metrics, "method": method})

    def matrix(self) -> StepMatrix:
        """IoU of every class after every step."""
        return StepMatrix.from_results(self.metrics["classes"], self.metrics["steps"])


def label_policy(metrics: dict[str, Any]) -> dict[str, str]:
    """Label rules of a run; one from before there was a rule for value 0 took it as background."""
    return {"zero": "background", **metrics["label_policy"]}


def protocol_of_test(metrics: dict[str, Any]) -> str:
    """crop or whole, as the setting data.test, and what data.held_out was, if any: `crop, held out
    0.2`. A run from before there was a choice has crop."""
    test = metrics.get("test", {})
    images, held = test.get("images", "crop"), test.get("held_out")
    return f"{images}, held out {held:g}" if held else str(images)


def tested_on(metrics: dict[str, Any]) -> str:
    """What of the test images was tested."""
    test = metrics.get("test", {})
    images, size = "images", test.get("size")
    if test.get("held_out"):
        images = f"training images that were held out ({100 * test['held_out']:g} %)"
    if test.get("images") == "whole":
        return f"whole {images} at their own resolution"
    return f"the centre squares of the {images}" + (f", {size} pixels wide" if size else "")


def device_kinds(runs: Iterable[ReportRun]) -> str:
    """Kinds of devices that trained the steps of some runs, such as `cpu and cuda`, as torch calls
    them; empty where a step does not say, as those of version 0.3 and before."""
    devices = {device for run in runs for device in run.metrics.get("accelerators", [None])}
    return "" if None in devices else " and ".join(sorted(devices))


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
