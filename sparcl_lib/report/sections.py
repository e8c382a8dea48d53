"""What a page says about the runs of one dataset, task and setup: tables and pictures."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sparcl_lib.errors import first_few, number_of
from sparcl_lib.method_table import loss_text, other_settings_text
from sparcl_lib.metrics import StepMatrix, format_mean
from sparcl_lib.report.differences import ranking
from sparcl_lib.report.runs import (
    KEYS,
    ReportRun,
    by_method,
    device_kinds,
    label_policy,
    mean_matrix,
    protocol_of_test,
    tested_on,
)
from sparcl_lib.report.tables import readable, remarks, results_table, sources
from sparcl_lib.report.verdict import first_step_miou, lead_table, verdict
from sparcl_lib.tasks.classes import BACKGROUND_NAME
from sparcl_lib.viz import (
    ALL_CLASSES,
    FIRST_CLASSES,
    miou_curves,
    prediction_strips,
    small_png,
    step_heat_map,
    to_png,
)
from sparcl_lib.writing import csv_text

_DATASETS = {
    "minivoc": "MiniVOC",
    "minivoc20": "MiniVOC20",
    "voc": "Pascal VOC 2012",
    "ade20k": "ADE20K",
}
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
LISTED_CLASSES = 25
_METHODS_ABREAST = 5  # in strips of predictions; more stand one below the other
_NARROW = 3  # pictures abreast on a telephone
_TELEPHONE = 4.2  # inches, of a figure that a telephone shows legibly
_DPI = 200  # a figure's inch is 100 pixels of the page: twice that, for sharp displays


def section(
    runs: list[ReportRun],
    figures: Sequence[dict[str, Any]] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
    subject: str | None = None,
    says: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What the page says about runs of one dataset, task and setup.

    figures: made by `picture`; None: curves, predictions and a heat map per method.
    tables: title -> text to show below the results, the first column naming the rows.
    subject: what was run; None: the methods' names.
    says: the verdict; None: of `verdict`.
    """
    dataset, task, setup = runs[0].group
    table = results_table(runs)
    shown = readable(table).drop(columns=list(KEYS[:3]))
    leads = lead_table(ranking(runs))
    extra = {} if leads is None else {"Beyond the spread? All classes, paired over seeds": leads}
    name = f"{shown_dataset(dataset)}, task {task}, {setup}"
    several = (table["seeds"] > 1).any()
    spread = "Mean ± standard deviation over seeds." if several else "One seed."
    return {
        "name": name,
        "id": slug(name),
        "verdict": " ".join(verdict(runs) if says is None else says),
        "about": _about(runs, subject or ", ".join(by_method(runs))),
        "steps": _steps(runs),
        "titles": [*shown, "training (s)"],
        "rows": _rows(runs, table, shown),
        "methods": _methods(runs),
        "spread": f"{spread} Training time is that of all steps, summed.",
        "sources": sources(table),
        "csv": csv_link(table),
        "tables": page_tables({**extra, **(tables or {})}),
        "figures": _figures(runs) if figures is None else figures,
    }


def shown_dataset(dataset: str) -> str:
    """Its name in full, if it is one of the library's."""
    return _DATASETS.get(dataset, dataset)


def slug(*words: str) -> str:
    """An anchor: `MiniVOC, task 6-4, disjoint` is minivoc-task-6-4-disjoint. Letters of any script
    stay."""
    return re.sub(r"[\W_]+", "-", " ".join(words).lower()).strip("-")


