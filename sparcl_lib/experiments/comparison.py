"""Methods side by side: the same data, tasks, setups, seeds and step 0 for each."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import pandas as pd

from sparcl_lib.config import MEASURED, RunConfig, all_settings
from sparcl_lib.data import open_source
from sparcl_lib.errors import UserError, shown
from sparcl_lib.experiments.base import RunBase, Variant, unique
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.experiments.store import RunStore
from sparcl_lib.metrics import StepMatrix, format_mean, mean_columns, mean_iou
from sparcl_lib.plain import flatten
from sparcl_lib.plugins import tell_of_unused
from sparcl_lib.progress import tell
from sparcl_lib.report import ReportRun, gains_over, gains_text, results_text
from sparcl_lib.report.differences import gains_note
from sparcl_lib.report.names import Group, told_apart
from sparcl_lib.report.order_sections import order_sections
from sparcl_lib.report.orders import orders_text
from sparcl_lib.report.page import write_page
from sparcl_lib.report.runs import by_group, by_method, mean_matrix
from sparcl_lib.report.sections import curves, figure_block, picture, section
from sparcl_lib.report.tables import step_rows
from sparcl_lib.report.verdict import verdicts_text
from sparcl_lib.run import Run
from sparcl_lib.tasks import Task, shuffled_order
from sparcl_lib.viz import trade_off
from sparcl_lib.writing import write_csv

FORGETTING = {
    "forgetting": "forgetting",
    "intransigence": "intransigence",
    "average": "mean of steps",
}
"""Measure over the steps -> its title."""


@dataclass(frozen=True)
class Block:
    """Every one of some methods with every one of some seeds, on one base."""

    base: RunBase
    methods: Sequence[str | Variant]
    seeds: Sequence[int]

    def configs(self) -> list[RunConfig]:
        """One configuration per run, method by method."""
        pairs = itertools.product(self.methods, self.seeds)
        return [self.base.config(method, seed) for method, seed in pairs]


@dataclass(frozen=True)
class Comparison:
    """The runs of a comparison that finished."""

    runs: list[ReportRun]
    folders: list[str]
    """Names of their folders in the store."""
    errors: list[str]

    def table(self) -> pd.DataFrame:
        """A row per run and step: names, seed, step, mIoUs in percent; then, as of that step, the
        means over classes of forgetting and intransigence (NaN without Joint runs beside it) and
        the mean over steps of miou_all; seconds of the step, run (its folder).
        """
        joint = _joint_matrices(self.runs)
        rows = []
        for run, folder in zip(self.runs, self.folders):
            for row, seconds in zip(step_rows(run.metrics), run.metrics["seconds"]):
                forgetting = _forgetting(run, row["step"], joint.get(run.group))
                rows.append({**row, **forgetting, "seconds": seconds, "run": folder})
        return pd.DataFrame(rows)

    def forgetting(self) -> pd.DataFrame:
        """Of `forgetting_table`."""
        return forgetting_table(self.table())


def forgetting_table(table: pd.DataFrame) -> pd.DataFrame:
    """Index dataset, task, setup, method: what FORGETTING names after the last step, mean and
    deviation over seeds (`_std`).

    table: of `Comparison.table`.
    """
    last = table.groupby("run", sort=False).tail(1)
    groups = last.groupby(["dataset", "task", "setup", "method"], sort=False)[list(FORGETTING)]
    return pd.concat([groups.mean(), groups.std().add_suffix("_std")], axis=1)


def in_orders(
    bases: Iterable[RunBase], numbers: Iterable[int], methods: Iterable[str | Variant] = ()
) -> list[RunBase]:
    """Each base with its classes in several learning orders: 0 is its task's own, any other number
    one of `shuffled_order`. An order that is there already, as few classes have few, is left out.

    methods: what will be trained on them. Raises UserError for a negative number, and where a
    setting, of a method too, gives an order or the image lists of one.
    """
    bases, numbers = list(bases), unique(numbers)
    for number in numbers:
        if not isinstance(number, Integral) or number < 0:
            raise UserError(f"order {shown(number)}: give 0, the task's own, or a number above it")
    if not any(numbers):
        return bases
    for base in bases:
        _check_no_order(base, methods)
    found: list[RunBase] = []
    known = {_place(base, _in_order(base, 0)[1]) for base in bases if 0 in numbers}
    for base, number in itertools.product(bases, numbers):
        ordered, task = _in_order(base, int(number))
        place = _place(base, task)
        if number and place in known:
            tell(f"sparcl: order {number} of {base.task} is there already, and left out")
            continue
        known.add(place)
        found.append(ordered)
    return found


def _place(base: RunBase, task: Task) -> Any:
    """What orders share that are the same: in each step the same classes."""
    return base.dataset, base.setup, tuple(map(frozenset, task.steps))


def _check_no_order(base: RunBase, methods: Iterable[str | Variant]) -> None:
    settings = [*base.overrides, *(m.settings for m in methods if isinstance(m, Variant))]
    for layer in map(flatten, settings):
        for key in ("class_order", "data.splits"):
            if layer.get(key) is not None:
                raise UserError(f"{key} is of one class order: leave it or --orders out")


def _in_order(base: RunBase, number: int) -> tuple[RunBase, Task]:
    source = open_source(base.dataset, base.data_root)
    task = source.task(base.task)
    if number == 0:
        return base, task
    order = shuffled_order(task, number)
    overrides = (*base.overrides, {"class_order": list(order)})
    task = source.task(base.task, order)
    return dataclasses.replace(base, overrides=overrides), task


def compare(blocks: Iterable[Block], store: RunStore, jobs: int | None = None) -> Comparison:
    """Run all blocks; runs that the store holds are not trained again.

    A run that two blocks ask for is there once. Raises UserError where one table would hold numbers
    of two tests or of two tasks of one name, and when no run finished.
    """
    configs = [config for block in blocks for config in block.configs()]
    _check_one_test(configs)
    _check_one_task(configs)
    tell_of_unused(configs)
    runs, errors = run_all(configs, store, jobs)
    finished: dict[Path, Run] = {r.directory.path: r for r in runs if r is not None}
    if not finished:
        raise UserError(f"no run finished; the first: {errors[0]}")
    reported = [
        ReportRun(run.metrics, config=run.config, content=run.directory.content())
        for run in finished.values()
    ]
    return Comparison(told_apart(reported), [path.name for path in finished], errors)


def _check_one_test(configs: Iterable[RunConfig]) -> None:
    firsts: dict[tuple[object, ...], RunConfig] = {}
    for config in configs:
        first = firsts.setdefault((config.dataset, config.task, config.setup), config)
        settings, those = all_settings(config), all_settings(first)
        for key in MEASURED:
            if settings[key].value != those[key].value:
                raise UserError(
                    f"{first.method.name} has {key}={those[key].value} and {config.method.name} "
                    f"{settings[key].value}, so they are not tested alike and cannot share a "
                    "table: compare them one by one"
                )


def _check_one_task(configs: Iterable[RunConfig]) -> None:
    firsts: dict[Any, tuple[str, list[list[str]]]] = {}
    for config in {(c.dataset, c.data_root, c.task, c.class_order): c for c in configs}.values():
        source = open_source(config.dataset, config.data_root)
        task = source.task(config.task, config.class_order)
        classes = [[task.classes[c] for c in step] for step in task.steps]
        key = (source.name, task.name, config.class_order)
        file, first = firsts.setdefault(key, (config.task, classes))
        if first != classes:
            raise UserError(
                f"{file} and {config.task} are both called {task.name}, and their steps differ: "
                "give one of them another name"
            )


def _joint_matrices(runs: Iterable[ReportRun]) -> dict[Group, StepMatrix]:
    """The mean over seeds of joint training, for every group that has it; of several the best."""
    found = {}
    for group, members in by_group(runs).items():
        joint = by_method(run for run in members if run.joint)
        means = [mean_matrix([run.matrix() for run in of]) for of in joint.values()]
        if means:
            found[group] = max(means, key=lambda matrix: matrix.miou_all(max(matrix.rows)))
    return found


def _forgetting(run: ReportRun, step: int, joint: StepMatrix | None) -> dict[str, float]:
    """Measures of FORGETTING as of a step; joint training itself, with one step, has none."""
    matrix = run.matrix().until(step)
    gaps = matrix.intransigence(joint) if joint and not run.joint else {}
    return {
        "forgetting": mean_iou(matrix.forgetting().values()),
        "intransigence": mean_iou(gaps.values()),
        "average": float("nan") if run.joint else matrix.average_miou(),
    }


def comparison_text(comparison: Comparison, against: str | None = None) -> str:
    """The tables and what they say, for a terminal.

    against: a method, whose distance to every other one is then a table too (`gains_over`).
    """
    runs = comparison.runs
    shown = _readable(comparison.forgetting().reset_index())
    blocks = [
        results_text(runs),
        f"points of IoU after the last step\n{shown.to_string(index=False)}",
        verdicts_text(runs),
    ]
    if against is not None:
        try:
            gains = gains_text(gains_over(runs, against)).reset_index()
            blocks.append(f"{gains_note(against)}\n{gains.to_string(index=False)}")
        except UserError as error:  # its runs failed, or a term that all have is in its name
            blocks.append(f"nothing is compared with {against}: {error}")
    blocks.append(orders_text(runs))
    return "\n\n".join(filter(None, blocks))


def _readable(forgetting: pd.DataFrame) -> pd.DataFrame:
    """Names as they are, measures as `mean ± deviation`."""
    measures = [*FORGETTING, *(f"{name}_std" for name in FORGETTING)]
    names = [column for column in forgetting if column not in measures]
    return forgetting[names].assign(**mean_columns(forgetting, FORGETTING))


def write_comparison(
    comparison: Comparison,
    csv: Path,
    page: Path,
    commands: Sequence[str] = (),
    against: str | None = None,
) -> None:
    """The rows of `Comparison.table`, and a self-contained page without photographs.

    commands: what to type to get the same runs; against: of `comparison_text`. Raises UserError
    when a file cannot be written.
    """
    table = comparison.table()
    write_csv(csv, table.round(4))
    write_comparison_page(comparison.runs, table, page, commands, against=against)


def write_comparison_page(
    runs: Iterable[ReportRun],
    table: pd.DataFrame,
    page: Path,
    commands: Sequence[str] = (),
    links: bool = True,
    against: str | None = None,
) -> None:
    """The page alone. table: of `Comparison.table`, about the same runs; links: as `write_page`."""
    forgetting = forgetting_table(table).sort_index()  # so that pandas finds a group at once
    runs = list(runs)
    sections = order_sections(runs) + [
        _section(members, forgetting.loc[group], against)
        for group, members in by_group(runs).items()
    ]
    write_page(page, "Methods compared", sections, commands, links=links)


def _section(
    runs: list[ReportRun], forgetting: pd.DataFrame, against: str | None
) -> dict[str, Any]:
    forgetting = forgetting.loc[list(by_method(runs))]
    figures = curves(runs)
    known = forgetting.dropna(subset=["forgetting", "intransigence"])
    if len(known):
        figures.append(_trade_off(known))
    title = "Forgetting and intransigence (less is better), and mIoU as a mean over steps"
    tables = {title: _readable(forgetting.reset_index())}
    if against in by_method(runs) and len(by_method(runs)) > 1:
        tables[gains_note(against)] = gains_text(gains_over(runs, against)).reset_index("method")
    return section(runs, figures, tables)


def _trade_off(forgetting: pd.DataFrame) -> dict[str, Any]:
    pairs = zip(forgetting.index, forgetting["forgetting"], forgetting["intransigence"])
    points = ", ".join(f"{m} {format_mean(f)} and {format_mean(i)}" for m, f, i in pairs)
    caption = (
        "Forgetting: best IoU that a class of an earlier step ever had minus its last one, mean "
        "over classes. Intransigence: IoU of joint training minus that right after the class was "
        "learned, mean over the classes of later steps. Lower left is better."
    )
    if forgetting["forgetting_std"].notna().any():
        caption += " Bars: one standard deviation over seeds."
    drawn = picture(trade_off(forgetting), f"Points of forgetting and intransigence: {points}.")
    return figure_block("Forgetting against intransigence", caption, [drawn])
