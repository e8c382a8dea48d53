"""What does the order of the classes do? Each method over several orders of one task's classes.

An order counts once, as the mean over its seeds; then means and deviations are over orders.
"""

from collections.abc import Iterable, Iterator, Sequence
from statistics import mean
from typing import Any, NamedTuple

import pandas as pd

from sparcl_lib.errors import number_of
from sparcl_lib.metrics import mean_columns
from sparcl_lib.report.differences import Ranking, rank, scores
from sparcl_lib.report.names import family, task_without_order
from sparcl_lib.report.runs import ReportRun, by_group, by_method, ordered, protocol_of_test
from sparcl_lib.report.tables import (
    MEASURES,
    as_it_is,
    as_latex,
    as_markdown,
    other_tests,
    results_table,
)
from sparcl_lib.report.verdict import helped, points


class Family(NamedTuple):
    """Finished runs of one task in several class orders."""

    dataset: str
    task: str
    """The shortest name among those of the orders, such as 15-1 of 15-1 and 15-1b."""
    setup: str
    runs: list[ReportRun]
    """Ordered; those whose steps have the same classes under one task's name."""

    @property
    def title(self) -> str:
        """What it is, and how it was tested where published numbers were not."""
        number = number_of(len(orders_of(self.runs)), "class order")
        return f"{self.dataset} {self.task} {self.setup}, over {number}{self.test}"

    @property
    def test(self) -> str:
        """How it was tested, after a comma, where published numbers were not; else nothing."""
        return "".join(f", {test}" for test in [*other_tests(self.runs).values()][:1])


def by_family(runs: Iterable[ReportRun]) -> list[Family]:
    """The tasks that were trained in several orders of their classes, two at least.

    Two orders are the same where each step has the same classes, whatever their order in it.
    """
    members: dict[Any, list[ReportRun]] = {}
    for run in ordered(run for run in runs if run.finished):
        members.setdefault(family(run), []).append(run)
    found = [_family(together) for together in members.values()]
    return [each for each in found if len(orders_of(each.runs)) > 1]


def _family(runs: list[ReportRun]) -> Family:
    firsts: dict[Any, str] = {}
    for run in runs:
        firsts.setdefault(tuple(map(frozenset, run.metrics["classes"])), run.metrics["task"])
    renamed = []
    for run in runs:
        task = firsts[tuple(map(frozenset, run.metrics["classes"]))]
        renamed.append(run._replace(metrics={**run.metrics, "task": task}))
    dataset, _, setup = runs[0].group
    return Family(dataset, min(map(task_without_order, firsts.values()), key=len), setup, renamed)


def orders_of(runs: Iterable[ReportRun]) -> dict[str, list[list[str]]]:
    """Task -> the classes of its steps, of the runs of one family."""
    return {task: runs[0].metrics["classes"] for (_, task, _), runs in by_group(runs).items()}


def orders_table(runs: Iterable[ReportRun]) -> pd.DataFrame:
    """A row per dataset, task, setup and method that has finished in several class orders; mIoU of
    the last step in percent.

    Columns: the four names, test (as `protocol_of_test`), orders, the five means over orders, their
    deviations (`_std`), and the lowest and highest miou_all. Empty without such runs.
    """
    names = ["dataset", "task", "setup", "method", "test", "orders"]
    measures = [*MEASURES, *(f"{name}_std" for name in MEASURES)]
    tables = [family_table(each) for each in by_family(runs)]
    return pd.concat([pd.DataFrame(columns=[*names, *measures, "lowest", "highest"]), *tables])


def family_table(of: Family) -> pd.DataFrame:
    """Of `orders_table`, the rows of one family."""
    each = results_table(of.runs)
    groups = each.groupby("method", sort=False)
    last = groups["miou_all"]
    extremes = pd.DataFrame(
        {"orders": last.count(), "lowest": last.min(), "highest": last.max()}
    )  # fmt: skip
    means = groups[list(MEASURES)].mean()
    deviations = groups[list(MEASURES)].std().add_suffix("_std")
    table = pd.concat([extremes, means, deviations], axis=1).reset_index()
    test = protocol_of_test(of.runs[0].metrics)
    return table.assign(dataset=of.dataset, task=of.task, setup=of.setup, test=test)


