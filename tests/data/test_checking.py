"""OK and FAIL lines about a data set, every bad file by its name."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import make_mask, make_voc_tree, save_mask, unpack_real_masks, write_list
from custom_data import describe, save_pair, street_mask
from PIL import Image

from sparcl_lib.cli import main
from sparcl_lib.data import (
    Source,
    ade20k_source,
    check_pairs,
    checking,
    open_source,
    partition,
    scan,
    voc_source,
)
from sparcl_lib.data.acquiring.convert import convert
from sparcl_lib.data.checking import check, complete
from sparcl_lib.data.minivoc import generate
from sparcl_lib.errors import UserError
from sparcl_lib.tasks import Task, get_task

MASKS = {f"a{n}": {n, 255} for n in range(1, 7)} | {"v1": {1}, "v2": {2}}
VAL = ["v1", "v2"]
NEEDS_DATA = pytest.mark.skipif(
    "SPARCL_TEST_DATA" not in os.environ, reason="SPARCL_TEST_DATA names no folder of real data"
)


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A devkit of six training and two test images, as if that were the published number."""
    counts = {"train_aug.txt": 6, "train.txt": 6, "val.txt": 2}
    monkeypatch.setitem(checking.PUBLISHED, "voc", counts)
    return make_voc_tree(tmp_path / "VOC2012", MASKS, val=VAL)


def look(source: Source, **options: bool) -> list[str]:
    lines = check(source, progress=False, **options)
    assert not any("\n" in text for _, text in lines)
    return [f"{'OK' if fine else 'FAIL'} {text}" for fine, text in lines]


def failures(source: Source, **options: bool) -> list[str]:
    return [line for line in look(source, **options) if line.startswith("FAIL")]


def test_a_whole_tree(tree):
    assert look(voc_source(tree)) == [
        "OK train: 6 images, as published",
        "OK train: 6 masks decode, with values 0 in 6, 1 in 1, 2 in 1, 3 in 1, 4 in 1, 5 in 1, "
        "6 in 1, 255 in 6",
        "OK train: 6 photographs decode and have the size of their mask",
        "OK val: 2 images, as published",
        "OK val: 2 masks decode, with values 0 in 2, 1 in 1, 2 in 1",
        "OK val: 2 photographs decode and have the size of their mask",
        "OK no image and no photograph, byte for byte, is both in train and in val",
    ]
    assert complete(voc_source(tree))


def cut(path: Path, part: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])


def photo(root: Path, name: str) -> Path:
    return root / "JPEGImages" / f"{name}.jpg"


def mask(root: Path, name: str) -> Path:
    return root / "SegmentationClassAug" / f"{name}.png"


