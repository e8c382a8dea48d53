"""`sparcl course check`: what a mark says of notebooks that people send, whatever is in them."""

import json
import re
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from sparcl_lib.cli import main
from sparcl_lib.course import copies
from sparcl_lib.course.chapter import NOTEBOOKS, read_chapters
from sparcl_lib.course.exercises import Result
from sparcl_lib.course.marking import Marks, exercises_of, mark
from sparcl_lib.errors import UserError

HEAD = """# %% [raw]
# title: Numbers
# goals: [add]
# summary: ["It is four."]
# ends_with: four
# reading_minutes: 1

# %% tags=["setup"]
import math

from sparcl_lib.course import check
"""
EXERCISE = """
# %% tags=["exercise"]
def f{n}(x):
    # SOLUTION
    return math.floor(x) + {n}
    # END

# %% tags=["check"]
check("0.{n}", f{n}, [((1.5,), {n} + 1)], hint="round down")
"""
LOOP = "def f{n}(x):\n    while True:\n        pass"
ANSWERS = {  # what was written, what is said of it
    "right": ("def f{n}(x):\n    return int(x) + {n}", "right", ""),
    "wrong": ("def f{n}(x):\n    return 0", "wrong", "is 0, expected "),
    "stub": (None, "not started", ""),
    "leaves": ("def f{n}(x):\n    exit(0)", "wrong", "raised SystemExit"),
    "leaves at once": ("import sys\nsys.exit(0)\ndef f{n}(x): ...", "wrong", "its cell raised Sys"),
    "kills": (
        "import os, tempfile\n_ = tempfile.mkdtemp(prefix='sparcl-left-')\n"
        "def f{n}(x):\n    os._exit(0)", "wrong", "ended Python"
    ),
    "loops": (LOOP, "wrong", "ran for more than 10 s"),
    "no Python": ("def f{n}(x)\n    return 1", "wrong", "its cell raised SyntaxError"),
    "own check": ("check = print\n\ndef f{n}(x):\n    return 0", "wrong", "is 0, expected "),
    "renamed": ("def f(x):\n    return 0", "not started", "its cell defines f, and no"),
    "several lines": (
        "def f{n}(x):\n    raise ValueError('one\\n  two')", "wrong", "raised ValueError: one two"
    ),
    "one thread": (
        "import os\ndef f{n}(x):\n    return int(x) + {n} * int(os.environ['OMP_NUM_THREADS'])",
        "right", ""
    ),
    "earlier one": ("def f{n}(x):\n    return f1(x) + {n} - 1", "right", ""),
    "timed": ("%%time\ndef f{n}(x):\n    return int(x) + {n}\n\nf{n}?", "right", ""),
    "tried below": (
        "print(computed)\ndef f{n}(x):\n    return int(x) + {n}\nx = f{n}(computed)", "right", ""
    ),
    "another cell's": ("def f{n}(x):\n    return plus_zero(floor(x)) + ONE * {n}", "right", ""),
    "assigned": (
        "def plus(x):\n    return int(x) + {n}\nf{n} = lambda x: plus(x)\nprint(computed)",
        "right", ""
    ),
    "no gradients": (
        "import os, torch\ntorch.set_grad_enabled(False)\nos.chdir('/')\ndef f{n}(x):\n"
        "    return int(x) + {n}", "right", ""
    ),
    "gradients again": (
        "import torch\nassert torch.is_grad_enabled()\ndef f{n}(x):\n    return int(x) + {n}",
        "right", ""
    ),
    "a module of one's own": (
        "from beside_it import ZERO\ndef f{n}(x):\n    return int(x) + {n} + ZERO", "right", ""
    ),
    "half a character": ("x = '\ud83d'\ndef f{n}(x):\n    return 0", "wrong", "its cell raised"),
    "another cell's result": ("def f{n}(x):\n    return int(x) + computed", "wrong", "no results"),
    "not found": ("TABLE = computed\ndef f{n}(x):\n    return 1", "wrong", "no results"),
}  # fmt: skip
OTHER_CELL = """%matplotlib inline
from math import floor

ONE, computed = 1, max(range(3))
computed = max(range(9))
ONE = 1
strange = {[]: 1}


def plus_zero(x):
    return x + 0


raise ValueError("no chapter is run")
"""
NUMBERS = {name: f"0.{n}" for n, name in enumerate(ANSWERS, start=1)}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A checkout with one chapter, an exercise in it for each answer."""
    root = tmp_path_factory.mktemp("checkout")
    sources = root / "notebooks" / "sources"
    sources.mkdir(parents=True)
    text = HEAD + "".join(EXERCISE.format(n=n) for n in range(1, len(ANSWERS) + 1))
    (sources / "00_numbers.py").write_text(text, "utf-8")
    (root / "notebooks" / "README.md").write_text("# Index\n", "utf-8")
    return root


@pytest.fixture
def mine(course, tmp_path, monkeypatch):
    """A hand-out of it, to be answered."""
    (tmp_path / "notebooks").symlink_to(course / "notebooks")
    monkeypatch.setattr(copies, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(copies, "read_times", dict)
    copies.hand_out(tmp_path / "mine", "student", [])
    return tmp_path / "mine"


def change(folder, change_cells):
    path = folder / "00_numbers.ipynb"
    notebook = nbformat.read(path, as_version=4)
    change_cells(notebook.cells)
    path.write_text(json.dumps(notebook), "ascii")  # half a character is no UTF-8


def answer(cells, n, source):
    (cell,) = [cell for cell in cells if cell.id == f"00-exercise-{n}"]
    cell.source = source.format(n=n)


def test_each_answer_gets_its_outcome_and_none_hangs_or_fools_the_marking(
    mine, tmp_path, monkeypatch
):
    """Nor does one that ends Python leave temporary files."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def write(cells):
        for n, (source, *_) in enumerate(ANSWERS.values(), start=1):
            if source is not None:
                answer(cells, n, source)
        cells.append(new_code_cell(OTHER_CELL))
        cells.append(new_code_cell("x = " + "+".join(["1"] * 20_000)))  # nested too deep

    (mine / "beside_it.py").write_text("ZERO = 0", "utf-8")

    change(mine, write)
    marks = mark(mine, [], seconds=10)
    table = marks.table().splitlines()
    for result, line, (name, (_, outcome, problem)) in zip(
        marks.results, table[1:], ANSWERS.items(), strict=False
    ):
        assert (result.exercise, result.outcome) == (NUMBERS[name], outcome), (name, result)
        assert problem in line and line.startswith(NUMBERS[name])
        assert bool(result.problem) == (outcome == "wrong" or name == "renamed")
    assert list((tmp_path / "temporary").iterdir()) == []
    assert table[-1] == f"mark: 10 of {len(ANSWERS)} right, chapter 00"
    assert len(table) == len(ANSWERS) + 2


