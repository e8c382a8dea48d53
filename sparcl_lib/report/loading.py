"""Run directories as the runs of a report."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sparcl_lib.config import RunConfig
from sparcl_lib.definitions import Definition
from sparcl_lib.errors import UserError, first_few, number_of
from sparcl_lib.models import BACKBONES
from sparcl_lib.report.names import told_apart
from sparcl_lib.report.runs import KEYS, ReportRun, label_policy, protocol_of_test
from sparcl_lib.training.run_directory import RunDirectory

_FIRST_STEP = re.compile("first-[0-9a-f]{12}")
"""A folder's name, as a store gives it (`experiments.store.run_keys`)."""


def load_runs(paths: Iterable[str | Path]) -> list[ReportRun]:
    """Read run directories; runs of one method that are no seeds of one experiment get names that
    say what they differ in, by `told_apart`. First steps that a store keeps for several runs are
    left out, and said. A directory that is given twice is one run.

    Raises:
        UserError: a path that is none, two runs that a table could not tell apart, or two of one
            dataset, task and setup with other classes or label rules.
    """
    paths = _without_first_steps(list({Path(path).resolve(): path for path in paths}.values()))
    runs = told_apart([_load(RunDirectory(path)) for path in paths])
    if not runs:
        raise UserError("no run to report: give at least one run directory")
    for k, (path, run) in enumerate(zip(paths, runs, strict=True)):
        for earlier, other in zip(paths[:k], runs[:k]):
            _check_pair(earlier, other.metrics, path, run.metrics)
    return runs


def _without_first_steps(paths: list[str | Path]) -> list[str | Path]:
    """All but the step 0 that runs of a store share: as a row it would bear the name of the run
    that trained it, by chance. One that is asked for alone is shown."""
    shared = [path for path in paths if _FIRST_STEP.fullmatch(Path(path).name)]
    if len(shared) in (0, len(paths)):
        return paths
    number = number_of(len(shared), "first step", "first steps")
    line = f"sparcl: left out {number}, kept for several runs: {first_few(shared)}"
    print(line, file=sys.stderr)
    return [path for path in paths if path not in shared]


def _load(directory: RunDirectory) -> ReportRun:
    if not directory.path.is_dir():
        raise UserError(f"{directory.path} is no run directory: give the --out of sparcl train")
    for inside in ("*", "runs/*"):
        if not directory.metrics_file.exists() and [*directory.path.glob(f"{inside}/metrics.json")]:
            raise UserError(
                f"{directory.path} is no run and holds some: give {directory.path}/{inside}"
            )
    metrics = directory.metrics()
    if not metrics["steps"]:
        raise UserError(f"{directory.path} has no evaluated step: train it first")
    predictions = directory.predictions(len(metrics["steps"]) - 1)
    try:
        config, content = directory.config(), directory.content()
    except UserError:
        return ReportRun(metrics, predictions)
    return ReportRun(
        metrics, predictions, config, content, other_terms=_other_terms(directory, config)
    )


def _other_terms(directory: RunDirectory, config: RunConfig) -> dict[int, Any] | None:
    """None where checkpoints are gone; they are opened for what is not the library's alone."""
    used: list[Definition | None] = [t.registered for t in config.method.terms if t.weight > 0]
    used += [row.registered for row in config.method.mechanisms if row.enabled]
    used.append(BACKBONES.get(config.model.backbone))
    if all(found is not None and found.of_library for found in used):
        return {}
    try:
        return {k: directory.record(k).get("terms", {}) for k in directory.steps_done()} or None
    except UserError:
        return None


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
