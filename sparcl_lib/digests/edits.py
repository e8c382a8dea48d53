"""Files that are edited while a process lives: what they say then is not what it has loaded."""

import inspect
import linecache
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparcl_lib.digests.statements import text_digest
from sparcl_lib.errors import UserError

LOADED_AT = time.time()
"""When the code that trains began to be loaded, for this is among the first of it."""
_read: dict[Path, str] = {}
"""File of what is not the library's -> digest of what it said when it was read."""
_beside: dict[tuple[Path, Path], str] = {}
"""A module and the file that imports it -> digest of what the module said first since that was
read."""


def note_reading(file: Path, function: Callable[..., Any]) -> None:
    """Remember what a file says now, as what it defines is registered: keys and tracebacks are of
    this text, whatever becomes of the file."""
    try:
        text = file.read_text("utf-8", "replace")
        name = inspect.getsourcefile(function)
    except (OSError, TypeError):
        return
    reader = file.resolve()
    _read[reader] = text_digest(text)
    for pair in [pair for pair in _beside if pair[1] == reader]:
        del _beside[pair]
    if name is not None and Path(name).resolve() == reader:
        # Without a time linecache never looks at the file again.
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name


def read_digest(file: Path) -> str | None:
    """Of what a file said when this process read it; None if it has not."""
    return _read.get(file.resolve())


def refuse_edited_beside(file: Path, said: str, reader: Path | None) -> None:
    """Raise UserError if a module that `reader` imports says something else than before. said: the
    digest of what it says. A notebook, where there is no reader, may load a module again."""
    if reader in _read and _beside.setdefault((file, reader), said) != said:
        raise _edited(file)


def refuse_newer(file: Path, since: float) -> None:
    """Raise UserError if a file was written after this time."""
    try:
        written = file.stat().st_mtime
    except OSError:
        return
    if since < written <= time.time():  # what lies in the future is no edit, but a wrong clock
        raise _edited(file)


def _edited(file: Path) -> UserError:
    return UserError(
        f"{file} was edited after this process had read it: begin a new one (in a notebook, "
        f"restart the kernel)"
    )
