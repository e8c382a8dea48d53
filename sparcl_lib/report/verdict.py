"""What the numbers of one task and setup say, in two or three plain sentences."""

from collections.abc import Iterable, Sequence
from statistics import mean

import numpy as np
import pandas as pd

from sparcl_lib.metrics import mean_iou
from sparcl_lib.report.differences import Interval, Ranking, ranking, scores
from sparcl_lib.report.runs import ReportRun, by_group, by_method

_NAMED = 4
_LEARNED = 1.0
"""Points of mIoU below which step 0 has learned nothing that a later step could lose."""
_ROUNDED = 0.05
_BOUND = "Joint training, which sees all classes at once, reaches"
_MINUS = "\N{MINUS SIGN}"


def points(value: float) -> str:
    """One decimal, with a true minus; a dash for no value."""
    return "–" if np.isnan(value) else f"{value:.1f}".replace("-", _MINUS)


def range_text(found: Interval) -> str:
    """Such as `0.8 to 2.2`; a dash for fewer than two seeds."""
    return "–" if np.isnan(found.low) else f"{points(found.low)} to {points(found.high)}"


def listed(names: Sequence[str]) -> str:
    """`A`, `A and B`, `A, B and 3 more`."""
    if len(names) > _NAMED:
        return f"{', '.join(names[: _NAMED - 1])} and {len(names) - _NAMED + 1} more"
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def verdict(runs: Sequence[ReportRun]) -> list[str]:
    """What was lost, and what helped: a sentence or two for each.

    runs: of one data set, task and setup.
    """
    found = ranking(runs)
    if found is None:
        joint = _joint(runs)
        if joint is not None and all(run.joint for run in runs):
            return [f"{_BOUND} {points(joint)}; no method that learns step by step is beside it."]
        return ["No run of a continual method has finished the last step."]
    return [*_lost(runs), *helped(found, _joint(runs))]


def verdicts_text(runs: Iterable[ReportRun]) -> str:
    """`verdict` for a terminal: a block for each dataset, task and setup, a line for each thing."""
    return "\n\n".join(
        "\n".join([f"{' '.join(group)}:", *verdict(members)])
        for group, members in by_group(runs).items()
    )


def first_step_miou(run: ReportRun) -> dict[int, float]:
    """Step -> mIoU in percent of the classes of step 0, without background; NaN if not known."""
    names: list[str] = run.metrics["classes"][0]
    found = {}
    for entry in run.metrics["steps"]:
        measure = {0: "miou_all_no_bg", 1: "miou_old_no_bg"}.get(entry["step"])
        if measure is not None:
            value = entry[measure]
            found[entry["step"]] = float("nan") if value is None else value
        else:
            ious = (entry["class_iou"].get(name) for name in names)
            found[entry["step"]] = mean_iou(float("nan") if i is None else i for i in ious)
    return found


def _lost(runs: Sequence[ReportRun]) -> list[str]:
    """What became of the classes of step 0, for the methods that lost most and least of them."""
    last = len(runs[0].metrics["classes"]) - 1
    kept: dict[str, tuple[float, float]] = {}
    for method, members in by_method(runs).items():
        histories = [first_step_miou(run) for run in members if run.finished]
        ends = [(h[0], h[last]) for h in histories if 0 in h and not np.isnan(h[last])]
        if ends and last > 0:
            kept[method] = (mean(a for a, _ in ends), mean(b for _, b in ends))
    if not kept:
        return _old_classes(runs) if last > 0 else []
    learned = max(before for before, _ in kept.values())
    if learned < _LEARNED:
        return [
            f"Nothing could be lost: after step 0 the mIoU of its classes, without background, is "
            f"{points(learned)}."
        ]
    order = sorted(kept, key=lambda method: kept[method][0] - kept[method][1])
    least, most = order[0], order[-1]
    ends_alike = [m for m in kept if points(kept[m][1]) == points(kept[most][1])]
    names = listed(ends_alike) if most in ends_alike[:_NAMED] else most
    classes = "the mIoU of the classes of step 0, without background,"
    lost = f"{classes} {_moved(*kept[most])}"
    if len(kept) == 1:
        return [f"{most}: {lost}."]
    if [points(x) for x in kept[least]] == [points(x) for x in kept[most]]:
        return [f"{listed(order)} lost alike: {lost}."]
    return [
        f"Most was lost by {names}: {lost}.",
        f"Least was lost by {least}: it {_moved(*kept[least])}.",
    ]


