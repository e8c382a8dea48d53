"""Files and folders that appear whole or not at all, whatever interrupts the writing.

Two ways of `data.acquiring` are not here, for what they write must outlive an interruption or join
what is there: a download goes on from its `.part`, and an archive may be unpacked into a tree.
"""

import glob
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparcl_lib.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
_DRAFT = "draft-"
_STALE = 24 * 3600.0
"""Seconds after which a draft is nobody's: its writer was killed."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a draft in the same folder, then move it to `path`.

    Raises UserError when the place cannot be written.
    """
    try:
        replace_file(path, write)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space, permit writing there, or "
            "choose another place"
        ) from error


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """`write_atomically` for those who know what to do without the file: raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale_drafts(path, path.suffix)
    draft = path.with_name(f".{path.name}.{_DRAFT}{secrets.token_hex(8)}{path.suffix}")
    draft.touch(exist_ok=False)  # whoever may read a new file may read it; not so mkstemp's
    try:
        write(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def remove_drafts(files: Iterable[Path]) -> None:
    """Remove what killed writers of these files left beside them. Nobody else may be at them."""
    for file in files:
        for draft in file.parent.glob(f".{glob.escape(file.name)}.*{glob.escape(file.suffix)}"):
            draft.unlink(missing_ok=True)


def _remove_stale_drafts(path: Path, suffix: str = "") -> None:
    """Remove drafts of a file or folder whose writers were killed a day ago or before."""
    for draft in path.parent.glob(f".{glob.escape(path.name)}.{_DRAFT}*{glob.escape(suffix)}"):
        with suppress(OSError):  # of somebody else
            if draft.lstat().st_mtime < time.time() - _STALE:
                shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text, in UTF-8."""
    write_atomically(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def csv_text(frame: "pd.DataFrame") -> str:
    """A table as CSV, without its index.

    Text that a spreadsheet would take for a formula (`=cmd`, `@SUM(1)`) begins with an apostrophe,
    which the spreadsheet hides.
    """
    texts = [name for name in frame if frame[name].dtype.kind not in "biuf"]
    safe = frame.assign(**{str(name): frame[name].map(_no_formula) for name in texts})
    text: str = safe.rename(columns=_no_formula).to_csv(index=False, lineterminator="\n")
    return text


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def write_csv(path: Path, frame: "pd.DataFrame") -> None:
    """`write_atomically` for a table, as `csv_text` has it."""
    write_text(path, csv_text(frame))


def read_csv(path: Path) -> "pd.DataFrame":
    """A table that `write_csv` wrote, all of it as text, for 001 is a name. Raises OSError or
    ValueError for a file that is none."""
    import pandas as pd  # here: it is slow to import, and no training needs it

    return pd.read_csv(path, keep_default_na=False, dtype=str).map(_with_formula)


def _with_formula(text: str) -> str:
    return text[1:] if text[:1] == "'" and text[1:].startswith(_FORMULAS) else text


@contextmanager
def appearing_whole(folder: Path, advice: str) -> Iterator[Path]:
    """An empty draft that becomes `folder` (new, or empty so far) at the end, or leaves nothing.

    Raises UserError, ending in `advice`, when it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_drafts(folder)
        prefix = f".{folder.name}.{_DRAFT}"
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as place:
            draft = Path(place, folder.name)
            draft.mkdir()
            yield draft
            if folder.exists():
                folder.rmdir()
            os.replace(draft, folder)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {folder}: {reason}; {advice}") from error
