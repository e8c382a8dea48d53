"""Colour-coded masks become masks of class ids, all of them or none."""

from pathlib import Path

import numpy as np
import pytest
from custom_data import camvid_tree, describe
from PIL import Image

from sparcl_lib.data import ImageReader, open_source, scan
from sparcl_lib.data.acquiring.convert import convert
from sparcl_lib.data.masks import read_colours
from sparcl_lib.errors import UserError

COLOURS = np.array([[0, 0, 0], [128, 0, 0], [255, 128, 64], [0, 0, 1], [9, 9, 9]], np.uint8)
PALETTE = {
    "background": [0, 0, 0],
    "car": [[128, 0, 0], [255, 128, 64]],
    "road": [0, 0, 1],
    "void": [9, 9, 9],
}
CLASSES = ["car", "background", "road"]
MEANING = np.array([0, 1, 1, 2, 255])


def paint(root: Path) -> Path:
    """The masks of a tree of values 0 to 4, in colours."""
    for path in root.glob("*annot/*.png"):
        Image.fromarray(COLOURS[np.array(Image.open(path))]).save(path)
    return root


@pytest.fixture
def root(tmp_path) -> Path:
    return paint(camvid_tree(tmp_path / "data", range(5)))


@pytest.fixture
def description(root) -> Path:
    return describe(root, classes=CLASSES, palette=PALETTE)


def test_converted_masks_mean_the_same(root, description, tmp_path):
    made = convert(description, tmp_path / "new" / "ids", progress=False)
    assert made == tmp_path / "new" / "ids" / "dataset.yaml"
    source = open_source(str(made))
    assert source.name == "data" and source.classes == ("background", "car", "road")
    for split, count in (("train", 6), ("val", 4)):
        presence = scan(source, split, progress=False)
        assert len(presence.ids) == count
        for image_id, row in zip(presence.ids, presence.table, strict=True):
            assert np.flatnonzero(row).tolist() == [0, 1, 2, 255]
            painted = np.array(Image.open(root / f"{split}annot" / f"{image_id}.png"))
            place = (painted[..., None, :] == COLOURS).all(-1).argmax(-1)
            image, mask = ImageReader(source, split)(image_id)
            assert (mask.numpy() == MEANING[place]).all() and image.shape[1:] == mask.shape
    kept = Image.open(source.mask("val", "0001TP_000000"))
    assert kept.mode == "P" and (128, 0, 0) in {c for _, c in kept.convert("RGB").getcolors()}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["ids"]


def test_a_folder_moves_with_the_photographs_beside_it(root, description, tmp_path):
    """Their paths were whole: a project that was moved had lost all photographs."""
    project = tmp_path / "project"
    project.mkdir()
    root = root.rename(project / "painted")
    convert(root / description.name, project / "ids", progress=False)
    moved = project.rename(tmp_path / "elsewhere")
    source = open_source(str(moved / "ids" / "dataset.yaml"))
    assert Path(source.photo("train", source.ids("train")[0])).is_file()
    convert(moved / "painted" / description.name, tmp_path / "far" / "ids", progress=False)
    text = (tmp_path / "far" / "ids" / "train.csv").read_text("utf-8")
    assert str(moved / "painted") in text  # it is not beside them


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_other_ways_to_save_colours(tmp_path, mode):
    pixels = COLOURS[np.arange(4).reshape(2, 2)]
    image = Image.fromarray(pixels).convert(mode, palette=Image.Palette.ADAPTIVE)
    image.save(tmp_path / "m.png")
    colours = {tuple(map(int, colour)): k for k, colour in enumerate(COLOURS)}
    assert read_colours(str(tmp_path / "m.png"), colours).tolist() == [[0, 1], [2, 3]]


def test_a_colour_that_is_no_class_is_named_and_nothing_is_left(root, description, tmp_path):
    path = root / "valannot" / "0001TP_000002.png"
    pixels = np.array(Image.open(path))
    pixels[7, 5] = (1, 2, 3)
    Image.fromarray(pixels).save(path)
    message = r"mask .*000002.png has the colour \[1, 2, 3\] at x = 5, y = 7 .*not in the palette"
    with pytest.raises(UserError, match=message):
        convert(description, tmp_path / "ids", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_an_interrupted_conversion_leaves_nothing(description, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sparcl_lib.data.acquiring.convert._describe", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(description, tmp_path / "ids", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_what_is_there_is_not_overwritten(description, tmp_path):
    (tmp_path / "ids").mkdir()
    with pytest.raises(UserError, match="ids is there already: remove it, or name another --out"):
        convert(description, tmp_path / "ids", progress=False)
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(UserError, match="cannot write .*file.*ids: .*name another --out"):
        convert(description, tmp_path / "file" / "ids", progress=False)


def test_sixteen_bits_a_channel_are_refused(root, description, tmp_path):
    Image.fromarray(np.zeros((36, 48), np.uint16)).save(root / "valannot" / "0001TP_000002.png")
    with pytest.raises(UserError, match="000002.png is a I;16 image of 16 bits; save it as"):
        convert(description, tmp_path / "ids", progress=False)


def test_colours_are_converted_before_they_are_used(root, description):
    with pytest.raises(UserError, match="masks are in colours; run sparcl data convert --dataset"):
        open_source(str(description))
    plain = describe(root, "plain.yaml", classes=CLASSES)
    with pytest.raises(UserError, match="plain.yaml: palette: missing"):
        convert(plain, root / "ids", progress=False)
    message = "is a RGB image; save it as an 8-bit .*; for masks in colours see sparcl data convert"
    with pytest.raises(UserError, match=message):
        scan(open_source(str(plain)), "train", progress=False)


BAD = [
    ({"classes": {"car": 1}}, "classes: must be a list of names$"),
    ({"void": 3}, "void: with a palette, give void its colours there"),
    ({"palette": []}, "palette: must map each class"),
    ({"palette": {**PALETTE, "raod": [1, 1, 1]}}, "palette: 'raod'; did you mean 'road'"),
    ({"palette": {**PALETTE, "road": [1, 2]}}, r"palette.road: \[1, 2\] is no colour; write three"),
    ({"palette": {**PALETTE, "road": [1, 2, 256]}}, r"palette.road: \[1, 2, 256\] is no colour"),
    ({"palette": {**PALETTE, "road": "red"}}, "palette.road: 'red' is no colour"),
    ({"palette": {**PALETTE, "road": [9, 9, 9]}}, r"palette.void: \[9, 9, 9\] is named twice"),
    ({"palette": {"car": [1, 2, 3]}}, "palette: class 'road' has no colour; give it three"),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=range(len(BAD)))
def test_a_mistake_names_file_and_key(root, tmp_path, content, message):
    path = describe(root, **{"classes": CLASSES, "palette": PALETTE, **content})
    with pytest.raises(UserError, match=f"data.yaml.*{message}") as caught:
        convert(path, tmp_path / "ids", progress=False)
    assert "\n" not in str(caught.value)
