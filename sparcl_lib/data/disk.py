"""Disk space in words, what to say when writing fails, and folders that appear whole."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparcl_lib.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def in_words(count: int) -> str:
    """Bytes as people write them: 1999639040 -> ``2.00 GB``."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count} bytes"


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that holds a folder, which need not exist yet."""
    folder = folder.absolute()
    return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free


def write_error(error: OSError, folder: Path) -> UserError:
    """What the user is told when a file under `folder` cannot be written."""
    if error.errno in _FULL:
        return UserError(
            f"the disk of {folder} is full: free some space and run the same command again; "
            "what was downloaded is kept"
        )
    return UserError(
        f"cannot use {error.filename or folder}: {error.strerror or error}; "
        "mend that or name another folder"
    )


@contextmanager
def appearing_whole(folder: Path, advice: str) -> Iterator[Path]:
    """An empty draft that becomes `folder` (new, or empty so far) at the end, or leaves nothing.

    Raises UserError, ending in `advice`, when it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
            draft = Path(place, folder.name)
            draft.mkdir()
            yield draft
            if folder.exists():
                folder.rmdir()
            os.replace(draft, folder)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {folder}: {reason}; {advice}") from error
