"""Palettes: classes and methods that stand in one figure stay apart, whatever colours one sees.

How a reader without the cones for red (protan) or green (deutan) sees: the matrices of severity 1
of Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
Deficiency" (IEEE TVCG 2009), on linear RGB. Distances are Euclidean in CIELAB (D65), where 2.3 is
just noticed.
"""

import itertools

import numpy as np
import pytest

from sparcl_lib.methods import METHODS
from sparcl_lib.viz import class_palette, method_colors, method_styles
from sparcl_lib.viz.palette import _METHOD_STYLES

VISION = {
    "normal": np.eye(3),
    "protan": np.array([[0.152286, 1.052583, -0.204868],
                        [0.114503, 0.786281, 0.099216],
                        [-0.003882, -0.048116, 1.051998]]),
    "deutan": np.array([[0.367322, 0.860646, -0.227968],
                        [0.280085, 0.672501, 0.047413],
                        [-0.011820, 0.042940, 0.968881]]),
}  # fmt: skip
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375],
                   [0.2126729, 0.7151522, 0.0721750],
                   [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
ALL = (*METHODS, "mine", "yours", "hers", "his", "theirs")[:20]
"""As many as there are styles: a method that is added takes one of the last five."""


def linear(colors: np.ndarray) -> np.ndarray:
    """sRGB 0..255 -> linear RGB 0..1."""
    values = np.asarray(colors) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def cielab(rgb: np.ndarray) -> np.ndarray:
    """Linear RGB (n, 3) -> L*, a*, b*."""
    xyz = rgb @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def distances(colors: np.ndarray, vision: str) -> np.ndarray:
    """(n, 3) colours 0..255 -> (n, n) distances as that reader sees them."""
    lab = cielab(np.clip(linear(colors) @ VISION[vision].T, 0, 1))
    return np.linalg.norm(lab[:, None] - lab[None], axis=-1)


def rgb(methods) -> np.ndarray:
    return np.array([list(bytes.fromhex(c[1:])) for c in method_colors(methods).values()])


def nearest(colors: np.ndarray, vision: str) -> float:
    between = distances(colors, vision)
    return float(between[np.triu_indices(len(between), 1)].min())


def test_the_simulation_agrees_with_known_colours():
    white, red, green = cielab(linear(np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0]])))
    np.testing.assert_allclose(white, [100, 0, 0], atol=0.01)
    np.testing.assert_allclose(red, [53.24, 80.09, 67.20], atol=0.02)
    np.testing.assert_allclose(green, [87.73, -86.18, 83.18], atol=0.02)
    grey = np.array([[40, 40, 40], [200, 200, 200]])  # everybody sees greys alike
    assert np.ptp([distances(grey, vision)[0, 1] for vision in VISION]) < 0.1


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    ("together", "apart"),
    [
        (("FT", "MiB", "SDR", "Joint"), 25),  # the demo
        (("FT", "MiB", "SDR", "SDR+MiB", "Joint"), 25),
        (("FT", "LwF", "ILT", "MiB", "Joint"), 15),  # chapter 04
        (("FT", "EWC", "RW", "PI"), 15),
        (("SDR", "PLOP", "LwF", "ILT"), 15),
        (tuple(METHODS), 10),
        (ALL, 10),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, tuple) else "",
)
def test_methods_that_stand_together_have_colours_far_apart(together, apart, vision):
    assert nearest(rgb(together), vision) >= apart


@pytest.mark.parametrize("vision", VISION)
def test_methods_of_near_colours_differ_in_marker_and_dashes(vision):
    styles = method_styles(ALL)
    between = distances(rgb(styles), vision)
    for (i, one), (j, other) in itertools.combinations(enumerate(styles.values()), 2):
        if between[i, j] < 20:
            assert one.marker != other.marker and one.dashes != other.dashes
    assert len({(style.marker, style.dashes) for style in styles.values()}) == len(styles)


def test_a_name_in_the_colour_of_its_method_is_legible_on_white():
    """WCAG 2: a contrast of at least 4.5."""
    luminance = linear(rgb(ALL)) @ TO_XYZ[1]
    assert (1.05 / (luminance + 0.05)).min() >= 4.5


def test_every_style_is_that_of_a_method():
    """A method that is added and has none takes one of the last five."""
    assert set(_METHOD_STYLES) <= set(METHODS)


def test_styles_are_fixed_for_our_methods_and_distinct_for_others():
    names = ["FT", "mine", "SDR", "MiB", "SDR+MiB", "yours", "LwF", "Joint"]
    styles = method_styles([*names, "mine"])
    assert list(styles) == names and len(set(styles.values())) == len(names)
    assert method_styles(["SDR"])["SDR"] == styles["SDR"]
    red, green, blue = bytes.fromhex(styles["Joint"].color[1:])
    assert red == green == blue
    many = [f"variant {k}" for k in range(15)]
    assert len(set(method_styles(["FT", *many]).values())) == 16


def test_no_class_colour_comes_twice_and_none_depends_on_the_number():
    palette = class_palette(151)
    assert palette.shape == (151, 3) and palette.dtype == np.uint8
    assert len({tuple(color) for color in palette.tolist()}) == 151
    assert (class_palette(11) == palette[:11]).all()
    assert palette[0].max() < 40


@pytest.mark.parametrize("vision", VISION)
def test_the_first_classes_stay_apart(vision):
    """Maps of classes have no marker: MiniVOC's 11 colours, then VOC's 21."""
    assert nearest(class_palette(11), vision) > 16
    assert nearest(class_palette(21), vision) > 12
