"""Where data sets lie on disk, and what is said when something is missing there."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_voc_tree, write_list
from PIL import Image

from sparcl_lib.data import Source, ade20k_source, check_pairs, open_source, scan, voc_source
from sparcl_lib.data.checking import check
from sparcl_lib.errors import UserError
from sparcl_lib.tasks import MINIVOC_CLASSES, VOC_CLASSES

MASKS = {"a": {1}, "b": {15}, "c": {2}, "v": {1, 255}}


@pytest.fixture
def tree(tmp_path) -> Path:
    return make_voc_tree(tmp_path / "data" / "VOCdevkit" / "VOC2012", MASKS, val=["v"])


def test_any_of_three_roots(tree):
    for root in (tree, tree.parent, str(tree.parent.parent)):
        source = voc_source(root)
        assert source.root == tree and source.name == "voc" and source.classes == VOC_CLASSES
        assert source.ids("train") == ("a", "b", "c") and source.ids("val") == ("v",)


def test_a_root_at_home(tree, tmp_path, monkeypatch):
    """The shell leaves ~ in `--data-root=~/data` and in a quoted one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_source("voc", "~/data").root == tree
    ade_tree(tmp_path)
    assert open_source("ade20k", "~").root == tmp_path / "ADEChallengeData2016"


def test_a_data_set_made_by_hand_needs_no_file(tree):
    made = replace(voc_source(tree), values={0: 0, 1: 1, 2: 2})
    with pytest.raises(UserError, match="b.png holds value 15, but 'voc' has the values 0 to 2 or"):
        scan(made, "train", progress=False)
    (failed,) = [text for fine, text in check(made, partial=True, progress=False) if not fine]
    assert failed.endswith("(0 to 2 or 255); give these pixels a class, or 255 for void")


def test_paths(tree):
    source = voc_source(tree)
    assert source.mask("train", "a") == str(tree / "SegmentationClassAug" / "a.png")
    assert source.photo("val", "v") == str(tree / "JPEGImages" / "v.jpg")
    mini = voc_source(tree, "minivoc", MINIVOC_CLASSES)
    assert mini.name == "minivoc" and mini.classes == MINIVOC_CLASSES


def test_png_photographs(tmp_path):
    source = voc_source(make_voc_tree(tmp_path, MASKS, photo_suffix=".png"))
    assert source.photo("train", "a").endswith("a.png")


def test_augmented_masks_need_their_list(tree):
    lists = tree / "ImageSets" / "Segmentation"
    plain = make_voc_tree(tree, {"p": {3}}, val=["v"], aug=False)
    assert voc_source(plain).ids("train") == ("a", "b", "c")
    (lists / "train_aug.txt").rename(lists / "trainaug.txt")
    assert voc_source(plain).ids("train") == ("a", "b", "c")
    (lists / "trainaug.txt").unlink()
    source = voc_source(plain)
    assert source.ids("train") == ("p",)
    for split in ("train", "val"):
        assert source.split(split).masks.name == "SegmentationClass"


def test_lists_tolerate_blanks(tree):
    path = tree / "ImageSets" / "Segmentation" / "train_aug.txt"
    path.write_text("a \r\n\n  b\t\n", "utf-8")
    assert voc_source(tree).ids("train") == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"empty split 'train': .*train_aug.txt names no image"),
        ("\n \n", "empty split 'train'"),
        ("a\nb\na\n", r"train_aug.txt lists id 'a' 2 times; keep it once"),
    ],
)
def test_bad_lists(tree, text, message):
    (tree / "ImageSets" / "Segmentation" / "train_aug.txt").write_text(text, "utf-8")
    with pytest.raises(UserError, match=message):
        voc_source(tree).ids("train")


