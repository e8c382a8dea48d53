"""Runs as they come from disk, checked, ordered and grouped."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sparcl_lib.config import RunConfig, all_settings, first_step_difference
from sparcl_lib.errors import UserError
from sparcl_lib.method_table import METHODS
from sparcl_lib.methods import method_to_plain
from sparcl_lib.metrics import StepMatrix
from sparcl_lib.plain import as_plain
from sparcl_lib.tasks.classes import BACKGROUND_NAME
from sparcl_lib.training.run_directory import RunDirectory

KEYS = ("dataset", "task", "setup", "method")
_OF_EACH_RUN = ("seed", "method.name", *KEYS[:3])
"""Settings that say which run of an experiment this is, or are told apart by themselves."""
_NAMED = 2
_BEGINS = 4
"""Classes by which an order is known."""


class ReportRun(NamedTuple):
    """What a report needs of a run."""

    metrics: dict[str, Any]
    """Contents of metrics.json."""
    predictions: dict[str, Any] | None = None
    """Of the last step: images (n, S, S, 3), truth and prediction (n, S, S), uint8."""
    config: RunConfig | None = None
    """None: not known."""

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
        return len(self.metrics["images"]) == 1 < len(self.metrics["classes"])

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


def load_runs(paths: Iterable[str | Path]) -> list[ReportRun]:
    """Read run directories; runs of one method that are no seeds of one experiment get names that
    say what they differ in, by `told_apart`.

    Raises:
        UserError: a path that is none, two runs that a table could not tell apart, or two of one
            dataset, task and setup with other classes or label rules.
    """
    paths = list(paths)
    runs = told_apart([_load(RunDirectory(path)) for path in paths])
    if not runs:
        raise UserError("no run to report: give at least one run directory")
    for k, (path, run) in enumerate(zip(paths, runs, strict=True)):
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
    return ReportRun(metrics, predictions, known_config(directory))


def known_config(directory: RunDirectory) -> RunConfig | None:
    """What `ReportRun.config` is of a run; None where it cannot be read."""
    try:
        return directory.config()
    except UserError:
        return None


def told_apart(runs: Iterable[ReportRun]) -> list[ReportRun]:
    """The runs, each under a name that is of its experiment alone; seeds of one share it.

    A task whose classes come in another order says how it begins: `15-5, order 20 19 18 ...`. A
    library's method with other loss terms is named by them, as `MiB + mine`. Of several
    experiments of one name the first keeps it, and the others say what they have in place of it:
    `MiB (optim.lr=[0.1], kd.weight=5)`. Runs whose configuration is not known keep their names.
    """
    named = [_with_order(run).named(_with_terms(run)) for run in runs]
    firsts: dict[tuple[str, ...], ReportRun] = {}
    found = []
    for run in named:
        first = firsts.setdefault((*run.group, run.metrics["method"]), run)
        differences = _differences(first, run)
        said = f" ({_in_short(differences)})" if differences else ""
        found.append(run.named(f"{run.metrics['method']}{said}"))
    return found


def _with_order(run: ReportRun) -> ReportRun:
    order = () if run.config is None else run.config.class_order or ()
    if not order:
        return run
    begins = " ".join(map(str, order[:_BEGINS]))
    task = f"{run.metrics['task']}, order {begins} ..."
    return run._replace(metrics={**run.metrics, "task": task})


def _with_terms(run: ReportRun) -> str:
    """The method's name, and the terms by which it is not the library's method of this name."""
    name: str = run.metrics["method"]
    if run.config is None or name not in METHODS:
        return name
    own = METHODS[name]["terms"]
    # The released form of a term is a setting of the same method.
    terms = [t.name.removeprefix("released_") for t in run.config.method.terms if t.weight > 0]
    more = "".join(f" + {term}" for term in terms if term not in own)
    less = " and ".join(term for term in own if term not in terms)
    return f"{name}{more}{f' without {less}' if less else ''}"


def _differences(first: ReportRun, run: ReportRun) -> list[str]:
    """What a run has in place of what the first one has: settings, then images."""
    if first.config is None or run.config is None:
        return []
    theirs, mine = _comparable(first.config), _comparable(run.config)
    changed = [key for key in dict.fromkeys([*mine, *theirs]) if mine.get(key) != theirs.get(key)]
    said = [f"{key.removeprefix('method.terms.')}={mine.get(key)}" for key in changed]
    sums = [each.metrics.get("images_sha256") for each in (first, run)]
    return said + (["other images"] if sums[0] != sums[1] and None not in sums else [])


def _comparable(config: RunConfig) -> dict[str, Any]:
    """Settings that make another experiment; places and contents of files are not among them."""
    found = {
        key: as_plain(setting.value)
        for key, setting in all_settings(config).items()
        if setting.acts not in ("by content", "never") and key not in _OF_EACH_RUN
    }
    weights = config.model.weights
    return {**found, "model.weights": weights if weights in (None, "imagenet") else "a file"}


def _in_short(differences: Sequence[str]) -> str:
    more = len(differences) - _NAMED
    return ", ".join(differences[:_NAMED]) + (f" and {more} more" if more > 0 else "")


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


def other_first_steps(runs: Iterable[ReportRun]) -> list[str]:
    """A line for each method that does not begin with the step 0 of the first one, of runs of one
    group: what they reach is then not what their later steps did alone. Joint training has none."""
    firsts = {m: of[0].config for m, of in by_method(r for r in runs if not r.joint).items()}
    known = {method: config for method, config in firsts.items() if config is not None}
    lines = []
    for method, config in known.items():
        base = next(iter(known))
        difference = first_step_difference(config, known[base])
        if difference:
            lines.append(f"step 0 of {method} is not that of {base}: {difference}")
    return lines


def mean_matrix(matrices: Sequence[StepMatrix]) -> StepMatrix:
    """Mean IoU over seeds of every class at every step; a seed without an IoU does not count."""
    frames = pd.concat(matrix.to_frame() for matrix in matrices)
    mean = StepMatrix(matrices[0].step_classes)
    for step, row in frames.groupby(level=0).mean().iterrows():
        mean.add(step, row[[BACKGROUND_NAME, *mean.seen(step)]].to_dict())
    return mean
