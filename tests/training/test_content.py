"""A run is known by content: what differs is refused by name, what only moved is found, and a class
that arrives is learned on top of a finished run."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_voc_tree
from custom_data import SMALL, camvid_tree, describe
from PIL import Image

from sparcl_lib.cli import main
from sparcl_lib.config import RunConfig, parse_settings, resolve
from sparcl_lib.data import presence
from sparcl_lib.errors import UserError
from sparcl_lib.plain import read_yaml
from sparcl_lib.report import load_runs, results_text
from sparcl_lib.training import RunDirectory, evaluate, run_directory, train, workspace
from sparcl_lib.training.content import content_from_plain, content_to_plain
from sparcl_lib.training.identity import read_identity

CLASSES = {"background": 0, "a": 1, "b": 2, "c": 3}
TWO_STEPS = "steps: [[a, b], [c]]\n"


def write_data(root: Path, **content: Any) -> Path:
    """Photographs and masks of the values 0 to 3, all of them in each image."""
    camvid_tree(root, range(4), train=4)
    return describe(root, classes=CLASSES, **content)


def config(root: Path, *settings: str, method: str = "FT", **fixed: Any) -> RunConfig:
    layers = [parse_settings([*SMALL, "model.weights=null", *settings])]
    fixed = {"task": str(root / "task.yaml"), "setup": "overlapped", **fixed}
    return resolve(str(root / "data.yaml"), method, layers, **fixed)


def fit(root: Path, out: Path, *settings: str, **options: Any) -> dict[str, Any]:
    known = {k: options.pop(k) for k in ("method", "setup") if k in options}
    return train(config(root, *settings, **known), out, accelerator="cpu", **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with data, a task of two steps, and a run whose first step is trained."""
    place = tmp_path_factory.mktemp("content")
    write_data(place / "mine")
    (place / "mine" / "task.yaml").write_text(TWO_STEPS, "utf-8")
    fit(place / "mine", place / "run", steps=[0])
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to which the run's paths point."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text("utf-8").replace(str(trained), str(tmp_path)), "utf-8")
    return tmp_path


def in_every_way(place: Path) -> list[Callable[[], Any]]:
    run = place / "run"
    return [
        lambda: evaluate(run, accelerator="cpu"),
        lambda: fit(place / "mine", run, resume=True),
        lambda: fit(place / "mine", place / "other", start_from=run),
    ]