def test_list_that_is_not_text(tree):
    (tree / "ImageSets" / "Segmentation" / "val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="val.txt is not text in UTF-8; save it as such"):
        voc_source(tree).ids("val")


def test_missing_val_list_matters_only_when_used(tree):
    (tree / "ImageSets" / "Segmentation" / "val.txt").unlink()
    source = voc_source(tree)
    assert len(source.ids("train")) == 3
    with pytest.raises(UserError, match="cannot read id list .*val.txt: No such file"):
        source.ids("val")


def test_missing_parts(tree, tmp_path):
    with pytest.raises(UserError, match="'voc': .*nowhere is not a folder; point .*VOCd"):
        voc_source(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no ImageSets/Segmentation; point --data-root at a"):
        voc_source(tmp_path, "mine")
    (tree / "SegmentationClassAug").rename(tree / "elsewhere")
    with pytest.raises(UserError, match="has no SegmentationClassAug with .*train_aug.txt"):
        voc_source(tree)


def test_unknown_split(tree):
    with pytest.raises(UserError, match="unknown split of voc 'vall'; did you mean 'val'"):
        voc_source(tree).ids("vall")


def ade_tree(root: Path) -> Path:
    for split, ids in (("training", ["t2", "t1"]), ("validation", ["v1"])):
        for folder, suffix in (("images", "jpg"), ("annotations", "png")):
            path = root / "ADEChallengeData2016" / folder / split
            path.mkdir(parents=True)
            for image_id in ids:
                mode = "RGB" if folder == "images" else "L"
                Image.new(mode, (8, 6)).save(path / f"{image_id}.{suffix}")
    return root


def test_ade20k(tmp_path):
    root = ade_tree(tmp_path)
    for base in (root, root / "ADEChallengeData2016"):
        source = ade20k_source(base)
        assert source.ids("train") == ("t1", "t2") and source.ids("val") == ("v1",)
        assert len(source.classes) == 151
        assert Path(source.photo("val", "v1")).is_file()
        assert check_pairs(source, "train") is None


def test_ade20k_errors(tmp_path):
    with pytest.raises(UserError, match="'ade20k': .* has no annotations/training; point"):
        ade20k_source(tmp_path)
    source = ade20k_source(ade_tree(tmp_path))
    validation = source.split("val").masks
    (validation / "v1.png").unlink()
    with pytest.raises(UserError, match="empty split 'val': .*validation names no image"):
        source.ids("val")
    validation.rmdir()
    with pytest.raises(UserError, match="cannot read mask folder .*validation: No such file"):
        source.ids("val")


@pytest.fixture
def source(tree) -> Source:
    return voc_source(tree)


def test_check_pairs_accepts_a_whole_tree(source):
    assert check_pairs(source, "train") is None
    assert check_pairs(source, "val") is None


def test_photograph_missing(source):
    Path(source.photo("train", "b")).unlink()
    with pytest.raises(
        UserError, match=r"photograph .*b.jpg \(or .jpeg, .png, .*\) of id 'b' in .* missing"
    ):
        check_pairs(source, "train")


def test_mask_missing(source):
    Path(source.mask("train", "b")).unlink()
    with pytest.raises(UserError, match="mask .*b.png of id 'b' is missing; add it, or take"):
        check_pairs(source, "train")


def test_photograph_of_another_size(source):
    Image.new("RGB", (9, 6)).save(source.photo("train", "b"))
    with pytest.raises(UserError, match="b.jpg is 9x6 pixels but its mask .*b.png is 8x6; make"):
        check_pairs(source, "train")


def test_photograph_unreadable(source):
    Path(source.photo("train", "b")).write_text("not a picture", "utf-8")
    with pytest.raises(
        UserError, match="photograph .*b.jpg is no image that can be read; restore it"
    ):
        check_pairs(source, "train")


def test_id_without_any_file(source, tree):
    write_list(tree / "ImageSets" / "Segmentation" / "train_aug.txt", ["a", "ghost"])
    with pytest.raises(UserError, match="of id 'ghost' is missing"):
        check_pairs(source, "train")