def page_tables(tables: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Title -> text to show, as the template reads it."""
    return [
        {"title": title, "titles": list(rows), "rows": rows.values.tolist()}
        for title, rows in tables.items()
    ]


def csv_link(table: pd.DataFrame) -> str:
    """The file that a page holds, in base64."""
    return base64.b64encode(csv_text(table.round(4)).encode()).decode()


def _about(runs: list[ReportRun], subject: str) -> str:
    """What was run, in one paragraph."""
    metrics = runs[0].metrics
    dataset, _, setup = runs[0].group
    classes, policy = metrics["classes"], label_policy(metrics)
    seeds = sorted({run.metrics["seed"] for run in runs})
    devices = device_kinds(runs)
    trained = f" Trained on {devices}." if devices else ""
    return (
        f"{subject} on {shown_dataset(dataset)}: "
        f"{sum(map(len, classes))} classes in {number_of(len(classes), 'step')}, "
        f"{number_of(len(runs), 'run')}, {'seeds' if len(seeds) > 1 else 'seed'} "
        f"{', '.join(map(str, seeds))}. {_SETUPS.get(setup, '')} In training, object borders "
        f"(mask value 255) are {_POLICIES[policy['border']]}; at test they are left out, and "
        f"pixels of classes not learned yet are {_POLICIES[policy['future']]}."
        f"{_ZERO[policy['zero']]} Tested are {tested_on(metrics)}.{trained}"
        + "".join(f" Note: {line}." for line in remarks(runs))
    )


def _steps(runs: list[ReportRun]) -> list[dict[str, Any]]:
    """Classes and training images of every step; Joint trains on another set, all at once."""
    continual = [run.metrics for run in runs if not run.joint]
    images: dict[str, int] = continual[0]["images"] if continual else {}
    return [
        {
            "step": step,
            "count": len(names),
            "classes": first_few(names, LISTED_CLASSES),
            "images": f"{images[str(step)]:,}" if str(step) in images else "–",
        }
        for step, names in enumerate(runs[0].metrics["classes"])
    ]


def _rows(runs: list[ReportRun], table: pd.DataFrame, shown: pd.DataFrame) -> list[dict[str, Any]]:
    """Cells of the method table; a method that is best beyond the spread is marked."""
    found = ranking(runs)
    best = found.best if found else None
    return [
        {"method": row[0], "cells": [*row[1:], format_mean(seconds)], "best": row[0] == best}
        for row, seconds in zip(shown.values.tolist(), table["seconds"])
    ]


def _methods(runs: list[ReportRun]) -> list[tuple[str, str, str]]:
    """Of each method whose settings are known: its name, its loss, and what else it sets.

    Twice, where runs of one name were trained with other weights.
    """
    known = [(run.method, run.settings) for run in runs if run.settings is not None]
    said = [(name, loss_text(s), other_settings_text(s)) for name, s in known]
    return list(dict.fromkeys(said))


def _figures(runs: list[ReportRun]) -> list[dict[str, Any]]:
    figures = curves(runs) + _strips(runs)
    return [*figures, _heat_maps(by_method(runs))]


def curves(runs: list[ReportRun]) -> list[dict[str, Any]]:
    """mIoU over the steps, a line per method, a picture per mean; none for a task of one step."""
    counts = [len(names) for names in runs[0].metrics["classes"]]
    if len(counts) == 1:
        return []
    methods = by_method(runs)
    panels = {
        ALL_CLASSES: {m: pd.DataFrame([_all(r) for r in rs]).astype(float)
                      for m, rs in methods.items()},
        FIRST_CLASSES: {m: pd.DataFrame([first_step_miou(r) for r in rs])
                        for m, rs in methods.items()},
    }  # fmt: skip
    last = len(counts) - 1  # which a run that has not finished lacks
    if not any(last in m and m[last].notna().any() for m in panels[FIRST_CLASSES].values()):
        del panels[FIRST_CLASSES]
    several = any(len(members) > 1 for members in methods.values())
    caption = (
        "mIoU after every step: of all classes learned so far, with background"
        + ("; and of the classes of step 0 alone, where a falling line is forgetting. "
           if FIRST_CLASSES in panels else ". ")
        + ("A level: joint training, all classes at once; a line may begin above it, for fewer "
           "classes are easier to tell apart. " if any(run.joint for run in runs) else "")
        + ("Bands: one standard deviation over seeds." if several else "")
    )  # fmt: skip
    drawn = [_curve(title, lines, counts) for title, lines in panels.items()]
    return [figure_block("Forgetting", caption, drawn)]


def _curve(title: str, lines: Mapping[str, pd.DataFrame], counts: Sequence[int]) -> dict[str, Any]:
    """One panel as a picture of its own, so that the page sets them as there is room."""
    last = ", ".join(f"{m} {format_mean(values.iloc[:, -1].mean())}" for m, values in lines.items())
    return picture(
        miou_curves({title: lines}, counts, _TELEPHONE),
        f"{title}: lines of mIoU in percent over the steps, one per method. At the end of each: "
        f"{last}.",
    )


def _all(run: ReportRun) -> dict[int, float]:
    return {entry["step"]: entry["miou_all"] for entry in run.metrics["steps"]}


def _strips(runs: list[ReportRun]) -> list[dict[str, Any]]:
    """Strips of the first seed of every method whose pictures are the same images."""
    shown = {run.method: run.predictions for run in reversed(runs) if run.predictions is not None}
    if not shown:
        return []
    shown = dict(reversed(shown.items()))
    first = next(iter(shown.values()))
    same = {m: p for m, p in shown.items() if np.array_equal(p["truth"], first["truth"])}
    classes = runs[0].metrics["classes"]
    names = [BACKGROUND_NAME, *(name for step in classes for name in step)]
    new = classes[-1] if len(classes) > 1 else ()

    def strips(number: int | None, upright: bool) -> Figure:
        predictions = {method: arrays["prediction"][:number] for method, arrays in same.items()}
        images, truth = first["images"][:number], first["truth"][:number]
        return prediction_strips(images, truth, predictions, names, new, upright)

    wide = strips(None, upright=len(same) > _METHODS_ABREAST)
    tested = "held-out images" if "held out" in protocol_of_test(runs[0].metrics) else "test images"
    alt = (
        f"{len(first['images'])} {tested}, on a narrow screen {_NARROW} of them at most; beside "
        f"each the true classes, and the classes predicted by {', '.join(same)}."
    )
    drawn = picture(wide, alt, narrow=strips(_NARROW, upright=True), encode=to_png)
    caption = (
        f"{tested.capitalize()} after the last step, of the first seed. Hatched pixels, such as "
        "object borders, do not count."
    )
    return [figure_block("Predictions", caption, [drawn])]


def _heat_maps(methods: Mapping[str, list[ReportRun]]) -> dict[str, Any]:
    """A step by class matrix of every method, side by side where there is room."""
    several = any(len(runs) > 1 for runs in methods.values())
    joint = [method for method, runs in methods.items() if runs[0].joint]
    caption = (
        f"In percent{', means over seeds' if several else ''}: bright is high. Blank: not learned "
        "yet, or without a pixel in the truth, whatever is predicted."
        + "".join(
            f" {m} is trained once, on all classes: its row is the last step's." for m in joint
        )
    )
    maps = [_heat_map(m, mean_matrix([r.matrix() for r in runs])) for m, runs in methods.items()]
    return figure_block("IoU of every class after every step", caption, maps)


def _heat_map(method: str, matrix: StepMatrix) -> dict[str, Any]:
    last = max(matrix.rows)
    ious = ", ".join(f"{name} {format_mean(iou)}" for name, iou in matrix.rows[last].items())
    return picture(
        step_heat_map(matrix, method, upright=True),
        f"Grid of IoU in percent for {method}. After step {last}: {ious}.",
    )


def figure_block(title: str, caption: str, pictures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pictures made by `picture` under one heading and caption."""
    return {"title": title, "caption": caption, "pictures": pictures}


def picture(
    figure: Figure,
    alt: str,
    narrow: Figure | None = None,
    encode: Callable[[Figure, int], bytes] = small_png,
) -> dict[str, Any]:
    """A figure as the page holds it: the PNG itself at twice its size, and what it shows in words.

    narrow: the same for a screen that the figure would not fit.
    encode: `to_png` where photographs need all colours.
    """
    return {
        "alt": alt,
        "data": base64.b64encode(encode(figure, _DPI)).decode(),
        "narrow": base64.b64encode(encode(narrow, _DPI)).decode() if narrow else "",
        "width": str(round(figure.get_figwidth() * 100)),
    }
