"""Figures of results. Pure: data in, matplotlib Figure out; no pyplot state, no files."""

import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from sparcl_lib.metrics import StepMatrix
from sparcl_lib.viz.names import in_legend, plain_text
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

ALL_CLASSES = "All classes learned so far"
FIRST_CLASSES = "Classes of step 0 (without background)"
"""Titles of the panels of curves."""

_ANNOTATED_CLASSES, _NAMED_STEPS = 30, 4
"""Above these a heat map has no numbers, and an upright one has numbers for its steps."""
_LABELS_IN_PANEL, _LONGEST_NAME, _LABELLED_STEPS = 15, 30, 6
"""As many labels as a panel of curves holds one above the other, of so many letters at most; above
so many steps every second one is named."""


@plain_text
def prediction_strips(
    images: np.ndarray,
    truth: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    new_classes: Collection[str] = (),
    upright: bool = False,
    void: str = "not counted",
) -> Figure:
    """One row per image: photo, truth, each method's prediction; a legend of the classes shown.

    Args:
        images: uint8 (n, H, W, 3).
        truth: training indices uint8 (n, H, W), 255 = void.
        predictions: method -> training indices uint8 (n, H, W).
        class_names: by training index, background first.
        new_classes: names of the classes learned last, marked in the legend.
        upright: one column per image instead, for a narrow page or many methods.
        void: what the legend says of 255, which is hatched.
    """
    kinds = {"image": images, "truth": truth, **predictions}
    n = len(images)
    rows, columns = (len(kinds), n) if upright else (n, len(kinds))
    indices = np.unique(np.concatenate([truth, *predictions.values()]))
    in_a_row = min(columns, 3) if upright else columns
    side, gap = (1.15, 0.2) if upright else (1.35, 0.0)
    height = (side + gap) * rows + 0.6 + 0.22 * -(-len(indices) // in_a_row)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(side * columns + 0.1, height), layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False)
    cells = grid if upright else grid.T  # a row for each kind
    for line, (name, pictures) in zip(cells, kinds.items()):
        for axes, picture in zip(line, pictures, strict=True):
            shown = picture if name == "image" else colorize(picture, len(class_names))
            axes.imshow(shown, interpolation="auto" if name == "image" else "nearest")
            axes.set_axis_off()
        line[0].set_title(name, fontsize=10, color=TEXT_COLOR, loc="left" if upright else "center")
    _class_legend(figure, indices, class_names, new_classes, in_a_row, void)
    return figure


def _class_legend(
    figure: Figure,
    shown: np.ndarray,
    class_names: Sequence[str],
    new_classes: Collection[str],
    ncols: int,
    void_name: str,
) -> None:
    """The colours of the training indices `shown` below the strips, new classes marked."""
    palette = class_palette(len(class_names)) / 255
    known = [index for index in shown if index < len(class_names)]
    names = [class_names[index] for index in known]
    labels = [in_legend(f"{name} *" if name in new_classes else name) for name in names]
    keys = [Patch(color=palette[i], label=label) for i, label in zip(known, labels)]
    if len(known) < len(shown):
        void, edge = ((red / 255, green / 255, blue / 255) for red, green, blue in VOID_COLORS)
        keys.append(Patch(facecolor=void, edgecolor=edge, hatch="/////", label=void_name))
    title = "* learned at the last step" if any(n in new_classes for n in names) else None
    legend = figure.legend(
        handles=keys, loc="outside lower center", ncols=ncols, fontsize=9, frameon=False,
        title=title, title_fontsize=8.5, handlelength=1.2, columnspacing=1.2,
    )  # fmt: skip
    for text, name in zip(legend.get_texts(), names):
        text.set_fontweight("bold" if name in new_classes else "normal")


@plain_text
def forgetting_curves(matrices: Mapping[str, Sequence[StepMatrix]], width: float = 4.8) -> Figure:
    """mIoU after each step, in percent: of all classes learned so far, and of those of step 0.

    matrices: method -> its runs (seeds) of one task; drawn as in `miou_curves`.
    width: of a panel, in inches.
    """

    def frames(measure: Callable[[StepMatrix, int], float]) -> dict[str, pd.DataFrame]:
        return {
            method: pd.DataFrame([{s: measure(run, s) for s in sorted(run.rows)} for run in runs])
            for method, runs in matrices.items()
        }

    panels = {
        ALL_CLASSES: frames(StepMatrix.miou_all),
        FIRST_CLASSES: frames(StepMatrix.miou_first_no_bg),
    }
    step_classes = next(iter(matrices.values()))[0].step_classes
    return miou_curves(panels, [len(names) for names in step_classes], width)


@plain_text
def miou_curves(
    panels: Mapping[str, Mapping[str, pd.DataFrame]],
    class_counts: Sequence[int],
    width: float = 4.8,
) -> Figure:
    """Lines over the steps, one for each method: means, with one deviation of several seeds.

    A method that has only the last of several steps (joint training) is a dashed level.

    Args:
        panels: title -> method -> a row per seed, columns steps, in percent.
        class_counts: how many classes each step adds.
        width: of a panel, in inches.
    """
    methods = max(len(lines) for lines in panels.values())
    figure = Figure(
        figsize=(width * len(panels), 3.9 * max(1, methods / _LABELS_IN_PANEL)),
        layout=ConstrainedLayoutEngine(wspace=0.06),
    )
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False).flat
    for axes, (title, lines) in zip(grid, panels.items()):
        _curves_panel(axes, lines, class_counts, title)
    grid[0].set_ylabel("mIoU (%)", color=TEXT_COLOR)
    return figure


