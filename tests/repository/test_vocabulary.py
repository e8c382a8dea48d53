"""The words of the field: names that a stranger would not guess do not come back."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from sparcl_lib.labels import BACKGROUND, VOID

ROOT = Path(__file__).parents[2] / "sparcl_lib"
OUT = {
    "told": "message, text, or the teacher's output",
    "answers": "logits, results",
    "_answers": "classifier channels",
    "_ask": "a verb that says what is done",
    "_look": "a verb that says what is done",
    "title_of": "format_bytes, format_ranges",
    "LossRanOff": "LossDiverged",
    "Recipe": "Acquisition; a recipe is the settings of a data set",
    "Patience": "RetryPolicy",
}
OUT_AT_THE_START = ("own_",)  # custom_


def names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.keyword(arg=str(name)) | ast.alias(asname=str(name)) | ast.alias(name=name):
                yield name.rpartition(".")[2]


def test_words_that_are_out_stay_out():
    guilty = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in ROOT.rglob("*.py")
        for name in names(path)
        if name in OUT or name.startswith(OUT_AT_THE_START)
    ]
    assert guilty == []


def test_files_and_rooms_have_such_names_too():
    parts = {part for path in ROOT.rglob("*") for part in re.split(r"[/.]", str(path))}
    assert not parts & {"own", "utils", "helpers", "common", "misc", "kept"}


def test_background_and_void_are_defined_once():
    assert (BACKGROUND, VOID) == (0, 255)
    defined = []
    for path in ROOT.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                written = {ast.unparse(target).lstrip("_") for target in targets}
                if written & {"BACKGROUND", "VOID", "IGNORE", "IGNORE_INDEX"}:
                    defined.append(path.name)
    assert defined == ["labels.py", "labels.py"]
