"""Colours of classes, and styles of methods, that colour-blind readers can tell apart."""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

TEXT_COLOR, MUTED_COLOR, GRID_COLOR, BLANK_COLOR = "#222222", "#666666", "#dddddd", "#ececec"
"""Of all figures: text, less of it, lines behind the data, and cells that hold nothing."""

BEYOND_COLOR = "#c44e00"
"""Of a difference whose interval leaves 0 out."""

BACKGROUND_COLOR = (28, 28, 32)
VOID_COLORS = ((255, 255, 255), (190, 190, 190))

# Okabe and Ito's seven colours, then those farthest from all before them, by the smallest CIELAB
# distance over normal, protan, deutan and tritan vision (Machado et al., 2009).
_CLASS_COLORS = (
    "E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7", "8800FF", "AAEE99",
    "994433", "BB66FF", "CCAA55", "FF1166", "9900CC", "BB1100", "AA1177", "00DDAA", "FFCCFF",
    "DD00BB", "9977DD",
)  # fmt: skip
# After each round of the colours above: how far the next one goes to black (< 0) or white (> 0).
_SHADES = (0.0, -0.4, 0.5, -0.6, 0.25, -0.2, 0.7, -0.5)


class MethodStyle(NamedTuple):
    """How a method is drawn: three ways to tell it from the others."""

    color: str
    """Hex, dark enough to write a name in it on white."""
    marker: str
    dashes: str | tuple[int, tuple[float, ...]]
    """A line style of matplotlib."""


_SOLID, _DASHED, _DOTTED = "solid", (0, (5.0, 2.0)), (0, (1.2, 1.4))
_DASH_DOT = (0, (6.0, 1.6, 1.2, 1.6))

# Twenty dark colours cannot all be far apart for a reader who sees neither red nor green. They are
# chosen by search: the methods of the paper farthest, then those of one family, then all; two that
# come near each other in any vision differ in marker and dashes too (a test says how near). This is
# no list of the methods, which is ROWS of method_table.py: one without a style here gets another.
_METHOD_STYLES = {
    "FT": MethodStyle("#c44e00", "o", _SOLID),
    "Joint": MethodStyle("#333333", "*", _DASHED),
    "MiB": MethodStyle("#0072b2", "s", _SOLID),
    "SDR": MethodStyle("#00855f", "^", _SOLID),
    "SDR+MiB": MethodStyle("#3800d0", "D", _SOLID),
    "LwF": MethodStyle("#803060", "v", _DOTTED),
    "LwF-MC": MethodStyle("#4068f8", "o", _DASHED),
    "ILT": MethodStyle("#183090", ">", _DASH_DOT),
    "EWC": MethodStyle("#485880", "P", _DASHED),
    "RW": MethodStyle("#e01860", "X", _DASH_DOT),
    "PI": MethodStyle("#502810", "s", _DASHED),
    "CIL": MethodStyle("#501058", "^", _DASH_DOT),
    "PLOP": MethodStyle("#288090", "<", _SOLID),
    "SSUL-like": MethodStyle("#984048", "D", _DOTTED),
    "MiB+EWF": MethodStyle("#604800", "d", _DOTTED),
}
_OTHER_STYLES = (
    MethodStyle("#d010b8", "X", _DOTTED),
    MethodStyle("#285030", "P", _DASH_DOT),
    MethodStyle("#3040f8", "<", _DOTTED),
    MethodStyle("#985838", ">", _DASHED),
    MethodStyle("#687878", "d", _DASHED),
)


def class_palette(num_classes: int) -> np.ndarray:
    """uint8 (num_classes, 3), by training index: nearly black for 0, bright for the classes.

    The colour of a class does not depend on num_classes. Twenty hues, then their shades: no colour
    comes twice below 161 classes.
    """
    colors = [BACKGROUND_COLOR, *(_class_color(k) for k in range(num_classes - 1))]
    return np.array(colors[:num_classes], dtype=np.uint8)


def _class_color(k: int) -> tuple[int, ...]:
    shade = _SHADES[k // len(_CLASS_COLORS) % len(_SHADES)]
    goal = 255 if shade > 0 else 0
    base = bytes.fromhex(_CLASS_COLORS[k % len(_CLASS_COLORS)])
    return tuple(round(value + abs(shade) * (goal - value)) for value in base)


def colorize(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Training indices uint8 (H, W) -> colours uint8 (H, W, 3).

    Values from num_classes on (255 above all) are void: hatched in white and grey.
    """
    labels = np.asarray(labels)
    table = np.zeros((256, 3), dtype=np.uint8)
    table[:num_classes] = class_palette(num_classes)
    rows, columns = np.indices(labels.shape)
    width = max(2, labels.shape[0] // 32)
    hatch = np.array(VOID_COLORS, dtype=np.uint8)[(rows + columns) // width % 2]
    return np.asarray(np.where((labels >= num_classes)[..., None], hatch, table[labels]))


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """Method -> how it is drawn: fixed for the library's methods, in order of coming for others.

    Others take five styles of their own, then those of the library's methods that are not drawn.
    """
    names = dict.fromkeys(methods)
    free = [*_OTHER_STYLES, *(s for name, s in _METHOD_STYLES.items() if name not in names)]
    others = itertools.cycle(free)
    return {name: _METHOD_STYLES.get(name) or next(others) for name in names}


def method_colors(methods: Iterable[str]) -> dict[str, str]:
    """Method -> hex colour, of `method_styles`."""
    return {method: style.color for method, style in method_styles(methods).items()}
