"""One self-contained HTML page over several runs."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import sparcl_lib
from sparcl_lib.metrics import StepMatrix, format_mean
from sparcl_lib.report.runs import (
    JOINT,
    KEYS,
    ReportRun,
    by_group,
    by_method,
    label_policy,
    mean_matrix,
)
from sparcl_lib.report.tables import readable, results_table, sources
from sparcl_lib.tasks.classes import BACKGROUND_NAME
from sparcl_lib.viz import (
    forgetting_curves,
    prediction_strips,
    small_png,
    step_heat_map,
    to_png,
)
from sparcl_lib.writing import write_text

_DATASETS = {"minivoc": "MiniVOC", "voc": "Pascal VOC 2012", "ade20k": "ADE20K"}
_SETUPS = {
    "sequential": "A step trains on the images that show one of its classes and none of a later "
    "step; the classes learned before are labelled too.",
    "disjoint": "A step trains on the images that show one of its classes and none of a later "
    "step; only the step's own classes are labelled, the ones learned before are background.",
    "overlapped": "A step trains on all images that show one of its classes, so an image may "
    "return at several steps; only the step's own classes are labelled, all others, earlier or "
    "later, are background.",
}
_POLICIES = {"background": "background", "ignore": "left out"}
_ZERO = {
    "background": "",
    "ignore": " Pixels of mask value 0 are left out in training and at test.",
    "ignore_at_test": " Pixels of mask value 0 are background in training and left out at test.",
}
_LISTED_CLASSES = 25


def write_report(
    runs: Iterable[ReportRun], path: str | Path, title: str, commands: Sequence[str] = ()
) -> None:
    """Write the page to `path`. commands: what to type to get the same runs, if known.

    Raises UserError when the file cannot be written.
    """
    text = page_html(runs, title, commands)
    write_text(Path(path), text)


def page_html(runs: Iterable[ReportRun], title: str, commands: Sequence[str] = ()) -> str:
    """The page: one section per dataset, task and setup; pictures and style inside the file."""
    return page_of(title, [section(group) for group in by_group(runs).values()], commands)


def page_of(title: str, sections: Sequence[dict[str, Any]], commands: Sequence[str] = ()) -> str:
    """A page of sections made by `section`."""
    template = (resources.files(__package__) / "page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        title=title,
        version=sparcl_lib.__version__,
        commands=commands,
        sections=sections,
    )


def section(
    runs: list[ReportRun],
    figures: Sequence[dict[str, str]] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
    subject: str | None = None,
) -> dict[str, Any]:
    """What the page says about runs of one dataset, task and setup.

    figures: made by `picture`; None: curves, predictions and a heat map per method.
    tables: title -> text to show below the results, the first column naming the rows.
    subject: what was run; None: the methods' names.
    """
    dataset, task, setup = runs[0].group
    table = results_table(runs)
    shown = readable(table).drop(columns=list(KEYS[:3]))
    return {
        "name": f"{_DATASETS.get(dataset, dataset)}, task {task}, {setup}",
        "about": _about(runs, subject or ", ".join(by_method(runs))),
        "steps": _steps(runs),
        "titles": list(shown),
        "rows": _rows(runs, table, shown),
        "several_seeds": (table["seeds"] > 1).any(),
        "sources": sources(table),
        "tables": [
            {"title": name, "titles": list(extra), "rows": extra.values.tolist()}
            for name, extra in (tables or {}).items()
        ],
        "figures": _figures(runs, table) if figures is None else figures,
    }


def _about(runs: list[ReportRun], subject: str) -> str:
    """What was run, in one paragraph."""
    metrics = runs[0].metrics
    dataset, _, setup = runs[0].group
    classes, policy = metrics["classes"], label_policy(metrics)
    seeds = sorted({run.metrics["seed"] for run in runs})
    return (
        f"{subject} on {_DATASETS.get(dataset, dataset)}: "
        f"{sum(map(len, classes))} classes in {_count(len(classes), 'step')}, "
        f"{_count(len(runs), 'run')}, {'seeds' if len(seeds) > 1 else 'seed'} "
        f"{', '.join(map(str, seeds))}. {_SETUPS.get(setup, '')} In training, object borders "
        f"(mask value 255) are {_POLICIES[policy['border']]}; at test they are left out, and "
        f"pixels of classes not learned yet are {_POLICIES[policy['future']]}."
        f"{_ZERO[policy['zero']]}"
    )


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _steps(runs: list[ReportRun]) -> list[dict[str, Any]]:
    """Classes and training images of every step; Joint trains on another set, all at once."""
    continual = [run.metrics for run in runs if run.metrics["method"] != JOINT]
    images: dict[str, int] = continual[0]["images"] if continual else {}
    return [
        {
            "step": step,
            "count": len(names),
            "classes": ", ".join(names[:_LISTED_CLASSES])
            + (f" and {len(names) - _LISTED_CLASSES} more" if len(names) > _LISTED_CLASSES else ""),
            "images": f"{images[str(step)]:,}" if str(step) in images else "–",
        }
        for step, names in enumerate(runs[0].metrics["classes"])
    ]


def _rows(runs: list[ReportRun], table: pd.DataFrame, shown: pd.DataFrame) -> list[dict[str, Any]]:
    """Cells of the method table; the best finished continual method is marked if there are two."""
    finished = {run.method for run in runs if run.finished and run.metrics["method"] != JOINT}
    scores = table[table["method"].isin(finished)]["miou_all"].dropna()
    best = scores.idxmax() if len(scores) > 1 else None
    return [
        {"method": row[0], "cells": row[1:], "best": k == best, "seconds": format_mean(seconds)}
        for k, (row, seconds) in enumerate(zip(shown.values.tolist(), table["seconds"]))
    ]


def _figures(runs: list[ReportRun], table: pd.DataFrame) -> list[dict[str, str]]:
    matrices = {m: [run.matrix() for run in group] for m, group in by_method(runs).items()}
    several = len(runs[0].metrics["classes"]) > 1
    figures = [curves(table, matrices)] if several else []
    strips = _strips(runs)
    figures += [strips] if strips else []
    return figures + [_heat_map(method, mean_matrix(m), len(m)) for method, m in matrices.items()]


def curves(table: pd.DataFrame, matrices: dict[str, list[StepMatrix]]) -> dict[str, str]:
    """mIoU over the steps, a line per method; table: of `results_table`."""
    numbers = ", ".join(f"{m} {format_mean(x)}" for m, x in zip(table["method"], table["miou_all"]))
    return picture(
        forgetting_curves(matrices),
        "Forgetting",
        "mIoU after every step. Left: all classes learned so far, with background. Right: the "
        "classes of step 0 alone, so a falling line is forgetting. Dashed: all classes learned "
        "at once. Bands: one standard deviation over seeds.",
        f"Lines of mIoU in percent over the steps, one per method. After the last step, all "
        f"classes: {numbers}.",
    )


def _strips(runs: list[ReportRun]) -> dict[str, str] | None:
    """Strips of the first seed of every method whose pictures are the same images."""
    shown = {run.method: run.predictions for run in reversed(runs) if run.predictions is not None}
    if not shown:
        return None
    shown = dict(reversed(shown.items()))
    first = next(iter(shown.values()))
    same = {m: p for m, p in shown.items() if np.array_equal(p["truth"], first["truth"])}
    classes = runs[0].metrics["classes"]
    names = [BACKGROUND_NAME, *(name for step in classes for name in step)]
    predictions = {method: arrays["prediction"] for method, arrays in same.items()}
    new = classes[-1] if len(classes) > 1 else ()
    return picture(
        prediction_strips(first["images"], first["truth"], predictions, names, new),
        "Predictions",
        "Test images after the last step. Hatched pixels, such as object borders, do not count.",
        f"{len(first['images'])} test images in rows; columns: the image, the true classes, and "
        f"the classes predicted by {', '.join(same)}.",
        encode=to_png,
    )


def _heat_map(method: str, matrix: StepMatrix, seeds: int) -> dict[str, str]:
    last = max(matrix.rows)
    ious = ", ".join(f"{name} {format_mean(iou)}" for name, iou in matrix.rows[last].items())
    mean = f", mean of {seeds} seeds" if seeds > 1 else ""
    return picture(
        step_heat_map(matrix),
        f"{method}: IoU of every class after every step",
        f"In percent{mean}. Blank: not learned yet, or neither in the truth nor predicted; "
        "background without a pixel in the truth has none either.",
        f"Grid of IoU in percent for {method}. After step {last}: {ious}.",
    )


def picture(
    figure: Figure,
    title: str,
    caption: str,
    alt: str,
    encode: Callable[[Figure], bytes] = small_png,
) -> dict[str, str]:
    """A figure as the page holds it: the PNG itself, its heading, and what it shows in words.

    encode: `to_png` where photographs need all colours.
    """
    data = base64.b64encode(encode(figure)).decode()
    return {"title": title, "caption": caption, "alt": alt, "data": data,
            "width": str(round(figure.get_figwidth() * 100))}  # fmt: skip
