"""A published table as a list of runs: their commands and costs, and what is missing, trained."""

import shlex
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from sparcl_lib.config import RunConfig, first_step_difference, resolve
from sparcl_lib.errors import UserError
from sparcl_lib.published.tables import PublishedTable, RowRecipe
from sparcl_lib.report.runs import ReportRun
from sparcl_lib.reproduction.cost import FORMULA, MANY_CLASSES, Cost, expected_cost
from sparcl_lib.training import train
from sparcl_lib.training.run_directory import RunDirectory

_WIDTH = 100
_DATA = "data"
"""Where sparcl data puts data sets."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A row of a table with one seed."""

    row: RowRecipe
    config: RunConfig
    out: Path
    start_from: Path | None
    """The run whose step 0 is the same, if one comes before this one."""
    cost: Cost | None
    command: str

    @property
    def seed(self) -> int:
        return self.config.seed

    def result(self) -> ReportRun | None:
        """The numbers, if the last step was tested."""
        directory = RunDirectory(self.out)
        if not directory.metrics_file.is_file():
            return None
        metrics = directory.metrics()
        found = ReportRun(metrics) if metrics["steps"] else None
        return found if found is not None and found.finished else None

    @property
    def hours(self) -> float | None:
        """Expected; without step 0 where another run has it."""
        if self.cost is None:
            return None
        return self.cost.later_hours + (0 if self.start_from else self.cost.first_hours)


def select_rows(table: PublishedTable, patterns: Sequence[str]) -> list[RowRecipe]:
    """Rows whose name fits one of the patterns (*, ?), in any case; all without patterns.

    Raises UserError for a pattern that fits none.
    """
    for pattern in patterns:
        if not any(_fits(row, pattern) for row in table.rows):
            example = table.rows[0].name
            raise UserError(
                f"no row of {table.name} is {pattern!r}: give names or patterns such as "
                f"'{example}' or '*{table.rows[0].setup}*'; sparcl recipes {table.name} lists them"
            )
    return [r for r in table.rows if not patterns or any(_fits(r, p) for p in patterns)]


def _fits(row: RowRecipe, pattern: str) -> bool:
    return fnmatchcase(row.name.lower(), pattern.lower())


def plan_runs(
    rows: Iterable[RowRecipe],
    seeds: Sequence[int],
    out: Path,
    data_root: str | None = None,
    settings: Sequence[str] = (),
    overrides: Sequence[dict[str, Any]] = (),
    accelerator: str = "auto",
) -> list[PlannedRun]:
    """A run for each row and seed, in order; each starts from an earlier one of the same step 0.

    settings: what `--set` said, for the commands; overrides: the same as nested data; accelerator:
    for the commands.
    data_root: where images are counted; None: counts as published, and a folder `data`.
    """
    planned: list[PlannedRun] = []
    for seed in dict.fromkeys(seeds):
        for row in rows:
            config = resolve(
                row.dataset, row.method, [row.settings, *overrides],
                task=row.task, setup=row.setup, seed=seed, data_root=data_root or _DATA,
            )  # fmt: skip
            place = out / f"{row.name}-seed-{seed}"
            first = next((r for r in planned if _same_first_step(r, row, config)), None)
            start_from = None if first is None else first.out
            words = ["sparcl", "train", "--recipe", row.name, "--data-root", data_root or _DATA]
            words += ["--out", str(place), "--resume"]
            words += [] if start_from is None else ["--start-from", str(start_from)]
            words += ["--set", f"seed={seed}"] if seed else []
            words += [word for setting in settings for word in ("--set", setting)]
            words += [] if accelerator == "auto" else ["--accelerator", accelerator]
            cost = expected_cost(config, counted=data_root is not None)
            planned.append(
                PlannedRun(
                    row=row, config=config, out=place, start_from=start_from, cost=cost,
                    command=shlex.join(words),
                )
            )  # fmt: skip
    return planned


def _same_first_step(earlier: PlannedRun, row: RowRecipe, config: RunConfig) -> bool:
    """Whether an earlier run, which trains step 0 itself, trains the one of this row."""
    return (
        earlier.start_from is None
        and (earlier.row.dataset, earlier.row.task) == (row.dataset, row.task)
        and first_step_difference(config, earlier.config) is None
    )


def plan_text(table: PublishedTable, planned: Sequence[PlannedRun]) -> str:
    """The commands with what they should take, as a shell script; comments begin with #."""
    notes = [FORMULA, *([MANY_CLASSES] if planned[0].row.dataset == "ade20k" else [])]
    lines = [f"# {table.name}: {table.title}", *map(_comment, notes), "#"]
    missing = [run for run in planned if run.result() is None]
    for run in planned:
        shared = f"; step 0 of {run.start_from.name}" if run.start_from else ""
        done = "" if run in missing else "; done"
        lines += [f"# {run.out.name}: {_cost_text(run)}{shared}{done}", run.command]
    hours = [run.hours for run in missing]
    known = sum(each for each in hours if each is not None)
    strange = hours.count(None)
    unknown = f", and {strange} run{'s' * (strange > 1)} of unknown cost" if strange else ""
    runs = "1 run" if len(planned) == 1 else f"{len(planned)} runs"
    lines.append(
        f"# {runs}, {len(planned) - len(missing)} done; to go: about {known:.1f} h{unknown}"
    )
    return "\n".join(lines)


def _comment(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _cost_text(run: PlannedRun) -> str:
    if run.cost is None or run.hours is None:
        return "cost unknown"
    hours = f"{run.hours:.2f} h" if run.hours >= 0.01 else f"{60 * run.hours:.1f} min"
    return f"about {hours}, {run.cost.gib:.1f} GiB"


def train_missing(planned: Iterable[PlannedRun], accelerator: str) -> list[str]:
    """Train what is not done, one run after another, each from where it stopped.

    Returns a line for each run that failed by something that the user can mend; the others go on.
    """
    errors = []
    for run in planned:
        start = partial(train, run.config, run.out, resume=True, accelerator=accelerator)
        try:
            if run.result() is not None:
                RunDirectory(run.out).check_settings(run.config)
                continue
            print(run.command, flush=True)
            start(start_from=_first_step_of(run), devices=1)
        except UserError as error:
            errors.append(f"{run.out.name}: {error}")
    return errors


def _first_step_of(run: PlannedRun) -> Path | None:
    """The run with the same step 0, unless that one failed before it had any."""
    there = run.start_from is not None and RunDirectory(run.start_from).checkpoint_file(0).is_file()
    return run.start_from if there else None