def refused(place: Path, message: str, ways: int = 3) -> None:
    """By evaluate, --resume and --start-from, in one line, and nothing is written."""
    run = place / "run"
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    for go_on in in_every_way(place)[:ways]:
        with pytest.raises(UserError) as error:
            go_on()
        expected = f"run was trained on something else: {message}; restore that, or train another"
        assert re.search(expected, str(error.value)), str(error.value)
        assert "\n" not in str(error.value)
    assert before == {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert not (place / "other").exists()


def redraw(file: Path) -> None:
    pixels = np.array(Image.open(file))
    Image.fromarray(np.roll(pixels, 6, axis=1)).save(file)


# (a) What differs is refused
def test_nothing_changed_is_accepted(place):
    before = RunDirectory(place / "run").metrics()
    assert evaluate(place / "run", accelerator="cpu") == before
    assert [s["step"] for s in in_every_way(place)[1]()["steps"]] == [0, 1]


def test_which_device_trained_a_step_is_written_down(place):
    """A step of version 0.3 does not know; what was measured with it stays as it was."""
    fit(place / "mine", place / "run", resume=True)
    run = RunDirectory(place / "run")
    before = run.metrics()
    assert before["accelerators"] == ["cpu", "cpu"]
    state = run.load_checkpoint(0)
    del state["accelerator"]
    run.save_checkpoint(0, state)
    assert evaluate(place / "run", accelerator="cpu") == {**before, "accelerators": [None, "cpu"]}


def test_another_order_of_classes_in_the_task_file(place):
    """Printed 0.0 and overwrote metrics.json."""
    (place / "mine" / "task.yaml").write_text("steps: [[b, a], [c]]\n", "utf-8")
    refused(place, r"step 0 learns \[b, a\] now and learned \[a, b\]")


def test_a_class_moved_to_another_step(place):
    (place / "mine" / "task.yaml").write_text("steps: [[a], [b, c]]\n", "utf-8")
    refused(place, r"step 0 learns \[a\] now and learned \[a, b\]")


def test_unused_classes_are_something_else(place):
    (place / "mine" / "task.yaml").write_text(f"{TWO_STEPS}unused: ignore\n", "utf-8")
    refused(place, "classes that no step learns are 'ignore' now and were 'background'")


def test_classes_swapped_in_the_description(place):
    describe(place / "mine", classes={**CLASSES, "a": 2, "b": 1})
    refused(place, "mask value 1 is class 'b' now and was class 'a'")


def test_a_class_that_became_void(place):
    describe(place / "mine", classes={**CLASSES, "x": 9}, void=[])
    describe(place / "mine", classes={"background": 0, "a": 1, "c": 3, "b": 7}, void=2)
    refused(place, "mask value 2 is void now and was class 'b'")


def test_void_that_became_background(tmp_path):
    write_data(tmp_path / "mine")
    describe(tmp_path / "mine", classes={"background": 0, "a": 1, "b": 2}, void=3)
    (tmp_path / "mine" / "task.yaml").write_text("steps: [[a, b]]\n", "utf-8")
    fit(tmp_path / "mine", tmp_path / "run")
    describe(tmp_path / "mine", classes={"background": [0, 3], "a": 1, "b": 2})
    refused(tmp_path, "mask value 3 is class 'background' now and was void")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_redrawn_mask_and_a_replaced_photograph(place, split):
    mask = sorted((place / "mine" / f"{split}annot").iterdir())[1]
    drawn = mask.read_bytes()
    redraw(mask)
    refused(place, f"mask {mask} was redrawn or saved anew")
    mask.write_bytes(drawn)
    photo = place / "mine" / split / mask.name
    redraw(photo)
    refused(place, f"photograph {photo} was replaced or saved anew")


def test_an_image_less_and_an_image_more(place):
    mask = place / "mine" / "trainannot" / "0001TP_000003.png"
    mask.rename(place / "away.png")
    refused(place, "step 0 trains without 0001TP_000003 now")
    (place / "away.png").rename(mask)
    for folder in ("train", "trainannot"):
        file = place / "mine" / folder / "0001TP_000003.png"
        shutil.copyfile(file, file.with_name("new.png"))
    refused(place, "step 0 trains with new now")


def test_an_image_more_to_test_on(place):
    for folder in ("val", "valannot"):
        file = place / "mine" / folder / "0001TP_000003.png"
        shutil.copyfile(file, file.with_name("new.png"))
    refused(place, "step 0 is tested with new now")


def test_a_teacher_that_differs_is_refused_while_steps_are_trained(place):
    """A run of several steps reads the step before from disk."""
    (place / "mine" / "task.yaml").write_text("steps: [[b, a], [c]]\n", "utf-8")
    with pytest.raises(UserError, match="step 0 learns"):
        fit(place / "mine", place / "run", steps=[1])


def test_other_backbone_weights(place):
    weights = place / "w.pth"
    weights.write_bytes(b"other")
    setting = f"model.weights={weights}"
    message = "backbone weights are [0-9a-f]{64} now and were None"
    with pytest.raises(UserError, match=message):
        fit(place / "mine", place / "other", setting, start_from=place / "run")


def test_the_other_setup_is_refused(place):
    with pytest.raises(UserError, match="setup .overlapped there, sequential here"):
        fit(place / "mine", place / "other", start_from=place / "run", setup="sequential")


# (b) What only moved is found
def evaluated(run: Path, **places: Any) -> list[int]:
    return [s["step"] for s in evaluate(run, accelerator="cpu", **places)["steps"]]


def test_a_moved_folder(place, monkeypatch):
    """`mv own ownB`: evaluate, resume and start-from failed, though nothing changed."""
    (place / "mine").rename(place / "moved")
    moved, run = place / "moved", place / "run"
    with pytest.raises(UserError, match="data.yaml, the data set of .*run, is not there any more"):
        evaluate(run, accelerator="cpu")
    shutil.copytree(run, place / "copy")
    assert evaluated(run, data_root=str(moved)) == [0]
    assert evaluated(run) == [0], "the run remembers the place"
    assert evaluated(place / "copy", dataset=str(moved / "data.yaml")) == [0]
    assert len(fit(moved, run, resume=True)["steps"]) == 2
    assert len(fit(moved, place / "other", start_from=run)["steps"]) == 2


def test_a_configuration_edited_by_hand(place):
    (place / "mine").rename(place / "moved")
    file = place / "run" / "config.yaml"
    file.write_text(file.read_text("utf-8").replace("/mine/", "/moved/"), "utf-8")
    assert evaluated(place / "run") == [0]


def test_run_and_data_moved_together(place):
    (place / "all").mkdir()
    for name in ("mine", "run"):
        (place / name).rename(place / "all" / name)
    assert evaluated(place / "all" / "run") == [0]


def test_a_task_file_that_is_gone_is_not_needed_to_evaluate(place):
    (place / "mine" / "task.yaml").unlink()
    assert evaluated(place / "run") == [0]


def test_the_options_of_the_command(place, capsys):
    (place / "mine").rename(place / "moved")
    for options in (["--data-root", place / "moved"], ["--dataset", place / "moved" / "data.yaml"]):
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", str(place / "run"), "--accelerator", "cpu", *map(str, options)])
        assert not stop.value.code, capsys.readouterr().err


def test_another_data_set_is_no_other_place(place):
    with pytest.raises(UserError, match="was trained on .*data.yaml, not voc: leave --dataset out"):
        evaluate(place / "run", dataset="voc", accelerator="cpu")
    other = write_data(place / "other_data")
    redraw(place / "other_data" / "valannot" / "0001TP_000000.png")
    with pytest.raises(UserError, match="other_data/valannot/0001TP_000000.png was redrawn"):
        evaluate(place / "run", dataset=str(other), accelerator="cpu")


def test_relative_paths_hold_in_another_working_folder(tmp_path, monkeypatch):
    """VOC with a relative task file and relative lists."""
    masks = {f"i{n}": np.full((32, 32), 1 + n % 2, np.uint8) for n in range(8)}
    make_voc_tree(tmp_path / "voc", masks, val=["i6", "i7"])
    (tmp_path / "t.yaml").write_text("steps: [[aeroplane], [bicycle]]\n", "utf-8")
    (tmp_path / "lists").mkdir()
    for step, ids in ((0, "i0\ni2\n"), (1, "i1\ni3\n")):
        (tmp_path / "lists" / f"train-{step}.txt").write_text(ids, "utf-8")
    monkeypatch.chdir(tmp_path)
    layers = [parse_settings([*SMALL, "model.weights=null", "data.splits=lists"])]
    chosen = resolve("voc", "FT", layers, task="t.yaml", data_root="voc")
    train(chosen, "run", steps=[0], accelerator="cpu")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluated(Path("../run")) == [0]
    (tmp_path / "voc").rename(tmp_path / "devkit")
    assert evaluated(Path("../run"), data_root="../devkit") == [0]
    os.remove(tmp_path / "t.yaml")
    shutil.rmtree(tmp_path / "lists")
    assert evaluated(Path("../run")) == [0], "what they said is in the run"


def test_identity_holds_no_path_and_follows_content(place, tmp_path):
    first = read_identity(config(place / "mine"))
    (place / "mine").rename(place / "moved")
    assert read_identity(config(place / "moved")) == first
    assert str(tmp_path) not in json.dumps(first)
    redraw(place / "moved" / "valannot" / "0001TP_000000.png")
    assert read_identity(config(place / "moved")).first != first.first
    (place / "moved" / "task.yaml").write_text("steps: [[b, a], [c]]\n", "utf-8")
    assert read_identity(config(place / "moved")).run["steps"] == [["b", "a"], ["c"]]


def test_a_name_in_the_files_keeps_the_run_when_they_are_renamed(place):
    """Without one the file's name is the name, and a kept run is not found under another."""
    root, named = place / "mine", f"name: mine\n{TWO_STEPS}"

    def of(data: str, task: str) -> Any:
        known = {"task": str(root / task), "setup": "overlapped"}
        layers = [parse_settings(["model.weights=null"])]
        return read_identity(resolve(str(root / data), "FT", layers, **known))

    before = of("data.yaml", "task.yaml")
    (root / "task.yaml").rename(root / "other.yaml")
    assert of("data.yaml", "other.yaml") != before
    (root / "other.yaml").write_text(f"name: task\n{TWO_STEPS}", "utf-8")
    assert of("data.yaml", "other.yaml") == before, "its old name brings it back"
    describe(root, classes=CLASSES, name="streets")
    (root / "other.yaml").write_text(named, "utf-8")
    kept = of("data.yaml", "other.yaml")
    (root / "data.yaml").rename(root / "renamed.yaml")
    (root / "other.yaml").rename(root / "again.yaml")
    assert of("renamed.yaml", "again.yaml") == kept


def test_content_comes_back_from_yaml_as_it_was(place):
    content = RunDirectory(place / "run").content()
    plain = content_to_plain(content)
    assert plain["classes"] == CLASSES and plain["void"] == [255]
    assert content_from_plain(plain) == content
    known = torch.load(place / "run" / "step-0" / "checkpoint.pt", weights_only=True)
    assert content_from_plain(known["content"]) == content
    with pytest.raises(UserError, match="content.steps|content.dataset|unknown setting"):
        content_from_plain({**plain, "dataset": 3})


def test_config_yaml_of_a_run_is_a_settings_file_for_another(place):
    saved = place / "run" / "config.yaml"
    chosen = config(place / "mine")
    again = resolve(chosen.dataset, "FT", [read_yaml(saved)], task=chosen.task, setup=chosen.setup)
    assert again == chosen


# (c) A class arrives
@pytest.fixture
def grown(place) -> Path:
    """The run finished, and a step appended to its task."""
    describe(place / "mine", classes={"background": [0, 3], "a": 1, "b": 2})
    (place / "mine" / "task.yaml").write_text("steps: [[a], [b]]\n", "utf-8")
    shutil.rmtree(place / "run")
    fit(place / "mine", place / "run")
    describe(place / "mine", classes=CLASSES)
    (place / "mine" / "task.yaml").write_text("steps: [[a], [b], [c]]\n", "utf-8")
    return place


def check_grown(metrics: dict[str, Any]) -> None:
    assert metrics["classes"] == [["a"], ["b"], ["c"]]
    assert [s["step"] for s in metrics["steps"]] == [0, 1, 2]
    assert list(metrics["steps"][2]["class_iou"]) == ["background", "a", "b", "c"]


def test_a_step_is_appended_and_the_run_goes_on(grown):
    run = RunDirectory(grown / "run")
    old = run.load_checkpoint(0)["model"]
    metrics = fit(grown / "mine", grown / "run", resume=True)
    check_grown(metrics)
    assert all(torch.equal(v, run.load_checkpoint(0)["model"][k]) for k, v in old.items())
    assert run.content().steps == (("a",), ("b",), ("c",)) and run.metrics() == metrics
    (reported,) = load_runs([grown / "run"])
    assert reported.finished and "task" in results_text([reported])
    assert evaluate(grown / "run", accelerator="cpu")["steps"] == metrics["steps"]


def test_a_step_is_appended_and_another_run_starts_from_step_0(grown):
    check_grown(fit(grown / "mine", grown / "new", start_from=grown / "run"))


def test_settings_per_step_may_name_the_new_step(grown):
    metrics = fit(grown / "mine", grown / "run", "optim.lr=[0.001, 1e-4, 0.01]", resume=True)
    check_grown(metrics)
    with pytest.raises(UserError, match=r"optim.lr=\[0.001, 0.0001, 0.01\], not \[0.001, 0.1, 0.1"):
        fit(grown / "mine", grown / "run", "optim.lr=[0.001, 0.1]", resume=True)


def test_earlier_steps_must_agree_when_one_is_appended(grown):
    (grown / "mine" / "task.yaml").write_text("steps: [[b], [a], [c]]\n", "utf-8")
    refused(grown, r"step 0 learns \[b\] now and learned \[a\]")
    (grown / "mine" / "task.yaml").write_text("steps: [[a], [b], [c]]\n", "utf-8")
    describe(grown / "mine", classes={**CLASSES, "b": 3, "c": 2})
    # For step 0, which --start-from takes, both were of the future.
    refused(grown, "mask value 2 is class 'c' now and was class 'b'", ways=2)
    describe(grown / "mine", classes=CLASSES)
    mask = grown / "mine" / "trainannot" / "0001TP_000000.png"
    redraw(mask)
    refused(grown, f"mask {mask} was redrawn or saved anew")


def test_a_start_reads_what_it_needs_once(place, monkeypatch):
    """A run of eleven steps read some ninety checkpoints, and each start every mask four times."""
    read = Counter()

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)

        def call(*given: Any, **named: Any) -> Any:
            read[name] += 1
            return function(*given, **named)

        monkeypatch.setattr(module, name, call)

    counted(run_directory, "read_checkpoint")
    counted(workspace, "scan")
    counted(presence, "scan")
    counted(workspace, "image_checksums")
    fit(place / "mine", place / "run", resume=True)
    assert read == {"read_checkpoint": 2, "scan": 2, "image_checksums": 1}  # step 0, then to train
    read.clear()
    fit(place / "mine", place / "run", resume=True)
    assert read == {"read_checkpoint": 2, "scan": 2, "image_checksums": 1}  # of each step


