"""Names of image files: which files of a folder count, and how that of an id may be spelt."""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
"""Of what is read, in small letters or in capitals; the first one that is there counts."""


def visible_names(folder: str | Path) -> list[str]:
    """Names in a folder, sorted, without hidden ones such as the ``._`` files of macOS.

    Raises OSError where it cannot be read.
    """
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def stems(names: Iterable[str], suffixes: Sequence[str]) -> list[str]:
    """Names that end in one of the suffixes, without it, as they come."""
    parts = map(os.path.splitext, names)
    return [stem for stem, suffix in parts if suffix.lower() in suffixes]


def spellings(folder: str | Path, image_id: str, suffixes: Sequence[str]) -> list[str]:
    """Paths at which the file of an id may be, the usual one first.

    Suffixes in small letters and capitals; letters with accents as one character or as two (NFC,
    NFD), for macOS writes names in the one form and lists come in the other.
    """
    names = [image_id]
    if not image_id.isascii():
        forms = (unicodedata.normalize("NFC", image_id), unicodedata.normalize("NFD", image_id))
        names = list(dict.fromkeys([image_id, *forms]))
    ends = [end for suffix in suffixes for end in (suffix, suffix.upper())]
    return [os.path.join(folder, name + end) for name in names for end in ends]


def files_of(paths: Iterable[str]) -> list[str]:
    """Those paths that exist, each file once: a disk may not tell capitals apart."""
    found: dict[tuple[int, int], str] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except (OSError, ValueError):  # ValueError: a name that no file can have
            continue
        found.setdefault((status.st_dev, status.st_ino), path)
    return list(found.values())
