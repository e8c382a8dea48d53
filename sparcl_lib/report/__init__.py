"""Tables over several runs, the published row beside each of ours.

Pages are `sparcl_lib.report.page`; they need the extra `report`, tables do not.
"""

from collections.abc import Callable

from sparcl_lib.report.differences import gains_note, gains_over, gains_text, paired_gains
from sparcl_lib.report.loading import load_runs
from sparcl_lib.report.orders import orders_latex, orders_markdown, orders_table
from sparcl_lib.report.runs import ReportRun
from sparcl_lib.report.tables import (
    as_latex,
    as_markdown,
    class_table,
    latex_table,
    markdown_table,
    results_table,
    results_text,
    steps_text,
    write_results,
)
from sparcl_lib.tasks.classes import unknown_name
from sparcl_lib.writing import csv_text

__all__ = [
    "ReportRun",
    "gains_over",
    "gains_text",
    "load_runs",
    "orders_table",
    "paired_gains",
    "render",
    "results_table",
    "results_text",
    "steps_text",
    "write_results",
]


def render(runs: list[ReportRun], format: str, against: str | None = None) -> str:
    """The runs as `html` (the page), `md` (a GitHub table), `latex` (a table for booktabs), `csv`
    (numbers to 4 decimals) or `classes` (CSV, the IoU of every class after every step of each run).
    A page, `md` and `latex` have tables over class orders, too, where a task has several.

    against: a method; in place of all that then come the points that every other method is above
    it, paired over seeds (`gains_over`), as `md`, `latex` or `csv`.

    Raises UserError for another format, and for a method that no run has.
    """
    if against is not None:
        return _gains(runs, against, format)

    def page() -> str:
        from sparcl_lib.report.page import page_html

        return page_html(runs, "Results")

    writers: dict[str, Callable[[], str]] = {
        "html": page,
        "md": lambda: markdown_table(runs) + orders_markdown(runs),
        "latex": lambda: latex_table(runs) + orders_latex(runs),
        "csv": lambda: csv_text(results_table(runs).round(4)),
        "classes": lambda: csv_text(class_table(runs).round(4)),
    }
    if format.lower() not in writers:
        raise unknown_name("format", format, writers)
    return writers[format.lower()]()


def _gains(runs: list[ReportRun], method: str, format: str) -> str:
    gains = gains_over(runs, method)
    shown = gains_text(gains).reset_index()
    note = gains_note(method)
    flat = gains.round(4)
    flat.columns = [f"{measure}, {part}" for measure, part in gains]
    names = gains.index.nlevels
    writers: dict[str, Callable[[], str]] = {
        "md": lambda: f"{as_markdown(shown, names)}\n{note}\n",
        "latex": lambda: f"% {note}\n{as_latex(shown, names)}",
        "csv": lambda: csv_text(flat.reset_index()),
    }
    if format.lower() not in writers:
        raise unknown_name("format", format, writers)
    return writers[format.lower()]()