def test_new_images_may_come_with_a_new_class(grown):
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            file = grown / "mine" / folder / "0001TP_000003.png"
            shutil.copyfile(file, file.with_name("new.png"))
    metrics = fit(grown / "mine", grown / "run", resume=True)
    check_grown(metrics)
    assert metrics["images"] == {"0": 4, "1": 4, "2": 5}


def test_a_trained_step_keeps_its_images_and_is_evaluated_anew(place, capsys):
    """In the disjoint setup every image shows the new class, and belongs to its step now."""
    shutil.rmtree(place / "run")
    task = place / "mine" / "task.yaml"
    task.write_text("steps: [[a, b]]\n", "utf-8")
    before = fit(place / "mine", place / "run", setup="disjoint")
    known = RunDirectory(place / "run").load_checkpoint(0)["confusion"]
    task.write_text(TWO_STEPS, "utf-8")
    metrics = fit(place / "mine", place / "run", setup="disjoint", resume=True)
    assert metrics["images"] == {"0": 4, "1": 4} and before["images"] == {"0": 4}
    told = "step 0 stays as it was trained, on 4 images; a run from the start would train it on 0"
    assert told in capsys.readouterr().err
    # Pixels of c were background at test; of the future now, they are left out.
    now = RunDirectory(place / "run").load_checkpoint(0)["confusion"]
    assert now.sum() < known.sum() and now[1:].equal(known[1:])


