"""Is a data set on disk whole? OK or FAIL, a line each, every bad file by its name."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparcl_lib.cores import cores
from sparcl_lib.data.lists import file_checksum
from sparcl_lib.data.masks import count_values
from sparcl_lib.data.minivoc import EDITIONS, verify
from sparcl_lib.data.pixels import (
    PhotoFacts,
    Size,
    check_photo,
    check_sizes,
    check_two_files,
)
from sparcl_lib.data.presence import Presence, raw_ids_shown
from sparcl_lib.data.remarks import PUBLISHED, class_remarks, in_both, unmasked
from sparcl_lib.data.sources.source import Source, format_ranges
from sparcl_lib.data.splits import without_classes
from sparcl_lib.errors import UserError, first_few, number_of
from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.progress import tqdm
from sparcl_lib.tasks.task import Task

Line = tuple[bool, str]
"""(fine, what was found), printed as OK or FAIL."""

_MOST_VALUES = 32
"""Of masks, that are listed one by one."""


class _Found(NamedTuple):
    """What was found out about one image."""

    problems: list[str]
    """A line each."""
    counts: np.ndarray | None = None
    """int64 (256,) pixels of its mask by value, if that can be read."""
    photo: PhotoFacts | None = None
    sha256: str | None = None
    """Of the photograph's bytes."""


def check(
    source: Source,
    partial: bool = False,
    workers: int | None = None,
    progress: bool = True,
    task: Task | None = None,
) -> list[Line]:
    """Decode every mask and photograph of all splits and compare counts, sizes and values.

    Args:
        source: the data set.
        partial: it may have fewer images than published, and none of the photographs.
        workers: decoding threads; None = one per core.
        progress: show a progress bar on stderr.
        task: whose classes images must show to be trained or tested on; None: any class.

    Returns:
        One line per split and question that is fine; one per file or list that is not.
    """
    lines: list[Line] = []
    found: dict[str, dict[str, _Found]] = {}
    # Threads, not processes: as in presence.scan.
    with ThreadPool(workers or cores()) as pool:
        for split in source.splits:
            try:
                ids = source.ids(split)
            except UserError as error:
                lines.append((False, f"{split}: {error}"))
                continue
            lines.append(_count(source, split, len(ids), partial))
            absent = [i for i in ids if not os.path.exists(source.mask(split, i))]
            if absent:
                text = f"{len(absent)} of {len(ids)} masks are missing: {first_few(absent)}"
                add = f"add them, the first as {source.mask(split, absent[0])}"
                lines.append((False, f"{split}: {text}; {add}, or take the ids off the list"))
            missing = _without_photo(source, split, ids)
            photos = len(missing) < len(ids)
            if not photos and not partial:
                text = f"{split}: all {len(ids)} photographs are missing; the first: {missing[0]}"
                lines.append((False, text))
            found[split] = _inspect_split(source, split, ids, photos, pool, progress)
            lines += _about_images(source, split, found[split], photos, task)
    lines += _shared(source, found)
    lines += _of_task(source, found, task)
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


def _inspect_split(
    source: Source, split: str, ids: Sequence[str], photos: bool, pool: ThreadPool, progress: bool
) -> dict[str, _Found]:
    jobs = pool.imap(lambda i: _inspect(source, split, photos, i), ids, chunksize=16)
    bar = tqdm(jobs, f"checking {split}", len(ids), leave=False, disable=not progress)
    return dict(zip(ids, bar, strict=True))


def _inspect(source: Source, split: str, photos: bool, image_id: str) -> _Found:
    problems: list[str] = []
    mask, size, counts = source.mask(split, image_id), None, None
    where = source.split(split)
    others = [p for p in source.masks(split, image_id)[1:] if p not in where.photos_of(image_id)]
    if others:
        text = f"mask {mask} of id {image_id!r} is there as {first_few(others)} too; keep one"
        problems.append(text)
    try:
        if os.path.exists(mask):  # else it is among those that `check` says are missing
            counts, size = count_values(mask)
    except UserError as error:
        problems.append(str(error))
    facts, sha256 = None, None
    if photos:
        try:
            facts, sha256 = _inspect_photo(source, split, image_id, mask, size)
        except UserError as error:
            problems.append(str(error))
    return _Found(problems, counts, facts, sha256)


