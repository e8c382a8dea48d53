"""The shape of the house: mostly short functions, and arrows that point one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "sparcl_lib"
FILES = sorted(ROOT.rglob("*.py"))
# From the ground up: a room, or a file beside the rooms, knows what stands in a line above its own.
LAYERS = (
    {"cores", "errors", "labels", "lazy", "stops"},
    {"digests", "yaml_text"},
    {"plain", "writing", "seeding", "fields", "method_table", "progress"},
    {"definitions"},
    {"tasks"},
    {"data", "metrics", "models", "prototypes"},
    {"losses", "viz"},
    {"methods"},
    {"config"},
    {"plugins"},
    {"published", "training"},
    {"latent_space", "prediction", "report"},
    {"run"},
    {"experiments", "reproduction", "revision"},
    {"api", "environment", "exporting", "label_files"},
    {"bench", "course", "demo"},
    {"cli"},
    {"__init__", "__main__"},
)
# A key is made of the code's digest, and what is recorded is trained in the pool.
BESIDE = {("experiments", "revision"), ("revision", "experiments")}
# Within data: a room and those that it must not know.
DATA = {
    "": {"acquiring", "loading"},
    "minivoc": {"sources", "acquiring", "loading"},
    "sources": {"acquiring", "loading"},
    "loading": {"minivoc", "acquiring"},
    "acquiring": {"minivoc", "loading"},
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


def imports(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """What a file imports anywhere, in parts: sparcl_lib, data, masks. Types alone do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((*node.module.split("."), alias.name) for alias in node.names)
        yield from imports(node)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("room", sorted({room_of(path) for path in FILES}))
def test_a_room_knows_only_what_stands_below_it(room):
    (height,) = [n for n, layer in enumerate(LAYERS) if room in layer]
    below = set().union(*LAYERS[:height]) | {room} | {b for a, b in BESIDE if a == room}
    for path in FILES:
        if room_of(path) == room:
            ours = [
                parts[1]
                for parts in imports(parsed(path))
                if parts[0] == "sparcl_lib" and parts[1:]
            ]
            known = {name for name in ours if any(name in layer for layer in LAYERS)}
            assert known <= below, path


@pytest.mark.parametrize("room", DATA)
def test_rooms_of_data_point_one_way(room):
    for path in (ROOT / "data" / room).glob("*.py"):
        inner = {parts[2] for parts in imports(parsed(path)) if parts[:2] == ("sparcl_lib", "data")}
        assert not inner & DATA[room], path


def test_tasks_are_plain_python_and_numpy():
    for path in (ROOT / "tasks").glob("*.py"):
        assert "torch" not in {parts[0] for parts in imports(parsed(path))}


@pytest.mark.parametrize("folder", ["sparcl_lib", "data_scripts", "tests", "benchmarks", "docs"])
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
