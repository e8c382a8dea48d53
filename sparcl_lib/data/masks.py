"""Masks as files: read in one way by the index, the checks, the loader and the conversion."""

import struct
import zlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from sparcl_lib.errors import UserError
from sparcl_lib.labels import VOID

# What Pillow raises for a file that is missing or damaged.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error,
          Image.DecompressionBombError)  # fmt: skip
Row = tuple[np.ndarray, tuple[int, int]]
"""bool (256,), which values a mask shows, and its width and height in pixels."""
Colour = tuple[int, int, int]
"""Red, green and blue of 0 to 255."""

_INDEX_MODES = ("P", "L", "1")
_COLOUR_MODES = ("P", "RGB", "RGBA", "L")
_PLACES = np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)


def lookup(values: Mapping[int, int]) -> np.ndarray:
    """uint8 (256,): raw id of each mask value; one that `values` does not name is ignored."""
    table = np.full(256, VOID, dtype=np.uint8)
    for value, raw_id in values.items():
        table[value] = raw_id
    return table


def read_mask(path: str) -> Row:
    """Which values a mask shows, and its size, decoded once.

    Raises:
        UserError: naming a file that is missing, broken or no image of class indices.
    """
    mask = _open(path, _INDEX_MODES)
    shown = np.array(mask.histogram()) > 0
    if mask.mode == "1":  # its 1 is counted as 255
        shown[[1, VOID]] = shown[VOID], False
    return shown, mask.size


def read_values(path: str, table: np.ndarray | None = None) -> np.ndarray:
    """uint8 (H, W) values of a mask, or their raw ids by a table of `lookup`.

    Raises:
        UserError: as `read_mask`.
    """
    values = np.array(_open(path, _INDEX_MODES), dtype=np.uint8)
    return values if table is None else table[values]


def read_colours(path: str, colours: Mapping[Colour, int]) -> np.ndarray:
    """uint8 (H, W) raw ids of a colour-coded mask.

    Args:
        path: file.
        colours: (red, green, blue) of 0 to 255 -> raw id.

    Raises:
        UserError: as `read_mask`, or for a colour that `colours` does not have.
    """
    # By way of RGBA: Pillow warns of a palette with transparency otherwise.
    pixels = np.array(_open(path, _COLOUR_MODES).convert("RGBA"))[..., :3]
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


def _open(path: str, modes: tuple[str, ...]) -> Image.Image:
    try:
        with Image.open(path) as mask:
            mask.load()
    except BROKEN as error:
        raise UserError(f"mask {path} cannot be read ({error}); restore it") from None
    if mask.mode not in modes:
        raise UserError(_no_mask(path, mask.mode, modes))
    return mask


def _no_mask(path: str, mode: str, modes: tuple[str, ...]) -> str:
    if modes is _COLOUR_MODES:
        return (
            f"mask {path} is a {mode} image; save it as a PNG of red, green and blue, 8 bits each"
        )
    how = "save it as an 8-bit palette or grey PNG of class ids"
    colours = "; for masks in colours see sparcl data convert" if mode in _COLOUR_MODES else ""
    return f"mask {path} is a {mode} image; {how}{colours}"