def _inspect_photo(
    source: Source, split: str, image_id: str, mask: str, size: Size | None
) -> tuple[PhotoFacts, str]:
    places = source.photos(split, image_id)
    path = places[0]
    check_two_files(path, mask)
    # A mask may lie beside its photograph under the same name, as one of the files that are there.
    others = [p for p in places[1:] if not (os.path.exists(mask) and os.path.samefile(p, mask))]
    if others:
        raise UserError(
            f"photograph {path} of id {image_id!r} is there as {first_few(others)} too; keep one"
        )
    try:
        content = Path(path).read_bytes()
    except IsADirectoryError:
        raise UserError(f"photograph {path} is a folder; name a file") from None
    except OSError as error:
        raise UserError(
            f"photograph {path} cannot be read ({error.strerror}); restore it"
        ) from None
    facts = check_photo(path, content)
    if size is not None:
        check_sizes(path, facts.size, mask, size)
    return facts, hashlib.sha256(content).hexdigest()


def _about_images(
    source: Source, split: str, found: Mapping[str, _Found], photos: bool, task: Task | None
) -> Iterator[Line]:
    """What is to be said of the images of a split, all of which were looked at."""
    problems = [problem for image in found.values() for problem in image.problems]
    problems += _strange_values(source, split, found)
    yield from ((False, f"{split}: {problem}") for problem in problems)
    yield from ((True, f"{split}: {line}") for line in unmasked(source, split))
    counts = {i: image.counts for i, image in found.items() if image.counts is not None}
    if len(counts) == len(found) and not problems:
        shown = np.stack(list(counts.values())) > 0
        yield True, f"{split}: {len(found)} masks decode, with values {_values_text(shown)}"
        if photos:
            yield True, f"{split}: {len(found)} photographs decode and have the size of their mask"
    yield from _copies(source, split, found)
    if counts:
        yield from _about_classes(source, split, counts, task)
    facts = Counter(
        text for image in found.values() if image.photo for text in image.photo.converted
    )
    if facts:
        listed = ", ".join(f"{text} in {count}" for text, count in sorted(facts.items()))
        yield True, f"{split}: photographs are read as 8-bit RGB: {listed}"


def _strange_values(source: Source, split: str, found: Mapping[str, _Found]) -> Iterator[str]:
    """What is said of masks with values that are no class: once of all that hold the same ones."""
    alike: dict[tuple[int, ...], list[tuple[str, np.ndarray]]] = {}
    for i, image in found.items():
        if image.counts is None:
            continue
        values = tuple(v for v in np.flatnonzero(image.counts).tolist() if v not in source.legal)
        alike.setdefault(values, []).append((source.mask(split, i), image.counts))
    alike.pop((), None)
    for values, masks in alike.items():
        pixels = np.sum([counts for _, counts in masks], axis=0)
        held = first_few([f"{v} ({number_of(pixels[v], 'pixel')})" for v in values])
        paths = [path for path, _ in masks]
        several = len(paths) > 1
        named = f"{len(paths)} masks hold" if several else f"mask {paths[0]} holds"
        where = f": {first_few(paths, most=3)}" if several else ""
        it, file = "it" if len(values) == 1 else "them", next(iter(source.files), None)
        declare = f"name {it} under classes or void in {file}, or " if file else ""
        yield (
            f"{named} {held}, no class of {source.name} ({format_ranges(source.legal)}){where}; "
            f"{declare}give these pixels a class, or {VOID} for void"
        )


