"""The workshop of the course: kept runs, sources to notebooks."""

import dataclasses
import json

import pytest
import torch

from sparcl_lib.config import parse_settings
from sparcl_lib.course import build, minivoc_config, runs
from sparcl_lib.course.chapter import (
    TAGS,
    Times,
    duration,
    read_chapter,
    read_chapters,
    render,
    split_claims,
    tags_of,
)
from sparcl_lib.course.output import WIDGET_VIEW
from sparcl_lib.data import minivoc
from sparcl_lib.errors import UserError
from sparcl_lib.methods import term
from sparcl_lib.training.run_directory import RunDirectory


# Kept runs
@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "minivoc"
    minivoc.generate(root, train=60, val=12, size=32, progress=False)
    return str(root)


def config_of(root, method="MiB", *settings):
    quick = ("optim.iterations=2", "data.size=32", "data.batch_size=4")
    return dataclasses.replace(minivoc_config(method, *quick, *settings), data_root=root)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(runs.CACHE_VARIABLE, str(tmp_path / "runs"))
    return tmp_path / "runs"


def forbid_training(*args, **options):
    raise AssertionError("trained again")


def test_run_is_trained_once_and_then_kept(tiny, cache, monkeypatch):
    trained = runs.run_or_load(config_of(tiny), checkpoints=True)
    assert sorted(trained.matrix.rows) == [0, 1]
    monkeypatch.setattr(runs, "train", forbid_training)
    kept = runs.run_or_load(config_of(tiny), checkpoints=True)
    assert kept.metrics == trained.metrics
    assert kept.model(1).classifier.num_classes == [7, 4] and not kept.model(1).training
    assert kept.confusion(1).shape == (11, 11) and len(kept.bank(1).counts) == 11
    assert {"ce", "total", "lr"} <= set(kept.log(0)) and {"kd", "step"} <= set(kept.log(1))


def test_another_weight_trains_its_step_alone(tiny, cache, monkeypatch):
    first = runs.run_or_load(config_of(tiny)).first
    asked, train = [], runs.train
    monkeypatch.setattr(
        runs, "train", lambda config, out, **kw: (asked.append((out, kw)), train(config, out, **kw))
    )
    other = runs.run_or_load(config_of(tiny, "MiB", "method.terms.kd.weight=3"))
    ((out, options),) = asked
    assert options["start_from"] == other.first.path == first.path
    assert out == other.directory.path


def test_key_follows_configuration_and_data(tiny, cache, monkeypatch):
    base = runs.run_keys(config_of(tiny))
    assert runs.run_keys(config_of(tiny)) == base
    later = runs.run_keys(config_of(tiny, "MiB", "optim.lr=[0.05,0.01]"))
    assert later[0] != base[0] and later[1] == base[1]
    earlier = runs.run_keys(config_of(tiny, "MiB", "optim.lr=[0.01,0.058]"))
    assert earlier[0] != base[0] and earlier[1] != base[1]
    monkeypatch.setattr("sparcl_lib.training.content.checksum", lambda root: "other")
    assert set(runs.run_keys(config_of(tiny))).isdisjoint(base)


def test_numbers_alone_are_enough_unless_networks_are_asked_for(tiny, cache, monkeypatch):
    run = runs.run_or_load(config_of(tiny), checkpoints=True)
    run.directory.checkpoint_file(1).unlink()
    monkeypatch.setattr(runs, "train", forbid_training)
    assert runs.run_or_load(config_of(tiny)).metrics == run.metrics
    with pytest.raises(AssertionError, match="trained again"):
        runs.run_or_load(config_of(tiny), checkpoints=True)


def test_unknown_setting_is_refused():
    with pytest.raises(UserError, match="did you mean method.terms.kd.weight"):
        minivoc_config("MiB", "method.terms.kd.wight=3")
    with pytest.raises(UserError, match="settings are texts, as in"):
        minivoc_config("MiB", {"optim.lr": 0.1})
    with pytest.raises(UserError, match="unknown task of minivoc '6-5'"):
        minivoc_config("MiB", task="6-5")
    assert parse_settings(["seed=1"]) == {"seed": 1}


