"""One MiniVOC image: shapes on a cluttered background, and their mask.

A class is its outline: hues overlap between classes, textures are shared. All arithmetic is on
integers and `RandomState`, whose stream is frozen, so that no rounding differs between machines.
Coordinates u, v are those of `shapes`, with their origin in the object.
"""

import math
from collections.abc import Callable

import numpy as np

from sparcl_lib.data.minivoc.editions import Edition
from sparcl_lib.data.minivoc.shapes import UNIT, Shape, circle, rect
from sparcl_lib.labels import VOID

Random = np.random.RandomState
Coordinates = tuple[np.ndarray, np.ndarray, int]
"""u and v (size, size), and the radius of the object in quarter pixels."""
Texture = Callable[[np.ndarray, np.ndarray, int, Shape], np.ndarray]
"""(u, v, period, outline) -> weight 0..256 of the second colour."""

SINE = [round(UNIT * math.sin(2 * math.pi * k / 64)) for k in range(80)]  # cosine is SINE[k + 16]

TEXTURES: dict[str, Texture] = {
    "plain": lambda u, v, period, inside: 0 * u,
    "stripes": lambda u, v, period, inside: (u * 2 // period & 1) * 256,
    "checks": lambda u, v, period, inside: ((u * 2 // period) + (v * 2 // period) & 1) * 256,
    "dots": lambda u, v, period, inside: (
        256 * circle(u % period - period // 2, v % period - period // 2, period * 3 // 8)
    ),
    "shade": lambda u, v, period, inside: np.clip((v + UNIT) // 8, 0, 256),
    "rim": lambda u, v, period, inside: 256 * ~inside(u * 3 // 2, v * 3 // 2),
}


def _int(rng: Random, low: int, high: int) -> int:
    """A random integer, low <= i < high."""
    return int(rng.randint(low, high, dtype=np.int32))


def _rgb(hue: int, saturation: int, value: int) -> np.ndarray:
    """Hue 0..1535, saturation and value 0..255 -> int array (3,)."""
    ramp = [abs((hue + shift) % 1536 - 768) - 256 for shift in (0, 1024, 512)]
    pure = [min(255, max(0, level)) for level in ramp]
    return np.array([value * (65025 - saturation * (255 - p)) // 65025 for p in pure], np.int32)


def _upsample(grid: np.ndarray, size: int) -> np.ndarray:
    """Bilinear enlargement of an int grid (n, n, C) to (size, size, C), corners on corners."""
    n = len(grid) - 1
    at = np.arange(size, dtype=np.int32) * n * 256 // size
    cell, part = at // 256, (at % 256)[:, None, None]
    rows = grid[cell] * (256 - part) + grid[cell + 1] * part
    part = part.transpose(1, 0, 2)
    return (rows[:, cell] * (256 - part) + rows[:, cell + 1] * part) // 65536


def _draw_classes(rng: Random, edition: Edition) -> list[int]:
    """Class ids of a scene of 1 to 5 objects and at most 3 classes."""
    end = len(edition.shapes) + 1
    ids = [_int(rng, 1, end)]
    for _ in range((0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 4)[_int(rng, 0, 12)]):
        known, dice = ids[_int(rng, 0, len(ids))], _int(rng, 0, 100)
        if len(set(ids)) == 3 or dice < 35:
            ids.append(known)
        elif dice < 75:
            ids.append(edition.often_together[known][_int(rng, 0, 2)])
        else:
            ids.append(_int(rng, 1, end))
    return ids


def _draw_coordinates(rng: Random, size: int, low: int, high: int) -> Coordinates:
    """The coordinates of an object at a random place, with a random turn, size and aspect.

    The radius lies in low..high quarter pixels of a 64-pixel image, and grows with `size`.
    """
    radius = _int(rng, low, high + 1) * size // 64
    margin = min(radius * 3 // 4, size * 3 // 2)
    x, y = _int(rng, margin, 4 * size - margin), _int(rng, margin, 4 * size - margin)
    turn, aspect = _int(rng, -8, 9) % 64, _int(rng, 80, 101)
    at = 4 * np.arange(size, dtype=np.int64) + 2
    dx, dy = at[None, :] - x, at[:, None] - y
    sine, cosine = SINE[turn], SINE[turn + 16]
    return (
        (dx * cosine + dy * sine) // radius,
        (dy * cosine - dx * sine) * 100 // (radius * aspect),
        radius,
    )


def _background(rng: Random, size: int) -> np.ndarray:
    """A smooth gradient, a coarse texture and clutter that is no object: int (size, size, 3)."""
    hue, value = _int(rng, 0, 1536), _int(rng, 50, 215)
    corners = [
        _rgb(
            hue + _int(rng, -200, 200),
            _int(rng, 10, 120),
            min(255, max(20, value + _int(rng, -45, 46))),
        )
        for _ in range(4)
    ]
    canvas = _upsample(np.array(corners).reshape(2, 2, 3), size)
    canvas += _upsample(rng.randint(-22, 23, (11, 11, 1), dtype=np.int32), size)
    for _ in range(_int(rng, 2, 7)):
        u, v, radius = _draw_coordinates(rng, size, 8, 18)
        length = _int(rng, 2, 8)
        kind = _int(rng, 0, 3)
        if kind == 0:  # a thin line
            where = rect(u, v, length * UNIT, 3 * UNIT * size // (64 * radius) + 1)
        else:  # a small blob of one or two lobes
            where = circle(u, v, UNIT) | circle(u - 900 * (kind - 1), v - 500, 700)
        canvas[where] = _rgb(_int(rng, 0, 1536), _int(rng, 0, 220), _int(rng, 30, 240))
    specks = rng.randint(0, size, (2, _int(rng, 5, 30)), dtype=np.int32)
    canvas[tuple(specks)] = rng.randint(0, 256, (specks.shape[1], 3), dtype=np.int32)
    return canvas


def _object_colours(
    rng: Random, class_id: int, behind: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two colours (3,) for an object: the first at a distance from the mean colour behind it."""
    for _ in range(12):
        # A class spans a quarter of the wheel around one of five centres: no hue is its own.
        hue = class_id % 5 * 307 + _int(rng, -192, 193)
        saturation, value = _int(rng, 110, 256), _int(rng, 70, 256)
        first = _rgb(hue, saturation, value)
        if abs(first - behind).sum() >= 150:
            break
    value = value - 80 if value > 160 else value + 90
    return first, _rgb(hue + _int(rng, -250, 251), saturation * _int(rng, 40, 101) // 100, value)


def _free_place(rng: Random, shape: Shape, owner: np.ndarray) -> Coordinates | None:
    """Coordinates that hide no earlier object by more than half, or None."""
    areas = np.bincount(owner.ravel())
    for _ in range(12):
        u, v, radius = _draw_coordinates(rng, len(owner), 45, 73)
        hidden = np.bincount(owner[shape(u, v)], minlength=len(areas))
        if (hidden[1:] * 2 <= areas[1:]).all():
            return u, v, radius
    return None


def _fill(
    rng: Random, class_id: int, shape: Shape, place: Coordinates, behind: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The outline (size, size) and the colours (n, 3) of the pixels inside it."""
    u, v, radius = place
    first, second = _object_colours(rng, class_id, behind)
    # Two of the six textures per class, each shared with other classes.
    texture = list(TEXTURES.values())[(class_id + _int(rng, 0, 2)) % 6]
    period = _int(rng, 20, 33) * len(u) // 64 * UNIT // radius
    inside = shape(u, v)
    weight = texture(u, v, period, shape)[inside][:, None]
    return inside, (first * (256 - weight) + second * weight) // 256


def _border(owner: np.ndarray) -> np.ndarray:
    """Pixels just outside a visible object, towards what lies behind it: bool (size, size)."""
    wide = np.pad(owner, 1, mode="edge")
    around = np.stack([wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]])
    return np.asarray(around.max(0) > owner)


def _blurred_with_noise(rng: Random, canvas: np.ndarray) -> np.ndarray:
    """The canvas after a small blur, with pixel noise: uint8 (size, size, 3)."""
    wide = np.pad(canvas, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    soft = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) // 16
    noise = rng.randint(-10, 11, canvas.shape, dtype=np.int8)
    return np.asarray((soft + noise).clip(0, 255), dtype=np.uint8)


def sample(rng: Random, size: int, edition: Edition) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image from a `RandomState`.

    Returns the photo (size, size, 3) and the mask (size, size), both uint8; in the mask 0 is
    background, 1, 2, ... are the edition's classes in order, 255 is the border.
    """
    shapes = list(edition.shapes.values())
    canvas = _background(rng, size)
    owner, mask = np.zeros((size, size), int), np.zeros((size, size), np.uint8)
    behind = canvas.sum((0, 1), dtype=np.int64) // size**2
    for number, class_id in enumerate(_draw_classes(rng, edition), 1):
        shape = shapes[class_id - 1]
        place = _free_place(rng, shape, owner)
        if place is None:
            continue
        inside, colours = _fill(rng, class_id, shape, place, behind)
        canvas[inside], owner[inside], mask[inside] = colours, number, class_id
    mask[_border(owner)] = VOID
    return _blurred_with_noise(rng, canvas), mask
