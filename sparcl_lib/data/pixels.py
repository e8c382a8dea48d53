"""Photographs and masks as files, opened in one way by all that read them.

Bit depth, mode, orientation, alpha, animation and colour space are looked at here and nowhere
else: for the loader, the index, the checks, the conversion and the prediction alike. What can be
meant in one way only is converted; the rest is refused in one line that names the file.
docs/reliability.md lists both.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from sparcl_lib.errors import UserError, first_few

Size = tuple[int, int]
"""Width and height in pixels."""

MOST_WHOLE_PIXELS = 2**24
"""Of an image that a network sees whole: 4.3 GiB of memory with a ResNet-101 on a CPU."""
_UNCLEAR = {
    "F": "floating point numbers, of which nobody says what is black and what is white",
    "I": "32-bit numbers, of which nobody says what is black and what is white",
    "LAB": "CIELAB colours, which are not converted",
}
"""Modes of photographs that could be converted in several ways, or in none."""
_SPREAD = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies the values of 2 and of 4 bits by, so that the largest is white."""
_WHITE_IS_ZERO = re.compile(r";\d?IR?$")
_WIDE = ("I;16", "I;16B", "I;16L", "I;16N")
_LOSSY = ("JPEG", "MPO", "JPEG2000")
_LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
"""Compressions, as Pillow names them."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What puts an image upright, by its EXIF orientation."""


class PhotoFacts(NamedTuple):
    """What was found out about a photograph that can be read."""

    size: Size
    """Upright."""
    converted: tuple[str, ...]
    """What reading it changes or leaves out, in words; empty for 8-bit grey and RGB."""


def read_photo(path: str) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB of a photograph, upright as its EXIF orientation says.

    16 bits become 8 by their upper byte; grey, palette and CMYK become RGB; an alpha channel is
    left out and a colour profile not applied, as in the field's loaders.

    Raises:
        UserError: the file is missing, damaged, or could be read in more than one way.
    """
    with _opened("photograph", path) as (image, _):
        return rgb_of(image, f"photograph {path}")


def rgb_of(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB of an image of Pillow, upright, as `read_photo`.

    name: of the image, in messages. Raises UserError as `read_photo`.
    """
    with _in_one_line(name):
        stored = _stored_as(image)
        _check_photo(image, name)
        image.load()
        turn = _TURNS.get(_orientation(image))  # after loading, by which Pillow turns a TIFF
        if image.mode in _WIDE:
            shift = 4 if stored == "I;12" else 8
            image = Image.fromarray((np.asarray(image) >> shift).astype(np.uint8))
        elif image.mode in ("P", "PA"):  # by way of RGBA: Pillow warns of transparent palettes
            image = image.convert("RGBA")
        if image.mode != "RGB":
            image = image.convert("RGB")
        return np.array(image if turn is None else image.transpose(turn))


def photo_size(path: str) -> Size:
    """Upright size of a photograph, from its header alone.

    A PNG may carry its orientation behind its pixels, where a header does not show it. Raises
    UserError as `read_photo`, for what the header does show.
    """
    with _opened("photograph", path) as (image, _):
        _check_photo(image, f"photograph {path}")
        known = image.format != "PNG" or "exif" in image.info  # or Pillow would decode it all
        turned = known and image.format != "TIFF" and _orientation(image) >= 5
        return image.size[::-1] if turned else image.size