def _curves_panel(
    axes: Axes, lines: Mapping[str, pd.DataFrame], class_counts: Sequence[int], title: str
) -> None:
    last = len(class_counts) - 1
    starts, ends = [], []
    for (method, values), style in zip(lines.items(), method_styles(lines).values()):
        color, dashes = style.color, style.dashes
        mean, std = values.mean(), values.std().fillna(0)
        if last > 0 and list(values) == [last]:
            axes.hlines(mean[last], 0, last, color=color, linestyle=dashes, linewidth=1.8)
        else:
            axes.plot(
                mean.index, mean, color=color, linestyle=dashes, linewidth=2.2,
                marker=style.marker, markersize=7.5, markeredgecolor="white", markeredgewidth=0.6,
            )  # fmt: skip
            if len(values) > 1:
                low, high = (mean - std).clip(lower=0), (mean + std).clip(upper=100)
                axes.fill_between(mean.index, low, high, color=color, alpha=0.15, linewidth=0)
            if last > 0:
                starts.append((mean.iloc[0], f"{mean.iloc[0]:.1f}", color))
        name = textwrap.shorten(method, _LONGEST_NAME, placeholder=" …")
        ends.append((mean.iloc[-1], f"{name}  {mean.iloc[-1]:.1f}", color))
    _style_panel(axes, class_counts, title)
    gap = 100 / max(_LABELS_IN_PANEL, len(lines))
    _label_points(axes, _unique(starts), 0, "right", gap)
    _label_points(axes, ends, last, "left", gap)


def _style_panel(axes: Axes, class_counts: Sequence[int], title: str) -> None:
    last = len(class_counts) - 1
    counts = [f"{'+' if k else ''}{count}" for k, count in enumerate(class_counts)]
    few = last <= 2
    labels = [f"step {k}\n{n} classes" if few else f"{k}\n{n}" for k, n in enumerate(counts)]
    if last > _LABELLED_STEPS:
        labels = [label if k % 2 == 0 else "" for k, label in enumerate(labels)]
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


@plain_text
def step_heat_map(matrix: StepMatrix, title: str = "", upright: bool = False) -> Figure:
    """IoU in percent of every class (columns) after every step (rows); blank where there is none.

    White lines part the classes of one step from those of the next.
    upright: classes as rows and steps as columns, for a narrow page.
    """
    frame = matrix.to_frame()
    few = frame.shape[1] <= _ANNOTATED_CLASSES
    short = len(frame) <= _NAMED_STEPS
    if upright:
        width = 1.2 + len(frame) * (0.6 if short else 0.34)
        size = (max(width, 2.4), 1.0 + frame.shape[1] * (0.3 if few else 0.14))
    else:
        size = (max(1.8 + frame.shape[1] * (0.62 if few else 0.17), 5), 1.7 + 0.42 * len(frame))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    seaborn.heatmap(
        frame.T if upright else frame, ax=axes, vmin=0, vmax=100, cmap="viridis", annot=few,
        fmt=".0f", annot_kws={"fontsize": 10}, linewidths=0.8 if few else 0, linecolor="white",
        xticklabels=1, yticklabels=1, cbar=not upright,
        cbar_kws={"label": "IoU (%)", "ticks": [0, 50, 100], "pad": 0.015},
    )  # fmt: skip
    axes.set_facecolor(BLANK_COLOR)
    axes.set_title(title, fontsize=11, color=TEXT_COLOR)
    steps, names = [f"step {step}" for step in frame.index], list(frame)
    borders = 1 + np.cumsum([len(added) for added in matrix.step_classes])
    borders = borders[borders < len(names)]
    if upright:
        axes.set_xticks(axes.get_xticks(), steps if short else list(frame.index), fontsize=10)
        axes.set_xlabel("" if short else "step", color=TEXT_COLOR)
        axes.set_yticks(axes.get_yticks(), names, rotation=0, fontsize=10 if few else 7)
        axes.hlines(borders, 0, len(steps), color="white", linewidth=4)
    else:
        slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor", "fontsize": 10}
        axes.set_yticklabels(steps, rotation=0)
        axes.set_xticks(
            axes.get_xticks(), names, **(slanted if few else {"rotation": 90, "fontsize": 7})
        )
        axes.vlines(borders, 0, len(steps), color="white", linewidth=4)
    axes.tick_params(length=0, colors=TEXT_COLOR)
    return figure
