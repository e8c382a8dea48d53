"""Figures over many runs: variants with their terms, methods between forgetting and learning, and
differences with their intervals.

Pure, as in `figures`: tables in, matplotlib Figure out.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from sparcl_lib.metrics import format_mean
from sparcl_lib.viz.figures import spread
from sparcl_lib.viz.names import plain_text
from sparcl_lib.viz.palette import BEYOND_COLOR, GRID_COLOR, MUTED_COLOR, TEXT_COLOR, method_styles


@plain_text
def switch_heat_map(states: pd.DataFrame, means: pd.DataFrame, deviations: pd.DataFrame) -> Figure:
    """One row per variant: which terms are on (squares), and what it scores (colours).

    Args:
        states: bool, columns terms; rows as in the other two.
        means: score per measure (columns).
        deviations: of the same shape; NaN is not shown.
    """
    rows, (terms, measures) = len(states), (states.shape[1], means.shape[1])
    widths = [0.32 * terms, 0.85 * measures]  # a telephone shows four terms legibly
    figure = Figure(figsize=(sum(widths) + 0.5, 0.36 * rows + 1.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=widths)
    _switches(left, states)
    texts = [
        [format_mean(mean, std) for mean, std in zip(*pair)]
        for pair in zip(means.values, deviations.values)
    ]
    span = (means - means.min()) / (means.max() - means.min()).replace(0, 1)  # each column alone
    seaborn.heatmap(
        span, ax=right, vmin=0, vmax=1, cmap="viridis", annot=np.array(texts), fmt="", cbar=False,
        annot_kws={"fontsize": 9}, linewidths=0.8, linecolor="white", yticklabels=False,
    )  # fmt: skip
    right.xaxis.tick_top()
    right.set_xticks(right.get_xticks(), list(means), rotation=0, fontsize=10)
    right.set(xlabel="", ylabel="")
    right.tick_params(length=0, colors=TEXT_COLOR)
    return figure


def _switches(axes: Axes, states: pd.DataFrame) -> None:
    on = states.to_numpy(bool)
    row, column = np.indices(on.shape)
    colors = np.where(on.ravel(), TEXT_COLOR, GRID_COLOR)
    axes.scatter(column.ravel() + 0.5, row.ravel() + 0.5, s=90, marker="s", c=colors)
    axes.set(xlim=(0, on.shape[1]), ylim=(on.shape[0], 0))
    axes.xaxis.tick_top()
    axes.set_xticks(
        np.arange(on.shape[1]) + 0.5, list(states),
        rotation=40, ha="left", rotation_mode="anchor", fontsize=10,
    )  # fmt: skip
    axes.set_yticks([])
    axes.tick_params(length=0, colors=TEXT_COLOR)
    seaborn.despine(ax=axes, left=True, bottom=True)


@plain_text
def trade_off(table: pd.DataFrame) -> Figure:
    """Methods as points: forgetting to the right, intransigence upwards; best is lower left.

    table: index method; columns forgetting, intransigence in points, and their deviations
    (`_std`), drawn as bars where there is one. Methods without both numbers are left out.
    """
    known = table.dropna(subset=["forgetting", "intransigence"])
    figure = Figure(figsize=(4.2, 4.6), layout="constrained")  # fits a telephone
    axes = figure.subplots()
    for (_, row), style in zip(known.iterrows(), method_styles(known.index).values()):
        place = row["forgetting"], row["intransigence"]
        bars = {"xerr": row["forgetting_std"], "yerr": row["intransigence_std"]}
        drawn = {name: size for name, size in bars.items() if not np.isnan(size)}
        axes.errorbar(
            *place, **drawn, fmt=style.marker, markersize=8.5, color=style.color, elinewidth=1,
            markeredgecolor="white", markeredgewidth=0.6, alpha=0.9,
        )  # fmt: skip
    axes.set_xlabel("forgetting (points of IoU)", color=TEXT_COLOR)
    axes.set_ylabel("intransigence (points of IoU)", color=TEXT_COLOR)
    axes.grid(color=GRID_COLOR, linewidth=0.8)
    axes.margins(0.18)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED_COLOR, length=0)
    seaborn.despine(ax=axes)
    _label_methods(figure, axes, known)
    return figure


@plain_text
def order_lines(table: pd.DataFrame) -> Figure:
    """A method per row, a mark per class order, best mean on top; a line joins the marks of one
    order: where it leans to the right on its way down, the lower method is ahead in that order.

    table: index order, columns methods; mIoU in percent, NaN where there is none.
    """
    means = table.mean().dropna().sort_values()
    figure = Figure(figsize=(4.2, 1.3 + 0.42 * len(means)), layout="constrained")  # a telephone's
    axes = figure.subplots()
    rows = np.arange(len(means))
    for _, values in table[means.index].iterrows():
        there = values.notna().to_numpy()
        axes.plot(values[there], rows[there], color=MUTED_COLOR, linewidth=0.8, alpha=0.6, zorder=1)
    for row, (method, style) in zip(rows, method_styles(means.index).items()):
        axes.scatter(
            table[method], np.full(len(table), row), s=44, color=style.color, marker=style.marker,
            edgecolor="white", linewidth=0.6, alpha=0.9,
        )  # fmt: skip
        axes.plot(2 * [means[method]], [row - 0.3, row + 0.3], color=TEXT_COLOR, linewidth=1.6)
    axes.set_yticks(rows, list(means.index))
    axes.set_ylim(-0.6, len(means) - 0.4)
    axes.set_xlabel("mIoU of all classes (%)", color=TEXT_COLOR)
    axes.grid(axis="x", color=GRID_COLOR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT_COLOR, length=0)
    seaborn.despine(ax=axes, left=True)
    return figure


@plain_text
def forest_plot(
    gains: pd.DataFrame, xlabel: str = "points more", width: float = 9.0, one_scale: bool = True
) -> Figure:
    """Differences as marks with their intervals.

    An interval may be shorter than its mark, so the mark says whether 0 is outside: it is full.

    Args:
        gains: of `report.differences.paired_gains`: a row for each pair, columns (title, part) with
            the parts mean, low and high. The first level of a MultiIndex parts the rows in groups.
        xlabel: below each panel; there is one for each title.
        width: of the figure, in inches.
        one_scale: for all panels; False where one panel's intervals would be hidden at another's.
    """
    names = [", ".join(row) if isinstance(row, tuple) else str(row) for row in gains.index]
    groups = pd.factorize(gains.index.get_level_values(0))[0]
    groups = groups if gains.index.nlevels > 1 else np.zeros_like(groups)
    places = np.arange(len(names)) + 0.6 * groups
    titles = gains.columns.unique(level=0)
    figure = Figure(figsize=(width, 1.5 + 0.3 * (places[-1] + 1)), layout="constrained")
    grid = figure.subplots(1, len(titles), sharex=one_scale, sharey=True, squeeze=False)[0]
    for axes, title in zip(grid, titles):
        mean, low, high = (gains[title, part].to_numpy() for part in ("mean", "low", "high"))
        beyond = (low > 0) | (high < 0)
        for chosen, color, face, label in (
            (beyond, BEYOND_COLOR, BEYOND_COLOR, "interval leaves 0 out"),
            (~beyond, MUTED_COLOR, "white", "interval holds 0"),
        ):
            axes.hlines(places[chosen], low[chosen], high[chosen], color=color, linewidth=1.8)
            axes.plot(
                mean[chosen], places[chosen], "o", color=color, markerfacecolor=face,
                markersize=5, markeredgewidth=1.4, label=label,
            )  # fmt: skip
        axes.axvline(0, color=TEXT_COLOR, linewidth=0.9, zorder=1)
        axes.set_title(title, fontsize=11, color=TEXT_COLOR)
        axes.set_xlabel(xlabel, fontsize=10, color=TEXT_COLOR)
        axes.grid(color=GRID_COLOR, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=TEXT_COLOR, length=0, labelsize=9)
        seaborn.despine(ax=axes, left=True)
    grid[0].set_yticks(places, names)
    grid[0].set_ylim(places[-1] + 0.6, -0.6)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _label_methods(figure: Figure, axes: Axes, known: pd.DataFrame) -> None:
    """The name beside each point; names that would cover each other move up and down, on a line."""
    styles, points = method_styles(known.index), known.sort_values("intransigence")
    away = 0.2 * np.ptp(axes.get_xlim()) / figure.get_figwidth()  # a fifth of an inch
    names = [
        axes.annotate(
            method, (x, y), xytext=(x + away, y), annotation_clip=False, va="center", fontsize=9.5,
            color=styles[method].color, weight="bold",
            arrowprops={"arrowstyle": "-", "color": styles[method].color, "linewidth": 0.7,
                        "shrinkA": 0, "shrinkB": 5, "relpos": (0, 0.5)},
        )
        for method, x, y in zip(points.index, points["forgetting"], points["intransigence"])
    ]  # fmt: skip
    figure.draw_without_rendering()  # now the layout and the sizes of the texts are known
    drawn = [Text.get_window_extent(name) for name in names]  # without the line to the point
    boxes = [box.transformed(axes.transData.inverted()) for box in drawn]
    gap = 1.1 * max((box.height for box in boxes), default=0)
    for column in _columns(boxes):
        places = spread([names[k].xy[1] for k in column], gap, *axes.get_ylim())
        for k, place in zip(column, places):
            names[k].set_position((boxes[k].x0, place))


def _columns(boxes: Sequence[Bbox]) -> list[list[int]]:
    """Indices of boxes, in groups that share no horizontal place with each other."""
    columns: list[list[int]] = []
    for k in sorted(range(len(boxes)), key=lambda k: boxes[k].x0):
        if columns and boxes[k].x0 <= max(boxes[other].x1 for other in columns[-1]):
            columns[-1].append(k)
        else:
            columns.append([k])
    return [sorted(column) for column in columns]
