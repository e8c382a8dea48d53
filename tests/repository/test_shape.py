"""The shape of the house: mostly short functions, and arrows that point one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "sparcl_lib"
FILES = sorted(ROOT.rglob("*.py"))
# A room and the rooms that it must not know (design.md, "Rooms of sparcl_lib").
FORBIDDEN = {
    "tasks": {"torch", "data", "models", "losses", "methods", "training", "viz", "report"},
    "data": {"models", "losses", "methods", "training", "viz", "report", "course"},
    "models": {"losses", "data", "methods", "training", "viz", "report", "course"},
    "losses": {"data", "models", "methods", "training", "viz", "report", "course"},
    "methods": {"data", "training", "viz", "report", "course"},
    "training": {"viz", "report", "course", "experiments"},
    "viz": {"training", "models", "methods", "report", "course"},
    "report": {"course", "experiments"},
    "experiments": {"course"},
}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def code_lines(function: ast.FunctionDef) -> int:
    """Lines without the docstring."""
    documented = ast.get_docstring(function, clean=False) or ""
    return function.end_lineno - function.lineno + 1 - len(documented.splitlines())


def test_most_functions_are_very_short():
    functions = [n for f in FILES for n in ast.walk(parsed(f)) if isinstance(n, ast.FunctionDef)]
    lengths = sorted(map(code_lines, functions))
    assert len(lengths) > 300
    assert lengths[len(lengths) // 2] <= 12 and lengths[len(lengths) * 9 // 10] <= 25


def imported(path: Path) -> set[str]:
    """First parts of outside packages, second parts of our own."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    own = {name.split(".")[1] for name in names if name.startswith("sparcl_lib.")}
    return own | {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_room_does_not_know_what_comes_after_it(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        assert not imported(path) & FORBIDDEN[room], path


def test_no_room_is_called_utils():
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "common", "misc")]


@pytest.mark.parametrize("folder", ["sparcl_lib", "data_scripts", "tests", "benchmarks"])
def test_text_is_read_and_written_in_one_encoding(folder):
    """Ruff's PLW1514 sees this only where it knows that a value is a path."""
    guilty = []
    for path in (ROOT.parent / folder).rglob("*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                stated = any(keyword.arg == "encoding" for keyword in node.keywords)
                needed = {"read_text": 1, "write_text": 2}.get(node.func.attr, 0)
                if len(node.args) + stated < needed:
                    guilty.append(f"{path.name}:{node.lineno}")
    assert guilty == []
