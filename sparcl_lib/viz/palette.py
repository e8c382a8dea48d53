"""Colours of classes and methods, chosen to stay apart for colour-blind readers."""

from collections.abc import Iterable

import numpy as np

TEXT_COLOR, MUTED_COLOR, GRID_COLOR, BLANK_COLOR = "#222222", "#666666", "#dddddd", "#ececec"
"""Of all figures: text, less of it, lines behind the data, and cells that hold nothing."""

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

_METHOD_COLORS = {
    "FT": "#c44e00",
    "LwF": "#b0508a",
    "MiB": "#0072b2",
    "SDR": "#00855f",
    "SDR+MiB": "#6a2fb5",
    "Joint": "#4d4d4d",
}
_OTHER_COLORS = (
    "#8c6d00", "#0b8a99", "#a3202a", "#5a6b1f", "#8a5a3b", "#3f4fa8", "#c2307a", "#1b1464",
    "#6e8b00", "#7a1f5c", "#2f7f6f", "#a05a00",
)  # fmt: skip


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


def method_colors(methods: Iterable[str]) -> dict[str, str]:
    """Method -> hex colour: fixed for the library's own methods, in order of coming for others."""
    colors: dict[str, str] = {}
    for method in methods:
        others = sum(name not in _METHOD_COLORS for name in colors)
        other = _OTHER_COLORS[others % len(_OTHER_COLORS)]
        colors.setdefault(method, _METHOD_COLORS.get(method, other))
    return colors
