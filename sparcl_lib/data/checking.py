"""Is a data set on disk whole? OK or FAIL, a line each, every bad file by its name."""

import os
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image

from sparcl_lib.data.masks import BROKEN, read_mask
from sparcl_lib.data.minivoc import EDITIONS, verify
from sparcl_lib.data.sources.source import Source, format_ranges
from sparcl_lib.errors import UserError
from sparcl_lib.progress import tqdm

Line = tuple[bool, str]
"""(fine, what was found), printed as OK or FAIL."""

# Images as published, by data set and then by id list or, where masks are not listed, by split.
# VOC: the lists of the devkit; train_aug as in DeepLab and all of the field; ADE20K: the page of
# the benchmark, sceneparsing.csail.mit.edu.
PUBLISHED = {
    "voc": {"train.txt": 1464, "val.txt": 1449, "train_aug.txt": 10582, "trainaug.txt": 10582},
    "ade20k": {"train": 20210, "val": 2000},
}


def check(
    source: Source, partial: bool = False, workers: int | None = None, progress: bool = True
) -> list[Line]:
    """Decode every mask and photograph of all splits and compare counts, sizes and values.

    Args:
        source: the data set.
        partial: it may have fewer images than published, and none of the photographs.
        workers: decoding threads; None = one per core.
        progress: show a progress bar on stderr.

    Returns:
        One line per split and question that is fine; one per file or list that is not.
    """
    lines, ids = [], {}
    # Threads, not processes: as in presence.scan.
    with ThreadPool(workers or os.cpu_count()) as pool:
        for split in source.splits:
            try:
                ids[split] = source.ids(split)
            except UserError as error:
                lines.append((False, f"{split}: {error}"))
                continue
            lines.append(_count(source, split, len(ids[split]), partial))
            lines += _images(source, split, ids[split], partial, pool, progress)
    lines += _shared(source, ids)
    if source.name in EDITIONS:
        lines.append(_as_generated(source.root))
    return lines


def complete(source: Source, partial: bool = False) -> bool:
    """Are all listed masks and photographs there, in the published number? Opens none of them."""
    try:
        return all(_is_there(source, split, partial) for split in source.splits)
    except UserError:
        return False


def _is_there(source: Source, split: str, partial: bool) -> bool:
    ids = source.ids(split)
    if not _count(source, split, len(ids), partial)[0]:
        return False
    if not all(os.path.exists(source.mask(split, i)) for i in ids):
        return False
    return len(_without_photo(source, split, ids)) in ((0, len(ids)) if partial else (0,))


def _count(source: Source, split: str, count: int, partial: bool) -> Line:
    text = f"{split}: {count} images"
    if partial or source.name not in PUBLISHED:
        return True, text
    listing = source.split(split).listing
    wanted = PUBLISHED[source.name].get(listing.name if listing else split)
    if count == wanted:
        return True, f"{text}, as published"
    return False, f"{text}, but {wanted} are published (--partial accepts fewer)"


def _images(
    source: Source, split: str, ids: Sequence[str], partial: bool, pool: ThreadPool, progress: bool
) -> Iterator[Line]:
    missing = _without_photo(source, split, ids)
    photos = len(missing) < len(ids)
    if not photos and not partial:
        yield False, f"{split}: all {len(ids)} photographs are missing; the first: {missing[0]}"
    jobs = pool.imap(lambda i: _problems(source, split, photos, i), ids, chunksize=16)
    bar = tqdm(jobs, f"checking {split}", len(ids), leave=False, disable=not progress)
    problems = [problem for of_image in bar for problem in of_image]
    yield from ((False, f"{split}: {problem}") for problem in problems)
    if not problems:
        legal = format_ranges(source.legal)
        yield True, f"{split}: {len(ids)} masks decode, with values {legal}"
        if photos:
            yield True, f"{split}: {len(ids)} photographs decode and have the size of their mask"


def _problems(source: Source, split: str, photos: bool, image_id: str) -> list[str]:
    """What is wrong with the mask and the photograph of one image."""
    problems, size = [], None
    path = source.mask(split, image_id)
    try:
        shown, size = read_mask(path)
        bad = [int(v) for v in np.flatnonzero(shown) if v not in source.legal]
        if bad:
            legal = format_ranges(source.legal)
            problems.append(f"mask {path} holds {bad}, no class of {source.name} ({legal})")
    except UserError as error:
        problems.append(str(error))
    if photos:
        try:
            problems += _photo_problems(source.photo(split, image_id), size)
        except UserError as error:
            problems.append(str(error))
    return problems


def _photo_problems(path: str, size: tuple[int, int] | None) -> list[str]:
    try:
        with Image.open(path) as photo:
            found = photo.size
            # An eighth of the size shows a cut or broken stream as well, in a third of the time.
            photo.draft(None, (max(1, found[0] // 8), max(1, found[1] // 8)))
            photo.load()
    except BROKEN as error:
        return [f"photograph {path} cannot be read ({error}); restore it"]
    if size and tuple(found) != tuple(size):
        sizes = f"{found[0]}x{found[1]} pixels but its mask is {size[0]}x{size[1]}"
        return [f"photograph {path} is {sizes}; make the sizes equal"]
    return []


def _shared(source: Source, ids: Mapping[str, Sequence[str]]) -> list[Line]:
    if set(ids) != {"train", "val"}:
        return []
    # By file: frames of two folders may have the same id.
    masks = {source.mask("val", image_id) for image_id in ids["val"]}
    both = sorted(i for i in ids["train"] if source.mask("train", i) in masks)
    if both:
        return [(False, f"{len(both)} images are in train and in val: {', '.join(both)}")]
    return [(True, "no image is both in train and in val")]


def _as_generated(root: Path) -> Line:
    try:
        verify(root)
    except UserError as error:
        return False, str(error)
    return True, "masks and lists have the checksum with which they were generated"


def _without_photo(source: Source, split: str, ids: Sequence[str]) -> list[str]:
    """What is said about each photograph that is not there."""
    missing = []
    for image_id in ids:
        try:
            source.photo(split, image_id)
        except UserError as error:
            missing.append(str(error))
    return missing
