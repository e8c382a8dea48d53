"""Which code trains, and a digest of what it says, however it is commented.

The rule: every module of the package counts, but for the rooms that only ask for runs, keep them,
show them or fetch data (`ASIDE`); nothing that counts may import one of those, which a test
checks. What acts through the configuration (`CONFIGURED`, and the recipes, which are no code) or
through the data's checksum is in a run's key anyway.
"""

import hashlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

from sparcl_lib.digests import DIGITS, statements_digest, text_digest
from sparcl_lib.revision.recorded import TRAINING_REVISION, CodeRecord, read_record

PACKAGE = Path(__file__).parents[1]
ASIDE = frozenset(
    {
        "__init__.py",
        "__main__.py",
        "api.py",
        "cli",
        "course",
        "data/acquiring",
        "data/checking.py",
        "demo.py",
        "environment.py",
        "experiments",
        "exporting.py",
        "label_files.py",
        "latent_space.py",
        "prediction.py",
        "published",
        "report",
        "reproduction",
        "revision",
        "run.py",
        "viz",
    }
)
"""Files and folders of the package that do not count."""
CONFIGURED = frozenset({"method_table.py"})
"""Files whose rows become the settings of a run."""


def files_that_train(package: Path = PACKAGE) -> dict[str, Path]:
    """Every module that counts, by its path in the package, in order."""
    paths = {file.relative_to(package).as_posix(): file for file in package.rglob("*.py")}
    return {name: paths[name] for name in sorted(paths) if not _is_aside(name)}


def _is_aside(name: str) -> bool:
    return name in ASIDE | CONFIGURED or any(
        parent.as_posix() in ASIDE for parent in Path(name).parents
    )


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
    """`compare_code` of this process; all files where nothing is recorded for the revision."""
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
        shown = ", ".join(edited[:3]) + (f" and {len(edited) - 3} more" if edited[3:] else "")
        print(
            f"sparcl: edited code ({shown}) keeps its runs apart from those of training revision "
            f"{TRAINING_REVISION}",
            file=sys.stderr,
        )


def _bytes_digest(text: bytes) -> str:
    return hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()[:DIGITS]
