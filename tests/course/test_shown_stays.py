"""What a cell shows does not change because later cells have run.

A slider calls its drawing function whenever it is moved, so names that the function reads must not
be bound anew further down in the chapter; and no cell changes in place what another one has made,
or that one would show something else when it is run again. Nor does a later cell bind anew what one
reads, or a cell what it reads itself: run again, it would read another thing.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparcl_lib.course.chapter import read_chapters, render, solution

CHAPTERS = read_chapters(Path(__file__).parents[2] / "notebooks" / "sources")
CHANGES = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort", "update"}
SCOPES = (ast.FunctionDef, ast.ClassDef, ast.Lambda)


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a cell but for the bodies of functions, classes and comprehensions."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*SCOPES, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            yield child
        else:
            yield from outside_functions(child)


def root(node: ast.AST) -> str | None:
    """`a` of a[0], a.b and a[0].b."""
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def bound(cell: ast.Module) -> set[str]:
    """Global names that a cell binds; x += 1 only changes what there is."""
    nodes = list(outside_functions(cell))
    changed = {id(node.target) for node in nodes if isinstance(node, ast.AugAssign)}
    names = {
        node.id
        for node in nodes
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Store)
        and id(node) not in changed
    }
    return names | {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}


def changed_in_place(cell: ast.Module) -> set[str]:
    """Global names whose value a cell changes; methods of modules such as np.sort change none."""
    names = set()
    for node in outside_functions(cell):
        match node:
            case ast.Subscript(ctx=ast.Store() | ast.Del()) | ast.Attribute(ctx=ast.Store()):
                names.add(root(node))
            case ast.Call(func=ast.Attribute(value=value, attr=attr)) if attr in CHANGES:
                names.add(root(value))
            case ast.AugAssign(target=target):
                names.add(root(target))
    return names - {None, "np"}


def loaded(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def locals_of(function: ast.FunctionDef) -> set[str]:
    arguments = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
    stored = {
        n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    return arguments | stored


def read_by(name: str, functions: dict[str, ast.FunctionDef]) -> set[str]:
    """Global names that a function reads, itself or by functions of the chapter that it calls."""
    found: set[str] = set()
    waiting = {name}
    while waiting:
        current = waiting.pop()
        found.add(current)
        if current in functions:
            waiting |= loaded(functions[current]) - locals_of(functions[current]) - found
    return found


def sliders(cell: ast.Module) -> list[str]:
    """The functions that a cell hands to `explore` or `play`."""
    calls = [node for node in ast.walk(cell) if isinstance(node, ast.Call)]
    handed = {"explore": 1, "play": 3}  # how many of the arguments are functions
    return [
        argument.id
        for call in calls
        for argument in call.args[: handed.get(getattr(call.func, "id", ""), 0)]
    ]


def changed_later(sources: list[str]) -> list[str]:
    """A line for each name that a slider reads and a later cell changes."""
    cells = [ast.parse(source) for source in sources]
    functions: dict[str, ast.FunctionDef] = {}
    lines = []
    for place, cell in enumerate(cells):
        functions |= {node.name: node for node in cell.body if isinstance(node, ast.FunctionDef)}
        for name in sliders(cell):
            read = read_by(name, functions)
            for later in cells[place + 1 :]:
                lines += [
                    f"{name} reads {changed}, which {ast.unparse(later).splitlines()[0]!r} changes"
                    for changed in sorted(read & (bound(later) | changed_in_place(later)))
                ]
    return lines


def changed_elsewhere(sources: list[str]) -> list[str]:
    """A line for each name that a cell changes in place and does not bind itself."""
    cells = [ast.parse(source) for source in sources]
    return [
        f"{name} is changed by {ast.unparse(cell).splitlines()[0]!r}"
        for cell in cells
        for name in sorted(changed_in_place(cell) - bound(cell))
    ]


def bound_anew(sources: list[str]) -> list[str]:
    """A line for each name that a cell reads from an earlier one, itself or by a function of the
    chapter that it calls or hands on, and that is bound anew later."""
    cells = [ast.parse(source) for source in sources]
    bindings = [bound(cell) for cell in cells]
    functions: dict[str, ast.FunctionDef] = {}
    lines = []
    for place, cell in enumerate(cells):
        functions |= {node.name: node for node in cell.body if isinstance(node, ast.FunctionDef)}
        first = ast.unparse(cell).splitlines()[0] if cell.body else ""
        earlier = set().union(*bindings[:place])
        later = set().union(*bindings[place + 1 :])
        read = read_outside(cell) & earlier
        for name in read_outside(cell) & set(functions):
            read |= read_by(name, functions) & earlier
        lines += [f"{name}, which {first!r} reads, is bound anew"
                  for name in sorted(read & (later - bindings[place]))]  # fmt: skip
        lines += [f"{name} is bound by {first!r}, which reads it"
                  for name in sorted(read & rebound_from_itself(cell))]  # fmt: skip
    return lines


def read_outside(cell: ast.Module) -> set[str]:
    """Names that a cell reads outside functions, comprehensions' own names left out."""
    names: set[str] = set()
    for node in outside_functions(cell):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                names.add(name)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                own = {n.id for each in node.generators for n in ast.walk(each.target)
                       if isinstance(n, ast.Name)}  # fmt: skip
                names |= loaded(node) - own
    return names


