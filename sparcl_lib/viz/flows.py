"""Where the pixels of a class went: a confusion matrix as a flow. Pure: data in, Figure out."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from sparcl_lib.viz.names import plain_text
from sparcl_lib.viz.palette import TEXT_COLOR, class_palette

_NODE_WIDTH, _GAP = 0.025, 0.4  # of the width of the figure; of the height of a class


def row_shares(confusion: np.ndarray) -> np.ndarray:
    """(K, K) counts, rows truth -> shares of each row, 0..1; a row without pixels stays zero."""
    confusion = np.asarray(confusion, dtype=np.float64)
    totals = confusion.sum(axis=1, keepdims=True)
    return confusion / np.where(totals > 0, totals, 1)


@plain_text
def confusion_flow(
    confusion: np.ndarray,
    class_names: Sequence[str],
    sources: Sequence[int],
    title: str = "",
    smallest: float = 0.005,
) -> Figure:
    """Ribbons from true classes (left) to predictions (right), in the colour of the prediction.

    Every class on the left has the same height, however many pixels it has; the thickness of a
    ribbon is the share of them that is predicted so.

    Args:
        confusion: (K, K) pixel counts, rows truth, columns prediction.
        class_names: by training index, background first.
        sources: training indices of the true classes to draw, top to bottom.
        smallest: predictions that get a smaller share of all sources together are left out.
    """
    shares = row_shares(confusion)[list(sources)]  # (S, K)
    received = shares.mean(axis=0)
    targets = np.flatnonzero((received > 0) & (received >= smallest)).tolist()
    span = len(sources) + _GAP * max(len(sources) - 1, len(targets) - 1, 0)
    left = _tops(np.ones(len(sources)), span)
    right = _tops(shares[:, targets].sum(axis=0), span)
    figure = Figure(figsize=(5.6, 0.6 + 0.38 * span), layout="constrained")
    axes = figure.subplots()
    colors = class_palette(len(class_names)) / 255
    _ribbons(axes, shares[:, targets], left.copy(), right.copy(), colors[targets])
    for top, index in zip(left, sources):
        _node(axes, 0, top, 1, colors[index], class_names[index], "right")
    for top, target in zip(right, targets):
        label = f"{class_names[target]}  {100 * received[target]:.0f} %"
        _node(axes, 1, top, shares[:, target].sum(), colors[target], label, "left")
    axes.set(xlim=(-0.3, 1.45), ylim=(-0.02 * span, 1.02 * span))
    axes.invert_yaxis()
    axes.set_axis_off()
    axes.set_title(title, fontsize=11, color=TEXT_COLOR)
    return figure


def _tops(heights: np.ndarray, span: float) -> np.ndarray:
    """Upper ends of nodes of these heights, spread evenly from 0 to `span`."""
    gaps = max(len(heights) - 1, 1)
    gap = (span - heights.sum()) / gaps
    return np.concatenate([[0.0], np.cumsum(heights + gap)[:-1]])


def _ribbons(
    axes: Axes, shares: np.ndarray, left: np.ndarray, right: np.ndarray, colors: np.ndarray
) -> None:
    """One ribbon for each share (S, T); `left` and `right` are used up as they fill."""
    for s, row in enumerate(shares):
        for t, share in enumerate(row):
            if share > 0:
                patch = PathPatch(
                    _ribbon(left[s], right[t], share), facecolor=colors[t], alpha=0.7, linewidth=0
                )
                axes.add_patch(patch)
                left[s] += share
                right[t] += share


def _ribbon(start: float, end: float, thickness: float) -> Path:
    """A band that leaves x = 0 at `start` and reaches x = 1 at `end`, level at both."""
    points = [
        (0, start), (0.5, start), (0.5, end), (1, end),
        (1, end + thickness), (0.5, end + thickness), (0.5, start + thickness),
        (0, start + thickness), (0, start),
    ]  # fmt: skip
    curve = [Path.CURVE4] * 3
    return Path(points, [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY])


def _node(
    axes: Axes, x: int, top: float, height: float, color: np.ndarray, label: str, side: str
) -> None:
    """A bar at the left (x = 0) or right (x = 1) end with its label outside."""
    corner = (-_NODE_WIDTH if x == 0 else 1, top)
    axes.add_patch(Rectangle(corner, _NODE_WIDTH, height, color=color, linewidth=0))
    offset = -2 * _NODE_WIDTH if x == 0 else 1 + 2 * _NODE_WIDTH
    axes.text(offset, top + height / 2, label, ha=side, va="center", fontsize=9.5, color=TEXT_COLOR)
