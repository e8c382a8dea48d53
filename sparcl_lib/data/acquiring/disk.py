"""Disk space as people write it, and what to say when writing fails."""

import errno
import shutil
from pathlib import Path

from sparcl_lib.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def format_bytes(count: int) -> str:
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
    """The error for a file under `folder` that cannot be written: what to do about it."""
    if error.errno in _FULL:
        return UserError(
            f"the disk of {folder} is full: free some space and run the same command again; "
            "what was downloaded is kept"
        )
    return UserError(
        f"cannot use {error.filename or folder}: {error.strerror or error}; "
        "mend that or name another folder"
    )
