"""Photographs and masks as people have them: read as they are meant, or refused by name."""

from pathlib import Path

import numpy as np
import odd_images
import pytest
from conftest import make_voc_tree, save_mask
from odd_images import COLOURS, GREY, MASKS, PHOTOS, VALUES
from PIL import Image

from sparcl_lib.data import ImageReader, Source, check_pairs, scan, voc_source
from sparcl_lib.data.checking import check
from sparcl_lib.data.masks import count_values, read_values
from sparcl_lib.data.pixels import check_photo, photo_size, read_photo
from sparcl_lib.errors import UserError
from sparcl_lib.prediction import read_photograph

REPOSITORY = Path(__file__).parents[2]


def write(folder: Path, name: str, inputs: dict = PHOTOS) -> Path:
    suffix, save = inputs[name]
    path = folder / f"odd.{suffix}"
    save(path)
    return path


def fault(call, *arguments: object) -> str | None:
    """The one line with which something is refused, or None."""
    try:
        call(*arguments)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


REFUSED = [
    "float TIFF", "32-bit integer TIFF", "CIELAB TIFF", "animated GIF", "animated PNG",
    "animated WebP", "TIFF of two pages", "cut JPEG", "cut PNG", "text under another name",
    "no byte", "random bytes", "60,000 x 60,000 pixels, says its header",
]  # fmt: skip
GREYS = {
    "8-bit grey": GREY,
    "1-bit grey": GREY // 128 * 255,
    "2-bit grey": GREY // 64 * 85,
    "4-bit grey": GREY // 16 * 17,
    "16-bit grey": GREY,
    "16-bit grey TIFF": GREY,
    "grey and alpha": GREY,
}
LOSSY = [name for name in PHOTOS if "JPEG" in name or name == "EXIF damaged"]


@pytest.mark.parametrize("name", [name for name in PHOTOS if name not in REFUSED])
def test_a_photograph_is_read_as_it_is_meant(tmp_path, name):
    path = write(tmp_path, name)
    found = read_photo(str(path))
    meant = COLOURS if name not in GREYS else np.repeat(GREYS[name][..., None], 3, axis=2)
    if name == "JPEG, grey":
        meant = np.repeat(GREY[..., None], 3, axis=2)
    assert found.shape == meant.shape and found.dtype == np.uint8
    if name in LOSSY:
        assert np.abs(found.astype(int) - meant).mean() < 40  # subsampled colours of six pixels
    else:
        assert np.array_equal(found, meant)
    assert check_photo(str(path), path.read_bytes()).size == (6, 4)


@pytest.mark.parametrize("name", REFUSED)
def test_a_photograph_that_could_be_meant_otherwise_is_refused_by_name(tmp_path, name):
    path = write(tmp_path, name)
    message = fault(read_photo, str(path))
    assert message is not None and message.startswith(f"photograph {path} ")
    assert message == fault(check_photo, str(path), path.read_bytes()) or "cannot be" in message


def tree(root: Path, suffix: str = ".jpg") -> Source:
    masks = {"a": VALUES, "b": VALUES[::-1].copy(), "v": 3 - VALUES}
    return voc_source(make_voc_tree(root, masks, val=["v"], photo_suffix=suffix))


@pytest.mark.parametrize("name", PHOTOS)
def test_loader_check_and_prediction_agree_about_a_photograph(tmp_path, name):
    source = tree(tmp_path)
    Path(source.photo("train", "a")).unlink()
    odd = write(tmp_path, name)
    if odd.suffix == ".gif":
        odd = odd.rename(odd.with_suffix(".png"))  # a name that a data set has
    path = odd.rename(tmp_path / "JPEGImages" / f"a{odd.suffix}")
    read = fault(ImageReader(source, "train"), "a")
    (failed,) = [
        text for fine, text in check(source, partial=True, progress=False) if not fine
    ] or [None]
    predicted = fault(read_photograph, path)
    refused = name in REFUSED
    assert [bool(read), bool(failed), bool(predicted)] == 3 * [refused]
    header = fault(check_pairs, source, "train")  # before the first step: what headers show
    assert refused or header is None
    if refused:
        assert failed == f"train: {read}" and predicted == read and str(path) in read
        assert header in (read, None)
    else:
        image, _ = ImageReader(source, "train")("a")
        assert np.array_equal(image.permute(1, 2, 0), read_photo(str(path)))
        assert np.array_equal(image, read_photograph(path))


READ = {name: VALUES for name in MASKS if name.startswith(("8-bit", "2-bit", "4-bit", "BMP"))}
READ |= {name: VALUES for name in MASKS if name.endswith("values to 255")}
READ |= {"1-bit grey": VALUES % 2, "1-bit palette": VALUES % 2}


