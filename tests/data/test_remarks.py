"""Lists that make a run another one than it looks: each gave wrong numbers without a word."""

from pathlib import Path

import numpy as np
import pytest
from conftest import make_voc_tree, write_list
from custom_data import SMALL, camvid_tree, describe, save_pair

from sparcl_lib.cli import main
from sparcl_lib.config import parse_settings
from sparcl_lib.data import Presence, open_source, voc_source
from sparcl_lib.data.acquiring.convert import convert
from sparcl_lib.data.remarks import PUBLISHED, in_both, list_remarks, step_remarks
from sparcl_lib.experiments.base import RunBase, open_store
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.tasks import get_task

SHOWN = {f"a{k}": {k + 1} for k in range(20)} | {f"v{k}": {k + 1} for k in range(20)}
NUMBERS = "published numbers of voc are of the"
QUICK = (*SMALL, "model.weights=null")


def sparcl(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([*arguments])
    assert end.value.code == 0


@pytest.fixture
def tree(tmp_path) -> Path:
    return make_voc_tree(tmp_path / "voc", SHOWN, val=[f"v{k}" for k in range(20)])


def test_fewer_images_than_published_are_said(tree):
    train, val = list_remarks(voc_source(tree), published=True)
    assert train.startswith(f"train has 20 images in train_aug.txt, and {NUMBERS} 10,582 of train")
    assert val.startswith(f"val has 20 images in val.txt, and {NUMBERS} 1,449 of val.txt")
    assert list_remarks(voc_source(tree), published=False) == []  # a task of one's own


def test_train_txt_is_not_what_was_published(tmp_path, monkeypatch):
    """With the augmented masks and without their list 1,263 images came for 9,568, silently."""
    monkeypatch.setitem(PUBLISHED, "voc", {**PUBLISHED["voc"], "val.txt": 20})
    tree = make_voc_tree(tmp_path, SHOWN, val=[f"v{k}" for k in range(20)], aug=False)
    (train,) = list_remarks(voc_source(tree), published=True)
    assert train.startswith(f"train has 20 images in train.txt, and {NUMBERS} 10,582 of train_aug")


def test_images_that_are_trained_and_tested_on_are_named(tree):
    lists = tree / "ImageSets" / "Segmentation"
    write_list(lists / "val.txt", ["v0", "a3", "a1"])
    assert in_both(voc_source(tree)) == ["a1", "a3"]
    (said,) = list_remarks(voc_source(tree), published=False)
    assert said.startswith("2 images are in train and in val, so that") and "a1, a3" in said


def test_images_of_two_splits_are_told_by_their_photograph_where_masks_were_converted(tmp_path):
    """Conversion writes masks into a folder for each split, and the same images were two."""
    save_pair(tmp_path / "photos/a.png", tmp_path / "masks/a.png", np.ones((9, 9, 3), np.uint8))
    split = {"photos": "photos", "masks": "masks"}
    file = describe(tmp_path, palette={"background": [0, 0, 0], "x": [1, 1, 1]},
                    classes=["background", "x"], train=split, val=split)  # fmt: skip
    made = convert(file, tmp_path / "ids", progress=False)
    assert in_both(open_source(str(made))) == ["a"]


def test_lists_that_are_not_those_of_the_rule_are_said():
    task, presence = get_task("voc", "15-5"), Presence.from_sets({"a": {1}, "b": {16}, "c": {2}})
    assert step_remarks({0: ["a", "c"], 1: ["b"]}, presence, task, "disjoint") == []
    (said,) = step_remarks({0: ["a", "b"], 1: ["b"]}, presence, task, "disjoint")
    assert "step 0 has 1 image that the rule of the disjoint setup has not, and lacks 1" in said


def test_split_train_and_compare_say_it(tree, tmp_path, capsys):
    asked = ["--dataset", "voc", "--task", "15-5", "--data-root", str(tree)]
    sparcl("split", *asked, "--format", "counts")
    out, said = capsys.readouterr()
    assert out.startswith("step 0: 15 images") and said.count(NUMBERS) == 2
    settings = [f"--set={setting}" for setting in QUICK]
    run = ["--method", "FT", "--accelerator", "cpu", "--steps", "0", "--out", str(tmp_path / "r")]
    sparcl("train", *asked, *run, *settings)
    assert capsys.readouterr().err.count(NUMBERS) == 2
    base = RunBase(
        dataset="voc", task="15-5", data_root=str(tree), overrides=(parse_settings(QUICK),)
    )
    run_all([base.config("FT", seed) for seed in (0, 1)], open_store(tmp_path / "s"), jobs=1)
    assert capsys.readouterr().err.count(NUMBERS) == 2  # once for all


OWN = ["background", "road", "car", *(f"class {k}" for k in range(3, 12))]


def own_data(root: Path, task: str, **content: object) -> tuple[Path, Path]:
    """A description of twelve classes and one that is nowhere, and a task."""
    tree = camvid_tree(root)
    file = describe(tree, classes=[*OWN, "unicorn"], **content)
    steps = tree / "task.yaml"
    steps.write_text(task, "utf-8")
    return file, steps


def test_classes_that_no_image_shows_are_said_by_split_check_train_and_compare(tmp_path, capsys):
    """A class without a test image had an IoU of 0 in the runs that saw it somewhere, and none in
    the others, which moved means by ten points."""
    file, task = own_data(tmp_path, "steps: [[road], [car, unicorn]]")
    asked = ["--dataset", str(file), "--task", str(task)]
    learned = "no training image of step 1 shows unicorn: never learned"
    tested = "no test image shows unicorn: no IoU, and not in any mean"
    sparcl("split", *asked, "--setup", "overlapped", "--format", "counts")
    out, said = capsys.readouterr()
    assert out == "step 0: 6 images, road\nstep 1: 6 images, car, unicorn\n"
    assert learned in said and tested in said
    sparcl("data", "check", *asked)
    assert f"task task: {tested}" in capsys.readouterr().out
    settings = [f"--set={setting}" for setting in QUICK]
    run = ["--method", "FT", "--accelerator", "cpu", "--out", str(tmp_path / "r")]
    sparcl("train", *asked, "--setup", "overlapped", *run, *settings)
    said = capsys.readouterr().err
    assert learned in said and tested in said
    base = RunBase(
        dataset=str(file), task=str(task), setup="overlapped", overrides=(parse_settings(QUICK),)
    )
    run_all([base.config("FT", seed) for seed in (0, 1)], open_store(tmp_path / "s"), jobs=1)
    assert capsys.readouterr().err.count(tested) == 1


def test_photographs_without_a_mask_are_said(tmp_path, capsys):
    file, _ = own_data(tmp_path, "steps: [[road], [car]]")
    for n in (1, 3):
        (tmp_path / "trainannot" / f"0001TP_{n:06d}.png").unlink()
    said = "train: 2 photographs have no mask, and no part: 0001TP_000001, 0001TP_000003"
    (line,) = list_remarks(open_source(str(file)), published=False)
    assert line == said
    sparcl("data", "check", "--dataset", str(file))
    assert (
        "train: 2 photographs have no mask, and no part: 0001TP_000001" in capsys.readouterr().out
    )
    (tmp_path / "train.txt").write_text("0001TP_000000\n", "utf-8")  # a list says which count
    listed = {"photos": "train", "masks": "trainannot", "list": "train.txt"}
    file = describe(tmp_path, classes=OWN, train=listed)
    assert list_remarks(open_source(str(file)), published=False) == []


def test_the_same_folder_by_a_link_is_the_same_images(tmp_path):
    file, _ = own_data(tmp_path, "steps: [[road], [car]]")
    (tmp_path / "linked").symlink_to(tmp_path / "trainannot", target_is_directory=True)
    val = {"photos": "train", "masks": "linked"}
    file = describe(tmp_path, classes=OWN, val=val)
    assert len(in_both(open_source(str(file)))) == 6
