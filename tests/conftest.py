"""Shared by all tests: a cache and terms of their own, and small generated data sets on disk."""

import io
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparcl_lib.cli import main
from sparcl_lib.data import checking, presence
from sparcl_lib.data.masks import count_values
from sparcl_lib.methods import TERMS

PATIENCE = 600
"""Seconds after which a test gives up waiting, on the slowest machine too."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """Keep the user's cache folder out of the tests."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def other_terms() -> Iterator[None]:
    """A term that a test defines, and the file it came from, are gone after it."""
    before, modules = dict(TERMS), set(sys.modules)
    yield
    TERMS.clear()
    TERMS.update(before)
    for name in set(sys.modules) - modules:
        if name.startswith("sparcl_plugin_"):
            del sys.modules[name]


@pytest.fixture
def masks_read(monkeypatch) -> list[str]:
    """The masks that a scan or a check decodes from here on, one entry each time."""
    read: list[str] = []
    monkeypatch.setattr(presence, "count_values", lambda p: read.append(p) or count_values(p))
    monkeypatch.setattr(checking, "count_values", lambda p: read.append(p) or count_values(p))
    return read


class Terminal(io.StringIO):
    """A stream that bars take for a terminal."""

    def isatty(self) -> bool:
        return True


def sparcl(capsys, *arguments: object) -> tuple[int, str, str]:
    """The command: its status, its output, and its own lines of standard error without bars."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("sparcl:")]
    return stop.value.code or 0, captured.out, "\n".join(errors)


def make_mask(values: Iterable[int], size: tuple[int, int] = (8, 6)) -> np.ndarray:
    """uint8 (H, W) from size (W, H): background with one pixel or more of each value."""
    mask = np.zeros(size[::-1], dtype=np.uint8)
    values = list(values)
    mask.flat[1 : 1 + len(values)] = values
    return mask


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write a uint8 (H, W) array as a palette PNG."""
    image = Image.fromarray(mask)
    image.putpalette([channel for value in range(256) for channel in (value, value, value)])
    image.save(path)


def make_voc_tree(
    root: Path,
    masks: Mapping[str, np.ndarray | Iterable[int]],
    val: Iterable[str] = (),
    photos: bool = True,
    aug: bool = True,
    photo_suffix: str = ".jpg",
) -> Path:
    """A data set in the layout of VOC2012; returns ``root``.

    Args:
        root: becomes the VOC2012 folder.
        masks: id -> uint8 (H, W) array, or the values that an 8x6 mask shows beside background.
        val: ids of the val list; all others are the training list.
        photos: write a photograph beside each mask, each of another colour.
        aug: SegmentationClassAug and train_aug.txt, else SegmentationClass and train.txt.
        photo_suffix: ``.jpg`` or ``.png``.
    """
    folder = root / ("SegmentationClassAug" if aug else "SegmentationClass")
    lists = root / "ImageSets" / "Segmentation"
    for path in (folder, lists, root / "JPEGImages"):
        path.mkdir(parents=True, exist_ok=True)
    for number, (image_id, content) in enumerate(masks.items()):
        mask = content if isinstance(content, np.ndarray) else make_mask(content)
        save_mask(folder / f"{image_id}.png", mask)
        if photos:
            colour = (90, 40 * (number // 6) % 256, 40 * (number % 6))
            photo = Image.new("RGB", mask.shape[::-1], colour)
            photo.save(root / "JPEGImages" / f"{image_id}{photo_suffix}")
    val = list(val)
    train = [image_id for image_id in masks if image_id not in val]
    write_list(lists / ("train_aug.txt" if aug else "train.txt"), train)
    write_list(lists / "val.txt", val)
    return root


def unpack_real_masks(data: str, root: Path) -> Path:
    """All real VOC masks and id lists of the folder `data` as a devkit tree; returns ``root``."""
    with zipfile.ZipFile(Path(data, "SegmentationClassAug.zip")) as masks:
        masks.extractall(root)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for path in Path(data, "voc_lists").iterdir():
        (lists / path.name).write_text(path.read_text("utf-8"), "utf-8")
    return root


def write_list(path: Path, ids: Iterable[str]) -> None:
    """Write an id list, one id per line."""
    path.write_text("".join(f"{image_id}\n" for image_id in ids), "utf-8")
