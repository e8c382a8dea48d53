"""Chapter 11: its commands are commands, and what a reader reckons is what the library says."""

import math
import re
import shlex

import pytest
import typer
from chapter_reader import names_of_a_reader

from sparcl_lib.cli.program import app
from sparcl_lib.course.chapter import NOTEBOOKS, read_chapter
from sparcl_lib.published.tables import recipes

CHAPTER = read_chapter(NOTEBOOKS / "sources" / "11_full_scale.py")
TEXT = "\n".join(cell.source for cell in CHAPTER.cells if cell.cell_type == "markdown")
COMMANDS = [
    line.partition(" #")[0].strip()
    for block in re.findall(r"```sh\n(.+?)```", TEXT, re.DOTALL)
    for line in block.replace("\\\n", "").splitlines()
    if line.startswith("sparcl ")
]
MEASURED = [name for name, row in recipes().items() if row.method == "MiB" and row.dataset == "voc"]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_text_is_one_with_its_options(line):
    words, place = shlex.split(line)[1:], typer.main.get_command(app)
    while hasattr(place, "commands"):
        place = place.commands[words.pop(0)]
    known = {option for parameter in place.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_there_are_such_commands():
    assert len(COMMANDS) > 6 and all("..." not in line.partition("/")[0] for line in COMMANDS)


@pytest.fixture(scope="module")
def reader() -> dict:
    return names_of_a_reader(CHAPTER)


@pytest.mark.parametrize("name", MEASURED)
def test_hours_by_hand_are_those_of_the_library_for_every_such_row(reader, name):
    config = reader["config_of"](name)
    counts, batch = reader["images_per_step"](config), config.data.batch_size
    iterations = reader["iterations_of"](counts, config.optim.epochs[0], batch)
    hours = reader["hours_of"](iterations, batch, (0.0588141, 0.146125), (0.0764904, 0.186362))
    assert math.isclose(hours, sum(reader["expected_cost"](config)[:2]), rel_tol=1e-4)


def test_ten_failures_are_made_and_each_has_its_cure():
    code = "\n".join(cell.source for cell in CHAPTER.cells if cell.cell_type == "code")
    wrong = re.search(r"^WRONG = \{\n(.+?)^\}", code, re.DOTALL | re.MULTILINE)
    assert wrong is not None
    made = re.findall(r'^    "', wrong[1], re.MULTILINE)
    made += re.findall(r'^print\(f"(?:9|10) [^"{]+: status', code, re.MULTILINE)  # with processes
    cures = re.findall(r"^\| (\d+) \| .+ \|$", TEXT, re.MULTILINE)
    assert len(made) == 10 and cures == [str(n) for n in range(1, 11)]