def rebound_from_itself(cell: ast.Module) -> set[str]:
    """x of `x = f(x)`, unless the cell has bound x before."""
    names, known = set(), set()
    for statement in cell.body:
        if isinstance(statement, ast.Assign):
            of = {n.id for target in statement.targets for n in ast.walk(target)
                  if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}  # fmt: skip
            names |= of & loaded(statement.value) - known
        known |= bound(ast.Module([statement], []))
    return names


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)
def test_no_later_cell_changes_what_is_shown(chapter):
    sources = [solution(cell.source) for cell in chapter.cells if cell.cell_type == "code"]
    assert any(sliders(ast.parse(source)) for source in sources)
    assert changed_later(sources) == []
    assert changed_elsewhere(sources) == []
    # As they are shown: the checks of a cell are one of their own.
    cells = render(CHAPTERS, CHAPTERS.index(chapter), None).cells
    assert bound_anew([c.source for c in cells if c.cell_type == "code"]) == []


@pytest.mark.parametrize(
    "change",
    ["runs = {}", "runs['c'] = 3", "runs |= {'c': 3}", "runs.update(c=3)", "del runs['a']",
     "for runs in range(3): pass", "def shade(value): return 0", "scale = 2"],
)  # fmt: skip
def test_a_change_is_found(change):
    before = [
        "runs, scale = {'a': 1}, 1",
        "def shade(value): return value * scale",
        "def draw(name):\n    x = runs[name]\n    return shade(x)",
        "explore(draw, 'A picture', name=['a'])",
    ]
    assert len(changed_later([*before, change])) == 1
    assert changed_later([change, *before]) == []
    assert changed_later([*before, "x = 3", "other = [runs for runs in range(3)]"]) == []


def test_a_change_of_what_a_toy_reads_is_found():
    before = [
        "points, rate = [1], 1",
        "def start(): return points",
        "def step(state): return [x + rate for x in state]",
        "def draw(state): return state",
        "play(start, step, draw, 'A picture')",
    ]
    for change in ("points = [2]", "rate = 2"):
        assert len(changed_later([*before, change])) == 1


@pytest.mark.parametrize("change", ["runs['c'] = 3", "runs.update(c=3)", "count += 1"])
def test_a_change_of_what_another_cell_made_is_found(change):
    made = "runs, count = {}, 0"
    assert len(changed_elsewhere([made, change])) == 1
    assert changed_elsewhere([f"{made}\n{change}", "np.sort([1])"]) == []


def test_a_name_that_is_bound_anew_after_it_was_read_is_found():
    """Run twice, chapter 04's last cells took the new rows of the new rows."""
    made, shown = "tables = [1, 2]", "print(tables)"
    assert len(bound_anew([made, shown, "tables = [3]"])) == 1
    assert len(bound_anew([made, "tables = tables[1:]"])) == 1
    assert len(bound_anew([made, "tables = [x for x in tables]"])) == 1
    assert bound_anew([made, shown, "others = tables[1:]"]) == []
    assert bound_anew([made, f"{made}\n{shown}\ntables = tables[1:]"]) == []
    assert bound_anew([made, "[tables for tables in range(3)]", made]) == []


def test_a_name_that_a_called_function_reads_is_found_when_it_is_bound_anew():
    """Exercise 5.4 asked for `found["M_0"]`, which a later cell of chapter 05 had made a number."""
    made, shown = "found = {'M_0': 1}", "def looked_at(name): return found[name]"
    for called in ("print(looked_at('M_0'))", "[looked_at(name) for name in found]"):
        assert len(bound_anew([made, shown, called, "found = 3"])) == 1
        assert len(bound_anew([made, shown, called, "looked_at = 3"])) >= 1
    assert len(bound_anew([f"{made}\n{shown}", "show(looked_at)", "found = 3"])) == 1
    assert bound_anew([made, shown, "found = 3", "print(looked_at('M_0'))"]) == []
    assert bound_anew([made, shown, "print(looked_at('M_0'))", "def other(): found = 3"]) == []
