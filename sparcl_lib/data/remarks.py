"""What makes a run on these lists another one than it looks: said in a line, and not refused."""

import os
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from sparcl_lib.data.lists import beside_rule
from sparcl_lib.data.presence import Presence
from sparcl_lib.data.sources.files import PHOTO_SUFFIXES, stems, visible_names
from sparcl_lib.data.sources.source import Source, Split
from sparcl_lib.errors import first_few, number_of
from sparcl_lib.tasks.task import Task

# Images as published, by data set and then by id list or, where masks are not listed, by split.
# VOC: the lists of the devkit; train_aug as in DeepLab and all of the field; ADE20K: the page of
# the benchmark, sceneparsing.csail.mit.edu.
PUBLISHED = {
    "voc": {"train.txt": 1464, "val.txt": 1449, "train_aug.txt": 10582, "trainaug.txt": 10582},
    "ade20k": {"train": 20210, "val": 2000},
}
_SPLITS = {"voc": {"train": "train_aug.txt", "val": "val.txt"},
           "ade20k": {"train": "train", "val": "val"}}  # fmt: skip
"""Which of them the published tasks are trained and tested on."""


def list_remarks(source: Source, published: bool, tests_val: bool = True) -> list[str]:
    """Images that are trained and tested on, and splits that have not as many as were published.

    published: whether the task is one of the published ones; tests_val: whether val is tested.
    """
    said = []
    shared = in_both(source) if tests_val else []
    if shared:
        number = number_of(len(shared), "image is", "images are")
        said.append(
            f"{number} in train and in val, so that a network is tested on what it was trained on: "
            f"{first_few(shared)}; take them off one list"
        )
    for split in ("train", "val") if tests_val else ("train",):
        said += [f"{split}: {line}" for line in unmasked(source, split)]
    for split, name in _SPLITS.get(source.name, {}).items() if published else ():
        if split == "val" and not tests_val:
            continue
        listing, count = source.split(split).listing, len(source.ids(split))
        wanted = PUBLISHED[source.name][name]
        if count != wanted:
            place = f" in {listing.name}" if listing else ""
            said.append(
                f"{split} has {count:,} images{place}, and published numbers of {source.name} are "
                f"of the {wanted:,} of {name}: these will not compare (sparcl data check)"
            )
    return said


def unmasked(source: Source, split: str) -> list[str]:
    """A line about photographs without a mask, or none. Where a list says which images count, the
    others need none; without one the folder of masks says it."""
    where = source.split(split)
    if not isinstance(where, Split) or where.listing or not where.photos.is_dir():
        return []
    masked = {unicodedata.normalize("NFC", i) for i in where.ids()}
    names = stems(visible_names(where.photos), PHOTO_SUFFIXES)
    bare = sorted({n for n in names if unicodedata.normalize("NFC", n) not in masked})
    number = number_of(len(bare), "photograph has", "photographs have")
    return [f"{number} no mask, and no part: {first_few(bare)}"] if bare else []


def in_both(source: Source) -> list[str]:
    """Ids of images that are in train and in val, sorted. By the files of mask and photograph,
    links followed, for frames of two folders may have the same id, and masks that were converted
    lie in a folder for each split."""
    tested = {file for i in source.ids("val") for file in _files_of(source, "val", i)}
    return sorted(
        i for i in source.ids("train") if not tested.isdisjoint(_files_of(source, "train", i))
    )


def _files_of(source: Source, split: str, image_id: str) -> set[str]:
    """Real paths of its mask and, where there is one, of its photograph."""
    paths = [source.mask(split, image_id)]
    if source.files:  # of one's own; thousands of others need not be looked for
        photos = source.split(split).photos_of(image_id)
        paths += filter(None, [next(filter(os.path.exists, photos), None)])
    return {os.path.realpath(path) for path in paths}


def class_remarks(
    train: Presence, steps: Mapping[int, Sequence[str]], test: Presence | None, task: Task
) -> list[str]:
    """Classes of the task that no image of their step shows, and those that no test image does.

    steps: step -> its training images, as of `partition`; of joint training with the merged task.
    test: None where it is not known.
    """
    said = []
    for step, ids in steps.items():
        absent = _absent(train, task.steps[step], task, ids) if ids else []  # trained already
        if absent:
            where = f"of step {step} " if task.num_steps > 1 else ""
            said.append(f"no training image {where}shows {first_few(absent)}: never learned")
    absent = [] if test is None else _absent(test, task.used, task)
    if absent:
        said.append(f"no test image shows {first_few(absent)}: no IoU, and not in any mean")
    return said


def _absent(
    presence: Presence, classes: Sequence[int], task: Task, ids: Sequence[str] | None = None
) -> list[str]:
    """Names of the classes that none of these images shows; ids: None for all of a presence."""
    chosen = None if ids is None else frozenset(ids)
    rows = [chosen is None or i in chosen for i in presence.ids]
    shown = presence.table[np.array(rows, dtype=bool)].any(axis=0)
    return [task.classes[c] for c in classes if not shown[c]]


def step_remarks(
    steps: Mapping[int, Sequence[str]], presence: Presence, task: Task, setup: str
) -> list[str]:
    """Steps whose listed images are not those of the setup's rule."""
    said = []
    for step, ids in steps.items():
        more, fewer = beside_rule(ids, presence, task, setup, step)
        if more or fewer:
            said.append(
                f"the list of step {step} has {number_of(more, 'image')} that the rule of the "
                f"{setup} setup has not, and lacks {fewer} that it has (sparcl split --import)"
            )
    return said