def test_answers_are_found_where_they_were_moved(mine):
    def move(cells):
        cells[:] = [cell for cell in cells if "exercise" not in cell.id]
        cells.insert(0, new_code_cell("def f1(x):\n    return int(x) + 1"))
        answer_below_its_stub = new_code_cell("def f2(x):\n    return int(x) + 2")
        cells += [answer_below_its_stub, new_code_cell(exercises_of(chapter)[1].stub)]

    chapter, *_ = copies.chapters_of_the_course()
    change(mine, move)
    (mine / "00_numbers.ipynb").rename(mine / "00_numbers (1).ipynb")
    marks = mark(mine, [])
    assert [result.outcome for result in marks.results[:3]] == ["right", "right", "not started"]


def test_what_is_no_notebook_is_a_line(mine):
    (mine / "00_numbers.ipynb").write_text('{"cells": [', "utf-8")
    marks = mark(mine, [])
    (line,) = marks.missing
    assert line.startswith("00_numbers.ipynb cannot be read as a notebook: ") and "\n" not in line
    assert {result.outcome for result in marks.results} == {"not readable"}, "and no zero marks"
    assert json.loads(marks.to_json())["missing"] == [line]


def test_of_what_is_wrong_the_verdict_is_never_cut():
    """`expected 1.5` was cut to `expected 1`."""
    problem = (
        f"case 1 of 3, `merged(p_a={'[1.0, 2.0], ' * 30})`: is 1 at index (0, 0), expected 1.5"
    )
    (line,) = Marks(Path(), (Result("5.1", "wrong", problem),), ()).table().splitlines()[1:-1]
    assert line.endswith(" ...`: is 1 at index (0, 0), expected 1.5") and "`merged(p_a=[1" in line
    assert len(line) < 200


def test_a_folder_without_chapters_is_refused(mine, tmp_path):
    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.mkdir()
    other.mkdir()
    (other / "work.zip").write_bytes(b"")
    said = {
        empty: "holds no chapter, such as 00_numbers.ipynb; it is empty",
        other: "holds no chapter, such as 00_numbers.ipynb; it holds work.zip",
        other / "work.zip": "is a file; name the folder with the chapters, unpacked",
        tmp_path: "holds no chapter, such as 00_numbers.ipynb; name a folder in it: mine",
        tmp_path / "nowhere": "is no folder; sparcl course start makes one",
    }
    for folder, problem in said.items():
        with pytest.raises(UserError) as refused:
            mark(folder, [])
        assert str(refused.value) == f"{folder} {problem}"
    with pytest.raises(UserError, match="no chapter 07; there are 00"):
        mark(mine, ["07"])


def test_another_notebook_under_the_name_and_a_second_one_are_said(mine):
    path = mine / "00_numbers.ipynb"
    (mine / "00_numbers (1).ipynb").write_bytes(path.read_bytes())
    assert mark(mine, []).missing == (f"{path.name} was marked, and not 00_numbers (1).ipynb",)
    (mine / "00_numbers (1).ipynb").unlink()
    change(mine, lambda cells: cells.clear())
    (line,) = mark(mine, []).missing
    assert line == f"{path.name} holds no exercise of chapter 00: is it another notebook?"


