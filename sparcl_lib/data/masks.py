"""What the values and colours of masks mean: for the index, the checks, the loader alike."""

from collections.abc import Mapping

import numpy as np

from sparcl_lib.data.pixels import Size, open_mask, read_coloured_mask
from sparcl_lib.errors import UserError
from sparcl_lib.labels import VOID

Counts = tuple[np.ndarray, Size]
"""int64 (256,), how many pixels of a mask have each value, and its width and height in pixels."""
Colour = tuple[int, int, int]
"""Red, green and blue of 0 to 255."""

_PLACES = np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)


def lookup(values: Mapping[int, int]) -> np.ndarray:
    """uint8 (256,): raw id of each mask value; one that `values` does not name is ignored."""
    table = np.full(256, VOID, dtype=np.uint8)
    for value, raw_id in values.items():
        table[value] = raw_id
    return table


def count_values(path: str) -> Counts:
    """How often a mask shows each value, and its size, decoded once.

    Raises:
        UserError: as `sparcl_lib.data.pixels.open_mask`.
    """
    mask = open_mask(path)
    return np.array(mask.histogram()), mask.size


def read_values(path: str, table: np.ndarray | None = None) -> np.ndarray:
    """uint8 (H, W) values of a mask, or their raw ids by a table of `lookup`.

    Raises:
        UserError: as `sparcl_lib.data.pixels.open_mask`.
    """
    values = np.array(open_mask(path), dtype=np.uint8)
    return values if table is None else table[values]


def read_colours(path: str, colours: Mapping[Colour, int]) -> np.ndarray:
    """uint8 (H, W) raw ids of a colour-coded mask.

    Args:
        path: file.
        colours: (red, green, blue) of 0 to 255 -> raw id.

    Raises:
        UserError: as `read_coloured_mask`, or for a colour that `colours` does not have.
    """
    pixels = read_coloured_mask(path)
    codes = pixels.astype(np.uint32) @ _PLACES
    known = {int(np.array(colour) @ _PLACES): raw_id for colour, raw_id in colours.items()}
    ordered = np.array(sorted(known), dtype=np.uint32)
    found = np.searchsorted(ordered, codes).clip(max=len(ordered) - 1)
    strange = np.argwhere(ordered[found] != codes)
    if len(strange):
        y, x = strange[0].tolist()
        raise UserError(
            f"mask {path} has the colour {pixels[y, x].tolist()} at x = {x}, y = {y} (from 0, top "
            "left), which is not in the palette; add it there, to a class or to void"
        )
    raw_ids: np.ndarray = np.array([known[code] for code in ordered.tolist()], dtype=np.uint8)
    return np.asarray(raw_ids[found])


def voc_palette() -> bytes:
    """VOC's colour map, 256 x RGB bytes: bit 3j + c of the class is bit 7 - j of channel c."""
    return bytes(
        sum((i >> 3 * j + c & 1) << 7 - j for j in range(3)) for i in range(256) for c in range(3)
    )
