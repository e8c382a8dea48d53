"""Is a method better than another, or is it chance? Differences paired over seeds, or over orders
of the classes.

Two runs of one seed share their images, their order and step 0, so what a seed does to both drops
out of their difference. Intervals are Student's t at 95 %, which says little for two seeds, and
each stands for itself: among many methods one in twenty is out of its interval by chance.
"""

from collections.abc import Hashable, Iterable, Mapping
from statistics import mean, stdev
from typing import Any, NamedTuple

import pandas as pd

from sparcl_lib.errors import UserError
from sparcl_lib.report.runs import KEYS, ReportRun, by_group, by_method
from sparcl_lib.tasks.classes import unknown_name

# The 97.5 % quantile of Student's t with 1, 2, ... degrees of freedom; the last serves all above.
_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip

_GAINS = {"old w/o bg": "miou_old_no_bg", "new": "miou_new", "all": "miou_all"}

Scores = Mapping[Any, float]
"""Seed, or class order -> mIoU in percent."""


class Interval(NamedTuple):
    """A mean over seeds, or class orders, with its 95 % interval; NaN ends for fewer than two."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def beyond(self) -> bool:
        """Whether 0 is outside; never for fewer than two seeds."""
        return self.low > 0 or self.high < 0


def interval(values: Iterable[float]) -> Interval:
    """The mean of values, one a seed, and its 95 % t interval."""
    known = list(values)
    if not known:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    degrees = len(known) - 1
    if not degrees:
        return Interval(known[0], float("nan"), float("nan"), 1)
    quantile = _QUANTILES[min(degrees, len(_QUANTILES)) - 1]
    center, reach = mean(known), quantile * stdev(known) / len(known) ** 0.5
    return Interval(center, center - reach, center + reach, len(known))


def paired(one: Scores, other: Scores) -> Interval:
    """`one` minus `other` over the seeds, or orders, that both have, in points."""
    return interval(one[seed] - other[seed] for seed in one if seed in other)


def paired_gains(
    table: pd.DataFrame, pairs: Mapping[Hashable, tuple[str, str]], measures: Mapping[str, str]
) -> pd.DataFrame:
    """How many points a method is above another one, in several pairs and measures.

    Args:
        table: a row for each method and seed with the columns `method`, `seed` and the measures,
            such as the results.csv of a study after one of its steps.
        pairs: row of the result -> (method, the method that it is compared with). Rows that are
            tuples, such as (base, loss), become levels of the index.
        measures: title -> column of `table`.

    Returns:
        A row for each pair; columns (title, part) with the parts `mean`, `low` and `high` of an
        `Interval` over the seeds that have both. NaN for fewer than two seeds.

    Raises:
        UserError: for a method that is not in the table, and for one that has two rows of a seed.
    """
    rows = {
        row: [
            value
            for column in measures.values()
            for value in paired(*(_by_seed(table, name, column) for name in names))[:3]
        ]
        for row, names in pairs.items()
    }
    columns = pd.MultiIndex.from_product([measures, ("mean", "low", "high")])
    return pd.DataFrame(list(rows.values()), pd.Index(list(rows)), columns)


def _by_seed(table: pd.DataFrame, method: str, column: str) -> dict[int, float]:
    rows = table[table["method"] == method]
    if rows.empty:
        raise unknown_name("method", method, table["method"].unique())
    known = rows.dropna(subset=[column])
    if known["seed"].duplicated().any():
        raise UserError(
            f"{method!r} has several rows of one seed: choose one task, setup and step first."
        )
    return dict(zip(known["seed"], known[column]))


def gains_text(gains: pd.DataFrame, decimals: Mapping[str, int] | None = None) -> pd.DataFrame:
    """A table of `paired_gains` to read: `+1.9 (+0.4 to +3.3) *`, the star where 0 is outside.

    A sign is that of the number before it is rounded: -0.0 lies a little below 0. Of one seed there
    is the difference alone.

    decimals: title of a measure -> how many; one for the others.
    """

    def text(row: "pd.Series[float]", digits: int) -> str:
        found = Interval(row["mean"], row["low"], row["high"], seeds=0)
        center, low, high = (f"{value:+.{digits}f}" for value in found[:3])
        if pd.isna(found.low):
            return "–" if pd.isna(found.mean) else center
        return f"{center} ({low} to {high}){' *' if found.beyond else ''}"

    titles = gains.columns.unique(level=0)
    digits = {title: (decimals or {}).get(title, 1) for title in titles}
    return pd.DataFrame(
        {title: gains[title].apply(text, 1, args=(digits[title],)) for title in titles}
    )


def gains_over(runs: Iterable[ReportRun], method: str) -> pd.DataFrame:
    """How many points every other method is above `method` after the last step, paired over seeds.

    Returns:
        A row for each dataset, task, setup and method; columns as of `paired_gains`, for the old
        classes without background, the new ones, and all.

    Raises:
        UserError: for a method that none of the finished runs has, and where no other one has
            finished.
    """
    found, known = [], list(runs)
    for group, members in by_group(known).items():
        last = [{"method": run.method, "seed": run.metrics["seed"], **run.metrics["steps"][-1]}
                for run in members if run.finished]  # fmt: skip
        names = dict.fromkeys(row["method"] for row in last)
        pairs: dict[Hashable, tuple[str, str]] = {
            (*group, name): (name, method) for name in names if name != method
        }
        if method in names and pairs:
            table = pd.DataFrame(last)
            table[list(_GAINS.values())] = table[list(_GAINS.values())].astype(float)
            found.append(paired_gains(table, pairs, _GAINS))
    if not found:
        finished = by_method(run for run in known if run.finished)
        if method not in finished:
            raise unknown_name("method of these runs", method, finished)
        raise UserError(f"No run of another method has finished beside {method}.")
    return pd.concat(found).rename_axis([*KEYS])


def gains_note(method: str) -> str:
    """What to know of the numbers of `gains_over`, as `gains_text` shows them."""
    return f"Points above {method}, mean and 95 % interval over the seeds of both; * leaves 0 out"


class Ranking(NamedTuple):
    """The continual method with the highest mean, and how far it is ahead of each other one."""

    first: str
    mean: float
    ahead: dict[str, Interval]
    """Method -> how many points the first is ahead of it, nearest first."""

    @property
    def level(self) -> list[str]:
        """The methods that the first is not ahead of beyond the spread."""
        return [method for method, lead in self.ahead.items() if not lead.low > 0]

    @property
    def best(self) -> str | None:
        """The first, if it is ahead of every other one beyond the spread; None else."""
        return self.first if self.ahead and not self.level else None


def scores(runs: Iterable[ReportRun], measure: str = "miou_all") -> dict[str, dict[int, float]]:
    """Method -> seed -> the measure after the last step, of finished runs that have it."""
    return {
        method: {
            run.metrics["seed"]: run.metrics["steps"][-1][measure]
            for run in members
            if run.finished and run.metrics["steps"][-1][measure] is not None
        }
        for method, members in by_method(runs).items()
    }


def ranking(runs: Iterable[ReportRun]) -> Ranking | None:
    """By mIoU of all classes, of runs of one task and setup; None without a finished method.

    Joint training, which sees all classes at once, is what methods are measured against.
    """
    return rank(scores(run for run in runs if not run.joint))


def rank(known: Mapping[str, Scores]) -> Ranking | None:
    """By the mean of each method's scores; methods without any do not count, and None is left."""
    known = {method: values for method, values in known.items() if values}
    if not known:
        return None
    order = sorted(known, key=lambda method: -mean(known[method].values()))
    first, *others = order
    ahead = {method: paired(known[first], known[method]) for method in others}
    return Ranking(first, mean(known[first].values()), ahead)
