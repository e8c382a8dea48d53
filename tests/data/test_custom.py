"""Custom data sets: what a YAML file and a CSV mean, and one line for every mistake."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import make_mask, save_mask
from custom_data import FOLDERS, camvid_tree, describe, save_pair, street_mask
from PIL import Image

from sparcl_lib.config import resolve, to_plain
from sparcl_lib.data import ImageReader, check_pairs, open_source, scan
from sparcl_lib.data.checking import check
from sparcl_lib.data.masks import count_values, lookup, read_values
from sparcl_lib.data.sources import custom
from sparcl_lib.errors import UserError
from sparcl_lib.experiments.store import run_keys
from sparcl_lib.tasks import get_task

CAMVID = {"classes": [f"c{n}" for n in range(11)], "void": 11}


@pytest.fixture
def root(tmp_path) -> Path:
    return camvid_tree(tmp_path / "data")


def values_in(root: Path, **content: object) -> set[int]:
    """Raw ids that the first training mask shows."""
    table = scan(open_source(str(describe(root, **content))), "train", progress=False).table
    return set(np.flatnonzero(table[0]).tolist())


# What masks mean
def test_a_list_without_background_starts_at_value_0(root):
    source = open_source(str(describe(root, **CAMVID)))
    assert source.name == "data" and source.classes == ("background", *CAMVID["classes"])
    assert values_in(root, **CAMVID) == {*range(1, 12), 255}


def test_background_is_raw_id_0_wherever_it_stands(root):
    classes = ["road", "background", "car"]
    assert values_in(root, classes=classes, void=list(range(3, 12))) == {0, 1, 2, 255}
    source = open_source(str(root / "data.yaml"))
    assert source.classes == ("background", "road", "car")
    assert {k: source.values[k] for k in range(3)} == {0: 1, 1: 0, 2: 2}


def test_a_mapping_names_values_and_merges_them(root):
    classes = {"car": [3, 5], "background": 0, "road": 7}
    void = [v for v in range(12) if v not in (0, 3, 5, 7)]
    assert values_in(root, classes=classes, void=void) == {0, 1, 2, 255}
    source = open_source(str(root / "data.yaml"))
    assert source.classes == ("background", "car", "road")
    assert source.values[3] == source.values[5] == 1 and source.values[7] == 2


def test_the_reader_and_the_scan_see_the_same_ids(root):
    classes = {"car": [3, 5], "road": 7}
    source = open_source(
        str(describe(root, classes=classes, void=[*range(3), 4, 6, *range(8, 12)]))
    )
    presence = scan(source, "train", progress=False)
    reader = ImageReader(source, "train")
    for image_id, row in zip(presence.ids, presence.table, strict=True):
        _, mask = reader(image_id)
        raw = np.array(Image.open(source.mask("train", image_id)))
        assert set(np.flatnonzero(row)) == set(mask.unique().tolist()) == {1, 2, 255}
        assert ((mask.numpy() == 1) == np.isin(raw, (3, 5))).all()


def test_a_changed_class_list_needs_no_new_scan(root, monkeypatch):
    scan(open_source(str(describe(root, **CAMVID))), "train", progress=False)
    monkeypatch.setattr("sparcl_lib.data.presence.count_values", None)
    assert values_in(root, classes=["background", *CAMVID["classes"]], void=255) == set(range(12))


def test_a_value_that_is_no_class_is_named(root):
    source = open_source(str(describe(root, classes=CAMVID["classes"])))
    message = r"000000.png holds value 11, but 'data' has the values 0 to 10 or 255 in .*data.yaml;"
    with pytest.raises(UserError, match=message):
        scan(source, "train", progress=False)
    bad = [text for fine, text in check(source, progress=False) if not fine]
    assert len(bad) == 2 and " masks hold 11 (" in bad[0] and "name it under classes" in bad[0]


def test_the_same_name_in_two_folders_is_two_images(root):
    source = open_source(str(describe(root, **CAMVID)))
    lines = check(source, progress=False)
    assert all(fine for fine, _ in lines) and len(lines) == 7
    shared = {"photos": "train", "masks": "trainannot"}
    lines = check(open_source(str(describe(root, **CAMVID, val=shared))), progress=False)
    (bad,) = [text for fine, text in lines if not fine]
    assert bad.startswith("6 images are in train and in val: 0001TP_000000,")


def test_a_list_takes_some_of_a_folder(root):
    (root / "some.txt").write_text("0001TP_000003\n0001TP_000001\n", "utf-8")
    train = {**FOLDERS["train"], "list": "some.txt"}
    source = open_source(str(describe(root, **CAMVID, train=train)))
    assert source.ids("train") == ("0001TP_000003", "0001TP_000001")
    (root / "some.txt").write_text("../trainannot/0001TP_000003\n", "utf-8")
    with pytest.raises(UserError, match="some.txt: id '../trainannot.*leads out of the folder"):
        source.ids("train")


def test_paths_start_at_the_data_root_if_there_is_one(root, tmp_path):
    description = describe(tmp_path, **CAMVID)
    assert len(open_source(str(description), root).ids("train")) == 6
    with pytest.raises(UserError, match="data.yaml: train.masks: .*trainannot is no folder"):
        open_source(str(description))
    absolute = {s: {k: str(root / v) for k, v in where.items()} for s, where in FOLDERS.items()}
    assert len(open_source(str(describe(tmp_path, **CAMVID, **absolute))).ids("val")) == 4


# Tables of files
def table_of(root: Path, text: str, split: str = "train") -> Path:
    (root / "t.csv").write_text(text, "utf-8")
    return describe(root, **CAMVID, **{split: {"pairs": "t.csv"}})


def test_a_table_names_any_file(root, tmp_path):
    save_pair(tmp_path / "far/a,b.jpg", root / "x/y.png", street_mask(0, range(12)))
    text = f'\ufeffid,mask,image\none,x/y.png,"{tmp_path}/far/a,b.jpg"\n\n'
    text += "0/2,trainannot/0001TP_000000.png,train/0001TP_000000.png\n"
    source = open_source(str(table_of(root, text)))
    assert source.ids("train") == ("one", "0/2")
    assert source.photo("train", "one") == f"{tmp_path}/far/a,b.jpg"
    check_pairs(source, "train")
    Path(source.photo("train", "one")).unlink()
    with pytest.raises(
        UserError, match="photograph .*a,b.jpg of id 'one' in split 'train' is miss"
    ):
        check_pairs(source, "train")


def test_another_file_for_an_id_is_scanned_anew(root):
    for name, values in (("m1", {1}), ("m2", {2})):
        save_mask(root / f"{name}.png", make_mask(values))
        os.utime(root / f"{name}.png", ns=(1, 1))
    assert (root / "m1.png").stat().st_size == (root / "m2.png").stat().st_size
    shown = []
    for name in ("m1", "m2"):
        source = open_source(str(table_of(root, f"image,mask\ntrain/a.png,{name}.png\n")))
        shown.append(np.flatnonzero(scan(source, "train", progress=False).table[0]).tolist())
    assert shown == [[1, 2], [1, 3]]


BAD_TABLES = {
    "": "t.csv line 1: must name the columns image,mask or image,mask,id",
    "image\na.png\n": "t.csv line 1: must name the columns",
    "image,mask,mask\na,b,c\n": "t.csv line 1: must name the columns",
    "photo,mask\na,b\n": "unknown column in .*t.csv line 1: 'photo'.* Valid: image, mask, id",
    "image|mask\na|b\n": "unknown column in .*t.csv line 1: 'image|mask'",
    "image,mask\n": "empty split 'train': .*t.csv names no image; add a row for each image",
    "image,mask\na.png,b.png\nc.png,\n": "t.csv line 3: no mask; fill it in",
    "image,mask,id\na.png,b.png\n": "t.csv line 2: no id; fill it in",
    "image,mask\na.png\n": "t.csv line 2: no mask",
    "image,mask\na.png,b.png,c.png\n": "t.csv line 2: more values than columns; quote",
    "image,mask\nx/a.png,b.png\ny/a.png,c.png\n": "t.csv line 3: id 'a' is that of line 2 too",
    'image,mask,id\na,b,"x\ny"\n': "t.csv line 3: no id",
    "image,mask,id\na,b,../c\n": "t.csv: id '../c' leads out of the folder",
    "image,mask,id\na,b,/c\n": "t.csv: id '/c' leads out of the folder",
    'image,mask\n"a,b\n': "t.csv is no CSV .*; save it as UTF-8 with commas",
    "image,mask\na,\udcff\n": "t.csv is no CSV",
}


@pytest.mark.parametrize(("text", "message"), BAD_TABLES.items(), ids=range(len(BAD_TABLES)))
def test_a_mistake_in_a_table_names_its_line(root, text, message):
    path = table_of(root, "")
    (root / "t.csv").write_bytes(text.encode(errors="surrogateescape"))
    refused(lambda: open_source(str(path)).ids("train"), message)


def test_a_table_in_utf_16(root):
    content = "image,mask\na.png,b.png\n".encode("utf-16")
    (root / "t.csv").write_bytes(content)
    refused(
        lambda: open_source(
            str(describe(root, classes=["background", "x"], train={"pairs": "t.csv"}))
        ),
        "t.csv is no CSV in UTF-8; save it as such",
    )


def test_ids_stand_without_a_suffix(root):
    """It was looked for as 0001TP_000000.png.jpg, and nothing said why."""
    (root / "ids.txt").write_text("0001TP_000000.png\n", "utf-8")
    train = {**FOLDERS["train"], "list": "ids.txt"}
    source = open_source(str(describe(root, classes=["background", "x"], train=train)))
    refused(
        lambda: source.ids("train"),
        "ids.txt: id '0001TP_000000.png' ends in .png, and ids stand without a suffix; write 0001",
    )


def test_a_description_that_holds_no_keys(root):
    (root / "data.yaml").write_text("- a\n", "utf-8")
    refused(
        lambda: open_source(root / "data.yaml"),
        "data.yaml must hold 'key: value' lines, as in docs/own_data.md",
    )


def refused(call, message: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


# Mistakes in the file
BAD = [
    ({"clases": []}, "unknown key in .*data.yaml: 'clases'; did you mean 'classes'"),
    ({"test": {}}, "unknown key in .*data.yaml: 'test'"),
    ({"name": 3}, "data.yaml: name: 3 is no name; write a word, in quotes"),
    ({"name": "voc"}, "data.yaml: name: 'voc' is a data set that SPARCL knows"),
    ({"classes": None}, "data.yaml: classes: must be a list of names, or a mapping"),
    ({"classes": "cat"}, "data.yaml: classes: must be a list"),
    ({"classes": []}, "data.yaml: classes: 0 beside background"),
    ({"classes": ["background"]}, "data.yaml: classes: 0 beside background"),
    ({"classes": [f"c{n}" for n in range(255)]}, "classes: 255 beside background; masks have room"),
    ({"classes": ["cat", True]}, "data.yaml: classes: True is no name; write it in quotes"),
    ({"classes": ["cat", "cat"]}, "data.yaml: classes: 'cat' stands there twice"),
    ({"classes": ["cat", "void"]}, "data.yaml: classes: void is no class; leave it out"),
    (
        {"classes": {"cat": 1, "dog": 1}},
        "classes.dog: mask value 1 is that of classes.cat already; keep",
    ),
    (
        {"classes": {0: "background", 1: "cat"}},
        "line 2: the key '0' is no name; write it in quotes, or the name first",
    ),
    ({"classes": ["Background", "cat"]}, "classes: 'Background': write background, as it is known"),
    ({"classes": ["cat ", "dog"]}, "classes: 'cat ' has a space at an end; take it off"),
    (
        {"classes": ["cat", "dog"], "void": 0},
        "void: mask value 0 is that of classes.cat already .a ",
    ),
    ({"classes": {"cat": 300}}, "classes.cat: 300 is no mask value; write numbers of 0 to 254"),
    ({"classes": {"cat": 255}}, "classes.cat: 255 is always left out"),
    ({"classes": {"cat": [1, "x"]}}, "classes.cat: 'x' is no mask value"),
    ({"void": 3}, "data.yaml: void: mask value 3 is that of classes.* already"),
    ({"void": [-1]}, "data.yaml: void: -1 is no mask value"),
    ({"train": None}, "data.yaml: train: missing: give photos and masks"),
    ({"val": "valannot"}, "data.yaml: val: must hold keys: give photos and masks"),
    ({"train": {"photos": "train"}}, "data.yaml: train: has photos; give photos and masks"),
    ({"train": {"pairs": "t.csv", "masks": "m"}}, "train: has masks, pairs; give"),
    ({"train": {"mask": "x"}}, "unknown key in .*data.yaml: train: 'mask'; did you mean 'masks'"),
    ({"train": {**FOLDERS["train"], "list": 3}}, "data.yaml: train.list: 3 is no path"),
    ({"train": {"pairs": "no.csv"}}, "cannot read .*no.csv: No such file"),
    ({"train": {"photos": "train", "masks": "nowhere"}}, "train.masks: .*nowhere is no folder"),
    ({"palette": {"c0": [1, 2, 3]}}, "data.yaml: palette: class 'c1' has no colour"),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=range(len(BAD)))
def test_a_mistake_names_file_and_key(root, content, message):
    path = describe(root, **{**CAMVID, **content})
    refused(lambda: open_source(str(path)), message)


def test_as_many_classes_as_a_byte_has_room_for(root):
    names = [f"c{n}" for n in range(254)]
    for classes in (names, ["background", *names]):
        source = open_source(str(describe(root, classes=classes)))
        assert len(source.classes) == 255 and get_task("data", "offline", classes=source.classes)
        assert max(i for i in source.values.values() if i != 255) == 254


def test_a_file_that_is_none(root):
    refused(lambda: open_source(str(root / "no.yaml")), "cannot read .*no.yaml")
    (root / "list.yaml").write_text("- a\n", "utf-8")
    refused(lambda: open_source(str(root / "list.yaml")), "list.yaml must hold")
    refused(lambda: open_source("cityscapes"), "unknown data set 'cityscapes'.*FILE.yaml")


def test_masks_of_more_bits_are_refused(root):
    source = open_source(str(describe(root, **CAMVID)))
    path = Path(source.mask("train", source.ids("train")[0]))
    Image.fromarray(np.full((36, 48), 300, np.uint16)).save(path)
    message = r"mask .*000000.png holds 300 \(1728 pixels\), and mask values are 0 to 255; save it"
    refused(lambda: scan(source, "train", progress=False), message)
    refused(lambda: read_values(str(path)), message)


def test_masks_of_one_bit(tmp_path):
    path = str(tmp_path / "m.png")
    Image.fromarray(np.eye(4, dtype=bool)).save(path)
    assert np.flatnonzero(count_values(path)[0]).tolist() == [0, 1]
    assert (read_values(path) == np.eye(4)).all()
    assert (read_values(path, lookup({0: 7, 1: 0})) == 7 * (1 - np.eye(4))).all()


def test_every_other_value_is_ignored_by_the_lookup():
    table = lookup({2: 1, 255: 255})
    assert table.dtype == np.uint8 and table[2] == 1 and (np.delete(table, 2) == 255).all()


# Runs
def config_of(path: object, **fixed: object):
    return resolve(str(path), "FT", task=str(fixed.pop("task", "offline")), **fixed)


def test_a_run_keeps_absolute_paths_and_ignores_void(root, monkeypatch):
    describe(root, **CAMVID)
    monkeypatch.chdir(root)
    config = config_of("data.yaml", task="t.yaml", data_root="..")
    assert config.dataset == str(root / "data.yaml") and config.task == str(root / "t.yaml")
    assert Path(config.data_root).samefile(root.parent) and config.data.border == "ignore"
    known = resolve("voc", "FT", [{"data": {"splits": "s"}}], task="t.yaml", data_root="..")
    assert (known.dataset, known.task) == ("voc", str(root / "t.yaml"))
    assert Path(known.data_root) == root.parent and Path(known.data.splits) == root / "s"
    assert known.data.border == "background"


def test_the_key_of_a_run_covers_description_lists_tables_and_masks(root):
    (root / "train.txt").write_text("0001TP_000000\n0001TP_000001\n", "utf-8")
    (root / "val.csv").write_text(
        "image,mask\nval/0001TP_000000.png,valannot/0001TP_000000.png\n", "utf-8"
    )
    train = {**FOLDERS["train"], "list": "train.txt"}
    path = describe(root, **CAMVID, train=train, val={"pairs": "val.csv"})
    config = config_of(path)
    keys = [run_keys(config)]
    path.write_text(path.read_text("utf-8") + "# a word\n", "utf-8")
    assert run_keys(config) == keys[0]
    (root / "train.txt").write_text("0001TP_000001\n0001TP_000000\n", "utf-8")
    keys.append(run_keys(config))
    with (root / "val.csv").open("a") as table:
        table.write("val/0001TP_000001.png,valannot/0001TP_000001.png\n")
    keys.append(run_keys(config))
    mask = root / "trainannot" / "0001TP_000000.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    keys.append(run_keys(config))
    assert len({name for pair in keys for name in pair}) == 8
    assert to_plain(config)["dataset"] == str(path)


class Counting(str):
    """A name that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counting.compared += 1
        return str.__eq__(self, other)


@pytest.mark.parametrize("as_list", [True, False])
def test_thousands_of_classes_are_refused_without_a_look_at_each_pair(root, as_list, monkeypatch):
    """30,000 took a minute: each name was counted among all."""
    names = [Counting(f"c{n}") for n in range(1000)]
    file = describe(root, classes=["c0"])
    content = yaml.safe_load(file.read_text("utf-8"))
    content["classes"] = names if as_list else dict.fromkeys(names, 1)
    monkeypatch.setattr(custom, "read_yaml", lambda path, example: content)
    monkeypatch.setattr(Counting, "compared", 0)
    with pytest.raises(UserError, match="1000 beside background; masks have room for 1 to 254"):
        open_source(str(file))
    assert Counting.compared < 10 * len(names)
