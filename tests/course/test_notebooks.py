"""The notebooks as data: in step with their sources, tidy, linked, and their exercises solvable."""

import ast
import base64
import io
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from chapter_exercises import EXERCISES, exercise_id, run_check
from nbval.plugin import get_sanitize_patterns
from PIL import Image

from sparcl_lib.config import read_config
from sparcl_lib.course.build import index_table
from sparcl_lib.course.chapter import (
    FOLDED,
    HIDDEN,
    NOTEBOOKS,
    TAGS,
    read_chapters,
    read_times,
    render,
    solution,
    stub,
    tags_of,
)
from sparcl_lib.course.runs import SHIPPED, run_keys

ROOT = Path(__file__).parents[2]
SANITIZE = ROOT / "tests" / "nbval_sanitize.cfg"
CHAPTERS = read_chapters(NOTEBOOKS / "sources")
MIB = 2**20


GUESS = r'(my_\w*guess) = None  # a number from (\S+) to (\S+), or "pass"\nguess_first\(\1(.*)\)'
LINE = 105  # letters that the column of JupyterLab holds, in a window 1300 pixels wide


def each_chapter():
    return pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)


def notebook_of(chapter) -> nbformat.NotebookNode:
    return nbformat.read(chapter.notebook, as_version=nbformat.NO_CONVERT)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(notebook) -> list:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_chapters_are_numbered_without_a_gap():
    assert [chapter.number for chapter in CHAPTERS] == [f"{n:02d}" for n in range(len(CHAPTERS))]
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {c.name for c in CHAPTERS}


@each_chapter()
def test_notebook_is_what_its_source_says(chapter):
    """Header, stubs, solutions and all: `make notebooks` was run after the last change."""
    times = read_times()[chapter.name]
    made = render(CHAPTERS, CHAPTERS.index(chapter), times)
    kept = notebook_of(chapter)

    def content(notebook):
        return [(c.cell_type, c.id, c.source, c.metadata) for c in notebook.cells]

    assert content(kept) == content(made)


@each_chapter()
def test_notebook_is_whole_and_tidy(chapter):
    notebook = notebook_of(chapter)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert dict(notebook.metadata.kernelspec) == {
        "name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"
    }  # fmt: skip
    assert "widgets" not in notebook.metadata
    assert chapter.notebook.stat().st_size <= 500_000
    assert not any(output.output_type == "error" for output in outputs_of(notebook))


@each_chapter()
def test_what_is_read_is_short_and_the_rest_is_folded(chapter):
    for cell in code_cells(render(CHAPTERS, CHAPTERS.index(chapter), None)):
        folded = bool(FOLDED & set(tags_of(cell)))
        assert (HIDDEN in tags_of(cell)) == folded
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == folded
        assert len(cell.source.splitlines()) <= (30 if folded else 25), cell.source


@each_chapter()
def test_what_only_draws_is_folded(chapter):
    for cell in chapter.cells:
        if cell.cell_type == "code" and re.search(r"\bpanels\(", cell.source):
            assert "draw" in tags_of(cell), cell.source


@each_chapter()
def test_pictures_are_sharp_pngs_with_a_text(chapter):
    kinds = {"text/plain", "text/html"}
    pictures = 0
    for output in outputs_of(notebook_of(chapter)):
        data = output.get("data", {})
        assert set(data) <= kinds
        for image in re.findall(r"<img [^>]+>", data.get("text/html", "")):
            pictures += 1
            given = dict(re.findall(r'([\w-]+)="([^"]*)"', image))
            assert len(given["alt"]) > 15
            png = given["src"].removeprefix("data:image/png;base64,")
            with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
                assert picture.format == "PNG" and picture.width == 2 * int(given["width"])
    assert pictures >= 2


@each_chapter()
def test_tables_are_shown_as_tables_and_settings_are_no_text(chapter):
    for cell in code_cells(notebook_of(chapter)):
        assert not re.search(r"^import re$|\bdpi *=", cell.source, re.M), cell.source
        for output in cell.outputs:  # a frame that is printed: names over columns, a name per row
            assert not re.search(r"^ {2,}\S.*\n\S.* -?\d", output.get("text", "")), output.text


@each_chapter()
def test_few_outputs_are_left_unchecked(chapter):
    cells = code_cells(notebook_of(chapter))
    ignored = [cell for cell in cells if "nbval-ignore-output" in tags_of(cell)]
    assert len(ignored) <= 0.05 * len(cells)
    assert {tag for cell in cells for tag in tags_of(cell)} <= TAGS | {HIDDEN}


@each_chapter()
def test_nothing_is_downloaded_and_no_path_is_absolute(chapter):
    notebook = notebook_of(chapter)
    code = "\n".join(cell.source for cell in code_cells(notebook))
    assert not re.search(
        r"https?://|urlopen|urlretrieve|requests\.|!|%%?\w", code.replace("!=", "")
    )
    told = json.dumps([dict(output) for output in outputs_of(notebook)] + [code])
    assert not re.search(r"(?<![\w./<])/(?:home|root|tmp|usr|work|Users)/", told)


def links_in(text: str) -> list[str]:
    return re.findall(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)", text)


@each_chapter()
def test_links_resolve(chapter):
    notebook = notebook_of(chapter)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = {h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)}
    targets = links_in(text)
    assert "README.md" in targets
    for target in targets:
        if target.startswith("#"):
            assert target[1:].lower() in headings
        elif not target.startswith("https://"):
            assert (NOTEBOOKS / target.partition("#")[0]).exists(), target


