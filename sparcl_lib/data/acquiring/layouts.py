"""VOC2012, SBD and ADE20K: what is had from where, and what belongs where in their trees."""

import shutil
from collections.abc import Callable
from pathlib import Path

from sparcl_lib.data.acquiring import sbd
from sparcl_lib.data.acquiring.archives import ADE20K_CHALLENGE, SBD_BENCHMARK, VOC2012_TRAINVAL
from sparcl_lib.data.acquiring.prepare import Acquisition
from sparcl_lib.data.sources.files import MASK_SUFFIXES, stems, visible_names
from sparcl_lib.data.sources.source import Source, Split, ade20k_source
from sparcl_lib.tasks.classes import VOC_CLASSES

LISTS, PHOTOS = "ImageSets/Segmentation", "JPEGImages"
OFFICIAL, AUGMENTED = "SegmentationClass", "SegmentationClassAug"
_VOC_FOLDERS = ("Annotations", "ImageSets", PHOTOS, OFFICIAL, "SegmentationObject")
_LIST_NAMES = {"train.txt": "train.txt", "val.txt": "val.txt", "trainval.txt": "trainval.txt",
               "train_aug.txt": "train_aug.txt", "trainaug.txt": "train_aug.txt"}  # fmt: skip
_SBD = "sbd"  # what SBD's archive holds, until its masks are made


def place_voc(name: str) -> str | None:
    """Below the folders of the devkit; id lists also alone or in a folder that was named."""
    *folders, file = name.split("/")
    for depth, folder in enumerate(folders):
        if folder in _VOC_FOLDERS:
            return "/".join([*folders[depth:], _LIST_NAMES.get(file, file)])
    alone = len(folders) <= 1 and folders != ["dataset"]  # dataset/train.txt is SBD's own list
    return f"{LISTS}/{_LIST_NAMES[file]}" if alone and file in _LIST_NAMES else None


def place_sbd(name: str) -> str | None:
    """Finished masks, or the class annotations and lists of the benchmark."""
    *folders, file = name.split("/")
    folder = folders[-1] if folders else ""
    if folder == AUGMENTED and file.endswith(".png"):
        return f"{AUGMENTED}/{file}"
    if folder == "cls" and file.endswith(".mat"):
        return f"{_SBD}/cls/{file}"
    return f"{_SBD}/{file}" if folder == "dataset" and file in ("train.txt", "val.txt") else None


def place_ade(name: str) -> str | None:
    """Training and validation images and masks, and the tables beside them."""
    *folders, file = name.split("/")
    if folders and folders[-1] in ("training", "validation") and folders[-2:-1] in (
        ["images"], ["annotations"],
    ):  # fmt: skip
        return "/".join([*folders[-2:], file])
    return file if file in ("objectInfo150.txt", "sceneCategories.txt") else None


def _new_or_old(stage: Path, tree: Path) -> Callable[[str], Path]:
    """Where a path of the tree lies: among the new files, or else in the tree."""
    return lambda name: stage / name if (stage / name).exists() else tree / name


def _voc_view(stage: Path, tree: Path, masks: str = OFFICIAL, train: str = "train.txt") -> Source:
    at = _new_or_old(stage, tree)
    lists = {"train": at(f"{LISTS}/{train}"), "val": at(f"{LISTS}/val.txt")}
    splits = {name: Split(at(PHOTOS), at(masks), listing) for name, listing in lists.items()}
    return Source("voc", tree, VOC_CLASSES, splits)


def _augmented_view(stage: Path, tree: Path) -> Source:
    return _voc_view(stage, tree, AUGMENTED, "train_aug.txt")


def _ade_view(stage: Path, tree: Path) -> Source:
    return ade20k_source(_new_or_old(stage, tree)("annotations").parent)


def _augment(stage: Path, tree: Path) -> None:
    """Masks from SBD's annotations unless there are finished ones, and the list train_aug.txt."""
    at, voc, masks = _new_or_old(stage, tree), _voc_view(stage, tree), stage / AUGMENTED
    train, val = voc.ids("train"), voc.ids("val")
    found = stage / _SBD
    if found.is_dir() and not masks.is_dir():
        listed = {name: Split(found, found, found / f"{name}.txt") for name in ("train", "val")}
        of_sbd = Source("sbd", found, VOC_CLASSES, listed)
        ids = sbd.train_aug([*of_sbd.ids("train"), *of_sbd.ids("val")], train, val)
        sbd.convert(found / "cls", masks, sorted(set(ids) - set(train)))
        sbd.take_over(at(OFFICIAL), masks, [*train, *val])
    else:
        names = visible_names(masks) if masks.is_dir() else []
        ids = sbd.train_aug(stems(names, MASK_SUFFIXES), (), val)
    shutil.rmtree(found, ignore_errors=True)
    listing = at(f"{LISTS}/train_aug.txt")
    if not listing.exists():
        listing = stage / LISTS / listing.name
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("".join(f"{image_id}\n" for image_id in ids), "utf-8")


def _finish_nothing(stage: Path, tree: Path) -> None:
    """The archive is the tree."""


VOC2012 = Acquisition(
    name="voc2012",
    title="Pascal VOC2012",
    archive=VOC2012_TRAINVAL,
    also=(),
    tree="VOCdevkit/VOC2012",
    place=place_voc,
    enough=(PHOTOS,),
    view=_voc_view,
    finish=_finish_nothing,
    terms="photographs from Flickr, under Flickr's terms of use; cite the challenge "
    "(host.robots.ox.ac.uk/pascal/VOC/voc2012, data_scripts/README.md)",
)

SBD = Acquisition(
    name="sbd",
    title="SBD (augmented VOC2012)",
    archive=SBD_BENCHMARK,
    also=("SegmentationClassAug.zip",),
    tree=VOC2012.tree,
    place=place_sbd,
    enough=(AUGMENTED, f"{_SBD}/cls"),
    view=_augmented_view,
    finish=_augment,
    needs=VOC2012,
    terms="its page states no licence and asks to be cited; the photographs are VOC's "
    "(home.bharathh.info/pubs/codes/SBD/download.html, data_scripts/README.md)",
)

ADE20K = Acquisition(
    name="ade20k",
    title="ADE20K (ADEChallengeData2016)",
    archive=ADE20K_CHALLENGE,
    also=(),
    tree="ADEChallengeData2016",
    place=place_ade,
    enough=("annotations",),
    view=_ade_view,
    finish=_finish_nothing,
    terms="photographs for non-commercial research and education only; masks under BSD-3 "
    "(ade20k.csail.mit.edu/terms, data_scripts/README.md)",
)
