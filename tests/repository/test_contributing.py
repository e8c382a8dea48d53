"""CONTRIBUTING.md keeps its word: each walk-through is applied to a copy, and its commands run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_voc_tree

from sparcl_lib.data import minivoc
from sparcl_lib.digests.training_code import CONFIGURED, files_that_train

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##)", PAGE, flags=re.DOTALL | re.MULTILINE))
QUICK = ["optim.iterations=2", "data.size=32", "data.batch_size=4"]


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], flags=re.DOTALL)


def changed(text: str, hunk: list[str]) -> str:
    """The text after a hunk, whose lines begin with a blank, + or -; a cut line ends the hunk."""
    before, after = ([line[1:] for line in hunk if line[0] in signs] for signs in (" -", " +"))
    old, new = "\n".join(before), "\n".join(after)
    assert text.count(old) == 1, f"stands {text.count(old)} times:\n{old}"
    return text.replace(old, new)


def apply(diff: str, root: Path) -> Path:
    """Apply a block whose first line names the file."""
    first, *lines = diff.splitlines()
    file = root / first.removeprefix("+++ ")
    if not file.exists():
        assert all(line.startswith("+") for line in lines)
        file.write_text("".join(f"{line[1:]}\n" for line in lines), "utf-8")
        return file
    text = file.read_text("utf-8")
    for hunk in "\n".join(lines).split("\n@@\n"):
        text = changed(text, hunk.splitlines())
    file.write_text(text, "utf-8")
    return file


@pytest.fixture
def copy(tmp_path) -> Path:
    for name in ("sparcl_lib", "tests", "benchmarks", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", "shipped", "lab")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def run(command: str, root: Path, *more: str) -> str:
    """What a command of the page prints, run in the copy with the copy's library."""
    program, *arguments = shlex.split(command)
    start = {"sparcl": ["-m", "sparcl_lib"], "python": []}[program]
    if arguments[0] == "train":
        more = (*more, *(part for setting in QUICK for part in ("--set", setting)))
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *start, *arguments, *more],
        check=False, cwd=root, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def tiny(copy) -> tuple[str, str]:
    minivoc.generate(copy / "minivoc", train=60, val=12, size=32, progress=False)
    return "--data-root", str(copy / "minivoc")


def follow(section: str, copy: Path, tiny: tuple[str, ...] = ()) -> list[str]:
    """Apply a section and return what its commands print."""
    for diff in blocks(section, "diff"):
        apply(diff, copy)
    commands = "".join(blocks(section, "sh")).splitlines()
    return [run(c, copy, *(tiny if "--dataset minivoc" in c else ())) for c in commands]


def contents(root: Path) -> dict[str, bytes]:
    """Every file of the rooms that a walk-through may touch."""
    files = [f for room in ("sparcl_lib", "tests", "docs") for f in (root / room).rglob("*.*")]
    return {f.relative_to(root).as_posix(): f.read_bytes() for f in files if f.is_file()}


def test_every_section_is_followed():
    assert set(SECTIONS) == {
        "A method",
        "A method with a mechanism of its own",
        "A term of your own",
        "A mechanism of your own",
        "A backbone of your own",
        "A loss",
        "A data set",
        "A task",
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_says_how_many_files_are_touched(section):
    edited = {diff.splitlines()[0].removeprefix("+++ ") for diff in blocks(section, "diff")}
    train = {f"sparcl_lib/{name}" for name in {*files_that_train(), *CONFIGURED}}
    new = {name for name in edited if not (ROOT / name).exists()}
    recorded = bool(edited & train) or any(name.startswith("sparcl_lib/") for name in new)
    counts = re.search(r"Files touched, the record\ncounted: (.+)\.\n", PAGE)[1]
    said = {name: int(number) for name, number in re.findall(r"(a [a-z ]+)(?:,.+)? (\d)", counts)}
    assert len(edited) <= 3 and said[section.lower()] == len(edited) + recorded


@pytest.mark.slow
def test_a_method(copy, tiny):
    trained, tested, told = follow("A method", copy, tiny)
    assert "LwF+matching" in trained
    assert int(re.search(r"(\d+) passed", tested)[1]) >= 5
    assert int(re.search(r"(\d+) passed", told)[1]) >= 5


@pytest.mark.slow
def test_a_mechanism(copy, tiny):
    before = contents(copy)
    tested, trained, recorded = follow("A method with a mechanism of its own", copy, tiny)
    assert int(re.search(r"(\d+) passed", tested)[1]) == 3
    assert "MiB" in trained and recorded.startswith("recorded revision")
    after = contents(copy)
    touched = {name for name in before | after if before.get(name) != after.get(name)}
    assert touched == {
        "sparcl_lib/methods/averaging.py",
        "sparcl_lib/methods/method.py",
        "tests/methods/test_averaging.py",
        "sparcl_lib/revision/recorded.json",
    }


def test_a_term_of_your_own(copy, tiny):
    (file,) = blocks("A term of your own", "python")
    (copy / "my_terms.py").write_text(file, "utf-8")
    (trained,) = follow("A term of your own", copy, tiny)
    assert "FT" in trained
    assert "cosine_kd" in (copy / "runs/cosine/logs/step-1/metrics.csv").read_text("utf-8")


def test_a_mechanism_of_your_own(copy, tiny):
    (file,) = blocks("A mechanism of your own", "python")
    (copy / "my_mechanism.py").write_text(file, "utf-8")
    (trained,) = follow("A mechanism of your own", copy, tiny)
    assert "MiB" in trained
    checkpoints = [copy / f"runs/replay/step-{k}/checkpoint.pt" for k in (0, 1)]
    states = [torch.load(file)["mechanisms"]["replay"]["batches"] for file in checkpoints]
    kept = [[images.shape[0] for images, _ in state] for state in states]
    assert kept == [[4, 4], [4, 4, 4, 4]], "two batches of each step"


def test_a_backbone_of_your_own(copy, tiny):
    (file,) = blocks("A backbone of your own", "python")
    (copy / "my_backbone.py").write_text(file, "utf-8")
    (trained,) = follow("A backbone of your own", copy, tiny)
    network = torch.load(copy / "runs/resnet34/step-1/checkpoint.pt")["network"]
    assert "MiB" in trained and network["backbone"] == "resnet34"


@pytest.mark.slow
def test_a_loss(copy, tiny):
    battery, terms, trained = follow("A loss", copy, tiny)
    assert int(re.search(r"(\d+) passed", battery)[1]) >= 10
    assert int(re.search(r"(\d+) passed", terms)[1]) >= 1
    assert "LwF" in trained


def test_the_battery_asks_for_a_new_loss(copy):
    """Without its entry in the tests, a new loss is refused."""
    library = blocks("A loss", "diff")[0]
    assert library.startswith("+++ sparcl_lib/losses/")
    apply(library, copy)
    with pytest.raises(AssertionError, match="1 failed"):
        run("python -m pytest -q tests/losses/test_losses.py -k battery_covers", copy)


def test_a_data_set(copy):
    make_voc_tree(copy / "farm", {"a": [1], "b": [2, 3], "c": [3], "d": [1]}, val=["d"])
    printed, tested = follow("A data set", copy)
    assert printed == "step 0: 2 images, cow, sheep\nstep 1: 2 images, horse\n"
    assert int(re.search(r"(\d+) passed", tested)[1]) >= 10


def test_a_task(copy, tiny):
    (description,) = blocks("A task", "yaml")
    (copy / "round_first.yaml").write_text(description, "utf-8")
    own, named = follow("A task", copy, tiny)
    assert own.count("images") == named.count("images") == 2
