"""What later calls need not find out again, in the user's cache folder."""

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs

from sparcl_lib.errors import UserError
from sparcl_lib.writing import replace_file

Stamp = tuple[int, int]


def stamp(file: str, kind: str, image_id: str) -> Stamp:
    """Size and modification time: a file with another stamp is read again.

    Raises UserError for a file that is missing: the `kind` (mask, photograph) of an image.
    """
    try:
        stat = os.stat(file)
    except OSError:
        raise UserError(
            f"{kind} {file} of id {image_id!r} is missing; add it, or take the id off the list"
        ) from None
    return stat.st_size, stat.st_mtime_ns


def cache_file(kind: str, place: str, suffix: str) -> Path:
    """Where that is kept which was found out about a place."""
    name = hashlib.sha256(place.encode()).hexdigest()[:24]
    return platformdirs.user_cache_path("sparcl", appauthor=False) / f"{kind}-{name}{suffix}"


def write_cache(path: Path, write: Callable[[Path], object], consequence: str) -> None:
    """Let `write` fill the file, whole or not at all; where it cannot, stderr says what of.

    consequence: what it costs that nothing is kept.
    """
    try:
        replace_file(path, write)
    except OSError as error:
        reason = error.strerror or error
        print(f"sparcl: cannot write to {path.parent} ({reason}); {consequence}", file=sys.stderr)
