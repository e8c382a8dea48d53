"""Our numbers beside the published ones, and in what the two runs differ."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from math import isnan
from statistics import mean, stdev
from typing import Any

import pandas as pd

from sparcl_lib.errors import first_few
from sparcl_lib.metrics import format_mean, mean_columns
from sparcl_lib.published.differences import row_differences
from sparcl_lib.published.tables import PublishedTable, RowRecipe
from sparcl_lib.report.runs import ReportRun, protocol_of_test
from sparcl_lib.reproduction.planning import PlannedRun
from sparcl_lib.training.run_directory import RunDirectory

MEASURES = {"old": "miou_first", "new": "miou_later", "all": "miou_all"}
"""Of a published table: the classes of step 0, those of all later steps, and all."""
_NAMED = 2

Finished = tuple[PlannedRun, ReportRun]


def outcome_table(table: PublishedTable, planned: Sequence[PlannedRun]) -> pd.DataFrame:
    """A row for each row of the table of which a run is done; mIoU in percent, last step.

    Columns: row, seeds, old, new, all (means over seeds), old_std, new_std, all_std,
    published_old, published_new, published_all, published_source, difference (ours minus theirs,
    of all), and published_unlike: what our runs have not as theirs. Numbers nobody knows are NaN.
    As in the published tables old are the classes of step 0 and new those of all later steps; where
    their means leave out the background, ours do.
    """
    rows = [_outcome(table, row, runs) for row, runs in _by_row(planned)]
    columns = ["row", "seeds", *MEASURES, *(f"{name}_std" for name in MEASURES)]
    columns += [f"published_{name}" for name in MEASURES]
    columns += ["published_source", "difference", "published_unlike"]
    return pd.DataFrame(rows, columns=columns)


def _by_row(planned: Sequence[PlannedRun]) -> Iterator[tuple[RowRecipe, list[Finished]]]:
    names = list(dict.fromkeys(run.row.name for run in planned))
    ordered = sorted(planned, key=lambda run: names.index(run.row.name))
    for _, runs in groupby(ordered, key=lambda run: run.row.name):
        found = [(run, result) for run in runs if (result := run.result()) is not None]
        if found:
            yield found[0][0].row, found


def _outcome(table: PublishedTable, row: RowRecipe, runs: Sequence[Finished]) -> dict[str, Any]:
    found: dict[str, Any] = {"row": row.name, "seeds": len(runs)}
    tests = {protocol_of_test(result.metrics) for _, result in runs}
    published = row.published if tests == {"crop"} else None  # of other images, or other parts
    for name, measure in MEASURES.items():
        # The new classes never hold the background.
        ending = "_no_bg" if table.without_background and name != "new" else ""
        values = [_at_the_end(result, f"{measure}{ending}") for _, result in runs]
        known = [value for value in values if not isnan(value)]
        found[name] = mean(known) if known else None
        found[f"{name}_std"] = stdev(known) if len(known) > 1 else None
        found[f"published_{name}"] = getattr(published, name, None)
    found["published_source"] = getattr(published, "source", None)
    found["published_unlike"] = "; ".join(dict.fromkeys(_differences(row, runs)))
    if found["all"] is not None and found["published_all"] is not None:
        found["difference"] = found["all"] - found["published_all"]
    return found


def _at_the_end(run: ReportRun, measure: str) -> float:
    matrix = run.matrix()
    mean_of: Callable[[int], float] = getattr(matrix, measure)
    return mean_of(max(matrix.rows))


def outcome_text(table: PublishedTable, planned: Sequence[PlannedRun]) -> str:
    """The table for a terminal, and what differs from the published runs; empty without a run."""
    outcome = outcome_table(table, planned)
    if outcome.empty:
        return ""
    numbers = outcome[[*MEASURES, *(f"{name}_std" for name in MEASURES)]].astype(float)
    titles = {name: name for name in MEASURES}
    shown = outcome[["row", "seeds"]].astype(str).assign(**mean_columns(numbers, titles))
    for name in MEASURES:
        shown[f"published {name}"] = [
            format_mean(value) for value in outcome[f"published_{name}"].astype(float)
        ]
    shown["difference"] = [
        "–" if pd.isna(value) else f"{value:+.1f}" for value in outcome["difference"]
    ]
    measured = "means without background" if table.without_background else "background counted"
    parts = "old: classes of step 0, new: of all later steps"
    lines = [f"{table.title}: mIoU in percent after the last step, {measured}; {parts}"]
    lines += [shown.to_string(index=False), "", "Differs from the published runs:"]
    lines += [f"- {line}" for line in differences(table, planned)]
    return "\n".join(lines)


def differences(table: PublishedTable, planned: Sequence[PlannedRun]) -> list[str]:
    """In what the finished runs are not those of the table: scale, data, seeds, and the rest.

    A line says which rows it is of, where it is not of all.
    """
    rows = list(_by_row(planned))
    said: dict[str, list[str]] = {}
    for row, runs in rows:
        for line in dict.fromkeys(_differences(row, runs)):
            said.setdefault(line, []).append(row.name)
    return [*(f"{line}{_of(names, len(rows))}" for line, names in said.items()), *table.unlike]


def _of(names: Sequence[str], all_rows: int) -> str:
    if len(names) == all_rows:
        return ""
    return f" ({first_few(names, _NAMED)})"


def _differences(row: RowRecipe, runs: Sequence[Finished]) -> Iterator[str]:
    for run, result in runs:
        yield from row_differences(row, RunDirectory(run.out).config(), result.metrics)
    yield f"seeds: {', '.join(str(run.seed) for run, _ in runs)}"
