"""Which code trains, and a digest of what it says, however it is commented.

The rule: every module of the package counts, but for the rooms that only ask for runs, keep them,
show them or fetch data (`ASIDE`); nothing that counts may import one of those, which a test
checks. What acts through the configuration (`CONFIGURED`, and the recipes, which are no code) or
through the data's checksum is in a run's key anyway.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

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
        "label_files.py",
        "prediction.py",
        "published",
        "report",
        "revision",
        "run.py",
        "viz",
    }
)
"""Files and folders of the package that do not count."""
CONFIGURED = frozenset({"method_table.py"})
"""Files whose rows become the settings of a run."""
_DIGITS = 12
# What says nothing about what is computed, or is not there in every version of Python.
_UNSAID = frozenset({"annotation", "ctx", "kind", "returns", "type_comment", "type_params"})


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
    return hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()[:_DIGITS]


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def statements_digest(text: str | bytes) -> str:
    """Digest of the statements of a module, the same in every version of Python.

    Left out: comments, layout, docstrings, `pass`, and annotations; those in the body of a class
    stay, for they make the fields of a dataclass.
    """
    return tree_digest(ast.parse(text))


def tree_digest(tree: ast.AST) -> str:
    """`statements_digest` of what is parsed already."""
    return text_digest(" ".join(_words(tree, in_class=False)))


def _words(node: object, in_class: bool) -> Iterator[str]:
    """A tree as a line of words that has one reading only."""
    if isinstance(node, list):
        yield "["
        for item in node:
            yield from _words(item, in_class)
        yield "]"
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        if isinstance(node, ast.ClassDef):
            in_class = True
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            in_class = False
        for name, value in _fields(node, in_class):
            yield f"{name}="
            yield from _words(value, in_class)
        yield ")"
    else:
        yield ascii(node)  # repr shows letters that a version's Unicode knows


def _fields(node: ast.AST, in_class: bool) -> list[tuple[str, object]]:
    """What a node holds, by name, without what is empty or left out."""
    unsaid = _UNSAID - {"annotation"} if in_class else _UNSAID
    fields = {name: value for name, value in ast.iter_fields(node) if name not in unsaid}
    for name in ("body", "orelse", "finalbody"):
        if isinstance(fields.get(name), list):
            fields[name] = _statements(fields[name], in_class)
    if isinstance(node, ast.JoinedStr):
        fields["values"] = _joined(node.values)
    return [(n, fields[n]) for n in sorted(fields) if fields[n] is not None and fields[n] != []]


def _statements(body: list[ast.stmt], in_class: bool) -> list[ast.AST]:
    """Those that do something, `x: int = 3` as `x = 3`."""
    said: list[ast.AST] = []
    for node in body:
        if isinstance(node, ast.AnnAssign) and not in_class:
            if node.value is not None:
                said.append(ast.Assign(targets=[node.target], value=node.value))
        elif not isinstance(node, ast.Pass) and not _is_text(node):
            said.append(node)
    return said


def _is_text(node: ast.stmt) -> bool:
    """A docstring, wherever it stands."""
    return isinstance(node, ast.Expr) and _text(node.value) is not None


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def _joined(values: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string: neighbouring texts as one, which versions cut differently."""
    joined: list[ast.expr] = []
    for value in values:
        text = _text(value)
        before = _text(joined[-1]) if joined else None
        if text is None or before is None:
            if text != "":
                joined.append(value)
        else:
            joined[-1] = ast.Constant(before + text)
    return joined