def check_photo(path: str, content: bytes) -> PhotoFacts:
    """Decode the bytes of a photograph to see whether it is whole.

    Raises UserError as `read_photo`.
    """
    with _opened("photograph", path, content) as (image, stored):
        _check_photo(image, f"photograph {path}")
        size, converted = image.size, _conversions(image, stored)
        # An eighth of the size shows a cut or broken stream as well, in a third of the time.
        image.draft(None, (max(1, size[0] // 8), max(1, size[1] // 8)))
        turned = image.format == "TIFF" and _orientation(image) > 1  # forgotten by loading it
        image.load()
        orientation = _orientation(image)
        if turned or orientation > 1:
            converted = (*converted, "turned by an EXIF orientation")
        return PhotoFacts(size[::-1] if orientation >= 5 else size, converted)


def open_mask(path: str) -> Image.Image:
    """A mask of mode P or L, loaded: its pixels are the values that the file stores.

    So 1, 2 and 4 bits a pixel hold 0 to 1, 3 and 15, a palette's colours do not count, and 16 bits
    are read where no value is above 255.

    Raises:
        UserError: the file is missing, damaged, no image of one number a pixel, of a lossy format,
            or holds values above 255 or an orientation.
    """
    with _opened("mask", path) as (image, stored):
        _check_mask(image, stored, path)
        image.load()
        if image.mode in (*_WIDE, "I"):
            return Image.fromarray(_narrow(np.asarray(image), path))
        if image.mode not in ("P", "L", "1"):
            colours = "; for masks in colours see sparcl data convert"
            raise UserError(
                f"mask {path} is a {image.mode} image; save it as an 8-bit palette or grey PNG of "
                f"class ids{colours if image.mode in ('RGB', 'RGBA') else ''}"
            )
        if image.mode == "1":
            return Image.fromarray(np.array(image, dtype=np.uint8))
        spread = _SPREAD.get(stored.rstrip("R"), 1)
        return image if spread == 1 else Image.fromarray(np.array(image) // np.uint8(spread))


def read_coloured_mask(path: str) -> NDArray[np.uint8]:
    """uint8 (H, W, 3): the colours of a mask, alpha left out.

    Raises:
        UserError: as `open_mask`, for what is no image of colours or greys with 8 bits.
    """
    with _opened("mask", path) as (image, stored):
        _check_mask(image, stored, path)
        image.load()
        if image.mode not in ("P", "RGB", "RGBA", "L") or ";16" in stored:
            bits = " of 16 bits" if ";16" in stored else ""
            raise UserError(
                f"mask {path} is a {image.mode} image{bits}; save it as a PNG of red, green and "
                "blue, 8 bits each"
            )
        # By way of RGBA: Pillow warns of a palette with transparency otherwise.
        return np.array(image.convert("RGBA"))[..., :3]


def check_sizes(photo: str, photo_size: Size, mask: str, mask_size: Size) -> None:
    """Raise UserError unless a photograph, upright, has the size of its mask."""
    if photo_size == mask_size:
        return
    on_its_side = photo_size == mask_size[::-1]
    why = " (an EXIF orientation turns photographs, not masks)" if on_its_side else ""
    raise UserError(
        f"photograph {photo} is {photo_size[0]}x{photo_size[1]} pixels but its mask {mask} is "
        f"{mask_size[0]}x{mask_size[1]}{why}; make the sizes equal"
    )


def check_pixels(name: str, size: Size, otherwise: str = "") -> None:
    """Raise UserError for an image, of this name, that is too large for a network as it is.

    otherwise: what else may be done about it.
    """
    found = size[0] * size[1]
    if found > MOST_WHOLE_PIXELS:
        raise UserError(
            f"{name} has {found:,} pixels, and at most {MOST_WHOLE_PIXELS:,} go through a network "
            f"at once; scale it down or cut it up{otherwise}"
        )


def check_two_files(photo: str, mask: str) -> None:
    """Raise UserError where a photograph is its own mask."""
    if os.path.realpath(photo) == os.path.realpath(mask):
        raise UserError(
            f"{photo} is photograph and mask at once; name the place of the photographs and that "
            "of the masks"
        )


@contextmanager
def _opened(
    kind: str, path: str, content: bytes | None = None
) -> Iterator[tuple[Image.Image, str]]:
    """A file as an image of Pillow, and how it stores a pixel (which loading forgets)."""
    file = path if content is None else io.BytesIO(content)
    with _in_one_line(f"{kind} {path}", path), Image.open(file) as image:
        yield image, _stored_as(image)


@contextmanager
def _in_one_line(name: str, path: str | None = None) -> Iterator[None]:
    """Whatever Pillow finds wrong with an image becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a damaged file can make Pillow raise anything
        raise UserError(f"{name} {_fault(error, path)}") from None


def _fault(error: Exception, path: str | None) -> str:
    if isinstance(error, Image.DecompressionBombError):
        found, most = (f"{int(number):,}" for number in re.findall(r"\d+", str(error))[:2])
        return f"has {found} pixels, and at most {most} are read; scale it down or cut it up"
    if isinstance(error, MemoryError):
        return "does not fit into the memory; scale it down or cut it up"
    if isinstance(error, UnidentifiedImageError):
        empty = path is not None and os.path.isfile(path) and os.path.getsize(path) == 0
        return "is empty; restore it" if empty else "is no image that can be read; restore it"
    if isinstance(error, IsADirectoryError):
        return "is a folder; name a file"
    if isinstance(error, FileNotFoundError):
        return "is not there; correct its name, or restore it"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot be read ({' '.join(reason.split())}); restore it"


def _check_photo(image: Image.Image, name: str) -> None:
    _check_single(image, name)
    if image.mode in _UNCLEAR:
        raise UserError(f"{name} holds {_UNCLEAR[image.mode]}; save it as 8-bit RGB")


def _check_mask(image: Image.Image, stored: str, path: str) -> None:
    _check_single(image, f"mask {path}")
    packed = image.info.get("compression")
    lossy_in_tiff = image.format == "TIFF" and packed in _LOSSY_IN_TIFF
    if image.format in _LOSSY or lossy_in_tiff:
        kind = f"TIFF compressed by {packed}" if lossy_in_tiff else image.format
        raise UserError(f"mask {path} is a {kind}, whose values are not exact; save a PNG")
    if _orientation(image) > 1:
        raise UserError(
            f"mask {path} has an EXIF orientation, and masks are read as they are stored; save it "
            "upright and without one"
        )
    if _WHITE_IS_ZERO.search(stored):
        raise UserError(f"mask {path} stores white as 0; save it as an 8-bit palette or grey PNG")


def _check_single(image: Image.Image, name: str) -> None:
    # MPO: the JPEG of a telephone, with a preview or a second view behind the photograph.
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if count > 1:
        raise UserError(f"{name} holds {count} pictures or pages; save the one that is meant")


def _conversions(image: Image.Image, stored: str) -> tuple[str, ...]:
    """What of a photograph becomes something else, or is left out."""
    facts = (
        (image.mode in _WIDE or ";16" in stored, "16 bits to 8"),
        (image.mode == "CMYK", "CMYK to RGB"),
        (image.mode in ("LA", "La", "RGBA", "RGBa", "PA"), "alpha left out"),
        ("transparency" in image.info, "transparency left out"),
        (bool(image.info.get("icc_profile")), "colour profile not applied"),
    )
    return tuple(text for holds, text in facts if holds)


def _narrow(values: NDArray[np.integer[Any]], path: str) -> NDArray[np.uint8]:
    """Values of 16 or 32 bits as bytes; UserError for those that are none."""
    outside, counts = np.unique(values[(values < 0) | (values > 255)], return_counts=True)
    if len(outside):
        shown = [f"{v} ({n} pixels)" for v, n in zip(outside, counts, strict=True)]
        raise UserError(
            f"mask {path} holds {first_few(shown, 3)}, and mask values are 0 to 255; save it with "
            "8 bits"
        )
    return values.astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """1, upright, to 8."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # notes of the camera that are damaged; the pixels are not
        return 1
    return found if found in _TURNS else 1


def _stored_as(image: Image.Image) -> str:
    """How the file stores a pixel, such as ``L;4``, in Pillow's words; else the mode."""
    tiles = getattr(image, "tile", None)
    decoder = tiles[0].args if tiles else None
    if isinstance(decoder, tuple) and decoder:
        decoder = decoder[0]
    return decoder if isinstance(decoder, str) else image.mode
