"""Palettes and figures: colours stay apart, figures show what they are given."""

import io
import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sparcl_lib.methods import METHODS
from sparcl_lib.metrics import StepMatrix
from sparcl_lib.viz import (
    class_palette,
    colorize,
    forgetting_curves,
    method_colors,
    prediction_strips,
    step_heat_map,
    to_png,
)
from sparcl_lib.viz.experiments import trade_off

STEPS = [["disc", "square"], ["bar"], ["moon"]]
# Machado, Oliveira and Fernandes (2009), severity 1: protan, deutan.
BLINDNESS = [
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],  # noqa: E501
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],  # noqa: E501
]  # fmt: skip


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


def test_no_class_colour_comes_twice_and_none_depends_on_the_number():
    palette = class_palette(151)
    assert palette.shape == (151, 3) and palette.dtype == np.uint8
    assert len({tuple(color) for color in palette.tolist()}) == 151
    assert (class_palette(11) == palette[:11]).all()
    assert palette[0].max() < 40


@pytest.mark.parametrize("vision", BLINDNESS)
def test_first_colours_stay_apart_for_colour_blind_readers(vision):
    seen = np.clip((class_palette(21) / 255) ** 2.2 @ np.array(vision).T, 0, 1) ** (1 / 2.2)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(21)
    assert apart.min() > 0.05
    assert apart[:11, :11].min() > 0.1


def test_colorize_looks_up_classes_and_hatches_void():
    labels = np.zeros((32, 32), dtype=np.uint8)
    labels[:16], labels[16:20] = 2, 255
    colors = colorize(labels, 3)
    palette = class_palette(3)
    assert colors.shape == (32, 32, 3) and colors.dtype == np.uint8
    assert (colors[:16] == palette[2]).all() and (colors[20:] == palette[0]).all()
    void = {tuple(color) for color in colors[16:20].reshape(-1, 3).tolist()}
    assert len(void) == 2 and min(min(color) for color in void) > 150


def test_method_colours_are_fixed_and_distinct():
    colors = method_colors(["FT", "mine", "SDR", "MiB", "SDR+MiB", "yours", "LwF", "Joint"])
    assert len(set(colors.values())) == len(colors)
    assert method_colors(["SDR"])["SDR"] == colors["SDR"]
    red, green, blue = bytes.fromhex(colors["Joint"][1:])
    assert red == green == blue


def test_every_method_has_a_colour_of_its_own():
    names = [*METHODS, "mine", "yours"]
    assert len(set(method_colors(names).values())) == len(names)


def test_names_in_the_trade_off_do_not_cover_each_other():
    points = {"EWC": (72.0, 6.0), "RW": (72.1, 6.1), "PI": (72.2, 5.9), "FT": (72.0, 6.0)}
    table = pd.DataFrame(points, index=["forgetting", "intransigence"]).T
    table.loc["SDR"] = (10.0, 3.0)
    figure = trade_off(table.assign(forgetting_std=np.nan, intransigence_std=1.0))
    figure.draw_without_rendering()
    names = {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts}
    assert set(names) == set(table.index)
    for one, other in itertools.combinations(names.values(), 2):
        assert not one.overlaps(other)


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


def test_labels_of_equal_methods_do_not_overlap():
    figure = forgetting_curves({name: [matrix()] for name in ("FT", "MiB", "SDR", "SDR+MiB")})
    pixels(figure)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 5  # four ends, one shared start
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


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
