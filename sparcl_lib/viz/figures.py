"""Figures of results. Pure: data in, matplotlib Figure out; no pyplot state, no files."""

import io
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import PIL.Image
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from sparcl_lib.metrics import StepMatrix, mean_iou
from sparcl_lib.viz.palette import (
    BLANK_COLOR,
    GRID_COLOR,
    MUTED_COLOR,
    TEXT_COLOR,
    VOID_COLORS,
    class_palette,
    colorize,
    method_styles,
)

_ANNOTATED_CLASSES = 30
_LABELS_IN_PANEL, _LONGEST_NAME = 15, 30
"""As many labels as a panel of curves holds one above the other, of so many letters at most."""


def to_png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def small_png(figure: Figure, dpi: int = 110) -> bytes:
    """The same in at most 256 colours of 16 levels a channel: a quarter of the size.

    Rounding the levels first, by 8 of 255 at most, costs nothing that the eye sees; a palette alone
    would give up a small patch's colour for one more shade of a photograph.
    """
    drawn = PIL.Image.open(io.BytesIO(to_png(figure, dpi))).convert("RGB")
    rounded = drawn.point([17 * round(level / 17) for level in range(256)] * 3)
    buffer = io.BytesIO()
    rounded.quantize(256, dither=PIL.Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def prediction_strips(
    images: np.ndarray,
    truth: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    new_classes: Collection[str] = (),
) -> Figure:
    """One row per image: photo, truth, each method's prediction; a legend of the classes shown.

    Args:
        images: uint8 (n, H, W, 3).
        truth: training indices uint8 (n, H, W), 255 = void.
        predictions: method -> training indices uint8 (n, H, W).
        class_names: by training index, background first.
        new_classes: names of the classes learned last, marked in the legend.
    """
    columns = {"image": images, "truth": truth, **predictions}
    n = len(images)
    indices = np.unique(np.concatenate([truth, *predictions.values()]))
    legend_rows = -(-len(indices) // len(columns))
    height = 1.35 * n + 0.6 + 0.22 * legend_rows
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(1.35 * len(columns) + 0.1, height), layout=layout)
    grid = figure.subplots(n, len(columns), squeeze=False)
    for place, (name, pictures) in enumerate(columns.items()):
        for axes, picture in zip(grid[:, place], pictures, strict=True):
            shown = picture if name == "image" else colorize(picture, len(class_names))
            axes.imshow(shown, interpolation="auto" if name == "image" else "nearest")
            axes.set_axis_off()
        grid[0, place].set_title(name, fontsize=10, color=TEXT_COLOR)
    _class_legend(figure, indices, class_names, new_classes, ncols=len(columns))
    return figure


def _class_legend(
    figure: Figure,
    shown: np.ndarray,
    class_names: Sequence[str],
    new_classes: Collection[str],
    ncols: int,
) -> None:
    """The colours of the training indices `shown` below the strips, new classes marked."""
    palette = class_palette(len(class_names)) / 255
    known = [index for index in shown if index < len(class_names)]
    names = [class_names[index] for index in known]
    labels = [f"{name} *" if name in new_classes else name for name in names]
    keys = [Patch(color=palette[i], label=label) for i, label in zip(known, labels)]
    if len(known) < len(shown):
        void, edge = ((red / 255, green / 255, blue / 255) for red, green, blue in VOID_COLORS)
        keys.append(Patch(facecolor=void, edgecolor=edge, hatch="/////", label="not counted"))
    title = "* learned at the last step" if any(n in new_classes for n in names) else None
    legend = figure.legend(
        handles=keys, loc="outside lower center", ncols=ncols, fontsize=9, frameon=False,
        title=title, title_fontsize=8.5, handlelength=1.2, columnspacing=1.2,
    )  # fmt: skip
    for text, name in zip(legend.get_texts(), names):
        text.set_fontweight("bold" if name in new_classes else "normal")


def forgetting_curves(
    matrices: Mapping[str, Sequence[StepMatrix]], stacked: bool = False
) -> Figure:
    """mIoU after each step, in percent: of all classes learned so far, and of those of step 0.

    matrices: method -> its runs (seeds) of one task. Lines are means, bands one standard deviation
    over several seeds. A run that has only the last of several steps (joint training) is a dashed
    level.
    stacked: one panel below the other, for a narrow page.
    """
    high = 3.9 * max(1, len(matrices) / _LABELS_IN_PANEL)
    layout = ConstrainedLayoutEngine(wspace=0.06, hspace=0.06)
    figure = Figure(figsize=(4.2, 2 * high) if stacked else (9.6, high), layout=layout)
    first, second = figure.subplots(2, 1) if stacked else figure.subplots(1, 2, sharey=True)
    _curves_panel(first, matrices, StepMatrix.miou_all, "All classes learned so far")
    _curves_panel(second, matrices, _first_step_miou, "Classes of step 0 (without background)")
    for axes in (first, second) if stacked else (first,):
        axes.set_ylabel("mIoU (%)", color=TEXT_COLOR)
    return figure


def _first_step_miou(matrix: StepMatrix, step: int) -> float:
    return mean_iou(matrix.rows[step][name] for name in matrix.step_classes[0])


def _curves_panel(
    axes: Axes,
    matrices: Mapping[str, Sequence[StepMatrix]],
    measure: Callable[[StepMatrix, int], float],
    title: str,
) -> None:
    step_classes = next(iter(matrices.values()))[0].step_classes
    last = len(step_classes) - 1
    starts, ends = [], []
    for (method, runs), style in zip(matrices.items(), method_styles(matrices).values()):
        color, dashes = style.color, style.dashes
        values = pd.DataFrame([{s: measure(run, s) for s in sorted(run.rows)} for run in runs])
        mean, std = values.mean(), values.std().fillna(0)
        if last > 0 and list(values) == [last]:
            axes.hlines(mean[last], 0, last, color=color, linestyle=dashes, linewidth=1.8)
        else:
            axes.plot(
                mean.index, mean, color=color, linestyle=dashes, linewidth=2.2,
                marker=style.marker, markersize=7.5, markeredgecolor="white", markeredgewidth=0.6,
            )  # fmt: skip
            if len(runs) > 1:
                low, high = (mean - std).clip(lower=0), (mean + std).clip(upper=100)
                axes.fill_between(mean.index, low, high, color=color, alpha=0.15, linewidth=0)
            if last > 0:
                starts.append((mean.iloc[0], f"{mean.iloc[0]:.1f}", color))
        name = textwrap.shorten(method, _LONGEST_NAME, placeholder=" …")
        ends.append((mean.iloc[-1], f"{name}  {mean.iloc[-1]:.1f}", color))
    _style_panel(axes, step_classes, title)
    gap = 100 / max(_LABELS_IN_PANEL, len(matrices))
    _label_points(axes, _unique(starts), 0, "right", gap)
    _label_points(axes, ends, last, "left", gap)


def _style_panel(axes: Axes, step_classes: Sequence[Sequence[str]], title: str) -> None:
    last = len(step_classes) - 1
    counts = [f"{'+' if k else ''}{len(names)}" for k, names in enumerate(step_classes)]
    few = last <= 2
    labels = [f"step {k}\n{n} classes" if few else f"{k}\n{n}" for k, n in enumerate(counts)]
    axes.set_title(title, fontsize=11, color=TEXT_COLOR)
    axes.set_xticks(range(last + 1), labels)
    axes.set_xlabel("" if few else "step, and classes it adds", color=TEXT_COLOR)
    axes.set(xlim=(-0.3 * max(last, 1), 1.03 * max(last, 1)), ylim=(-3, 103))
    axes.tick_params(colors=TEXT_COLOR, labelleft=True, length=0)
    axes.grid(axis="y", color=GRID_COLOR, linewidth=0.8)
    axes.set_axisbelow(True)
    seaborn.despine(ax=axes, left=True)


def _unique(labels: Sequence[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """One label per text; one that several methods share is neutral."""
    texts = [text for _, text, _ in labels]
    return [
        (y, text, color if texts.count(text) == 1 else MUTED_COLOR)
        for k, (y, text, color) in enumerate(labels)
        if text not in texts[:k]
    ]


def _label_points(
    axes: Axes, labels: Sequence[tuple[float, str, str]], x: float, side: str, gap: float
) -> None:
    """Texts beside the points (x, y), moved apart to at least `gap` and tied to their points."""
    labels = sorted(label for label in labels if not np.isnan(label[0]))
    away = 0.06 * np.ptp(axes.get_xlim()) * (-1 if side == "right" else 1)
    places = spread([y for y, _, _ in labels], gap)
    for place, (y, text, color) in zip(places, labels):
        axes.annotate(
            text, (x, y), xytext=(x + away, place), annotation_clip=False, ha=side, va="center",
            fontsize=9.5, color=color, weight="bold",
            bbox={"boxstyle": "square,pad=0.06", "color": "white"},
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkA": 0,
                        "shrinkB": 4, "relpos": (float(side == "right"), 0.5)},
        )  # fmt: skip


def spread(values: Sequence[float], gap: float, low: float = 0, high: float = 100) -> list[float]:
    """Ascending values moved as little as possible to be `gap` apart and within low..high.

    Least squares: values too near each other share one centre, as in isotonic regression. Where
    `high - low` is too small for all, they stand evenly.
    """
    gap = min(gap, (high - low) / max(len(values) - 1, 1))
    blocks: list[tuple[float, int]] = []  # mean of the values less their rank times gap; how many
    for rank, value in enumerate(values):
        blocks.append((value - rank * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (one, n), (other, m) = blocks[-2:]
            blocks[-2:] = [((n * one + m * other) / (n + m), n + m)]
    starts = np.repeat([mean for mean, _ in blocks], [n for _, n in blocks])
    starts = np.clip(starts, low, high - gap * max(len(values) - 1, 0))
    return [float(start) + rank * gap for rank, start in enumerate(starts)]


def step_heat_map(matrix: StepMatrix, title: str = "") -> Figure:
    """IoU in percent of every class (columns) after every step (rows); blank where there is none.

    White lines part the classes of one step from those of the next.
    """
    frame = matrix.to_frame()
    rows, columns = frame.shape
    few = columns <= _ANNOTATED_CLASSES
    width = 1.8 + columns * (0.62 if few else 0.17)
    figure = Figure(figsize=(max(width, 5), 1.7 + 0.42 * rows), layout="constrained")
    axes = figure.subplots()
    seaborn.heatmap(
        frame, ax=axes, vmin=0, vmax=100, cmap="viridis", annot=few, fmt=".0f",
        annot_kws={"fontsize": 10}, linewidths=0.8 if few else 0, linecolor="white",
        xticklabels=1, cbar_kws={"label": "IoU (%)", "ticks": [0, 50, 100], "pad": 0.015},
    )  # fmt: skip
    axes.set_facecolor(BLANK_COLOR)
    axes.set_title(title, fontsize=11, color=TEXT_COLOR)
    axes.set_yticklabels([f"step {step}" for step in frame.index], rotation=0)
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor", "fontsize": 10}
    upright = {"rotation": 90, "fontsize": 7}
    axes.set_xticks(axes.get_xticks(), list(frame), **(slanted if few else upright))
    axes.tick_params(length=0, colors=TEXT_COLOR)
    borders = 1 + np.cumsum([len(names) for names in matrix.step_classes])
    axes.vlines(borders[borders < columns], 0, rows, color="white", linewidth=4)
    return figure
