"""Names, lists and tables as people have them."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import make_voc_tree, write_list
from custom_data import camvid_tree, describe
from PIL import Image

from sparcl_lib.data import ImageReader, Source, check_pairs, open_source, scan, voc_source
from sparcl_lib.data.checking import check
from sparcl_lib.data.lists import list_files
from sparcl_lib.data.sources.files import MASK_SUFFIXES, PHOTO_SUFFIXES
from sparcl_lib.errors import UserError
from sparcl_lib.tasks import get_task

MASKS = {"a": {1}, "b": {2}, "v": {3}}
FORMATS = Image.registered_extensions()
CLASSES = [f"c{n}" for n in range(12)]


@pytest.fixture
def tree(tmp_path) -> Path:
    return make_voc_tree(tmp_path / "voc", MASKS, val=["v"])


def whole(source: Source) -> bool:
    """Do check, index and loader take all of it?"""
    check_pairs(source, "train")
    image, mask = ImageReader(source, "train")(source.ids("train")[0])
    assert image.shape[1:] == mask.shape
    return all(fine for fine, _ in check(source, partial=True, progress=False))


@pytest.mark.parametrize("suffix", [*PHOTO_SUFFIXES, *(s.upper() for s in PHOTO_SUFFIXES)])
def test_photographs_by_any_suffix(tree, suffix):
    old = tree / "JPEGImages/a.jpg"
    with Image.open(old) as image:
        image.copy().save(old.with_suffix(suffix), format=FORMATS[suffix.lower()])
    if suffix != ".jpg":
        old.unlink()
    source = voc_source(tree)
    assert source.photo("train", "a").endswith(f"a{suffix}") and whole(source)


@pytest.mark.parametrize("suffix", [*MASK_SUFFIXES, *(s.upper() for s in MASK_SUFFIXES)])
@pytest.mark.parametrize("listed", [True, False])
def test_masks_by_any_suffix(tmp_path, suffix, listed):
    root = camvid_tree(tmp_path)
    old = root / "trainannot/0001TP_000000.png"
    new = old.with_suffix(suffix)
    with Image.open(old) as image:
        image.copy().save(new, format=FORMATS[suffix.lower()])
    if suffix != ".png":
        old.unlink()
    train = {"photos": "train", "masks": "trainannot"}
    if listed:
        write_list(root / "train.txt", [f"0001TP_{n:06d}" for n in range(6)])
        train["list"] = "train.txt"
    source = open_source(str(describe(root, classes=CLASSES, train=train)))
    assert len(source.ids("train")) == 6 and source.mask("train", "0001TP_000000") == str(new)
    assert whole(source) and scan(source, "train", progress=False).table[0, 1:12].all()


def test_two_masks_for_one_id_in_a_folder(tmp_path):
    root = camvid_tree(tmp_path)
    with Image.open(root / "trainannot/0001TP_000000.png") as image:
        image.save(root / "trainannot/0001TP_000000.tif")
    source = open_source(str(describe(root, classes=CLASSES)))
    with pytest.raises(UserError, match="trainannot lists id '0001TP_000000' 2 times; keep it"):
        source.ids("train")


def test_hidden_files_are_passed_over(tmp_path):
    root = camvid_tree(tmp_path)
    for name in ("._0001TP_000000.png", ".DS_Store", ".hidden.png", "Thumbs.db", "readme.txt"):
        (root / "trainannot" / name).write_bytes(b"\0\5\x16\7")
    source = open_source(str(describe(root, classes=CLASSES)))
    assert len(source.ids("train")) == 6 and whole(source)
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("train-0.txt", "._train-0.txt", ".train-1.txt"):
        write_list(lists / name, ["a"])
    assert list_files(lists) == {0: lists / "train-0.txt"}


FORMS = [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC")]


@pytest.mark.parametrize(("listed", "stored"), FORMS)
def test_accents_of_one_character_or_two(tmp_path, listed, stored):
    """macOS writes names of files in the one form, lists come in the other."""
    name = unicodedata.normalize(stored, "Käse")
    make_voc_tree(tmp_path, {name: {1}, "v": {2}}, val=["v"])
    image_id = unicodedata.normalize(listed, "Käse")
    write_list(tmp_path / "ImageSets/Segmentation/train_aug.txt", [image_id])
    source = voc_source(tmp_path)
    assert source.ids("train") == (image_id,) and whole(source)
    assert os.path.basename(source.mask("train", image_id)) == f"{name}.png"


def test_class_names_that_look_the_same(tmp_path):
    task = tmp_path / "task.yaml"
    task.write_text(f"steps: [['{unicodedata.normalize('NFD', 'Käse')}']]\n", "utf-8")
    with pytest.raises(UserError, match=r"in another Unicode form \(NFC or NFD\) than there: copy"):
        get_task("mine", str(task), classes=["background", "Käse", "Wurst"])


def test_a_byte_order_mark_before_a_list(tree):
    path = tree / "ImageSets/Segmentation/train_aug.txt"
    path.write_text("\ufeffa\nb\n", "utf-8")
    source = voc_source(tree)
    assert source.ids("train") == ("a", "b") and whole(source)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_a_list_of_another_encoding(tree, encoding):
    (tree / "ImageSets/Segmentation/train_aug.txt").write_bytes("Straße\n".encode(encoding))
    with pytest.raises(UserError, match="train_aug.txt is not text in UTF-8; save it as such"):
        voc_source(tree).ids("train")


def test_a_byte_order_mark_before_a_description(tmp_path):
    root = camvid_tree(tmp_path)
    path = describe(root, classes=CLASSES)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert whole(open_source(str(path)))


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("parted", [",", ";", "\t"])
def test_tables_with_commas_semicolons_or_tabs(tmp_path, parted, mark):
    root = camvid_tree(tmp_path)
    rows = [("image", "mask", "id")]
    rows += [
        (f"train/0001TP_{n:06d}.png", f"trainannot/0001TP_{n:06d}.png", f"Straße, {n}; x")
        for n in range(6)
    ]
    quoted = [[f'"{cell}"' if cell.startswith("Straße") else cell for cell in row] for row in rows]
    text = mark + "".join(f"{parted.join(row)}\r\n" for row in quoted)
    (root / "t.csv").write_bytes(text.encode())
    source = open_source(str(describe(root, classes=CLASSES, train={"pairs": "t.csv"})))
    assert source.ids("train") == tuple(row[2] for row in rows[1:]) and whole(source)


def test_a_table_of_another_encoding(tmp_path):
    root = camvid_tree(tmp_path)
    path = describe(root, classes=CLASSES, train={"pairs": "t.csv"})
    for encoding in ("utf-16", "cp1252"):
        (root / "t.csv").write_bytes("image,mask\nStraße.png,a.png\n".encode(encoding))
        with pytest.raises(UserError, match=r"t.csv is no CSV in UTF-8; save it as such"):
            open_source(str(path))


def test_masks_keep_their_values_whatever_they_are_called(tmp_path):
    """The usual suffix comes first where there are several."""
    make_voc_tree(tmp_path, {"a": {1}, "v": {2}}, val=["v"])
    other = np.full((6, 8), 3, np.uint8)
    Image.fromarray(other).save(tmp_path / "SegmentationClassAug/a.tif")
    _, mask = ImageReader(voc_source(tmp_path), "train")("a")
    assert mask.unique().tolist() == [0, 1]
