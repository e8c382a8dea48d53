"""Is a method better than another, or is it chance? Differences paired over seeds.

Two runs of one seed share their images, their order and step 0, so what a seed does to both drops
out of their difference. Intervals are Student's t at 95 %, which says little for two seeds, and
each stands for itself: among many methods one in twenty is out of its interval by chance.
"""

from collections.abc import Iterable, Mapping
from statistics import mean, stdev
from typing import NamedTuple

from sparcl_lib.report.runs import JOINT, ReportRun, by_method

# The 97.5 % quantile of Student's t with 1, 2, ... degrees of freedom; the last serves all above.
_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip

Scores = Mapping[int, float]
"""Seed -> mIoU in percent."""


class Interval(NamedTuple):
    """A mean over seeds with its 95 % interval; NaN ends for fewer than two seeds."""

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
    """`one` minus `other` over the seeds that both have, in points."""
    return interval(one[seed] - other[seed] for seed in one if seed in other)


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
    known = {m: values for m, values in scores(runs).items() if values and m != JOINT}
    if not known:
        return None
    order = sorted(known, key=lambda method: -mean(known[method].values()))
    first, *others = order
    ahead = {method: paired(known[first], known[method]) for method in others}
    return Ranking(first, mean(known[first].values()), ahead)
