"""Data sets on disk: where the id lists, photographs and masks are. Reads no pixels."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparcl_lib.data.sources.files import (
    MASK_SUFFIXES,
    PHOTO_SUFFIXES,
    files_of,
    spellings,
    stems,
    visible_names,
)
from sparcl_lib.data.sources.pairs import PairList
from sparcl_lib.errors import UserError
from sparcl_lib.labels import VOID
from sparcl_lib.tasks.catalog import get_task
from sparcl_lib.tasks.classes import ADE_CLASSES, VOC_CLASSES, unknown_name
from sparcl_lib.tasks.task import Task

_HOW_TO_GET = {
    "voc": "point --data-root at the folder that holds VOCdevkit/VOC2012, or get it: "
    "sparcl data voc2012",
    "ade20k": "point --data-root at the unpacked ADEChallengeData2016, or get it: "
    "sparcl data ade20k",
}


@dataclass(frozen=True)
class Split:
    """Where one split of a data set lies: folders in which an id is a file's name."""

    photos: Path
    """Folder of the photographs: ``ID.jpg``, or another suffix of `PHOTO_SUFFIXES`."""
    masks: Path
    """Folder of the masks: ``ID.png``, or another suffix of `MASK_SUFFIXES`."""
    listing: Path | None
    """Text file with one id per line; None = every mask in the folder that is not hidden."""

    @property
    def place(self) -> Path:
        """What a scan of these masks is kept under."""
        return self.masks

    def ids(self) -> list[str]:
        """Image ids in list order, unchecked; UserError if list or folder cannot be read."""
        return read_list(self.listing) if self.listing else _names(self.masks)

    def scanned_as(self, image_id: str) -> str:
        """What a mask is called among those scans, beside its size and time."""
        return image_id

    def mask(self, image_id: str) -> str:
        """Path of a mask (it need not exist)."""
        paths = self.masks_of(image_id)
        return next(filter(os.path.exists, paths), paths[0])

    def masks_of(self, image_id: str) -> list[str]:
        """Where the mask may be."""
        return spellings(self.masks, image_id, MASK_SUFFIXES)

    def photos_of(self, image_id: str) -> list[str]:
        """Where the photograph may be."""
        return spellings(self.photos, image_id, PHOTO_SUFFIXES)


@dataclass(frozen=True)
class Source:
    """A data set of photographs and masks. Lists in folders are read when asked for."""

    name: str
    """Name of the data set, such as ``voc``."""
    root: Path
    """Folder of the data set."""
    classes: tuple[str, ...]
    """Class names indexed by raw id, background first."""
    splits: Mapping[str, Split | PairList]
    """Split name (``train``, ``val``) -> where it lies."""
    values: Mapping[int, int] | None = None
    """Mask value -> raw id, 255 for pixels that are left out; None: masks hold raw ids."""
    files: tuple[Path, ...] = ()
    """Files that describe the data set, if the user wrote it down."""

    @property
    def legal(self) -> frozenset[int]:
        """Values that a mask may hold."""
        return frozenset(range(len(self.classes)) if self.values is None else self.values) | {VOID}

    @property
    def legal_text(self) -> str:
        """Those values in words, for messages."""
        if self.values is None:
            return f"classes 0 to {len(self.classes) - 1} and {VOID} for borders"
        where = f" in {self.files[0]}" if self.files else ""
        return f"the values {format_ranges(self.legal)}{where}"

    def task(self, name: str | Path, order: Sequence[int] | None = None) -> Task:
        """A task on these classes, as `get_task` finds it."""
        return get_task(self.name, name, order, self.classes)

    def split(self, split: str) -> Split | PairList:
        """Where a split lies; UserError if there is none of this name."""
        if split not in self.splits:
            raise unknown_name(f"split of {self.name}", split, self.splits)
        return self.splits[split]

    def ids(self, split: str) -> tuple[str, ...]:
        """Image ids of a split, in list order.

        Raises:
            UserError: unknown split; list missing, empty, naming an id twice, or one with ``..``.
        """
        where = self.split(split)
        ids = where.ids()
        origin = where.listing or where.place
        if not ids:
            what = "a row for each image" if isinstance(where, PairList) else "ids, one a line"
            raise UserError(f"empty split {split!r}: {origin} names no image; add {what}")
        double, count = Counter(ids).most_common(1)[0]
        if count > 1:
            raise UserError(f"{origin} lists id {double!r} {count} times; keep it once")
        for image_id in ids:
            if image_id.startswith("/") or ".." in image_id.split("/"):
                raise UserError(f"{origin}: id {image_id!r} leads out of the folder; correct it")
        if isinstance(where, Split) and where.listing:
            _check_suffixes(where, ids)
        return tuple(ids)

    def mask(self, split: str, image_id: str) -> str:
        """Path of the mask of an image (it need not exist)."""
        return self.split(split).mask(image_id)

    def masks(self, split: str, image_id: str) -> list[str]:
        """Paths of all files that could be the mask of an image, the one that is read first; none
        where there is none."""
        return files_of(self.split(split).masks_of(image_id))

    def photo(self, split: str, image_id: str) -> str:
        """Path of the photograph of an image, the first that is there.

        Raises UserError if there is none.
        """
        paths = self.split(split).photos_of(image_id)
        found = next(filter(os.path.exists, paths), None)
        if found is not None:
            return found
        others = f" (or {', '.join(PHOTO_SUFFIXES[1:])})" if len(paths) > 1 else ""
        raise UserError(
            f"photograph {paths[0]}{others} of id {image_id!r} in split {split!r} is missing; "
            "add it, or take the id off the list"
        )

    def photos(self, split: str, image_id: str) -> list[str]:
        """Paths of all files that could be the photograph of an image, the one that is first.

        Raises UserError if there is none.
        """
        found = files_of(self.split(split).photos_of(image_id))
        return found or [self.photo(split, image_id)]