def test_shipping_keeps_what_is_looked_at(tiny, cache, tmp_path, monkeypatch):
    uses = tmp_path / "uses.jsonl"
    monkeypatch.setenv(runs.USES_VARIABLE, str(uses))
    run = runs.run_or_load(config_of(tiny), checkpoints=True)
    numbers = runs.run_or_load(config_of(tiny, "MiB", "method.terms.kd.weight=3"))
    shipped, used = tmp_path / "shipped", set()
    monkeypatch.setattr(build, "SHIPPED", shipped)
    assert build.ship(uses, used) and not build.ship(uses, used)
    assert used == {path.name for path in shipped.iterdir()} and len(used) == 3
    assert not list((shipped / numbers.directory.path.name).rglob("*.pt"))
    told = RunDirectory(shipped / run.directory.path.name).config_file.read_text("utf-8")
    assert str(tmp_path) not in told.replace(tiny, "")
    assert RunDirectory(shipped / run.directory.path.name).content() is not None
    for step, kind in ((0, torch.float32), (1, torch.float16)):
        folder = shipped / (run.first if step == 0 else run.directory).path.name
        kept = RunDirectory(folder).load_checkpoint(step)
        assert kept["model"]["classifier.steps.0.weight"].dtype == kind
        assert not {"optimizer", "rng"} & set(kept)
    monkeypatch.delenv(runs.CACHE_VARIABLE)
    monkeypatch.setattr(runs, "SHIPPED", shipped)
    other = runs.run_or_load(config_of(tiny, "MiB", "method.terms.kd.weight=4"))
    assert other.first.path == shipped / run.first.path.name and 1 in other.matrix.rows
    monkeypatch.setattr(runs, "train", forbid_training)
    again = runs.run_or_load(config_of(tiny), checkpoints=True)
    assert again.metrics == run.metrics and again.model(1) is not None

    build.remove_unused({run.first.path.name})
    assert [path.name for path in shipped.iterdir()] == [run.first.path.name]


def test_a_run_with_a_term_of_the_notebook_is_not_shipped(tiny, cache, tmp_path, monkeypatch):
    @term
    def of_a_cell(context):
        return context.output.features.mean()

    uses = tmp_path / "uses.jsonl"
    monkeypatch.setenv(runs.USES_VARIABLE, str(uses))
    run = runs.run_or_load(config_of(tiny, "MiB", "method.terms.of_a_cell.weight=1"))
    assert "of_a_cell" in run.log(1) and not uses.exists()


# Sources to notebooks
SOURCE = '''# %% [raw]
# title: Two and two
# goals: [add]
# summary: ["It is four."]
# ends_with: four
# reading_minutes: 1

# %% [markdown]
# Text.

# %% tags=["setup"]
import math

# %% tags=["predict"]
my_guess = None  # a number from 0 to 9, or "pass"
guess_first(my_guess)

# %% tolerance={"abs": 0.1, "spread": 0.0}
total = 2 + 2
print(total)
# Four, and no more.
assert total == 4
assert total < 5, "more"

# %% tags=["draw"]
def draw():
    return panels(width=7)[0]


show(draw(), "an empty figure")

# %% tags=["exercise"]
def add(a, b):
    """The sum."""
    # SOLUTION
    return a + b
    # END

# %% tags=["check"]
check("0.1", add, [((2, 2), 4)])
'''


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "00_add.py").write_text(SOURCE, "utf-8")
    (folder / "01_more.py").write_text(
        SOURCE.replace("# reading", '# prerequisites: ["00"]\n# reading'), "utf-8"
    )
    return folder


