"""Small pictures: the size, and that colours which stand for something stay what they are."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sparcl_lib.viz import class_palette, colorize, small_png, to_png


def seen_in(png: bytes) -> np.ndarray:
    """uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def beside_a_photograph():
    """A figure with two axes, the left one full of colours."""
    figure = Figure(figsize=(4, 2))
    photograph, other = figure.subplots(1, 2)
    noise = np.random.default_rng(0).integers(40, 150, (48, 48, 3), dtype=np.uint8)
    photograph.imshow(noise, interpolation="nearest")
    return figure, other


def test_a_small_picture_keeps_the_colour_of_a_small_patch_beside_a_photograph():
    """With a palette alone, ring and moon became one colour beside an image of the course."""
    figure, patches = beside_a_photograph()
    colours = np.array([[[213, 94, 0], [153, 70, 50]]], dtype=np.uint8)
    patches.imshow(colours, interpolation="nearest", aspect="auto")
    patches.set_position((0.7, 0.1, 0.02, 0.05))
    small, whole = small_png(figure, 200), to_png(figure, 200)
    assert len(small) < 0.5 * len(whole)
    for colour in colours.reshape(-1, 3):
        assert (seen_in(small) == colour).all(axis=-1).any()


def test_a_class_keeps_its_colour_beside_a_colour_map():
    """Chapter 02, a map for each class: ring's orange came out as a red that no class has."""
    figure = Figure(figsize=(8.4, 2.9))
    left, middle, right = figure.subplots(1, 3)
    random = np.random.default_rng(0)
    left.imshow(random.normal(110, 25, (64, 64, 3)).clip(0, 255).astype(np.uint8))
    labels = np.zeros((64, 64), dtype=np.uint8)
    labels[8:20, 8:20], labels[40:43, 50:53], labels[50:, :4] = 3, 6, 255
    middle.imshow(colorize(labels, 11), interpolation="nearest")
    ramp = right.imshow(random.random((64, 64)), cmap="viridis", interpolation="nearest")
    figure.colorbar(ramp, ax=right)
    for axes in (left, middle, right):
        axes.set_axis_off()
    small, whole = seen_in(small_png(figure, 200)), seen_in(to_png(figure, 200))
    for colour in class_palette(11):
        where = (whole == colour).all(axis=-1)
        assert np.array_equal((small == colour).all(axis=-1), where)


@pytest.mark.parametrize("draw", ["bar", "plot", "scatter", "axhspan"])
def test_lines_and_areas_keep_their_colours(draw):
    figure, axes = beside_a_photograph()
    places = {"bar": ([0], [1]), "plot": ([0, 1], [0, 0]), "scatter": ([0], [0]), "axhspan": (0, 1)}
    options = {"plot": {"linewidth": 5}, "scatter": {"s": 90}}.get(draw, {})
    getattr(axes, draw)(*places[draw], color="#d55e00", **options)
    assert (seen_in(small_png(figure, 100)) == (0xD5, 0x5E, 0)).all(axis=-1).any()


def test_a_picture_of_few_colours_loses_none():
    figure = Figure(figsize=(1, 1), facecolor="#123456")
    assert (seen_in(small_png(figure, 50)) == (0x12, 0x34, 0x56)).all()


def test_figures_become_one_picture_row_by_row():
    figures = [Figure(figsize=(2, 1), facecolor=colour) for colour in ("red", "lime", "blue")]
    seen = Image.open(io.BytesIO(small_png(figures, 50, columns=2))).convert("RGB")
    assert seen.size == (200, 100)
    middles = [seen.getpixel(place) for place in ((50, 25), (150, 25), (50, 75), (150, 75))]
    assert middles == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert Image.open(io.BytesIO(small_png(figures[:1], 50, columns=4))).size == (100, 50)