def test_joint_training_has_no_later_step(place):
    task = place / "mine" / "task.yaml"
    fit(place / "mine", place / "joint", method="Joint")
    task.write_text("steps: [[a, b], [c], [d]]\n", "utf-8")
    describe(place / "mine", classes={**CLASSES, "d": 4})
    redrawn = place / "mine" / "trainannot" / "0001TP_000000.png"
    pixels = np.array(Image.open(redrawn))
    for split in ("train", "val"):
        new = place / "mine" / f"{split}annot" / "new.png"
        Image.fromarray(np.where(pixels == 3, 4, pixels)).save(new)
        shutil.copyfile(place / "mine" / "train" / redrawn.name, place / "mine" / split / "new.png")
    message = "joint training learns all classes at once, and d is new"
    with pytest.raises(UserError, match=message):
        fit(place / "mine", place / "joint", method="Joint", resume=True)


def test_a_class_without_an_iou_has_no_forgetting(place):
    """No test image shows it and nothing is taken for it: NaN, at which JSON failed."""
    fit(place / "mine", place / "run", resume=True)
    run = RunDirectory(place / "run")
    state = run.load_checkpoint(1)
    state["confusion"][2] = state["confusion"][:, 2] = 0
    run.save_checkpoint(1, state)
    metrics = fit(place / "mine", place / "run", resume=True)
    assert metrics["forgetting"]["b"] is None and metrics["forgetting"]["a"] is not None
    assert run.metrics() == metrics