def _check_suffixes(where: Split, ids: Iterable[str]) -> None:
    """Raise UserError for an id that is a file's name with its suffix; one may end in .png too."""
    for image_id in ids:
        stem, suffix = os.path.splitext(image_id)
        if suffix.lower() not in {*PHOTO_SUFFIXES, *MASK_SUFFIXES}:
            continue
        if not os.path.exists(where.mask(image_id)) and os.path.exists(where.mask(stem)):
            raise UserError(
                f"{where.listing}: id {image_id!r} ends in {suffix}, and ids stand without a "
                f"suffix; write {stem}"
            )


def format_ranges(values: Iterable[int], last: str = "or") -> str:
    """{0, 1, 2, 255} -> ``0 to 2 or 255``."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    texts = [str(low) if low == high else f"{low} to {high}" for low, high in runs]
    return f" {last} ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)


def voc_source(root: str | Path, name: str = "voc", classes: Sequence[str] = VOC_CLASSES) -> Source:
    """A data set in the layout of the VOC2012 devkit: ``train`` and ``val``.

    With ``SegmentationClassAug`` and ``train_aug.txt`` (or ``trainaug.txt``) both splits use the
    augmented masks; without, ``train.txt`` and ``SegmentationClass``. Photographs may be absent
    as long as only masks are needed.

    Args:
        root: the VOC2012 folder, its VOCdevkit parent, or that one's parent.
        name: name of the data set in messages and results.
        classes: class names by raw id, background first.

    Raises:
        UserError: folder, lists or masks not found.
    """
    base = _voc_base(Path(root).expanduser(), name)
    lists = base / "ImageSets" / "Segmentation"
    masks, train = _voc_masks_and_list(base, lists, name)
    photos = base / "JPEGImages"
    splits = {
        "train": Split(photos, masks, train),
        "val": Split(photos, masks, lists / "val.txt"),
    }
    return Source(name, base, tuple(classes), splits)


def ade20k_source(root: str | Path) -> Source:
    """ADEChallengeData2016 (or the folder that holds it): ``train`` and ``val``, ids sorted.

    Raises:
        UserError: folder not found.
    """
    root = Path(root).expanduser()
    for base in (root, root / "ADEChallengeData2016"):
        if (base / "annotations" / "training").is_dir():
            folders = {"train": "training", "val": "validation"}
            splits = {
                split: Split(base / "images" / folder, base / "annotations" / folder, None)
                for split, folder in folders.items()
            }
            return Source("ade20k", base, ADE_CLASSES, splits)
    raise _missing("ade20k", root, "annotations/training")


def _voc_base(root: Path, name: str) -> Path:
    for base in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (base / "ImageSets" / "Segmentation").is_dir():
            return base
    raise _missing(name, root, "ImageSets/Segmentation")


def _voc_masks_and_list(base: Path, lists: Path, name: str) -> tuple[Path, Path]:
    """Mask folder and training list: augmented if both exist, else the official ones."""
    choices = (
        ("SegmentationClassAug", "train_aug.txt"),
        ("SegmentationClassAug", "trainaug.txt"),
        ("SegmentationClass", "train.txt"),
        ("SegmentationClassAug", "train.txt"),
    )
    for folder, listing in choices:
        if (base / folder).is_dir() and (lists / listing).is_file():
            return base / folder, lists / listing
    wanted = "SegmentationClassAug with ImageSets/Segmentation/train_aug.txt (or SegmentationClass "
    raise _missing(name, base, wanted + "with train.txt)")


def _missing(name: str, root: Path, wanted: str) -> UserError:
    what = f"has no {wanted}" if root.is_dir() else "is not a folder"
    how = _HOW_TO_GET.get(name, "point --data-root at a folder in the layout of VOC2012")
    return UserError(f"data set {name!r}: {root} {what}; {how}")


def read_list(path: Path) -> list[str]:
    """Lines of an id list without the empty ones; UserError if it cannot be read."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()  # editors write the mark
    except OSError as error:
        raise UserError(f"cannot read id list {path}: {error.strerror or error}; add it") from None
    except UnicodeDecodeError:
        raise UserError(f"id list {path} is not text in UTF-8; save it as such") from None
    return [line.strip() for line in lines if line.strip()]


def _names(folder: Path) -> list[str]:
    try:
        names = visible_names(folder)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot read mask folder {folder}: {reason}; add it") from None
    return sorted(stems(names, MASK_SUFFIXES))
