"""The README and the pages it leads to keep their word: code runs, paths exist, numbers hold."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import sparcl_lib
from sparcl_lib.cli.program import app
from sparcl_lib.config.settings import OptimConfig
from sparcl_lib.data import Presence, partition
from sparcl_lib.data.minivoc import default_root, generate
from sparcl_lib.method_table import METHODS
from sparcl_lib.metrics import format_mean
from sparcl_lib.models.classifier import GrowingClassifier
from sparcl_lib.tasks import get_task, task_names

ROOT = Path(__file__).parents[2]
README, USING, ENGINEER = (
    (ROOT / name).read_text("utf-8") for name in ("README.md", "docs/using.md", "docs/engineer.md")
)


def blocks(language: str, *pages: str) -> list[str]:
    return [text for page in pages
            for text in re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)]  # fmt: skip


LIFTED = [text for text in blocks("python", ENGINEER) if "sparcl_lib.losses" in text]


def test_losses_can_be_lifted_out():
    alone, together, plop = LIFTED
    scope: dict = {}
    exec(alone, scope)
    assert scope["loss"].item() > 0 and scope["features"].grad.abs().sum() > 0
    before = scope["bank"].counts
    exec(together, scope)
    assert torch.equal(scope["bank"].counts[:5], before), "nothing of the old network's enters"
    assert scope["bank"].counts[5] == (scope["annotated"] == 5).sum() > 0
    assert torch.equal(scope["anchored"], scope["filled"]), "each class has a prototype"
    assert torch.equal(scope["anchored"] == 255, scope["annotated"] == 255)
    scope["features"].grad = None
    scope["latent"].backward()
    assert scope["latent"].item() > 0 and scope["features"].grad.abs().sum() > 0
    exec(plop, scope)
    scope["loss"].backward()
    assert scope["loss"].item() > 0 and scope["logits"].grad.abs().sum() > 0
    assert ((scope["filled"] > 0) & (scope["filled"] < 5)).any(), "sure guesses are labels"


def test_a_classifier_starts_as_the_page_says():
    (start,) = [text for text in blocks("python", ENGINEER) if "background's probability" in text]
    old = GrowingClassifier(64, [5])
    given = start.replace("torch.rand(num_old, 64, 1, 1)", "W").replace("torch.rand(num_old)", "B")
    weight, bias = (value.detach() for value in (old.steps[0].weight, old.steps[0].bias))
    scope = {"torch": torch, "W": weight, "B": bias, "num_old": 5, "num_classes": 8}
    exec(given, scope)
    x = torch.rand(2, 64, 3, 3)
    expected = old.grow(3, "mib")(x)
    found = torch.nn.functional.conv2d(x, scope["w"], scope["b"])
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_loss_imports_what_the_page_says():
    """Of ours; torch has neighbours of its own, and so has the package around the losses."""
    code = (
        "import sys, sparcl_lib; package = set(sys.modules); import sparcl_lib.losses;"
        "print(*(m for m in set(sys.modules) - package if 'sparcl_lib.' in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    rooms = {module.split(".")[1] for module in done.stdout.split()}
    assert rooms == {"losses", "prototypes", "labels"}


def test_a_loss_can_be_copied(tmp_path):
    """The three things that the page names are enough, beside an empty package."""
    (line,) = re.findall(r"^- Copy it: (.+)$", ENGINEER, flags=re.MULTILINE)
    things = [ROOT / name for name in re.findall(r"`(sparcl_lib/[\w./]+)`", line)]
    assert {thing.name for thing in things} == {"losses", "prototypes", "labels.py"}
    package = tmp_path / "sparcl_lib"
    package.mkdir()
    (package / "__init__.py").touch()
    for thing in things:
        (shutil.copytree if thing.is_dir() else shutil.copy)(thing, package / thing.name)
    ours = f"import sparcl_lib\nassert sparcl_lib.__file__.startswith({str(tmp_path)!r})"
    code = "\n".join([*LIFTED, ours])
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "."},
        check=True,
    )


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Trains on fewer images and iterations, in a folder of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    generate(default_root(), train=60, val=12, progress=False)
    train, few = sparcl_lib.train, {"optim.iterations": 2, "data.batch_size": 4}

    def quick_train(*arguments, settings=None, **more):
        return train(*arguments, settings={**few, **(settings or {})}, **more)

    monkeypatch.setattr(sparcl_lib, "train", quick_train)


@pytest.mark.usefixtures("quick")
def test_python_trains_and_predicts(tmp_path, capsys):
    (example,) = (text for text in blocks("python", README) if "sparcl_lib.train" in text)
    assert len(example.strip().splitlines()) <= 9
    demo = sparcl_lib.train("minivoc", "SDR", task="6-4", out="demo-results/runs/SDR-seed0")
    capsys.readouterr()
    scope: dict = {}
    exec(example, scope)
    assert scope["labels"].shape == (64, 64) and Path("predictions.png").is_file()
    printed = capsys.readouterr().out
    assert all(name in printed for name in demo.classes) and "..." not in printed
    (training,) = re.findall(r"# A run of the demo; (sparcl_lib\.train\(.+\)) trains", example)
    assert eval(training, scope).classes == demo.classes

    rows = re.search(r"\| in a run's folder .+?\n\n", USING, flags=re.DOTALL).group()
    named = re.findall(r"^\| `([\w./-]+)`", rows, flags=re.MULTILINE)
    run = scope["run"]
    out = sparcl_lib.train("minivoc", "FT", task="6-4", out=tmp_path / "run").folder
    assert len(named) == 6 and "step-0/in_progress.pt" in named  # which goes with the step's end
    assert all((out / name).is_file() != name.endswith("in_progress.pt") for name in named)
    assert sparcl_lib.load_run(run.folder).metrics == run.metrics


def test_the_readme_says_what_a_run_folder_holds_and_where_the_table_is():
    (target,) = re.findall(r"^The folder of a run holds .+?\]\((.+?)\)", README, re.M | re.S)
    heading = "## What lies in a run's folder"
    page, _, anchor = target.partition("#")
    assert page == "docs/using.md" and f"{heading}\n\n| in a run's folder" in USING
    assert anchor == heading.removeprefix("## ").lower().replace(" ", "-").replace("'", "")


@pytest.mark.usefixtures("quick")
def test_the_engineers_example_trains_and_gives_a_network():
    (example,) = (text for text in blocks("python", ENGINEER) if "sparcl_lib.train" in text)
    Image.new("RGB", (80, 50)).save("photo.jpg")
    scope: dict = {}
    exec(example, scope)
    assert scope["labels"].shape == (50, 80)
    assert sparcl_lib.load_run("runs/mib").metrics == scope["run"].metrics
    lines = [line for line in "".join(blocks("sh", ENGINEER)).splitlines() if "-c" in line]
    for line, printed in zip(lines, ("True False", "True"), strict=True):
        program, *arguments = shlex.split(line)
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        assert (program, done.stdout, done.stderr) == ("python", f"{printed}\n", ""), done.stderr

    (alone,) = (text for text in blocks("python", ENGINEER) if "run.model()" in text)
    exec(alone, scope)
    assert not scope["network"].training and scope["logits"].shape == (1, 11, 64, 64)
    scope["images"] = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    exec(alone.strip().splitlines()[-1], scope)
    seen = scope["logits"].argmax(1).numpy()  # as the run itself: the page's lines are all it takes
    assert (seen == np.stack(scope["run"].predict(scope["images"]))).all()


@pytest.mark.parametrize("page", ["README.md", "docs/using.md", "docs/engineer.md"])
def test_links_of_the_page_exist(page):
    text = (ROOT / page).read_text("utf-8")
    links = re.findall(r"\]\((?!http|#)([^)#]+)", text)
    assert links
    for link in links:
        assert ((ROOT / page).parent / link).exists(), link


def test_paths_of_the_maps_exist():
    for page, title in ((README, "## Map"), (ENGINEER, "## Where things are")):
        rows = re.findall(r"^\| (`.+?) \|", page.split(title)[1], flags=re.MULTILINE)
        paths = [path for row in rows for path in re.findall(r"`([\w./]+)`", row)]
        assert len(paths) >= 10
        for path in paths:
            assert (ROOT / path).exists() or (ROOT / "sparcl_lib" / path).exists(), path


def test_commands_and_tasks_exist():
    known = {command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    commands = "\n".join(blocks("sh", README, USING, ENGINEER))
    used = re.findall(r"^sparcl (\w+)", commands, flags=re.MULTILINE)
    used += re.findall(r"`sparcl (\w+)", README + USING + ENGINEER)
    assert set(used) and set(used) <= known
    for task in ("19-1", "15-5", "15-1", "10-10", "10-1", "10-5", "5-3", "2-1", "2-2", "19-1b"):
        assert task in USING and task in task_names("voc")


def test_the_images_of_a_step_are_as_published_and_as_the_rule_gives_them():
    text = (resources.files("sparcl_lib.published") / "voc_class_sets.csv").read_text("utf-8")
    sets = {f"{row['classes']}/{n}": set(map(int, row["classes"].split()))
            for row in csv.DictReader(text.splitlines())
            for n in range(int(row["train_aug"]))}  # fmt: skip
    presence, (part,) = (
        Presence.from_sets(sets),
        re.findall(r"## Images of a step.+?\n## ", USING, re.DOTALL),
    )
    rows = re.findall(r"^\| ([\w-]+) \| ([\d, ]+) \| ([\d, ]+) \|$", part, flags=re.MULTILINE)
    orders = {f"15-1{letter}" for letter in "bcdefghijklmnopqrstuvw"}
    assert {name for name, *_ in rows} == {*task_names("voc")} - {"offline"} - orders
    for setup in ("disjoint", "overlapped"):
        firsts = [len(partition(presence, get_task("voc", name), setup)[0]) for name in orders]
        assert f"from {min(firsts):,} to {max(firsts):,}" in part, setup
    for name, *shown in rows:
        for setup, counts in zip(("disjoint", "overlapped"), shown, strict=True):
            steps = partition(presence, get_task("voc", name), setup).values()
            assert counts == " ".join(f"{len(ids):,}" for ids in steps), (name, setup)
    published = [name for name, *_ in rows][:5]  # VOC_COUNTS in tests/data/test_splits.py
    assert published == ["19-1", "15-5", "15-1", "10-10", "10-1"]
    assert f"For {', '.join(published[:4])} and {published[4]} on VOC" in README


def test_weights_and_rates_are_those_that_the_page_names():
    (part,) = re.findall(r"## Whose settings.+?\n## ", USING, re.DOTALL)
    weights = [f"{row['weight']:g}" for row in METHODS["SDR"]["terms"].values() if "weight" in row]
    assert re.search(rf"weights of SDR's losses \| {', '.join(weights[:1])} \(distillation\), "
                     rf"{', '.join(weights[1:])} ", part)  # fmt: skip
    assert OptimConfig().lr == (0.001, 0.0001) and "0.001 at step 0, then 0.0001" in part


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
