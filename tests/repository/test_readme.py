"""The README keeps its word: code runs, paths exist, numbers are those that were measured."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd
from PIL import Image

import sparcl_lib
from sparcl_lib.cli import app
from sparcl_lib.data.minivoc import default_root, generate
from sparcl_lib.metrics import format_mean
from sparcl_lib.tasks import task_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_loss_can_be_lifted_out():
    (example,) = (text for text in blocks("python") if "loss" in text)
    scope: dict = {}
    exec(example, scope)
    assert scope["loss"].item() > 0 and scope["features"].grad.abs().sum() > 0


def test_a_loss_imports_what_the_page_says():
    """Of ours; torch has neighbours of its own."""
    code = "import sys, sparcl_lib.losses; print(*(m for m in sys.modules if 'sparcl_lib.' in m))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    rooms = {module.split(".")[1] for module in done.stdout.split()}
    assert rooms == {"losses", "prototypes", "labels"}


def test_python_trains_and_predicts(tmp_path, monkeypatch, capsys):
    """On fewer images and iterations."""
    (example,) = (text for text in blocks("python") if "sparcl_lib.train" in text)
    assert len(example.strip().splitlines()) <= 6
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    generate(default_root(), train=60, val=12, progress=False)
    Image.new("RGB", (80, 50)).save("photo.jpg")
    quick = {"optim.iterations": 2, "data.batch_size": 4}
    monkeypatch.setattr(sparcl_lib, "train", partial(sparcl_lib.train, settings=quick))
    scope: dict = {}
    exec(example, scope)
    assert scope["labels"].shape == (50, 80) and Path("predictions.png").is_file()
    assert "background" in capsys.readouterr().out

    rows = re.search(r"\| in a run's folder .+?\n\n", README, flags=re.DOTALL).group()
    named = re.findall(r"^\| `([\w./-]+)`", rows, flags=re.MULTILINE)
    run = scope["run"]
    out = sparcl_lib.train("minivoc", "FT", task="6-4", out=tmp_path / "run").folder
    assert len(named) == 5 and all((out / name).is_file() for name in named)
    assert sparcl_lib.load_run(run.folder).metrics == run.metrics


def test_paths_of_the_map_and_of_links_exist():
    rows = re.findall(r"^\| (`.+?) \|", README.split("## Map")[1], flags=re.MULTILINE)
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
