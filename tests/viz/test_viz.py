"""Palettes and figures: colours stay apart, figures show what they are given."""

import io
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from sparcl_lib.methods import METHODS
from sparcl_lib.metrics import StepMatrix
from sparcl_lib.viz import (
    class_palette,
    colorize,
    forgetting_curves,
    prediction_strips,
    step_heat_map,
    to_png,
)
from sparcl_lib.viz.experiments import forest_plot, trade_off
from sparcl_lib.viz.figures import spread

COMPARISON = Path(__file__).parents[2] / "benchmarks/studies/minivoc_comparison/results.csv"
STEPS = [["disc", "square"], ["bar"], ["moon"]]


def matrix(scale: float = 1.0, steps=(0, 1, 2)) -> StepMatrix:
    result = StepMatrix(STEPS)
    for step in steps:
        names = ["background", *result.seen(step)]
        result.add(step, {name: scale * (60 - 7 * k - 5 * step) for k, name in enumerate(names)})
    return result


def pixels(figure: Figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(to_png(figure, dpi=60))).convert("RGB"))


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_colorize_looks_up_classes_and_hatches_void():
    labels = np.zeros((32, 32), dtype=np.uint8)
    labels[:16], labels[16:20] = 2, 255
    colors = colorize(labels, 3)
    palette = class_palette(3)
    assert colors.shape == (32, 32, 3) and colors.dtype == np.uint8
    assert (colors[:16] == palette[2]).all() and (colors[20:] == palette[0]).all()
    void = {tuple(color) for color in colors[16:20].reshape(-1, 3).tolist()}
    assert len(void) == 2 and min(min(color) for color in void) > 150


def overlapping(boxes: dict) -> list[tuple[str, str]]:
    pairs = itertools.combinations(boxes.items(), 2)
    return [(one, other) for (one, a), (other, b) in pairs if a.overlaps(b)]


def drawn_names(figure: Figure, axes) -> dict:
    """Text -> its box, as drawn; every one of them inside the figure."""
    pixels(figure)
    boxes = {text.get_text(): Text.get_window_extent(text) for text in axes.texts}
    for name, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, name
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, name
    return boxes


@pytest.mark.parametrize("task", ["6-4", "6-1"])
def test_names_in_the_trade_off_do_not_cover_each_other(task):
    """All methods of the study of benchmarks: FT, EWC, RW and PI lie on each other."""
    runs = pd.read_csv(COMPARISON).query("task == @task and setup == 'overlapped'")
    last = runs.groupby("run").tail(1).groupby("method")[["forgetting", "intransigence"]]
    table = pd.concat([last.mean(), last.std().add_suffix("_std")], axis=1)
    figure = trade_off(table)
    names = drawn_names(figure, figure.axes[0])
    assert set(names) == set(METHODS) - {"Joint"}
    assert overlapping(names) == []


def gains(rows: dict) -> pd.DataFrame:
    """As of `paired_gains`, with one measure twice."""
    columns = pd.MultiIndex.from_product([["old", "all"], ["mean", "low", "high"]])
    return pd.DataFrame([2 * values for values in rows.values()], pd.Index(list(rows)), columns)


def test_the_mark_of_a_difference_says_whether_zero_is_outside():
    """An interval shorter than its mark cannot be seen to leave 0 out."""
    rows = {
        "a": (3.0, 1, 5),
        "b": (-0.02, -0.03, -0.01),
        "c": (1.0, -1, 3),
        "d": (2.0, np.nan, np.nan),
    }
    figure = forest_plot(gains(rows))
    for axes, title in zip(figure.axes, ("old", "all")):
        full, hollow = (line for line in axes.lines if line.get_marker() == "o")
        assert list(full.get_xdata()) == [3, -0.02] and list(hollow.get_xdata()) == [1, 2]
        assert full.get_markerfacecolor() == full.get_color() != hollow.get_markerfacecolor()
        assert axes.get_title() == title
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "interval leaves 0 out", "interval holds 0",
    ]  # fmt: skip


def test_the_panels_of_differences_have_one_scale_that_holds_them_all():
    table = gains({"a": (3.0, 1, 5), "b": (1.0, -1, 3)})
    table["old"] *= 20  # one panel's differences are much larger, and one row's far to the left
    table.loc["b", "all"] = [-40, -50, -30]
    one, other = (axes.get_xlim() for axes in forest_plot(table).axes)
    assert one == other and one[0] < -50 and one[1] > 100


def test_rows_of_differences_stand_in_groups():
    rows = {("UCE", "l1"): (1.0, 0, 2), ("UCE", "hoyer"): (1.0, 0, 2), ("MiB", "l1"): (1.0, 0, 2)}
    axes = forest_plot(gains(rows)).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["UCE, l1", "UCE, hoyer", "MiB, l1"]
    first, second, third = axes.get_yticks()
    assert third - second > second - first > 0
    assert axes.yaxis_inverted()  # the first row is on top