@each_chapter()
def test_header_and_closing_mirror_each_other(chapter):
    cells = notebook_of(chapter).cells
    head, tail = cells[0].source, cells[-1].source
    goals, found = (re.findall(r"^(\d+)\. ", text, re.M) for text in (head, tail))
    assert len(goals) >= 3 and goals == found
    assert all(goal.lower() in tail.lower() for goal in chapter.meta.goals)
    for word in ("Before this:", "Reading:", "Running, on 2 CPU cores:", "Afterwards you can"):
        assert word in head
    for page in ("notation", "glossary", "troubleshooting"):
        assert f"(../docs/{page}.md)" in head
    assert "### References" in tail and "### Differs from the paper" in tail
    place = re.compile("section|equation|table|figure|chapter|the whole")
    assert all(place.search(line) for line in chapter.meta.references)


@each_chapter()
def test_chapter_asks_predicts_and_quizzes(chapter):
    tags = [tag for cell in chapter.cells for tag in tags_of(cell)]
    assert tags.count("exercise") >= 3
    assert tags.count("check") >= 3
    assert tags.count("predict") >= 1 and tags.count("quiz") >= 3
    for cell in chapter.cells:
        if "predict" in tags_of(cell):
            asked = re.fullmatch(GUESS, cell.source)
            assert asked, cell.source
            assert asked[4] == f", {asked[2]}, {asked[3]}"
        assert "<details>" not in cell.source


@each_chapter()
def test_quiz_questions_have_one_right_answer_and_a_reason_for_each(chapter):
    for cell in chapter.cells:
        if "quiz" in tags_of(cell):
            (call,) = [node.value for node in ast.parse(cell.source).body]
            question, answers = (ast.literal_eval(node) for node in call.args)
            (right,) = [ast.literal_eval(k.value) for k in call.keywords if k.arg == "right"]
            assert call.func.id == "quiz" and len(question) > 20 and len(answers) >= 2
            assert 0 <= right < len(answers) and all(len(reason) > 30 for _, reason in answers)


@each_chapter()
def test_right_answers_do_not_all_have_the_same_letter(chapter):
    """A reader stopped reading after the second question: it was always b."""
    cells = [cell.source for cell in chapter.cells if "quiz" in tags_of(cell)]
    right = [re.search(r"^    right=(\d+),$", source, re.M)[1] for source in cells]
    alike = len(right) >= 3 and len(set(right)) == 1
    assert not alike, right


@each_chapter()
def test_lines_that_are_read_are_not_cut_off(chapter):
    cells = code_cells(render(CHAPTERS, CHAPTERS.index(chapter), None))
    shown = [cell.source for cell in cells if HIDDEN not in tags_of(cell)]
    long = [line for source in shown for line in source.splitlines() if len(line) > LINE]
    assert not long, "\n".join(long)


@each_chapter()
def test_core_and_further_part_have_their_sections(chapter):
    headings = [
        line
        for cell in chapter.cells
        if cell.cell_type == "markdown"
        for line in re.findall(r"^## .+", cell.source, re.M)
    ]
    core = [heading for heading in headings if not heading.startswith("## Further: ")]
    assert core[-2:] == ["## Exercises", "## Quiz"]
    assert len(headings) - len(core) == bool(chapter.meta.further_minutes)
    assert headings[: len(core)] == core  # nothing at this level after the further part has begun


@each_chapter()
def test_times_stand_in_the_header_and_the_index(chapter):
    times = read_times()[chapter.name]
    trains = any("run_or_load" in cell.source for cell in chapter.cells)
    assert 0 < times.shipped <= (60 if trains else 90)  # what has no kept runs may train live
    if trains:
        assert times.shipped < times.empty <= 600
    else:
        assert times.empty is None
    assert index_table(CHAPTERS, read_times()) in (NOTEBOOKS / "README.md").read_text("utf-8")


@pytest.mark.parametrize("entry", EXERCISES, ids=exercise_id)
def test_solution_is_right_and_stub_is_only_not_written_yet(entry):
    chapter, exercise, check = entry
    assert "NotImplementedError" not in solution(exercise.source)
    assert "raise NotImplementedError" in stub(exercise.source)
    name = exercise_id(entry)
    assert f"Exercise {name}: right." in run_check(chapter, solution(exercise.source), check.source)
    told = run_check(chapter, stub(exercise.source), check.source)
    assert f"Exercise {name}: not started" in told and "Hint" not in told


def test_exercises_are_numbered_by_chapter_in_order():
    for chapter in CHAPTERS:
        names = [exercise_id(entry) for entry in EXERCISES if entry[0] is chapter]
        assert names == [f"{int(chapter.number)}.{n}" for n in range(1, len(names) + 1)]


# What comes with the course
def test_shipped_runs_are_small_and_in_time():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) <= 8 * MIB
    assert {path.suffix for path in files} <= {".yaml", ".json", ".csv", ".pt"}


@pytest.mark.parametrize("folder", sorted(SHIPPED.iterdir()), ids=lambda folder: folder.name)
def test_shipped_run_is_the_one_of_its_configuration(folder, monkeypatch):
    """Its name is what the library of today would look for, whether its code is recorded yet."""
    monkeypatch.setattr("sparcl_lib.revision.code.edited_code", dict)
    config = read_config(yaml.safe_load((folder / "config.yaml").read_text("utf-8")))
    assert folder.name in run_keys(config)


def test_every_sanitize_pair_is_understood():
    """nbval drops a pair silently when it is not written just so."""
    parsed = get_sanitize_patterns(SANITIZE.read_text("utf-8"))
    assert len(parsed) == SANITIZE.read_text("utf-8").count("regex:") >= 1


def test_times_are_of_the_chapters_that_are_there():
    table = pd.read_csv(NOTEBOOKS / "times.csv")
    assert list(table["chapter"]) == [chapter.name for chapter in CHAPTERS]
