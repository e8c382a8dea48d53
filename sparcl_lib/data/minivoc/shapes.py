"""Outlines of MiniVOC's classes: which points of a plane lie inside.

A point is (u, v), u to the right, v downwards, the centre of the shape at the origin and its
radius UNIT. Integers only, so that no rounding differs between machines.
"""

from collections.abc import Callable

import numpy as np

UNIT = 1024
Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(u, v) -> bool: does the point lie inside the outline?"""


def rect(u: np.ndarray, v: np.ndarray, half_width: int, half_height: int) -> np.ndarray:
    return (abs(u) <= half_width) & (abs(v) <= half_height)


def circle(u: np.ndarray, v: np.ndarray, radius: int) -> np.ndarray:
    inside: np.ndarray = u * u + v * v <= radius * radius
    return inside


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # A pentagram is the set of points inside at least four of its five edges' half-planes.
    normals = ((0, 1024), (974, 316), (602, -828), (-602, -828), (-974, 316))
    inside = np.sum([u * a + v * b <= 360 * UNIT for a, b in normals], axis=0) >= 4
    return np.asarray(inside)


def _triangle(u: np.ndarray, v: np.ndarray, top: int = -UNIT) -> np.ndarray:
    inside: np.ndarray = (v <= 560) & (abs(u) * 1584 <= 1000 * (v - top))
    return inside


def _ring(u: np.ndarray, v: np.ndarray, hole: int) -> np.ndarray:
    return np.asarray(circle(u, v, UNIT) & ~circle(u, v, hole))


def _kite(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    above, below = abs(u) * 624 <= 720 * (v + UNIT), abs(u) * 1424 <= 720 * (UNIT - v)
    return np.asarray(np.where(v <= -400, above, below))


TEN: dict[str, Shape] = {
    "disc": lambda u, v: circle(u, v, 1000),
    "square": lambda u, v: rect(u, v, 860, 860),
    "triangle": _triangle,
    "diamond": lambda u, v: abs(u) * 1100 + abs(v) * 620 <= 1100 * 620,
    "cross": lambda u, v: rect(u, v, 1000, 330) | rect(u, v, 330, 1000),
    "ring": lambda u, v: _ring(u, v, 580),
    "star": _star,
    "bar": lambda u, v: rect(u, v, 1160, 300),
    "frame": lambda u, v: rect(u, v, 900, 900) & ~rect(u, v, 500, 500),
    "moon": lambda u, v: circle(u, v, UNIT) & ~circle(u - 520, v, 800),
}

# Look-alikes of the ten, on purpose: the first five of ring to moon, the others of disc to cross.
TEN_MORE: dict[str, Shape] = {
    "target": lambda u, v: _ring(u, v, 660) | circle(u, v, 350),
    "flower": lambda u, v: (
        circle(abs(u) - 520, v, 480) | circle(u, abs(v) - 520, 480) | rect(u, v, 400, 400)
    ),
    "arrow": lambda u, v: (
        rect(u + 400, v, 760, 260) | (u >= 200) & (abs(v) * 960 <= 720 * (1160 - u))
    ),
    "arch": lambda u, v: rect(u, v, 900, 900) & ~rect(u, v - 500, 480, 1000),
    "dome": lambda u, v: circle(u, v - 400, UNIT) & (v <= 400),
    "oval": lambda u, v: u * u * 4 + v * v * 16 <= 4 * 1100 * 1100,
    "trapezoid": lambda u, v: (abs(v) <= 760) & (abs(u) * 760 <= 660 * 760 + 300 * v),
    "chevron": lambda u, v: _triangle(u, v) & ~_triangle(u, v, top=-160),
    "kite": _kite,
    "tee": lambda u, v: rect(u, v + 640, 1000, 330) | rect(u, v, 330, 970),
}