def test_strips_have_a_column_per_method_and_name_only_shown_classes():
    images = np.full((2, 16, 16, 3), 90, dtype=np.uint8)
    truth = np.ones((2, 16, 16), dtype=np.uint8)
    truth[:, 0] = 255
    wrong = np.full_like(truth, 3)
    names = ["background", "disc", "square", "bar"]
    figure = prediction_strips(images, truth, {"FT": wrong, "MiB": truth}, names, ["bar"])
    assert len(figure.axes) == 2 * 4
    assert [axes.get_title() for axes in figure.axes[:4]] == ["image", "truth", "FT", "MiB"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["disc", "bar *", "not counted"]
    named = prediction_strips(images, truth, {}, names, void="wrong").legends[0].get_texts()
    assert named[-1].get_text() == "wrong"
    assert (figure.axes[2].images[0].get_array() == class_palette(4)[3]).all()
    assert len(np.unique(pixels(figure))) > 5


def test_curves_show_mean_and_deviation_and_a_level_for_joint():
    runs = {"FT": [matrix(0.5), matrix(0.7)], "Joint": [matrix(1.2, steps=[2])]}
    left, right = forgetting_curves(runs).axes
    (line,) = left.lines
    expected = [np.mean([m.miou_all(step) for m in runs["FT"]]) for step in (0, 1, 2)]
    np.testing.assert_allclose(line.get_ydata(), expected)
    band, level = left.collections
    spread = np.std([m.miou_all(0) for m in runs["FT"]], ddof=1)
    assert band.get_paths()[0].get_extents().y1 == pytest.approx(expected[0] + spread)
    assert level.get_segments()[0][:, 1] == pytest.approx(runs["Joint"][0].miou_all(2))
    assert f"FT  {expected[-1]:.1f}" in texts(left)
    np.testing.assert_allclose(right.lines[0].get_ydata()[2], 0.6 * np.mean([43, 36]))


def test_lines_differ_in_colour_marker_and_dashes():
    figure = forgetting_curves({name: [matrix()] for name in ("FT", "LwF", "RW")})
    lines = figure.axes[0].lines
    for name in ("color", "marker", "linestyle"):
        kinds = {str(getattr(line, f"get_{name}")()) for line in lines}
        assert len(kinds) == (3 if name != "linestyle" else 2)
    assert len({str(line._dash_pattern) for line in lines}) == 3


def test_one_seed_has_no_band_and_no_band_leaves_0_to_100():
    single = forgetting_curves({"FT": [matrix()], "MiB": [matrix(0.9)]})
    assert not any(axes.collections for axes in single.axes)
    several = forgetting_curves({"FT": [matrix(0.001), matrix(0.01), matrix(1.6)]})
    for axes in several.axes:
        (band,) = axes.collections
        extent = band.get_paths()[0].get_extents()
        assert extent.y0 >= 0 and extent.y1 <= 100


@pytest.mark.parametrize("width", [4.2, 4.8])
@pytest.mark.parametrize("number", [15, 24])
def test_labels_of_near_methods_do_not_overlap(number, width):
    names = [*METHODS, *(f"a variant of some method, no {k}" for k in range(9))][:number]
    figure = forgetting_curves(
        {name: [matrix(0.9 + 0.002 * k)] for k, name in enumerate(names)}, width
    )
    for axes in figure.axes:
        boxes = drawn_names(figure, axes)
        assert len(boxes) >= number + 1
        assert overlapping(boxes) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 50, 99], [1, 50, 99]),
        ([50, 50, 50], [40, 50, 60]),
        ([0, 1, 60], [0, 10, 60]),
        ([0, 0, 12, 99, 99], [0, 10, 20, 90, 100]),
        ([50] * 21, [5 * k for k in range(21)]),  # no room: evenly
        ([], []),
    ],
)
def test_labels_move_as_little_as_they_must(values, expected):
    assert spread(values, 10) == pytest.approx(expected)


def test_heat_map_annotates_what_is_known_and_leaves_the_rest_blank():
    known = matrix()
    known.rows[2]["square"] = float("nan")
    axes = step_heat_map(known, "MiB").axes[0]
    assert axes.get_title() == "MiB"
    assert [text.get_text() for text in axes.get_yticklabels()] == ["step 0", "step 1", "step 2"]
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert names == ["background", "disc", "square", "bar", "moon"]
    values = axes.collections[0].get_array()
    assert np.ma.count_masked(values) == 2 + 1 + 1
    assert len(texts(axes)) == 15 - 4


def test_heat_map_of_many_classes_has_no_numbers():
    names = [f"class {k}" for k in range(150)]
    many = StepMatrix([names])
    many.add(0, dict.fromkeys(["background", *names], 50.0))
    axes = step_heat_map(many).axes[0]
    assert not axes.texts and len(axes.get_xticklabels()) == 151


@pytest.mark.parametrize("steps", [3, 11])
def test_an_upright_heat_map_has_classes_as_rows_and_fits_a_telephone(steps):
    many = StepMatrix([["disc", "square"], *([f"class {k}"] for k in range(1, steps))])
    for step in range(steps):
        many.add(step, dict.fromkeys(["background", *many.seen(step)], 50.0))
    figure = step_heat_map(many, "MiB", upright=True)
    (axes,) = figure.axes
    pixels(figure)
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names[:3] == ["background", "disc", "square"] and len(names) == steps + 2
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert ticks[:2] == (["step 0", "step 1"] if steps == 3 else ["0", "1"])
    assert figure.get_figwidth() <= 5.4  # of 3.6 inches on a telephone: two thirds of the size
    cells = {str(k): text.get_window_extent() for k, text in enumerate(axes.texts)}
    assert overlapping(cells) == []
    labels = {t.get_text(): t.get_window_extent() for t in axes.get_xticklabels()}
    assert overlapping(labels) == []


def test_upright_strips_have_a_row_per_kind():
    images = np.full((2, 16, 16, 3), 90, dtype=np.uint8)
    truth = np.ones((2, 16, 16), dtype=np.uint8)
    names = ["background", "disc", "square"]
    figure = prediction_strips(images, truth, {"FT": truth}, names, upright=True)
    assert len(figure.axes) == 3 * 2
    assert [axes.get_title(loc="left") for axes in figure.axes[::2]] == ["image", "truth", "FT"]
    assert (figure.axes[4].images[0].get_array() == class_palette(3)[1]).all()