# Runs of version 0.2
def test_a_run_without_a_record_is_checked_by_the_names_of_its_classes(place):
    run = RunDirectory(place / "run")
    state = run.load_checkpoint(0)
    for key in ("content", "images", "evaluated", "evaluation_sha256"):
        del state[key]
    run.save_checkpoint(0, state)
    assert evaluated(place / "run") == [0]
    run.save_checkpoint(0, state)
    fit(place / "mine", place / "run", steps=[0], resume=True)
    assert "evaluation_sha256" in run.load_checkpoint(0), "what it was measured on is not known"
    state = {k: v for k, v in run.load_checkpoint(0).items() if k != "content"}
    run.save_checkpoint(0, state)
    (place / "mine" / "task.yaml").write_text("steps: [[b, a], [c]]\n", "utf-8")
    refused(place, r"step 0 learns \[b, a\] now and learned \[a, b\]")


def forget(run: Path, config_too: bool) -> None:
    """What version 0.3 records beside what 0.2 did."""
    directory = RunDirectory(run)
    state = directory.load_checkpoint(0)
    for key in ("content", "images", "evaluated", "evaluation_sha256"):
        state.pop(key, None)
    directory.save_checkpoint(0, state)
    if config_too:
        text = directory.config_file.read_text("utf-8")
        directory.config_file.write_text(text.partition("# What the files named")[0], "utf-8")


