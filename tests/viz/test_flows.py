"""Flows of a confusion matrix: shares add up, ribbons are as thick as what they carry."""

import itertools

import numpy as np
import pytest
from matplotlib.patches import PathPatch, Rectangle

from sparcl_lib.viz import class_palette, confusion_flow, row_shares, to_png

NAMES = ["background", "disc", "square", "bar"]
#        bg  disc square bar
COUNTS = np.array([[90, 5, 5, 0], [6, 2, 0, 0], [50, 0, 25, 25], [0, 0, 0, 7]])


def test_shares_are_of_rows_and_an_empty_row_stays_zero():
    shares = row_shares([[6, 2], [0, 0]])
    np.testing.assert_allclose(shares, [[0.75, 0.25], [0, 0]])


def ribbons(figure) -> list[PathPatch]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, PathPatch)]


def thickness(patch: PathPatch, x: int) -> float:
    points = patch.get_path().vertices
    return float(np.ptp(points[points[:, 0] == x, 1]))


def test_a_ribbon_is_as_thick_as_the_share_it_carries_at_both_ends():
    drawn = ribbons(confusion_flow(COUNTS, NAMES, [1, 2]))
    expected = [6 / 8, 2 / 8, 0.5, 0.25, 0.25]
    for x in (0, 1):
        np.testing.assert_allclose([thickness(patch, x) for patch in drawn], expected)
    palette = class_palette(4) / 255
    for patch, target in zip(drawn, [0, 1, 0, 2, 3]):
        np.testing.assert_allclose(patch.get_facecolor()[:3], palette[target])


def test_ribbons_fill_their_nodes_without_overlap():
    figure = confusion_flow(COUNTS, NAMES, [1, 2])
    nodes = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    for x in (0, 1):
        ends = []
        for patch in ribbons(figure):
            points = patch.get_path().vertices
            ys = points[points[:, 0] == x, 1]
            ends.append((ys.min(), ys.max()))
        ends.sort()
        assert all(low >= high - 1e-9 for (_, high), (low, _) in itertools.pairwise(ends))
        heights = [n.get_height() for n in nodes if (n.get_x() == 1) == (x == 1)]
        assert sum(heights) == pytest.approx(sum(high - low for low, high in ends))


def test_labels_name_sources_and_what_they_became_with_its_share():
    texts = [t.get_text() for t in confusion_flow(COUNTS, NAMES, [1, 2], "FT").axes[0].texts]
    # background: the mean of 75 % of the discs and 50 % of the squares
    assert texts == [
        "disc",
        "square",
        "background  62 %",
        "disc  12 %",
        "square  12 %",
        "bar  12 %",
    ]


def test_tiny_and_empty_predictions_are_left_out():
    counts = np.array([[1, 0, 0], [998, 1, 1], [0, 0, 1]])
    drawn = ribbons(confusion_flow(counts, NAMES[:3], [1]))
    assert len(drawn) == 1 and thickness(drawn[0], 0) == pytest.approx(0.998)
    assert len(ribbons(confusion_flow(counts, NAMES[:3], [1], smallest=0))) == 3


def test_labels_of_thin_ribbons_do_not_overlap():
    counts = np.zeros((12, 12))
    counts[1:3] = [50, *[1] * 11]
    names = ["background", *(f"class {k}" for k in range(11))]
    figure = confusion_flow(counts, names, [1, 2])
    to_png(figure, dpi=100)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 2 + 12
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("sources", [[1], [1, 2, 3]])
def test_it_draws(sources):
    assert to_png(confusion_flow(COUNTS, NAMES, sources), dpi=40).startswith(b"\x89PNG")