def readable_orders(table: pd.DataFrame) -> pd.DataFrame:
    """`family_table` as text, one decimal, `mean ± deviation`."""
    shown = table[["method", "orders"]].astype(str).assign(**mean_columns(table, MEASURES))
    ends = zip(table["lowest"], table["highest"])
    shown["all, lowest to highest"] = [f"{points(low)} to {points(high)}" for low, high in ends]
    return shown


def orders_text(runs: Iterable[ReportRun]) -> str:
    """A block for a terminal for each task that was trained in several orders; empty without."""
    return "\n\n".join(
        "\n".join([title, shown.to_string(index=False), *says])
        for title, shown, says in _said(runs)
    )


def orders_markdown(runs: Iterable[ReportRun]) -> str:
    """The same as GitHub tables, each after an empty line and its title."""
    return "".join(
        f"\n{as_it_is(title)}:\n\n{as_markdown(shown, 1)}\n{as_it_is(' '.join(says))}\n"
        for title, shown, says in _said(runs)
    )


def orders_latex(runs: Iterable[ReportRun]) -> str:
    """The same as tables for booktabs, what to know of each before it, as comments."""
    return "".join(
        f"\n% {title}\n" + "".join(f"% {line}\n" for line in says) + as_latex(shown, 1)
        for title, shown, says in _said(runs)
    )


def _said(runs: Iterable[ReportRun]) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """For each task in several orders a title, a table of text, and what it says."""
    for each in by_family(runs):
        says = orders_verdict(each.runs)
        yield f"{each.title}, mIoU in percent", readable_orders(family_table(each)), says


def miou_by_order(runs: Iterable[ReportRun]) -> pd.DataFrame:
    """A row per task, a column per method: mIoU of all classes after the last step, mean over
    seeds; NaN where a method has no run. runs: of one family."""
    return pd.DataFrame({
        task: {method: mean(of.values()) for method, of in scores(members).items() if of}
        for (_, task, _), members in by_group(runs).items()
    }).T  # fmt: skip


def orders_ranking(runs: Iterable[ReportRun]) -> Ranking | None:
    """The continual methods of one family by their mean over the orders that all of them have,
    paired order by order; None without such an order."""
    return _ranking(_shared(runs))


def _ranking(shared: pd.DataFrame) -> Ranking | None:
    return rank({method: of.to_dict() for method, of in shared.items()}) if len(shared) else None


def _shared(runs: Iterable[ReportRun]) -> pd.DataFrame:
    """`miou_by_order` of the continual methods, of the orders and seeds that all of them have."""
    continual = [run for run in runs if not run.joint]
    methods = by_method(continual)
    rows = {}
    for (_, task, _), members in by_group(continual).items():
        found = scores(members)
        seeds = set.intersection(*(set(found.get(method, ())) for method in methods))
        if seeds:
            rows[task] = {m: mean(found[m][seed] for seed in sorted(seeds)) for m in methods}
    return pd.DataFrame(rows).T


def orders_verdict(runs: Sequence[ReportRun]) -> list[str]:
    """What the runs of one family say: who is ahead over the orders, and what an order does, a
    sentence or two for each."""
    shared = _shared(runs)
    found = _ranking(shared)
    if all(run.joint for run in runs):
        return ["No method that learns step by step is among these runs."]
    if found is None:
        return ["No class order and seed are there for every method, so none is compared."]
    says = helped(found, _joint(runs, shared.index), "order")
    everywhere = orders_of(runs)
    if len(shared) < len(everywhere):
        of_all = f"{len(shared)} of the {number_of(len(everywhere), 'order')}"
        says.insert(0, f"All methods share {of_all}, and are compared in these.")
    if found.ahead and len(shared) > 1:
        places = shared.rank(axis=1, ascending=False, method="max")  # two that are level: no first
        firsts = (places[found.first] == 1).sum()
        says.append(f"{found.first} is first in {firsts} of {number_of(len(shared), 'order')}.")
    spans = shared.max() - shared.min()
    low, high = (points(value) for value in (shared[spans.idxmax()].agg(["min", "max"])))
    if low != high:
        differs = "differs most" if found.ahead else "differs"
        says.append(f"From order to order {spans.idxmax()} {differs}, from {low} to {high}.")
    return says


def _joint(runs: Iterable[ReportRun], orders: "pd.Index[str]") -> float | None:
    """The best mean of joint training that has all these orders, if there is one."""
    joint = miou_by_order(run for run in runs if run.joint).reindex(orders)
    best = joint.mean(skipna=False).max()
    return None if pd.isna(best) else best