def test_classes_that_were_swapped_under_a_run_without_a_record(place):
    """Names and images agreed, so that evaluation went from 82.5 to 0.0 and was written down."""
    mask = place / "mine" / "valannot" / "0001TP_000001.png"
    pixels = np.array(Image.open(mask))
    Image.fromarray(np.where(pixels == 2, 1, pixels)).save(mask)  # else all classes are as large
    shutil.rmtree(place / "run")
    fit(place / "mine", place / "run", steps=[0])
    forget(place / "run", config_too=True)
    swapped = {**CLASSES, "a": 2, "b": 1}
    describe(place / "mine", classes=swapped)
    refused(place, r"class 'a' has \d+ test pixels now and had \d+")
    describe(place / "mine", classes=CLASSES)
    assert evaluated(place / "run") == [0]
    run = RunDirectory(place / "run")
    assert content_from_plain(run.load_checkpoint(0)["content"]) == run.content()
    describe(place / "mine", classes=swapped)
    refused(place, "mask value 1 is class 'b' now and was class 'a'")


def test_a_run_without_a_record_is_known_by_its_config_yaml_if_that_has_one(place):
    forget(place / "run", config_too=False)
    describe(place / "mine", classes={**CLASSES, "a": 2, "b": 1})
    refused(place, "mask value 1 is class 'b' now and was class 'a'")
    describe(place / "mine", classes=CLASSES)
    redraw(place / "mine" / "trainannot" / "0001TP_000001.png")
    refused(place, f"a list, mask or photograph in {place / 'mine'} is another one now")


# A checkpoint belongs to the run in whose folder it lies
def test_a_checkpoint_of_another_run(place):
    """Another seed's network was evaluated, and its numbers written down as this run's."""
    fit(place / "mine", place / "run", resume=True)
    fit(place / "mine", place / "seed5", "seed=5")
    for step, key in ((0, "seed"), (1, "seed")):
        file = f"step-{step}/checkpoint.pt"
        kept = (place / "run" / file).read_bytes()
        shutil.copy(place / "seed5" / file, place / "run" / file)
        before = (place / "run" / "metrics.json").read_bytes()
        with pytest.raises(UserError, match=f"was trained with other settings .*{key}.*5"):
            evaluate(place / "run", accelerator="cpu")
        assert (place / "run" / "metrics.json").read_bytes() == before
        (place / "run" / file).write_bytes(kept)


@pytest.mark.parametrize(
    "old, new", [("seed: 0", "seed: 7"), ("future: ignore", "future: background")]
)
def test_a_setting_edited_in_config_yaml(place, old, new):
    file = place / "run" / "config.yaml"
    text = file.read_text("utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(UserError, match="was trained with other settings"):
        evaluate(place / "run", accelerator="cpu")


def test_a_deleted_step_is_not_trained_with_other_settings_below_later_ones(place):
    fit(place / "mine", place / "run", resume=True)
    (place / "run" / "step-0" / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match="holds a run with optim.iterations="):
        fit(place / "mine", place / "run", "optim.iterations=[9,2]", resume=True)
    fit(place / "mine", place / "run", resume=True)  # as it was: it may be trained again


def test_a_task_file_that_grew_does_not_make_a_finished_run_unfinished(grown):
    before = RunDirectory(grown / "run").metrics()
    assert evaluate(grown / "run", accelerator="cpu") == before


def test_a_test_image_that_is_gone_is_missed_after_a_step_was_appended(grown):
    fit(grown / "mine", grown / "run", resume=True)
    for folder in ("val", "valannot"):
        (grown / "mine" / folder / "0001TP_000003.png").unlink()
    with pytest.raises(UserError, match="is tested without 0001TP_000003 now"):
        evaluate(grown / "run", accelerator="cpu")
