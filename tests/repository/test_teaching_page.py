"""docs/teaching.md keeps its word: its lessons have 90 minutes, and what they show is there."""

import ast
import re
from pathlib import Path

import jupytext
import pytest

from sparcl_lib.cli.program import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "teaching.md").read_text("utf-8")
CHAPTERS = {
    path.stem[:2]: jupytext.read(path, fmt="py:percent").cells
    for path in sorted((ROOT / "notebooks" / "sources").glob("[0-9]*.py"))
}
LESSONS = re.findall(r"^## Lesson \d+: .+?(?=^## )", PAGE, flags=re.MULTILINE | re.DOTALL)


def calls(cells, name: str) -> list[ast.Call]:
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [node for node in nodes if getattr(node.func, "id", "") == name]


def cells_of(lesson: str) -> list:
    """Cells of the chapters that the lesson links to."""
    numbers = re.findall(r"\(\.\./notebooks/(\d\d)_\w+\.ipynb\)", lesson)
    return [cell for number in numbers for cell in CHAPTERS[number]]


def headings(cells) -> set[str]:
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return set(re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE))


def test_every_chapter_has_a_lesson():
    linked = {n for text in LESSONS for n in re.findall(r"\(\.\./notebooks/(\d\d)_", text)}
    assert linked == set(CHAPTERS) and len(LESSONS) >= 4


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson[3:12])
def test_a_lesson_fills_90_minutes_in_fives(lesson):
    rows = re.findall(r"^\| (\d+) to (\d+) \|", lesson, flags=re.MULTILINE)
    times = [(int(start), int(end)) for start, end in rows]
    assert times[0][0] == 0 and times[-1][1] == 90
    assert [end for _, end in times[:-1]] == [start for start, _ in times[1:]]
    assert all(end > start and end % 5 == 0 for start, end in times)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson[3:12])
def test_what_is_shown_live_is_in_the_chapters(lesson):
    """Sections in italics in the last column, sliders and buttons by their names."""
    cells = cells_of(lesson)
    live = "\n".join(re.findall(r"^\| \d+ to .*\| (.+) \|$", lesson, flags=re.MULTILINE))
    sections = set(re.findall(r"\*([^*]+)\*", live))
    assert len(sections) >= 6 and sections <= headings(cells)
    named = re.findall(r"(?:slider|button)s? ((?:`[\w ]+`(?:, )?)+)", live)
    controls = {name for names in named for name in re.findall(r"`([\w ]+)`", names)}
    offered = {
        keyword.arg.replace("_", " ")
        for kind in ("explore", "play")
        for call in calls(cells, kind)
        for keyword in call.keywords
    }
    assert controls and controls <= offered


def test_every_exercise_that_is_named_exists():
    exercises = {
        ast.literal_eval(call.args[0])
        for cells in CHAPTERS.values()
        for call in calls(cells, "check")
    }
    named = set(re.findall(r"(?<![\d.])(?:1[01]|[0-9])\.[1-9](?![\d%])", PAGE))
    assert len(named) > 10 and named <= exercises


def test_commands_exist():
    (course,) = [group.typer_instance for group in app.registered_groups if group.name == "course"]
    known = {command.name or command.callback.__name__ for command in course.registered_commands}
    assert set(re.findall(r"sparcl course (\w+)", PAGE)) <= known