def test_one_source_gives_stub_solution_header_and_closing(sources):
    chapters = read_chapters(sources)
    notebook = render(chapters, 1, Times(shipped=12, empty=130))
    kinds = "".join(cell.cell_type[0] for cell in notebook.cells)
    assert kinds == "mm" + "ccccc" + "cc" + "mm"
    head, tail = notebook.cells[0].source, notebook.cells[-1].source
    exercise, test, folded = (cell.source for cell in notebook.cells[-4:-1])
    assert exercise == (
        'def add(a, b):\n    """The sum."""\n    raise NotImplementedError("write your answer here")'  # noqa: E501
    )
    assert test.startswith("check(") and "    return a + b" in folded and "# END" not in folded
    assert "1. add" in head and "1. **Add.**  \n   It is four." in tail
    assert "[00 Two and two](00_add.ipynb)" in head
    assert "10 s with the runs that come with the course, 2.2 min" in head
    assert "**Reading:** 1 minutes with exercises and quiz." in head
    for text in (head, tail):
        assert "[Glossary](../docs/glossary.md)" in text


def sources_of(notebook):
    return "\n".join(cell.source for cell in notebook.cells)


@pytest.mark.parametrize(
    ("form", "guess", "answer", "solution"),
    [
        ("published", '"pass"', False, True),
        ("working", "None", False, True),
        ("student", "None", False, False),
        ("solutions", '"pass"', True, False),
    ],
)
def test_each_form_has_its_guess_its_answers_and_its_solutions(
    form, guess, answer, solution, sources
):
    notebook = render(read_chapters(sources), 0, None, form)
    (predict,) = [cell for cell in notebook.cells if "predict" in tags_of(cell)]
    assert predict.source.startswith(f"my_guess = {guess}  # a number")
    exercise, check = (cell for cell in notebook.cells if {"exercise", "check"} & {*tags_of(cell)})
    assert (exercise.id, check.id) == ("00-exercise-1", "00-check-1")
    assert ("return a + b" in exercise.source) == answer
    assert ("NotImplementedError" in exercise.source) != answer
    assert ("<summary>Solution" in sources_of(notebook)) == solution
    assert "# SOLUTION" not in sources_of(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_drawing_and_the_asserts_at_the_end_of_a_cell_are_folded(sources):
    cells = render(read_chapters(sources), 0, None).cells
    folded = [cell for cell in cells if cell.metadata.get("jupyter") == {"source_hidden": True}]
    verify, draw = folded
    assert verify.source.splitlines()[1:] == [
        "# Four, and no more.", "assert total == 4", 'assert total < 5, "more"'
    ]  # fmt: skip
    assert tags_of(verify) == ["verify", "hide-input"] and tags_of(draw) == ["draw", "hide-input"]
    shown = cells[cells.index(verify) - 1]
    assert shown.source == "total = 2 + 2\nprint(total)" and "tolerance" in shown.metadata
    assert "tolerance" not in verify.metadata  # it prints nothing


SPLITS = {
    "none": ("x = 1\nx", "x = 1\nx", ""),
    "inner": ("for x in y:\n    assert x", "for x in y:\n    assert x", ""),
    "alone": ("assert x", "", "assert x"),
    "not at the end": ("assert x\ny", "assert x\ny", ""),
    "long": ("y\n\nassert all(\n    x\n)", "y", "assert all(\n    x\n)"),
    "one line": ("y; assert x", "y; assert x", ""),
    "one line of two": ("y\nassert x; assert z", "y", "assert x; assert z"),
}


@pytest.mark.parametrize("source, shown, claims", SPLITS.values(), ids=SPLITS)
def test_claims_are_split_off_line_by_line(source, shown, claims):
    assert split_claims(source) == (shown, claims)


FURTHER = """
# %% [markdown]
# ## Further: three and three
#
# More.
"""


def test_a_further_part_has_minutes_of_its_own(sources):
    path = sources / "00_add.py"
    path.write_text(
        SOURCE.replace("# reading_minutes: 1", "# reading_minutes: 20\n# further_minutes: 15")
        + FURTHER,
        "utf-8",
    )
    chapters = read_chapters(sources)
    head = render(chapters, 0, None).cells[0].source
    assert "20 minutes with exercises and quiz, 15 more for the further part." in head
    assert "| 20 + 15 min |" in build.index_table(chapters, {})


BAD = {
    "no yaml": ("# %% [raw]", "# %%", "first cell must be raw YAML"),
    "summary": ('["It is four."]', "[a, b]", "1 goals but 2 lines of summary"),
    "tag": ('["check"]', '["chekc"]', "unknown tag 'chekc'; valid: ablation"),
    "open": ("    # END\n", "", "needs one # SOLUTION ... # END"),
    "key": ("# ends_with", "# end_with", "end_with"),
    "guess": ("my_guess = None", "guess = None", "predict starts with my_guess = None"),
    "no code": ("total = 2 + 2", "total = = 2", "invalid syntax: 'total = = 2'"),
    "shows nothing": (
        "total = 2 + 2",
        "total = 2 + 2\ntotal\nmore = 1",
        "the last expression .* 'total'",
    ),
    "no minutes": ("# Text.", "# ## Further: more", "further_minutes is 0 and 1 cells"),
    "no further part": ("# ends", "# further_minutes: 9\n# ends", "further_minutes is 9 and 0"),
    "order": (
        "# ends_with: four\n# reading_minutes: 1\n\n# %% [markdown]\n# Text.",
        "# ends_with: four\n# reading_minutes: 1\n# further_minutes: 2\n\n# %% [markdown]\n"
        "# ## Further: more\n\n# %% [markdown]\n# ## Quiz",
        "the further part comes after exercises and quiz",
    ),
}


@pytest.mark.parametrize("old, new, message", BAD.values(), ids=BAD)
def test_bad_source_is_refused(old, new, message, tmp_path):
    path = tmp_path / "00_bad.py"
    path.write_text(SOURCE.replace(old, new), "utf-8")
    with pytest.raises(UserError, match=message):
        read_chapter(path)


def test_durations_as_one_says_them():
    assert [duration(s) for s in (0.4, 12, 94, 100, 240)] == [
        "5 s", "10 s", "95 s", "1.7 min", "4.0 min"
    ]  # fmt: skip


def test_what_a_page_cannot_show_is_not_saved():
    view, still = {WIDGET_VIEW: {"model_id": "1"}}, {"text/html": "choose"}
    cell = {
        "cell_type": "code", "source": "", "execution_count": 1,
        "metadata": {"execution": {"iopub.execute_input": "now"}},
        "outputs": [
            {"output_type": "display_data", "data": data, "metadata": {}} for data in (still, view)
        ],
    }  # fmt: skip
    notebook = build.nbformat.from_dict(
        {"cells": [cell], "metadata": {"widgets": {}}, "nbformat": 4, "nbformat_minor": 5}
    )
    build.clean_outputs(notebook)
    assert "model_id" not in json.dumps(notebook) and "widgets" not in notebook.metadata
    assert notebook.cells[0].metadata == {}
    assert [output.data for output in notebook.cells[0].outputs] == [still]


def test_a_prerequisite_must_come_before(sources):
    path = sources / "00_add.py"
    path.write_text(SOURCE.replace("# reading", '# prerequisites: ["01"]\n# reading'), "utf-8")
    with pytest.raises(UserError, match="prerequisite 01 is no chapter before this one"):
        render(read_chapters(sources), 0, None)


def test_the_template_of_a_chapter_runs(capsys):
    chapter = read_chapter(build.NOTEBOOKS / "sources" / "template.py")
    cells = [cell for cell in chapter.cells if cell.cell_type == "code"]
    assert {tag for cell in cells for tag in cell.metadata.get("tags", [])} <= TAGS
    names: dict = {}
    for cell in cells:
        exec(cell.source.replace("my_guess = None", "my_guess = 50"), names)
    printed = capsys.readouterr().out
    assert "mIoU: measured" in printed and "Exercise 0.1: right." in printed
