"""What belongs where in the published trees, SBD's annotations, and both on the real masks."""

import os
from pathlib import Path

import numpy as np
import pytest
from published_data import mat

from sparcl_lib.cli import main
from sparcl_lib.data.acquiring import layouts, sbd
from sparcl_lib.data.acquiring.unpack import names
from sparcl_lib.errors import UserError

FOLDER = os.environ.get("SPARCL_TEST_DATA")
NEEDS_DATA = pytest.mark.skipif(not FOLDER, reason="SPARCL_TEST_DATA names no folder of real data")
TREE = layouts.VOC2012.tree


def test_sbd_annotations_that_are_none(tmp_path):
    for name, content in (
        ("text", b"no matlab"),
        ("empty", b""),
        ("other", mat(np.zeros((2, 2, 3), np.uint8))),
        ("wide", mat(np.zeros((2, 2), np.uint16))),
    ):
        path = tmp_path / f"{name}.mat"
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.mat is no annotation of SBD"):
            sbd.read_mat(path)
    with pytest.raises(UserError, match="missing.mat"):
        sbd.convert(tmp_path, tmp_path / "out", ["missing"], progress=False)


def test_train_aug_is_all_of_sbd_and_train_without_val():
    assert sbd.train_aug(["b", "v", "c"], ["c", "a"], ["v", "w"]) == ["a", "b", "c"]


def test_published_layouts_are_told_by_their_names():
    assert layouts.place_voc("x/VOC2012/JPEGImages/a.jpg") == "JPEGImages/a.jpg"
    assert layouts.place_voc("lists/val.txt") == "ImageSets/Segmentation/val.txt"
    for name in ("benchmark_RELEASE/dataset/val.txt", "dataset/val.txt", "a/b/val.txt", "a.jpg"):
        assert layouts.place_voc(name) is None
    assert layouts.place_sbd("r/dataset/cls/a.mat") == "sbd/cls/a.mat"
    for name in ("r/dataset/inst/a.mat", "r/train.txt", "SegmentationClass/a.png", "a.mat"):
        assert layouts.place_sbd(name) is None
    assert layouts.place_ade("x/images/training/a.jpg") == "images/training/a.jpg"
    assert layouts.place_ade("x/images/release/a.jpg") is None


@NEEDS_DATA
def test_the_real_masks_from_the_zip_in_circulation(tmp_path, capsys):
    own = Path(FOLDER)
    masks = own / "SegmentationClassAug.zip"
    assert sum(layouts.place_sbd(name) is not None for name in names(masks)) == 12031
    with pytest.raises(SystemExit) as stop:
        main(["data", "voc2012", "--root", str(tmp_path), "--partial",
              "--from", str(masks), "--from", str(own / "voc_lists")])  # fmt: skip
    out = capsys.readouterr().out
    assert not stop.value.code and "OK   train: 10582 masks decode" in out
    listed = (tmp_path / TREE / "ImageSets/Segmentation/train_aug.txt").read_text("utf-8").split()
    official = (own / "voc_lists" / "train_aug.txt").read_text("utf-8").split()
    assert listed == official and len(listed) == 10582


@NEEDS_DATA
def test_the_computed_list_is_the_official_one(tmp_path):
    """Without VOC's val, whatever SBD calls its two halves, it is the list of the field."""
    lists = Path(FOLDER) / "voc_lists"
    official, train, val = (
        (lists / f"{name}.txt").read_text("utf-8").split() for name in ("train_aug", "train", "val")
    )
    of_sbd = (set(official) - set(train)) | set(train[::3]) | set(val[::2])
    assert sbd.train_aug(of_sbd, train, val) == official
