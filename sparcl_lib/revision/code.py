"""Whether the code that trains is the one that was recorded, however it is commented."""

import hashlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

from sparcl_lib.digests import DIGITS, edits, statements_digest, text_digest
from sparcl_lib.digests.training_code import PACKAGE, files_that_train
from sparcl_lib.errors import first_few
from sparcl_lib.revision.recorded import TRAINING_REVISION, CodeRecord, read_record


def record_code(package: Path = PACKAGE) -> dict[str, CodeRecord]:
    """Every file that counts, as it is now."""
    texts = {name: file.read_bytes() for name, file in files_that_train(package).items()}
    return {
        name: CodeRecord(_bytes_digest(text), statements_digest(text))
        for name, text in texts.items()
    }


def compare_code(recorded: dict[str, CodeRecord], package: Path = PACKAGE) -> dict[str, str]:
    """The files that say something else than recorded -> digest of their statements, "" where
    one is gone. Only files of which a byte has changed are parsed.
    """
    files = files_that_train(package)
    edited = dict.fromkeys(sorted(recorded.keys() - files.keys()), "")
    for name, file in files.items():
        text, known = file.read_bytes(), recorded.get(name)
        if known is None or known.text != _bytes_digest(text):
            digest = statements_digest(text)
            if known is None or known.statements != digest:
                edited[name] = digest
    return edited


@cache
def edited_code() -> dict[str, str]:
    """`compare_code` of this process; all files where nothing is recorded for the revision.

    Raises UserError if one was edited after it was loaded: what would train is not what it says.
    """
    for file in files_that_train().values():
        edits.refuse_newer(file, edits.LOADED_AT)
    record = read_record()
    return compare_code(record.code if record.revision == TRAINING_REVISION else {})


def trained_by() -> dict[str, Any]:
    """What a key holds of the code: the revision, and a digest if the code is another one."""
    edited = edited_code()
    digest = {"code": text_digest(repr(sorted(edited.items())))} if edited else {}
    return {"revision": TRAINING_REVISION, **digest}


@cache
def note_edits() -> None:
    """Say once in a process, in a line on stderr, if the code is not the one recorded."""
    edited = list(edited_code())
    if edited:
        print(
            f"sparcl: edited code ({first_few(edited, 3)}) keeps its runs apart from those of "
            f"training revision {TRAINING_REVISION}",
            file=sys.stderr,
        )


def _bytes_digest(text: bytes) -> str:
    return hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()[:DIGITS]
