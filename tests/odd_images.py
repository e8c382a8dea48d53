"""Photographs and masks as people have them, and what becomes of each.

    python tests/odd_images.py    prints the tables of docs/reliability.md

A picture of 6 x 4 pixels is saved in every way; its mask holds the values 0, 1, 2 and 3.
"""

import re
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, as a script

from sparcl_lib.data.masks import read_values
from sparcl_lib.data.pixels import check_photo, read_photo
from sparcl_lib.errors import UserError

Write = Callable[[Path], object]

COLOURS = np.stack(np.meshgrid([0, 50, 100, 150, 200, 250], [0, 80, 160, 240]), axis=-1)
COLOURS = np.concatenate([COLOURS, COLOURS[..., :1] // 2 + 60], axis=-1).astype(np.uint8)
"""uint8 (4, 6, 3), every pixel of another colour."""
GREY = COLOURS[..., 0] // 2 + COLOURS[..., 1] // 4
VALUES = np.arange(24, dtype=np.uint8).reshape(4, 6) % 4
ORIENTATION = 0x0112
_PHOTO, _GREY, _MASK = (Image.fromarray(pixels) for pixels in (COLOURS, GREY, VALUES))


def png(depth: int, kind: int, pixels: np.ndarray, *late: bytes) -> bytes:
    """A PNG of any depth and kind (0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA).

    late: whole chunks behind the pixels.
    """
    height, width = pixels.shape[:2]
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in pixels]
    elif depth == 8:
        rows = [row.tobytes() for row in pixels]
    else:
        bits = np.unpackbits(pixels[..., None], axis=-1)[..., 8 - depth :].reshape(height, -1)
        rows = [row.tobytes() for row in np.packbits(bits, axis=1)]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    palette = [chunk(b"PLTE", bytes(n % 256 for n in range(3 << depth)))] if kind == 3 else []
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *palette, chunk(b"IDAT", content), *late, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(name: bytes, content: bytes) -> bytes:
    end = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + end


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def saved(image: Image.Image, *more: Image.Image, **options: object) -> Write:
    """more: further frames or pages."""

    def save(path: Path) -> None:
        first, *others = (shown.copy() for shown in (image, *more))  # JPEG leaves its settings
        several = {"save_all": True, "append_images": others} if others else {}
        first.save(path, **several, **options)

    return save


def written(content: bytes) -> Write:
    return lambda path: path.write_bytes(content)


def lying(orientation: int, **options: object) -> Write:
    """The picture as it lies in a file that has this orientation."""
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
             6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    return saved(
        _PHOTO.transpose(Image.Transpose[turns[orientation]]), exif=exif(orientation), **options
    )


def _cut(write: Write) -> Write:
    def cut(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])

    return cut


def _deep(pixels: np.ndarray, low: int = 77) -> np.ndarray:
    """The picture in 16 bits, with something in the lower byte too."""
    return pixels.astype(np.uint16) * 256 + low


def _alpha(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, np.full(pixels.shape[:2], 90, pixels.dtype)])


def _see_through() -> Write:
    palette = _PHOTO.quantize(24)
    return saved(palette, transparency=bytes(range(24)))


def _profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


_RANDOM = np.random.default_rng(0)
_NOISE = Image.fromarray(_RANDOM.integers(0, 256, (32, 32, 3), np.uint8))
_SECOND = Image.fromarray(255 - COLOURS)
_HUGE = png(8, 2, np.zeros((1, 1, 3), np.uint8)).replace(
    chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
    chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)),
)
_LATE_EXIF = chunk(b"eXIf", exif(3).tobytes().removeprefix(b"Exif\0\0"))

