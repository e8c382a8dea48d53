"""Lists that make a run another one than it looks: each gave wrong numbers without a word."""

from pathlib import Path

import pytest
from conftest import make_voc_tree, write_list
from custom_data import SMALL

from sparcl_lib.cli import main
from sparcl_lib.config import parse_settings
from sparcl_lib.data import Presence, voc_source
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
