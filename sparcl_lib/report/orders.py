"""What does the order of the classes do? Each method over several orders of one task's classes.

An order counts once, as the mean over its seeds; then means and deviations are over orders.
"""

from collections.abc import Iterable, Iterator, Sequence
from statistics import mean
from typing import Any

import pandas as pd

from sparcl_lib.errors import number_of
from sparcl_lib.metrics import format_mean
from sparcl_lib.report.differences import Ranking, rank, scores
from sparcl_lib.report.loading import task_without_order
from sparcl_lib.report.runs import ReportRun, by_group, label_policy, ordered, protocol_of_test
from sparcl_lib.report.tables import MEASURES, as_it_is, as_latex, as_markdown, results_table
from sparcl_lib.report.verdict import helped, points


def by_family(runs: Iterable[ReportRun]) -> dict[tuple[str, str, str], list[ReportRun]]:
    """(dataset, task, setup) -> the finished runs of all tasks that are this one but for the order
    of their classes, where there are two such tasks at least. The task is the first one's."""
    families: dict[Any, list[ReportRun]] = {}
    for run in ordered(run for run in runs if run.finished):
        families.setdefault(_family(run), []).append(run)
    found = {}
    for members in families.values():
        if len({run.group for run in members}) > 1:
            dataset, task, setup = members[0].group
            found[dataset, task_without_order(task), setup] = members
    return found


def _family(run: ReportRun) -> Any:
    metrics = run.metrics
    steps, (dataset, _, setup) = metrics["classes"], run.group
    names = frozenset(name for step in steps for name in step)
    rules = tuple(sorted(label_policy(metrics).items())), protocol_of_test(metrics)
    return dataset, setup, tuple(map(len, steps)), names, rules


def orders_of(runs: Iterable[ReportRun]) -> dict[str, list[list[str]]]:
    """Task -> the classes of its steps, of the runs of one family."""
    return {task: runs[0].metrics["classes"] for (_, task, _), runs in by_group(runs).items()}


def orders_table(runs: Iterable[ReportRun]) -> pd.DataFrame:
    """A row per dataset, task, setup and method that has finished in several class orders; mIoU of
    the last step in percent.

    Columns: the four names, orders, the five means over orders, their deviations (`_std`), and the
    lowest and highest miou_all. Empty without such runs.
    """
    tables = [
        _family_table(members).assign(dataset=dataset, task=task, setup=setup)
        for (dataset, task, setup), members in by_family(runs).items()
    ]
    names = ["dataset", "task", "setup", "method", "orders"]
    measures = [*MEASURES, *(f"{name}_std" for name in MEASURES)]
    columns = [*names, *measures, "lowest", "highest"]
    return pd.concat(tables)[columns] if tables else pd.DataFrame(columns=columns)


def _family_table(runs: Iterable[ReportRun]) -> pd.DataFrame:
    each = results_table(runs)
    groups = each.groupby("method", sort=False)
    last = groups["miou_all"]
    extremes = pd.DataFrame(
        {"orders": last.count(), "lowest": last.min(), "highest": last.max()}
    )  # fmt: skip
    means = groups[list(MEASURES)].mean()
    deviations = groups[list(MEASURES)].std().add_suffix("_std")
    return pd.concat([extremes, means, deviations], axis=1).reset_index()


def readable_orders(table: pd.DataFrame) -> pd.DataFrame:
    """A part of `orders_table` as text, one decimal, `mean ± deviation`."""
    shown = table[["method", "orders"]].astype(str)
    for column, title in MEASURES.items():
        pairs = zip(table[column], table[f"{column}_std"])
        shown[title] = [format_mean(value, deviation) for value, deviation in pairs]
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
    for (dataset, task, setup), members in by_family(runs).items():
        number = len(orders_of(members))
        title = f"{dataset} {task} {setup}, over {number} class orders, mIoU in percent"
        yield title, readable_orders(_family_table(members)), orders_verdict(members)


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
    shared = _shared(runs)
    return rank({method: of.to_dict() for method, of in shared.items()}) if len(shared) else None


def _shared(runs: Iterable[ReportRun]) -> pd.DataFrame:
    """`miou_by_order` of the continual methods, in the orders that all of them have."""
    return miou_by_order(run for run in runs if not run.joint).dropna()


def orders_verdict(runs: Sequence[ReportRun]) -> list[str]:
    """What the runs of one family say: who is ahead over the orders, and what an order does, a
    sentence or two for each."""
    found, shared = orders_ranking(runs), _shared(runs)
    if found is None and all(run.joint for run in runs):
        return ["No method that learns step by step is among these runs."]
    if found is None:
        return ["The methods share no class order in which they could be compared."]
    joint = miou_by_order(run for run in runs if run.joint).reindex(shared.index).mean().max()
    says = helped(found, None if pd.isna(joint) else joint, "order")
    if len(shared) < len(orders_of(runs)):
        of_all = f"{len(shared)} of the {number_of(len(orders_of(runs)), 'order')}"
        says.insert(0, f"All methods share {of_all}, and are compared in these.")
    if found.ahead:
        places = shared.rank(axis=1, ascending=False, method="max")  # two that are level: no first
        firsts = (places[found.first] == 1).sum()
        says.append(f"{found.first} is first in {firsts} of {number_of(len(shared), 'order')}.")
    widest = (shared.max() - shared.min()).idxmax()
    low, high = points(shared[widest].min()), points(shared[widest].max())
    if low != high:
        differs = "differs most" if found.ahead else "differs"
        says.append(f"From order to order {widest} {differs}, from {low} to {high}.")
    return says