def cut_stream(root: Path) -> None:
    """Header and size are whole: it shows only when the last rows are decoded."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo(root, "a2"))
    save_mask(mask(root, "a2"), np.ones((64, 64), np.uint8))
    cut(photo(root, "a2"), 0.9)


def to_grey_levels(root: Path) -> None:
    Image.fromarray(np.full((6, 8), 4000, np.uint16)).save(mask(root, "a2"))


DAMAGES = [
    (lambda r: mask(r, "a2").unlink(), "1 of 6 masks are missing: a2; add them"),
    (lambda r: cut(mask(r, "a2")), "mask .*a2.png cannot be read"),
    (lambda r: mask(r, "a2").write_text("<html>", "utf-8"), "mask .*a2.png is no image"),
    (
        lambda r: save_mask(mask(r, "a2"), make_mask({21, 22})),
        r"mask .*a2.png holds 21 \(1 pixel\), 22 \(1 pixel\), no class",
    ),
    (lambda r: Image.open(photo(r, "a1")).save(mask(r, "a2")), "mask .*a2.png"),
    (to_grey_levels, "mask .*a2.png"),
    (lambda r: photo(r, "a2").unlink(), "photograph .*a2.jpg .* is missing"),
    (lambda r: cut(photo(r, "a2"), 0.2), "photograph .*a2.jpg cannot be read"),
    (cut_stream, "photograph .*a2.jpg cannot be read .*truncated"),
    (
        lambda r: save_mask(mask(r, "a2"), make_mask({2}, (9, 6))),
        "photograph .*a2.jpg is 8x6 pixels but its mask .*a2.png is 9x6",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_bad_file_is_named_and_no_other(tree, damage, message):
    damage(tree)
    (failed,) = failures(voc_source(tree))
    assert re.search(f"^FAIL train: {message}", failed), failed
    assert len(look(voc_source(tree))) == 6  # val is still found to be fine


def test_every_bad_file_is_named(tree):
    for name in ("a1", "a3", "v2"):
        cut(mask(tree, name))
    cut(photo(tree, "a3"), 0.2)
    found = " ".join(failures(voc_source(tree)))
    assert len(failures(voc_source(tree))) == 4
    for name in ("a1.png", "a3.png", "a3.jpg", "v2.png"):
        assert name in found
    assert "a2" not in found


def test_counts_are_compared_unless_a_part_is_enough(tree):
    write_list(tree / "ImageSets/Segmentation/train_aug.txt", ["a1", "a2"])
    (failed,) = failures(voc_source(tree))
    assert failed == "FAIL train: 2 images, but 6 are published (--partial accepts fewer)"
    assert not complete(voc_source(tree))
    assert not failures(voc_source(tree), partial=True) and complete(voc_source(tree), True)


def test_no_photographs_is_one_line_and_fine_as_a_part(tree):
    for path in (tree / "JPEGImages").iterdir():
        path.unlink()
    source = voc_source(tree)
    failed = failures(source)
    assert [re.match(r"FAIL (\w+): all (\d)", f).groups() for f in failed] == [
        ("train", "6"), ("val", "2"),
    ]  # fmt: skip
    assert not failures(source, partial=True)
    assert complete(source, partial=True) and not complete(source)


def test_some_photographs_are_not_enough_even_for_a_part(tree):
    photo(tree, "a2").unlink()
    assert len(failures(voc_source(tree), partial=True)) == 1
    assert not complete(voc_source(tree), partial=True)


def test_an_image_in_both_lists_is_named(tree):
    write_list(tree / "ImageSets/Segmentation/val.txt", ["v1", "a3"])
    assert failures(voc_source(tree)) == ["FAIL 1 image is in train and in val: a3"]


def test_a_missing_list_does_not_hide_the_other(tree):
    (tree / "ImageSets/Segmentation/val.txt").unlink()
    (failed,) = failures(voc_source(tree))
    assert "cannot read id list" in failed and len(look(voc_source(tree))) == 4
    assert not complete(voc_source(tree))


@pytest.mark.parametrize("remove", [mask, photo])
def test_complete_notices_a_missing_file(tree, remove):
    remove(tree, "v1").unlink()
    assert not complete(voc_source(tree))


def test_ade_counts_are_by_split(tmp_path, monkeypatch):
    monkeypatch.setitem(checking.PUBLISHED, "ade20k", {"train": 2, "val": 1})
    for folder, ids in (("training", ["t1", "t2"]), ("validation", ["v1"])):
        for name in ids:
            (tmp_path / "annotations" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "images" / folder).mkdir(parents=True, exist_ok=True)
            shape = (6, 8)
            Image.fromarray(np.full(shape, 150, np.uint8)).save(
                tmp_path / "annotations" / folder / f"{name}.png"
            )
            Image.new("RGB", shape[::-1]).save(tmp_path / "images" / folder / f"{name}.jpg")
    source = ade20k_source(tmp_path)
    assert not failures(source) and complete(source)
    (tmp_path / "annotations/training/t2.png").unlink()
    assert failures(source) == [
        "FAIL train: 1 images, but 2 are published (--partial accepts fewer)"
    ]


def sparcl(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err.splitlines()[-1:]


def test_the_command_prints_the_lines_and_fails_with_them(tree, capsys):
    status, out, _ = sparcl(capsys, "data", "check", "--dataset", "voc", "--root", tree)
    assert status == 0 and [line[:5] for line in out.splitlines()] == ["OK   "] * 7
    cut(mask(tree, "a1"))
    status, out, _ = sparcl(capsys, "data", "check", "--dataset", "voc", "--data-root", tree)
    assert status == 1 and re.search(r"^FAIL train: mask .*a1.png", out, re.MULTILINE)
    status, _, errors = sparcl(capsys, "data", "check", "--dataset", "voc", "--root", tree / "no")
    assert status == 2 and "is not a folder" in errors[0]


def test_minivoc_is_checked_against_its_checksum(tmp_path, capsys):
    generate(tmp_path / "mini", train=4, val=2, progress=False)
    command = ("data", "check", "--dataset", "minivoc", "--root", tmp_path / "mini")
    status, out, _ = sparcl(capsys, *command)
    assert status == 0 and "OK   train: 4 images\n" in out and "have the checksum" in out
    path = tmp_path / "mini/SegmentationClassAug/mini_000001.png"
    save_mask(path, np.zeros((64, 64), np.uint8))
    status, out, _ = sparcl(capsys, *command)
    assert status == 1 and "FAIL MiniVOC in" in out and "damaged" in out


def test_index_names_the_classes_it_found(tree, capsys):
    status, out, _ = sparcl(capsys, "data", "index", "--dataset", "voc", "--root", tree)
    assert status == 0
    assert out.splitlines()[0].startswith("train: 6 images; aeroplane 1, bicycle 1, bird 1, boat 1")
    assert "aeroplane 1, bicycle 1, bird 0" in out.splitlines()[1]


@NEEDS_DATA
def test_each_of_the_real_masks_is_read_once(tmp_path, masks_read):
    """All 12,031 masks of VOC, without photographs: each is decoded once."""
    source = voc_source(unpack_real_masks(os.environ["SPARCL_TEST_DATA"], tmp_path))
    lines = look(source)
    assert len(masks_read) == len(set(masks_read)) == 12_031
    failed = [line for line in lines if line.startswith("FAIL")]
    assert len(failed) == 2 and all("photographs are missing" in line for line in failed)
    assert "OK train: 10582 images, as published" in lines


@NEEDS_DATA
def test_real_photographs_and_masks_belong_together():
    source = voc_source(os.environ["SPARCL_TEST_DATA"])
    lines = look(source, partial=True)
    assert not [line for line in lines if line.startswith("FAIL")]
    assert "OK train: 3189 photographs decode and have the size of their mask" in lines


# What goes into training and testing
def own_data(root: Path, train: list, val: list, **content: object) -> Source:
    """Classes x and y; a photograph of noise beside each mask."""
    for split, masks in (("train", train), ("val", val)):
        for n, shown in enumerate(masks):
            noise = np.random.default_rng([n, len(split)]).integers(0, 256, (36, 48), np.uint8)
            save_pair(
                root / split / f"{split}{n}.png", root / f"{split}annot/{split}{n}.png", shown
            )
            Image.fromarray(noise).save(root / split / f"{split}{n}.png")
    classes = content.pop("classes", ["background", "x", "y"])
    return open_source(str(describe(root, classes=classes, **content)))


def shows(*values: int) -> np.ndarray:
    return street_mask(0, values)


def test_a_photograph_of_train_in_val_is_found_under_another_name(tmp_path):
    source = own_data(tmp_path, [shows(0, 1), shows(0, 2)], [shows(1, 2)])
    photos = Path(source.photo("train", "train1")), Path(source.photo("val", "val0"))
    photos[1].write_bytes(photos[0].read_bytes())
    assert failures(source) == [
        "FAIL 1 photograph of train is in val, byte for byte: train1 = val0; take them off one list"
    ]


def test_twins_in_what_is_published_are_told_and_not_refused(tree):
    photo(tree, "v1").write_bytes(photo(tree, "a3").read_bytes())
    assert not failures(voc_source(tree))
    text = "OK 1 photograph of train is in val, byte for byte: a3 = v1"
    assert look(voc_source(tree))[-1] == text


def test_copies_within_one_split_are_told_with_their_number(tmp_path):
    """The same photograph and mask twice in train, under another name: seven OK lines, no word."""
    source = own_data(tmp_path, [shows(0, 1), shows(0, 2)], [shows(1, 2)])
    for name in ("zy", "zz"):
        for folder in ("train", "trainannot"):
            content = (tmp_path / folder / "train1.png").read_bytes()
            (tmp_path / folder / f"{name}.png").write_bytes(content)
    text = (
        "OK train: 2 images are copies, photograph and mask byte for byte, and count once more "
        "each: zy = train1, zz = train1; take them off the list unless that is meant"
    )
    assert text in look(source) and not failures(source)
    Image.fromarray(shows(0, 1)).save(tmp_path / "trainannot/zz.png")
    assert failures(source) == [
        "FAIL train: 1 photograph is there again, byte for byte, with another mask: zz = train1; "
        "keep the right mask, and take the others off the list"
    ]
    assert sum("1 image is a copy, photograph" in line for line in look(source)) == 1


def test_a_folder_in_a_photographs_place(tmp_path):
    source = own_data(tmp_path, [shows(0, 1), shows(0, 2)], [shows(1, 2)])
    (tmp_path / "train/train1.png").unlink()
    (tmp_path / "train/train1.png").mkdir()
    (failed,) = failures(source)
    assert failed.endswith("train1.png is a folder; name a file")


def test_the_same_files_in_both_splits(tmp_path):
    own_data(tmp_path, [shows(0, 1), shows(0, 2)], [shows(1, 2)])
    same = {"photos": "train", "masks": "trainannot"}
    source = open_source(str(describe(tmp_path, classes=["background", "x", "y"], val=same)))
    assert failures(source) == ["FAIL 2 images are in train and in val: train0, train1"]


def test_a_photograph_that_is_its_own_mask(tmp_path):
    own_data(tmp_path, [shows(0, 1)], [shows(1, 2)])
    both = {"photos": "trainannot", "masks": "trainannot"}
    source = open_source(str(describe(tmp_path, classes=["background", "x", "y"], train=both)))
    (failed,) = failures(source)
    assert re.search("^FAIL train: .*train0.png is photograph and mask at once; name", failed)
    with pytest.raises(UserError, match=r"train0.png is photograph and mask at once"):
        check_pairs(source, "train")


def test_photographs_and_masks_of_one_folder_by_their_suffixes(tmp_path):
    source = own_data(tmp_path, [shows(0, 1)], [shows(1, 2)])
    with Image.open(source.photo("train", "train0")) as image:
        image.save(tmp_path / "trainannot/train0.jpg")
    both = {"photos": "trainannot", "masks": "trainannot"}
    assert not failures(
        open_source(str(describe(tmp_path, classes=["background", "x", "y"], train=both)))
    )


def test_two_photographs_for_one_id(tmp_path):
    source = own_data(tmp_path, [shows(0, 1)], [shows(1, 2)])
    with Image.open(source.photo("train", "train0")) as image:
        image.save(tmp_path / "train/train0.JPG", format="JPEG")
    assert source.photo("train", "train0").endswith("train0.JPG")
    (failed,) = failures(source)
    assert re.search("train0.JPG of id 'train0' is there as .*train0.png too; keep one", failed)


def test_two_photographs_and_no_mask_for_one_id(tmp_path):
    """Which ended the check in FileNotFoundError, and all that it had found was lost."""
    (tmp_path / "train.txt").write_text("train0\ntrain1\n", "utf-8")
    own_data(tmp_path, [shows(0, 1), shows(0, 2)], [shows(1, 2)])
    listed = {"photos": "train", "masks": "trainannot", "list": "train.txt"}
    described = describe(tmp_path, classes=["background", "x", "y"], train=listed)
    source = open_source(str(described))
    with Image.open(source.photo("train", "train0")) as image:
        image.save(tmp_path / "train/train0.JPG", format="JPEG")
    Path(source.mask("train", "train0")).unlink()
    missing, twice = failures(source)
    assert "1 of 2 masks are missing: train0; add them" in missing and "is there as" in twice


def test_two_masks_for_one_id(tmp_path):
    """A list took the one that ends in .png, and nobody heard of the other."""
    (tmp_path / "train.txt").write_text("train0\n", "utf-8")
    own_data(tmp_path, [shows(0, 1)], [shows(1, 2)])
    Image.fromarray(shows(0, 2)).save(tmp_path / "trainannot/train0.tif")
    listed = {"photos": "train", "masks": "trainannot", "list": "train.txt"}
    described = describe(tmp_path, classes=["background", "x", "y"], train=listed)
    (failed,) = failures(open_source(str(described)))
    assert re.search("train0.png of id 'train0' is there as .*train0.tif too; keep one", failed)


def test_masks_that_are_missing_are_one_line(tmp_path):
    (tmp_path / "train.txt").write_text("a\nb\ntrain0\n", "utf-8")
    own_data(tmp_path, [shows(0, 1)], [shows(1, 2)])
    listed = {"photos": "train", "masks": "trainannot", "list": "train.txt"}
    described = describe(tmp_path, classes=["background", "x", "y"], train=listed)
    masks, *photos = failures(open_source(str(described)))
    assert "train: 2 of 3 masks are missing: a, b; add them, the first as " in masks
    assert str(tmp_path / "trainannot" / "a.png") in masks
    assert all("photograph" in line for line in photos)


def test_images_without_a_class_are_counted(tmp_path):
    source = own_data(tmp_path, [shows(0, 1), shows(0, 2), shows(0)], [shows(1, 2), shows(0, 255)])
    lines = look(source)
    assert "OK train: 1 of 3 images show no class but background and are left out" in lines
    assert "OK val: 1 of 2 images show no class but background and are left out" in lines
    task = Task("one", "data", source.classes, ((1,),))
    lines = [text for _, text in check(source, progress=False, task=task)]
    assert "train: 2 of 3 images show no class of task one and are left out" in lines
    assert "val: 1 of 2 images show no class of task one and are left out" in lines


def test_the_command_takes_a_task(tmp_path, capsys):
    own_data(tmp_path, [shows(0, 1), shows(0, 2)], [shows(1, 2)])
    (tmp_path / "task.yaml").write_text("name: one\nsteps: [[x]]\n", "utf-8")
    command = ("data", "check", "--dataset", tmp_path / "data.yaml", "--task")
    status, out, _ = sparcl(capsys, *command, tmp_path / "task.yaml")
    assert status == 0 and "train: 1 of 2 images show no class of task one and are" in out
    status, _, errors = sparcl(capsys, *command, "15-5")
    assert status == 2 and "'15-5'" in errors[0]


def test_black_and_white_masks_show_no_class(tmp_path):
    masks = [shows(0, 255), shows(0)]
    source = own_data(tmp_path, masks, masks, classes=["background", "x"])
    failed = failures(source)
    assert [line.partition(";")[0] for line in failed] == [
        f"FAIL {split}: no mask shows a class" for split in ("train", "val")
    ]
    assert (
        "values are 0 in 2, 255 in 1; 255 is void, so give white a class by a palette" in failed[0]
    )
    task = get_task("data", "offline", classes=source.classes)
    with pytest.raises(UserError, match="has no image.*; no mask shows any class: sparcl data"):
        partition(scan(source, "train", progress=False), task, "disjoint")


def test_black_and_white_masks_become_classes_by_a_palette(tmp_path):
    masks = [shows(0, 255), shows(0)]
    palette = {"background": [0, 0, 0], "x": [255, 255, 255]}
    own_data(tmp_path, masks, masks, classes=["background", "x"])
    describe(tmp_path, classes=["background", "x"], palette=palette)
    described = convert(tmp_path / "data.yaml", tmp_path / "ids", progress=False)
    lines = look(open_source(str(described)))
    assert "OK train: 2 masks decode, with values 0 in 2, 1 in 1" in lines


def test_a_single_pixel_of_no_class_is_told_with_what_to_do(tmp_path):
    mask = shows(0, 1)
    mask[0, 0] = 7
    (failed,) = failures(own_data(tmp_path, [mask], [shows(1, 2)]))
    assert failed.endswith(
        "holds 7 (1 pixel), no class of data (0 to 2 or 255); name it under classes or void in "
        f"{tmp_path / 'data.yaml'}, or give these pixels a class, or 255 for void"
    )


def test_a_class_that_was_not_declared_is_one_line_for_all_masks(tmp_path):
    masks = [shows(1, 9, 7), *[shows(1, 7)] * 5, shows(0, 1)]
    failed = failures(own_data(tmp_path, masks, [shows(1, 2), shows(2, 7)]))
    assert [re.sub(r"\S+/", "", line) for line in failed] == [
        "FAIL train: mask train0.png holds 7 (576 pixels), 9 (576 pixels), no class of data (0 to "
        "2 or 255); name them under classes or void in data.yaml, or give these pixels a class, or "
        "255 for void",
        "FAIL train: 5 masks hold 7 (4320 pixels), no class of data (0 to 2 or 255): train1.png, "
        "train2.png, train3.png and 2 more; name it under classes or void in data.yaml, or give "
        "these pixels a class, or 255 for void",
        "FAIL val: mask val1.png holds 7 (864 pixels), no class of data (0 to 2 or 255); name it "
        "under classes or void in data.yaml, or give these pixels a class, or 255 for void",
    ]


def test_a_value_that_is_no_class_is_told_with_its_pixels(tmp_path):
    source = own_data(tmp_path, [shows(0, 1, 7, 9), shows(0, 7)], [shows(1, 2)])
    failed = failures(source)
    assert len(failed) == 2 and re.search(
        r"train0.png holds 7 \(432 pixels\), 9 \(432 pixels\), no class of data \(0 to 2 or 255\);",
        failed[0],
    )
    with pytest.raises(UserError, match=r"\(found 7 in 2 masks, 9 in 1 mask\)"):
        scan(source, "train", progress=False)


def test_many_values_are_told_as_ranges(tmp_path):
    names = [f"c{n}" for n in range(40)]
    source = own_data(tmp_path, [shows(*range(36))], [shows(1, 2)], classes=names)
    assert "OK train: 1 masks decode, with values 0 to 35" in look(source)


def test_what_reading_changes_is_counted(tmp_path):
    source = own_data(tmp_path, [shows(0, 1), shows(0, 2)], [shows(1, 2)])
    deep = np.random.default_rng(0).integers(0, 65536, (36, 48)).astype(np.uint16)
    Image.fromarray(deep).save(source.photo("train", "train0"))
    assert "OK train: photographs are read as 8-bit RGB: 16 bits to 8 in 1" in look(source)