def test_the_cell_of_the_exercise_counts_before_another_try(mine):
    def try_again(cells):
        answer(cells, 1, "def f{n}(x):\n    return int(x) + 1")
        cells.append(new_code_cell("def f1(x):\n    return 0"))

    change(mine, try_again)
    assert mark(mine, []).results[0].outcome == "right"


def run(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as done:
        main(["course", *map(str, arguments)])
    assert done.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder in which hand-outs stand beside the course's notebooks."""
    (tmp_path / "notebooks").symlink_to(NOTEBOOKS)
    monkeypatch.setattr(copies, "NOTEBOOKS", tmp_path / "notebooks")
    return tmp_path


def test_of_the_course_all_solutions_are_right_and_no_stub_is_started(checkout, capsys):
    chapters = read_chapters(NOTEBOOKS / "sources")
    numbers = [e.number for chapter in chapters for e in exercises_of(chapter)]
    for what, outcome in (("solutions", "right"), ("student", "not started")):
        wrote = run(["make", what, checkout / what], capsys)
        assert wrote.count("wrote ") == len(chapters)
        marks = json.loads(run(["check", checkout / what, "--json"], capsys))
        assert marks["exercises"] == [
            {"exercise": number, "outcome": outcome, "problem": ""} for number in numbers
        ]
        assert (marks["right"], marks["of"]) == (len(numbers) * (what == "solutions"), len(numbers))


def test_the_core_is_marked_without_the_further_parts(checkout, capsys):
    run(["make", "student", checkout / "student", "03"], capsys)
    marks = [
        json.loads(run(["check", checkout / "student", "--json", *core], capsys))["exercises"]
        for core in ([], ["--core"])
    ]
    assert [len(found) for found in marks] == [4, 2] and marks[0][:2] == marks[1]


def test_the_core_has_no_exercise_without_one_right_answer():
    """6.5 counted, which is open, and 5.4 did not, which is in a further part."""
    for chapter in read_chapters(NOTEBOOKS / "sources"):
        text = "\n".join(c.source for c in chapter.cells if c.cell_type == "markdown")
        core, all_ = ({e.number for e in exercises_of(chapter, core)} for core in (True, False))
        opened = {t[0] for t in re.findall(r"### (\d+\.\d) (.*\bopen\b.*)", text, re.IGNORECASE)}
        assert opened <= all_ and not opened & core, chapter.name
        before, _, _ = text.partition("\n## Further: ")
        assert core == all_ & set(re.findall(r"### (\d+\.\d) ", before)) - opened
        assert opened == {"05": {"5.4"}, "06": {"6.5"}, "07": {"7.5"}}.get(chapter.number, opened)


def test_a_chapter_that_is_asked_for_and_missing_counts(checkout, capsys):
    run(["make", "student", checkout / "student", "00"], capsys)
    marks = json.loads(run(["check", checkout / "student", "--json", "00", "01"], capsys))
    assert marks["missing"] == ["01_dataset_partitioning.ipynb is not there"] and marks["of"] >= 6


@pytest.mark.parametrize(
    "first, below",
    [
        ("def f1(x):\n    return int(x) + 1", ""),
        ("", "def f1(x):\n    return int(x) + 1"),
        ("def f1(x):\n    return int(x)\nplain = f1\nf1 = lambda x: plain(x) + 1", ""),
        ("ALL = []\nfor n in range(3): ALL.append(n)\ndef f1(x):\n    return int(x) + ALL[1]", ""),
    ],
)
def test_an_answer_may_call_an_earlier_one_wherever_that_is(mine, first, below):
    def write(cells):
        if first:
            cells.insert(0, new_code_cell(first))
        answer(cells, 2, "def f2(x):\n    return f1(x) + 1")
        if below:
            cells.append(new_code_cell(below))

    change(mine, write)
    assert [result.outcome for result in mark(mine, []).results[:2]] == ["right", "right"]


def test_of_two_helpers_of_one_name_an_answer_has_the_one_above_it(mine):
    """The last one of the notebook, as of a later exercise, was in the place of all."""

    def write(cells):
        for n in (1, 2):
            place = next(k for k, cell in enumerate(cells) if cell.id == f"00-exercise-{n}")
            cells[place].source = f"def f{n}(x):\n    return helper(x, {n})"
            helper = "def helper(x, n):\n    return int(x) + n + LESS" if n == 1 else (
                "LESS = 5\ndef helper(x, more):\n    return more + int(x) - 5 + LESS")  # fmt: skip
            cells.insert(place, new_code_cell(helper if n == 2 else f"LESS = 0\n{helper}"))

    change(mine, write)
    assert [result.outcome for result in mark(mine, []).results[:2]] == ["right", "right"]