PHOTOS: dict[str, tuple[str, Write]] = {
    "8-bit RGB": ("png", saved(_PHOTO)),
    "8-bit grey": ("png", saved(_GREY)),
    "JPEG": ("jpg", saved(_PHOTO, quality=95)),
    "JPEG, progressive": ("jpg", saved(_PHOTO, progressive=True)),
    "JPEG, grey": ("jpg", saved(_GREY)),
    "JPEG, CMYK": ("jpg", saved(_PHOTO.convert("CMYK"))),
    "JPEG of a telephone, two views (MPO)": ("jpg", saved(_PHOTO, _SECOND, format="MPO")),
    "colour profile": ("png", saved(_PHOTO, icc_profile=_profile())),
    "1-bit grey": ("png", written(png(1, 0, GREY // 128))),
    "2-bit grey": ("png", written(png(2, 0, GREY // 64))),
    "4-bit grey": ("png", written(png(4, 0, GREY // 16))),
    "16-bit grey": ("png", written(png(16, 0, _deep(GREY)))),
    "16-bit grey TIFF": ("tif", saved(Image.fromarray(_deep(GREY)))),
    "16-bit RGB": ("png", written(png(16, 2, _deep(COLOURS)))),
    "16-bit RGBA": ("png", written(png(16, 6, _alpha(_deep(COLOURS))))),
    "palette": ("png", saved(_PHOTO.quantize(24))),
    "palette with transparency": ("png", _see_through()),
    "grey and alpha": ("png", saved(Image.fromarray(_alpha(GREY)))),
    "RGBA": ("png", saved(Image.fromarray(_alpha(COLOURS)))),
    "BMP": ("bmp", saved(_PHOTO)),
    "WebP": ("webp", saved(_PHOTO, lossless=True)),
    "TIFF": ("tif", saved(_PHOTO)),
    **{f"EXIF orientation {n}": ("png", lying(n)) for n in range(2, 9)},
    "EXIF orientation 6, JPEG": ("jpg", lying(6, quality=95)),
    "EXIF orientation 8, TIFF": ("tif", lying(8)),
    "EXIF orientation 5, WebP": ("webp", lying(5, lossless=True)),
    "EXIF orientation behind the pixels": (
        "png", written(png(8, 2, COLOURS[::-1, ::-1], _LATE_EXIF)),
    ),
    "EXIF damaged": ("jpg", saved(_PHOTO, exif=b"Exif\0\0nonsense")),
    "float TIFF": ("tif", saved(Image.fromarray(GREY.astype(np.float32) / 255))),
    "32-bit integer TIFF": ("tif", saved(Image.fromarray(GREY.astype(np.int32)))),
    "CIELAB TIFF": ("tif", saved(Image.new("LAB", (6, 4)))),
    "animated GIF": ("gif", saved(_PHOTO.quantize(24), _SECOND.quantize(24))),
    "animated PNG": ("png", saved(_PHOTO, _SECOND)),
    "animated WebP": ("webp", saved(_PHOTO, _SECOND)),
    "TIFF of two pages": ("tif", saved(_PHOTO, _SECOND)),
    "cut JPEG": ("jpg", _cut(saved(_NOISE))),
    "cut PNG": ("png", _cut(saved(_PHOTO))),
    "text under another name": ("jpg", written(b"<html>not found</html>")),
    "no byte": ("jpg", written(b"")),
    "random bytes": ("jpg", written(_RANDOM.bytes(300))),
    "60,000 x 60,000 pixels, says its header": ("png", written(_HUGE)),
}  # fmt: skip
"""What is special -> suffix, and who writes it."""

MASKS: dict[str, tuple[str, Write]] = {
    "8-bit grey": ("png", saved(_MASK)),
    "8-bit palette": ("png", written(png(8, 3, VALUES))),
    "1-bit grey": ("png", written(png(1, 0, VALUES % 2))),
    "2-bit grey": ("png", written(png(2, 0, VALUES))),
    "4-bit grey": ("png", written(png(4, 0, VALUES))),
    "1-bit palette": ("png", written(png(1, 3, VALUES % 2))),
    "2-bit palette": ("png", written(png(2, 3, VALUES))),
    "4-bit palette": ("png", written(png(4, 3, VALUES))),
    "8-bit TIFF": ("tif", saved(_MASK)),
    "BMP": ("bmp", saved(_MASK)),
    "16-bit grey, values to 255": ("png", written(png(16, 0, VALUES))),
    "16-bit grey TIFF, values to 255": ("tif", saved(Image.fromarray(VALUES.astype(np.uint16)))),
    "32-bit integer TIFF, values to 255": (
        "tif", saved(Image.fromarray(VALUES.astype(np.int32))),
    ),
    "16-bit grey, values above 255": (
        "png", written(png(16, 0, np.where(VALUES == 3, 300, VALUES.astype(int)))),
    ),
    "32-bit integer TIFF, values below 0": (
        "tif", saved(Image.fromarray(np.where(VALUES == 3, -1, VALUES.astype(np.int32)))),
    ),
    "float TIFF": ("tif", saved(Image.fromarray(VALUES.astype(np.float32)))),
    "TIFF in which white is 0": ("tif", saved(_MASK, tiffinfo={262: 0})),
    "RGB": ("png", saved(_PHOTO)),
    "RGBA": ("png", saved(Image.fromarray(_alpha(COLOURS)))),
    "grey and alpha": ("png", saved(Image.fromarray(_alpha(VALUES)))),
    "JPEG, grey": ("jpg", saved(_MASK)),
    "JPEG in a TIFF": ("tif", saved(_MASK, compression="jpeg")),
    "EXIF orientation": ("png", saved(_MASK, exif=exif(6))),
    "EXIF orientation, TIFF": ("tif", saved(_MASK, exif=exif(6))),
    "EXIF orientation behind the pixels": ("png", written(png(8, 0, VALUES, _LATE_EXIF))),
    "animated PNG": ("png", saved(_MASK, Image.fromarray(3 - VALUES))),
    "TIFF of two pages": ("tif", saved(_MASK, Image.fromarray(3 - VALUES))),
    "cut PNG": ("png", _cut(saved(_MASK))),
    "text under another name": ("png", written(b"0 0 1 1")),
    "no byte": ("png", written(b"")),
    "60,000 x 60,000 pixels, says its header": ("png", written(_HUGE)),
}  # fmt: skip


def photo_outcome(path: Path) -> str:
    """What becomes of a photograph, in words."""
    read_photo(str(path))
    converted = check_photo(str(path), path.read_bytes()).converted
    return ", ".join(["read", *converted])


def mask_outcome(path: Path) -> str:
    """What becomes of a mask, in words."""
    return f"read, values {', '.join(map(str, np.unique(read_values(str(path))).tolist()))}"


def table(inputs: dict[str, tuple[str, Write]], outcome: Callable[[Path], str]) -> list[str]:
    """A line per input, in Markdown."""
    lines = ["| input | outcome |", "|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for name, (suffix, write) in inputs.items():
            path = Path(folder, f"FILE.{suffix}")
            write(path)
            try:
                text = outcome(path)
            except UserError as error:
                text = f"refused: {error}".replace(str(path), path.name)
                text = re.sub(r"\(image.*\)|\(broken.*\)", "(...)", text)  # Pillow's own words
            lines.append(f"| {name} | {text} |")
    return lines


def tables() -> str:
    """Both tables of docs/reliability.md."""
    parts = []
    for title, inputs, outcome in (
        ("Photographs", PHOTOS, photo_outcome),
        ("Masks", MASKS, mask_outcome),
    ):
        parts += [f"### {title}", "", *table(inputs, outcome), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    print(tables())