@pytest.mark.parametrize("name", MASKS)
def test_index_loader_and_check_agree_about_a_mask(tmp_path, name):
    source = tree(tmp_path)
    Path(source.mask("train", "a")).unlink()
    odd = write(tmp_path, name, MASKS)
    suffix = ".png" if odd.suffix == ".jpg" else odd.suffix
    path = odd.rename(tmp_path / "SegmentationClassAug" / f"a{suffix}")
    read = fault(ImageReader(source, "train"), "a")
    (failed,) = [
        text for fine, text in check(source, partial=True, progress=False) if not fine
    ] or [None]
    indexed = fault(scan, source, "train", False)
    if name not in READ:
        assert read == indexed == failed.removeprefix("train: ") and read.startswith(
            f"mask {path} "
        )
        return
    assert read is failed is indexed is None
    assert np.array_equal(read_values(str(path)), READ[name])
    _, mask = ImageReader(source, "train")("a")
    assert np.array_equal(mask, READ[name])
    counts, size = count_values(str(path))
    assert (
        size == (6, 4)
        and counts.tolist() == np.bincount(READ[name].ravel(), minlength=256).tolist()
    )
    presence = scan(source, "train", progress=False)
    assert np.flatnonzero(presence.table[0]).tolist() == np.unique(READ[name]).tolist()


def test_values_above_255_are_told_with_their_pixels(tmp_path):
    message = fault(read_values, str(write(tmp_path, "16-bit grey, values above 255", MASKS)))
    assert message.endswith(
        "odd.png holds 300 (6 pixels), and mask values are 0 to 255; save it with 8 bits"
    )


def test_an_upright_mask_meets_an_upright_photograph(tmp_path):
    """The photograph lies on its side in the file; by its stored pixels it would not fit."""
    source = tree(tmp_path)
    photo = Path(source.photo("train", "a"))
    write(tmp_path, "EXIF orientation 6, JPEG").rename(photo)
    with Image.open(photo) as stored:
        assert stored.size == (4, 6) and photo_size(str(photo)) == (6, 4)
    check_pairs(source, "train")
    save_mask(Path(source.mask("train", "a")), VALUES.T.copy())  # drawn on the stored pixels
    for message in (
        fault(check_pairs, source, "train"),
        fault(ImageReader(source, "train"), "a"),
    ):
        assert message.startswith(f"photograph {photo} is 6x4 pixels but its mask ")
        assert "a.png is 4x6 (an EXIF orientation turns photographs, not masks)" in message


def test_an_orientation_behind_the_pixels_is_found_before_training(tmp_path):
    source = tree(tmp_path, ".png")
    path = Path(source.photo("train", "a"))
    late = odd_images.chunk(b"eXIf", odd_images.exif(6).tobytes().removeprefix(b"Exif\0\0"))
    path.write_bytes(odd_images.png(8, 2, np.rot90(COLOURS).copy(), late))
    check_pairs(source, "train")
    assert np.array_equal(read_photo(str(path)), COLOURS)


def test_a_square_photograph_is_turned(tmp_path):
    square = COLOURS[:, :4]
    Image.fromarray(np.rot90(square)).save(tmp_path / "a.png", exif=odd_images.exif(6))
    assert np.array_equal(read_photo(str(tmp_path / "a.png")), square)


def test_more_pixels_than_are_read(tmp_path, monkeypatch):
    """The limit is Pillow's own, twice MAX_IMAGE_PIXELS: 180 million pixels are above it."""
    assert 2 * Image.MAX_IMAGE_PIXELS < 180_000_000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 11)
    path = write(tmp_path, "8-bit RGB")
    limit = f"photograph {path} has 24 pixels, and at most 22 are read; scale it down or cut it up"
    assert fault(read_photo, str(path)) == fault(photo_size, str(path)) == limit


def test_an_open_image_of_pillow(tmp_path):
    for name in ("16-bit grey", "EXIF orientation 6", "8-bit grey"):
        path = write(tmp_path, name)
        with Image.open(path) as image:
            assert np.array_equal(read_photograph(image), read_photograph(path))
    message = fault(read_photograph, Image.fromarray(np.ones((4, 6), np.float32)))
    assert message.startswith("the PIL image holds floating point numbers")


def test_the_page_says_what_becomes_of_each_input():
    page = (REPOSITORY / "docs" / "reliability.md").read_text("utf-8")
    assert odd_images.tables() in page, "python tests/odd_images.py prints what belongs there"


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Cut, with a flipped bit, with a block of other bytes, or with one that is missing."""
    start, stop = sorted(random.integers(0, max(1, len(content)), 2).tolist())
    match random.integers(4):
        case 0:
            return content[:start]
        case 1:
            flipped = bytearray(content)
            if flipped:
                flipped[start] ^= 1 << int(random.integers(8))
            return bytes(flipped)
        case 2:
            return content[:start] + random.bytes(stop - start) + content[stop:]
        case _:
            return content[:start] + content[stop:]


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged notes of cameras
def test_300_damaged_files_are_read_or_refused_by_name(tmp_path):
    random, outcomes = np.random.default_rng(16), []
    inputs = [(PHOTOS, name, read_photo) for name in PHOTOS]
    inputs += [(MASKS, name, read_values) for name in MASKS]
    for case in range(300):
        kind, name, read = inputs[case % len(inputs)]
        path = write(tmp_path, name, kind)
        path.write_bytes(damaged(path.read_bytes(), random))
        message = fault(read, str(path))  # any other exception fails the test
        assert message is None or str(path) in message
        outcomes.append(message is None)
    assert 10 < sum(outcomes) < 200
