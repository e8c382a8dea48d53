"""What a page says about a task that was trained in several class orders."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from sparcl_lib.metrics import format_mean
from sparcl_lib.report.orders import (
    Family,
    by_family,
    family_table,
    miou_by_order,
    orders_of,
    orders_ranking,
    orders_verdict,
    readable_orders,
)
from sparcl_lib.report.runs import ReportRun, tested_on
from sparcl_lib.report.sections import (
    LISTED_CLASSES,
    csv_link,
    figure_block,
    page_tables,
    picture,
    shown_dataset,
    slug,
)
from sparcl_lib.report.verdict import lead_table, points
from sparcl_lib.viz import order_lines


def order_sections(runs: Iterable[ReportRun]) -> list[dict[str, Any]]:
    """A section for each task that was trained in several class orders."""
    return [_section(each) for each in by_family(runs)]


def _section(of: Family) -> dict[str, Any]:
    runs, table, each = of.runs, family_table(of), miou_by_order(of.runs)
    shown, found = readable_orders(table), orders_ranking(runs)
    name = f"{shown_dataset(of.dataset)}, task {of.task}, {of.setup}, over class orders{of.test}"
    leads = lead_table(found, "order")
    tables = {
        **({} if leads is None else {"Beyond the spread? All classes, paired over orders": leads}),
        "mIoU of all classes in each order": _each_order(runs, each),
    }
    return {
        "name": name,
        "id": slug(name),
        "verdict": " ".join(orders_verdict(runs)),
        "about": f"The same classes in {len(each)} orders of learning, in steps of the same sizes. "
        "An order counts once, as the mean over its seeds; methods are compared in the orders and "
        f"seeds that all of them have. Tested are {tested_on(runs[0].metrics)}. Each order has a "
        "section of its own.",
        "steps": [],
        "titles": list(shown),
        "rows": [
            {"method": row[0], "cells": row[1:], "best": found is not None and row[0] == found.best}
            for row in shown.values.tolist()
        ],
        "methods": [],
        "spread": "Mean ± standard deviation over the class orders that a method has.",
        "sources": [],
        "csv": csv_link(table),
        "tables": page_tables(tables),
        "figures": [_order_figure(each)],
    }


def _each_order(runs: Iterable[ReportRun], each: pd.DataFrame) -> pd.DataFrame:
    """A row per order: what the later steps learn, and each method's mIoU."""
    classes = orders_of(runs)
    later = [
        "; ".join(", ".join(step) for step in classes[task][1:])
        if sum(map(len, classes[task][1:])) <= LISTED_CLASSES
        else "–"
        for task in each.index
    ]
    return each.map(format_mean).rename_axis("order").reset_index().assign(**{"later steps": later})


def _order_figure(each: pd.DataFrame) -> dict[str, Any]:
    said = ", ".join(
        f"{method} {points(of.min())} to {points(of.max())}, mean {points(of.mean())}"
        for method, of in each.items()
    )
    caption = (
        "mIoU of all classes after the last step, a mark per class order; a grey line joins the "
        "marks of one order, an upright one is the mean. Where a line leans to the right on its "
        "way down, the lower method is ahead in that order."
    )
    drawn = picture(order_lines(each), f"Marks of mIoU, a row per method: {said}.")
    return figure_block("What the order does", caption, [drawn])
