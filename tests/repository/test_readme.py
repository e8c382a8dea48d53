"""The README keeps its word: code runs, paths exist, numbers are those that were measured."""

import re
from pathlib import Path

import pandas as pd

from sparcl_lib.cli import app
from sparcl_lib.metrics import format_mean
from sparcl_lib.tasks import task_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_examples_run():
    examples = blocks("python")
    assert examples
    for example in examples:
        scope: dict = {}
        exec(example, scope)
        assert scope["loss"].item() > 0 and scope["features"].grad.abs().sum() > 0


def test_paths_of_the_map_and_of_links_exist():
    rows = re.findall(r"^\| (`.+?) \|", README, flags=re.MULTILINE)
    paths = [path for row in rows for path in re.findall(r"`([\w./]+)`", row)]
    assert len(paths) >= 10
    for path in paths:
        near = [ROOT / path, ROOT / "sparcl_lib" / path]
        assert any(p.exists() for p in near), path
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_commands_and_tasks_exist():
    known = {command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    used = re.findall(r"^sparcl (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE)
    assert set(used) and set(used) <= known
    for task in ("19-1", "15-5", "15-1", "10-10", "10-1", "10-5", "5-3", "2-1", "2-2", "19-1b"):
        assert task in README and task in task_names("voc")


def test_the_table_is_the_one_that_was_measured():
    runs = pd.read_csv(ROOT / "benchmarks" / "studies" / "minivoc_seeds" / "results.csv")
    last = runs[runs.step == runs.step.max()]
    lines = README.splitlines()
    for method, rows in last.groupby("method"):
        (line,) = (text for text in lines if re.match(rf" *{re.escape(method)} +3 ", text))
        for measure in ("miou_old", "miou_new", "miou_all"):
            assert format_mean(rows[measure].mean(), rows[measure].std()) in line


def test_the_phenomena_are_in_the_measured_table():
    """Joint at least 65, fine-tuning below 5 on old classes, MiB 20 above it: means of 3 seeds."""
    runs = pd.read_csv(ROOT / "benchmarks" / "studies" / "minivoc_seeds" / "results.csv")
    assert sorted(runs.seed.unique()) == [0, 1, 2]
    mean = runs[runs.step == runs.step.max()].groupby("method").mean(numeric_only=True)
    assert mean.miou_all["Joint"] >= 65
    assert mean.miou_old_no_bg["FT"] < 5
    assert mean.miou_all["MiB"] - mean.miou_all["FT"] >= 20