def _copies(source: Source, split: str, found: Mapping[str, _Found]) -> Iterator[Line]:
    """Photographs that a split has more than once by their bytes, with one mask or with several."""
    first: dict[str, str] = {}
    same: list[str] = []
    other: list[str] = []
    for i, image in found.items():
        before = first.setdefault(image.sha256, i) if image.sha256 else i
        if before == i or image.counts is None or found[before].counts is None:
            continue
        masks = {file_checksum(Path(source.mask(split, n))) for n in (before, i)}
        (same if len(masks) == 1 else other).append(f"{i} = {before}")
    if same:
        text = "photograph and mask byte for byte, and count once more each"
        advice = "take them off the list unless that is meant"
        number = number_of(len(same), "image is a copy", "images are copies")
        yield True, f"{split}: {number}, {text}: {first_few(same)}; {advice}"
    if other:
        number = number_of(len(other), "photograph is", "photographs are")
        text = f"{number} there again, byte for byte, with another mask: {first_few(other)}"
        # What was published like this is not refused, for all numbers in the field are of it.
        published = source.name in PUBLISHED
        advice = "" if published else "; keep the right mask, and take the others off the list"
        yield published, f"{split}: {text}{advice}"


def _values_text(shown: np.ndarray) -> str:
    """Values that masks show, bool (N, 256), and in how many of them."""
    numbers = shown.sum(axis=0)
    values = np.flatnonzero(numbers).tolist()
    if len(values) > _MOST_VALUES:
        return format_ranges(values, "and")
    return ", ".join(f"{value} in {numbers[value]}" for value in values)


def _about_classes(
    source: Source, split: str, counts: Mapping[str, np.ndarray], task: Task | None
) -> Iterator[Line]:
    """How many images show no class that could be learned or tested."""
    shown = np.stack(list(counts.values())) > 0
    table = raw_ids_shown(source, shown)
    none = ~np.delete(table, [BACKGROUND, VOID], axis=1).any(axis=1)
    if none.all():
        text = f"{split}: no mask shows a class; their values are {_values_text(shown)}"
        if set(np.flatnonzero(shown.any(axis=0))) <= {0, VOID}:
            text += (
                "; 255 is void, so give white a class by a palette, as in docs/own_data.md, and "
                "run sparcl data convert"
            )
        yield False, text
    elif task is not None:
        unused = without_classes(Presence(tuple(counts), table), task)
        text = f"show no class of task {task.name} and are left out"
        yield True, f"{split}: {len(unused)} of {len(counts)} images {text}"
    elif none.any():
        text = "show no class but background and are left out"
        yield True, f"{split}: {none.sum()} of {len(counts)} images {text}"


def _of_task(
    source: Source, found: Mapping[str, Mapping[str, _Found]], task: Task | None
) -> Iterator[Line]:
    """Classes of the task that no image shows, to train on or to test."""
    shown = {}
    for split, images in found.items():
        counts = {i: image.counts for i, image in images.items() if image.counts is not None}
        if counts:
            table = raw_ids_shown(source, np.stack(list(counts.values())) > 0)
            shown[split] = Presence(tuple(counts), table)
    if task is not None and "train" in shown:
        steps = dict.fromkeys([0], shown["train"].ids)
        said = class_remarks(shown["train"], steps, shown.get("val"), task.merged())
        yield from ((True, f"task {task.name}: {line}") for line in said)


def _shared(source: Source, found: Mapping[str, Mapping[str, _Found]]) -> list[Line]:
    """Is something of train also in val? By file, and photographs by their bytes too."""
    if set(found) != {"train", "val"}:
        return []
    both = in_both(source)
    tested = {image.sha256: i for i, image in found["val"].items() if image.sha256}
    pairs = [
        f"{i} = {tested[image.sha256]}"
        for i, image in found["train"].items()
        if i not in both and image.sha256 in tested
    ]
    lines = []
    if both:
        number = number_of(len(both), "image is", "images are")
        text = f"{number} in train and in val: {first_few(both)}"
        lines.append((False, text))
    if pairs:
        number = number_of(len(pairs), "photograph of train is", "photographs of train are")
        text = f"{number} in val, byte for byte: {first_few(pairs)}"
        # What was published like this is not refused, for all numbers in the field are of it.
        published = source.name in PUBLISHED
        lines.append((published, f"{text}{'' if published else '; take them off one list'}"))
    by_bytes = " and no photograph, byte for byte," if tested else ""
    return lines or [(True, f"no image{by_bytes} is both in train and in val")]


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