def _old_classes(runs: Sequence[ReportRun]) -> list[str]:
    """The same from the means of all old classes, where the classes themselves are not known."""
    continual = [run for run in runs if not run.joint]
    old = {
        method: mean(values.values())
        for method, values in scores(continual, "miou_old_no_bg").items()
        if values
    }
    if not old:
        return []
    order = sorted(old, key=lambda method: old[method])
    alike = [method for method in order if points(old[method]) == points(old[order[0]])]
    lost = (
        f"Most was lost by {listed(alike)}: the mIoU of the classes of earlier steps, without "
        f"background, is {points(old[order[0]])} after the last one."
    )
    least = f"Least was lost by {order[-1]}: it is {points(old[order[-1]])}."
    return [lost] if order[-1] in alike else [lost, least]


def _moved(before: float, after: float) -> str:
    if points(before) == points(after):
        return f"stayed at {points(after)}"
    verb = "fell" if after < before else "rose"
    return f"{verb} from {points(before)} to {points(after)}"


def _joint(runs: Sequence[ReportRun]) -> float | None:
    """mIoU of joint training; of the best of several that have names of their own."""
    found = scores(run for run in runs if run.joint)
    return max((mean(values.values()) for values in found.values() if values), default=None)


def helped(found: Ranking, joint: float | None, unit: str = "seed") -> list[str]:
    """Which method is ahead, and whether beyond the spread of the units it was ranked over.

    joint: mIoU of joint training, if it is known.
    """
    bound = ""
    if joint is not None:
        bound = f" {_BOUND} {points(joint)}."
    value = points(found.mean)
    if not found.ahead:
        return [f"{found.first} reaches {value} in all classes after the last step.{bound}"]
    if all(_level(lead) for lead in found.ahead.values()):
        return [f"All methods end with {value} in all classes.{bound}"]
    known = [(method, lead) for method, lead in found.ahead.items() if lead.seeds > 1]
    if not known:
        few = (
            f"With one {unit}"
            if all(lead.seeds == 1 for lead in found.ahead.values())
            else f"Without two {unit}s in common"
        )
        return [
            f"{found.first} has the highest mIoU of all classes, {value}.{bound}",
            f"{few} no method is called best: another {unit} may turn a difference of a few points "
            "round.",
        ]
    second, lead = next(((m, x) for m, x in known if m in found.level), known[0])
    nearest = (
        f"{unit} by {unit}, {second} is {points(lead.mean)} lower (95 % interval "
        f"{range_text(lead)}, {lead.seeds} {unit}s)"
    )
    if found.best:
        return [
            f"Best in all classes is {found.first} with {value}, ahead of every other method "
            f"beyond the spread of the {unit}s: the nearest to it, {nearest}.{bound}"
        ]
    return [
        f"{found.first} has the highest mean in all classes, {value}, but is not ahead of "
        f"{listed(found.level)} beyond the spread of the {unit}s: {nearest}.{bound}"
    ]


def _level(lead: Interval) -> bool:
    """Whether two methods end alike, and not on average alone."""
    ends = [] if np.isnan(lead.low) else [lead.low, lead.high]
    return all(abs(value) < _ROUNDED for value in (lead.mean, *ends))


def lead_table(found: Ranking | None, unit: str = "seed") -> pd.DataFrame | None:
    """How far the method with the highest mean is ahead of the others; None for single seeds."""
    if found is None or not any(lead.seeds > 1 for lead in found.ahead.values()):
        return None
    rows = [
        (m, points(lead.mean), range_text(lead), str(lead.seeds), "yes" if lead.low > 0 else "no")
        for m, lead in found.ahead.items()
    ]
    titles = [
        "method", f"behind {found.first}", "95 % interval", f"{unit}s", "beyond the spread"
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=titles)
