"""Figures as PNG files: as drawn, and small with the colours that mean something unchanged."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
import PIL.Image
from matplotlib.artist import Artist
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

_PALETTE, _EXACT, _FEW, _SHADES = 256, 192, 1000, 32
"""Colours of a small picture, how many of them at most stay exactly as drawn, how many there may be
without a photograph, and how many shades of edges and letters such a picture needs besides."""
_ROUNDED = np.array([17 * round(level / 17) for level in range(256)], dtype=np.uint8)
_COLOURED_BY = ("get_facecolor", "get_edgecolor", "get_color", "get_markerfacecolor")


def to_png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # a letter that the font lacks is a box, and seen as one
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def small_png(figures: Figure | Sequence[Figure], dpi: int = 110, columns: int = 1) -> bytes:
    """The same in at most 256 colours: a quarter of the size.

    Several figures become one picture, row by row, `columns` to a row.

    Colours that stand for something stay exactly what they are: those of lines, areas, texts and
    masks. A quantiser would give up a small patch's colour for one more shade of a photograph, so
    it shares out only what they leave of the palette. A photograph's colours are first rounded,
    by 8 of 255 at most, which the eye does not see and the file does.
    """
    several = [figures] if isinstance(figures, Figure) else figures
    drawn = _in_rows(
        [PIL.Image.open(io.BytesIO(to_png(f, dpi))).convert("RGB") for f in several], columns
    )
    buffer = io.BytesIO()
    _with_palette(np.asarray(drawn), several).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _with_palette(pixels: np.ndarray, figures: Sequence[Figure]) -> PIL.Image.Image:
    """uint8 (H, W, 3) as a picture with a palette, exact in the colours that the figures draw."""
    numbers = _numbers(pixels)  # (H, W)
    place = np.zeros(1 << 24, dtype=np.uint8)  # of each colour in the palette, from 1; 0: not exact
    place[numbers] = 1
    groups = [group[place[group] == 1] for figure in figures for group in _drawn_colors(figure)]
    many = np.count_nonzero(place) > _FEW
    exact: set[int] = set()
    for group in sorted(groups, key=len):
        if len(exact.union(group.tolist())) <= _EXACT:
            exact.update(group.tolist())
    chosen = np.array(sorted(exact), dtype=np.uint32)
    place[numbers] = 0
    place[chosen] = np.arange(1, len(chosen) + 1)
    index = place[numbers]
    palette = np.stack([chosen >> 16, chosen >> 8 & 255, chosen & 255], axis=1)
    others = index == 0
    index -= 1
    if others.any():
        colors = pixels[others][np.newaxis]
        rest = PIL.Image.fromarray(_ROUNDED[colors] if many else colors)
        left = _PALETTE - len(chosen)
        rest = rest.quantize(left if many else min(left, _SHADES), dither=PIL.Image.Dither.NONE)
        index[others] = len(chosen) + np.asarray(rest)[0]
        palette = np.concatenate([palette, np.reshape(rest.getpalette() or [], (-1, 3))])
    picture = PIL.Image.fromarray(index)
    picture.putpalette(palette.astype(np.uint8).tobytes())
    return picture


def _numbers(colors: np.ndarray) -> np.ndarray:
    """uint8 (..., 3) -> (...), one number for each colour."""
    red, green, blue = np.moveaxis(colors.astype(np.uint32), -1, 0)
    return np.asarray(red << 16 | green << 8 | blue)


def _drawn_colors(figure: Figure) -> list[np.ndarray]:
    """The opaque colours of each thing in a figure, as numbers."""
    drawn = [_colors_of(artist) for artist in figure.findobj()]
    return [np.unique(_numbers(colors[colors[:, 3] == 255, :3])) for colors in drawn]


def _colors_of(artist: Artist) -> np.ndarray:
    """uint8 (n, 4)."""
    if isinstance(artist, AxesImage):
        image = artist.to_rgba(np.ma.asarray(artist.get_array()), bytes=True)
        return np.asarray(image).reshape(-1, 4)
    found = [getattr(artist, name)() for name in _COLOURED_BY if hasattr(artist, name)]
    colors = [
        to_rgba_array(color) for color in found if not isinstance(color, str) or color != "auto"
    ]
    return np.round(255 * np.concatenate([np.empty((0, 4)), *colors])).astype(np.uint8)


def _in_rows(images: Sequence[PIL.Image.Image], columns: int) -> PIL.Image.Image:
    """Images on white, each in a place as large as the largest of them."""
    width, height = max(i.width for i in images), max(i.height for i in images)
    rows, columns = -(-len(images) // columns), min(columns, len(images))
    whole = PIL.Image.new("RGB", (columns * width, rows * height), "white")
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        whole.paste(image, (column * width, row * height))
    return whole
