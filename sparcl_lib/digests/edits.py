"""Files that were edited after this process had read them: what they say is not what is loaded."""

import time
from pathlib import Path

from sparcl_lib.digests.statements import text_digest
from sparcl_lib.errors import UserError

LOADED_AT = time.time()
"""When the code that trains began to be loaded, for this is among the first of it."""
_read: dict[Path, tuple[str, float]] = {}
"""File of what is not the library's -> digest of what it said when it was read, and when that was.
"""


def note_reading(file: Path) -> None:
    """Remember what a file says now, as what it defines is registered."""
    said = _said(file)
    if said is not None:
        _read[file.resolve()] = said, time.time()


def refuse_edited(file: Path) -> None:
    """Raise UserError if a file says something else than when it was read."""
    if file in _read and _said(file) not in (None, _read[file][0]):
        raise _edited(file)


def refuse_edited_beside(file: Path, reader: Path | None) -> None:
    """Raise UserError if a file that `reader` imports was written after that was read. A notebook,
    where there is no reader, may load a module again."""
    if reader in _read:
        refuse_newer(file, _read[reader][1])


def refuse_newer(file: Path, since: float) -> None:
    """Raise UserError if a file was written after this time."""
    try:
        written = file.stat().st_mtime
    except OSError:
        return
    if since < written <= time.time():  # what lies in the future is no edit, but a wrong clock
        raise _edited(file)


def _said(file: Path) -> str | None:
    try:
        return text_digest(file.read_text("utf-8", "replace"))
    except OSError:
        return None


def _edited(file: Path) -> UserError:
    return UserError(
        f"{file} was edited after this process had read it: begin a new one (in a notebook, "
        f"restart the kernel)"
    )
