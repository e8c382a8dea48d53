"""What later calls need not find out again, in the user's cache folder."""

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs

from sparcl_lib.errors import UserError
from sparcl_lib.writing import replace_file

Stamp = tuple[int, int, int]
"""Size, modification time, and time of the last change of the file or of what is known of it."""


def stamp(file: str, kind: str, image_id: str) -> Stamp:
    """What a file is taken for the same by: one with another stamp is read again.

    `cp -p`, rsync and os.utime set the modification time, but not the time of the last change
    (st_ctime), so that a file which was put in another's place is read even where size and
    modification time are the other's. Moving, copying, hard-linking or another owner change it
    too: such files are read once more. On Windows it is the time when the file was made, which a
    file that is written over keeps.

    Raises UserError for a file that is missing: the `kind` (mask, photograph) of an image.
    """
    try:
        stat = os.stat(file)
    except OSError:
        raise UserError(
            f"{kind} {file} of id {image_id!r} is missing; add it, or take the id off the list"
        ) from None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


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
