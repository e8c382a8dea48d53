"""Which classes are in which image: one scan of the masks, kept on disk between calls."""

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from sparcl_lib.cores import cores
from sparcl_lib.data.cache import Stamp, cache_file, stamp, write_cache
from sparcl_lib.data.masks import count_values
from sparcl_lib.data.pixels import (
    Size,
    check_sizes,
    check_two_files,
    photo_size,
    read_photo,
)
from sparcl_lib.data.sources.source import Source
from sparcl_lib.errors import UserError, number_of

CACHE_VERSION = 3
_ARRAYS = ("ids", "stamps", "table", "sizes")

Key = tuple[str, *Stamp]
Row = tuple[np.ndarray, Size]
"""bool (256,), which values a mask shows, and its width and height in pixels."""


@dataclass(frozen=True, eq=False)
class Presence:
    """The raw ids in every mask of a split, N images."""

    ids: tuple[str, ...]
    """N image ids, in list order."""
    table: np.ndarray
    """bool (N, 256): does image n have a pixel of this raw id?"""
    sizes: np.ndarray | None = None
    """int (N, 2): width and height of the masks in pixels, if known."""

    @classmethod
    def from_sets(cls, sets: Mapping[str, Iterable[int]]) -> "Presence":
        """From a mapping image id -> raw ids, such as ``{"a": {1, 15}}``.

        Raises:
            UserError: a value outside 0 to 255.
        """
        table = np.zeros((len(sets), 256), dtype=bool)
        for row, (image_id, values) in zip(table, sets.items(), strict=True):
            for value in values:
                if value not in range(256):
                    raise UserError(f"image {image_id!r}: {value!r} is no mask value 0 to 255")
                row[value] = True
        return cls(tuple(sets), table)

    def select(self, chosen: np.ndarray) -> "Presence":
        """The images of a bool (N,), in the same order."""
        ids = tuple(self.ids[n] for n in np.flatnonzero(chosen))
        return Presence(ids, self.table[chosen], None if self.sizes is None else self.sizes[chosen])


def scan(source: Source, split: str, progress: bool = True) -> Presence:
    """Class presence and mask sizes of a split; masks that did not change are not read again.

    The result is kept in the user's cache folder. A mask counts as changed when its id or its
    `stamp` does: its size and times, all of which another tree has, so that a data set which was
    moved is scanned once more.

    Args:
        source: data set; only its lists and masks are needed.
        split: name of one of its splits.
        progress: show a progress bar on stderr while decoding.

    Returns:
        Presence of the N images, in list order.

    Raises:
        UserError: list or mask missing, mask unreadable, not a class-index image, or holding a
            value that is no class of the data set.
    """
    ids, where = source.ids(split), source.split(split)
    paths = [where.mask(image_id) for image_id in ids]
    stamps = [stamp(path, "mask", i) for i, path in zip(ids, paths, strict=True)]
    keys = [(where.scanned_as(i), *s) for i, s in zip(ids, stamps, strict=True)]
    cache = cache_file(f"presence-v{CACHE_VERSION}", f"{where.place.resolve()}|{split}", ".npz")
    known = _load(cache)
    changed = {key: path for key, path in zip(keys, paths, strict=True) if key not in known}
    if changed:
        known.update(zip(changed, _read_masks(changed.values(), progress), strict=True))
        _save(cache, {key: known[key] for key in keys})
    table, sizes = zip(*(known[key] for key in keys), strict=True)
    shown = np.stack(table)
    _check_values(source, shown, paths)
    return Presence(ids, raw_ids_shown(source, shown), np.array(sizes, dtype=np.int32))


def check_pairs(source: Source, split: str, presence: Presence | None = None) -> None:
    """Check that every listed image has a photograph and a mask, of equal size.

    Reads only the headers of the photographs; the masks come from ``scan``, or are in ``presence``
    where it was done already.

    Raises:
        UserError: naming the file that is missing, unreadable, of another size or both photograph
            and mask; also as ``scan``.
    """
    presence = presence or scan(source, split)
    assert presence.sizes is not None  # a scan knows them
    for image_id, size in zip(presence.ids, presence.sizes.tolist(), strict=True):
        photo, mask = source.photo(split, image_id), source.mask(split, image_id)
        check_two_files(photo, mask)
        found = photo_size(photo)
        if found != tuple(size):  # it may be turned by what stands behind its pixels
            height, width, _ = read_photo(photo).shape
            found = width, height
        check_sizes(photo, found, mask, tuple(size))


def _load(path: Path) -> dict[Key, Row]:
    """What earlier scans kept; empty if there is nothing that can be used."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            ids, stamps, table, sizes = (arrays[name] for name in _ARRAYS)
        keys = ((i, *stamp) for i, stamp in zip(ids.tolist(), stamps.tolist(), strict=True))
        return dict(zip(keys, zip(table, sizes.tolist(), strict=True), strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return {}


def _save(path: Path, rows: dict[Key, Row]) -> None:
    """Keep rows for later calls."""
    ids, *stamps = zip(*rows, strict=True)
    table, sizes = zip(*rows.values(), strict=True)
    write_cache(
        path,
        lambda draft: np.savez_compressed(
            draft,
            ids=np.array(ids),
            stamps=np.array(stamps).T,
            table=np.stack(table),
            sizes=np.array(sizes),
        ),
        "every call scans the masks",
    )


def _read_masks(paths: Iterable[str], progress: bool) -> list[Row]:
    """Decode masks in threads, one per core, in the order of ``paths``."""
    from sparcl_lib.progress import tqdm  # here because it is slow to import and mostly not needed

    paths = list(paths)
    # Threads, not processes: Pillow releases the GIL while it decodes and counts, and threads are
    # safe beside torch, in a notebook and in a script without a __main__ guard.
    with ThreadPool(cores()) as pool:
        rows = pool.imap(_read_mask, paths, chunksize=16)
        return list(tqdm(rows, "scanning masks", len(paths), leave=False, disable=not progress))


def _read_mask(path: str) -> Row:
    counts, size = count_values(path)
    return counts > 0, size


def raw_ids_shown(source: Source, shown: np.ndarray) -> np.ndarray:
    """bool (N, 256), which mask values images show -> which raw ids; other values are left out."""
    if source.values is None:
        return shown
    table = np.zeros_like(shown)
    for value, raw_id in source.values.items():
        table[:, raw_id] |= shown[:, value]
    return table


def _check_values(source: Source, shown: np.ndarray, paths: list[str]) -> None:
    """Raise a UserError for a mask value that is neither a class nor left out."""
    strange = np.array(sorted(set(range(256)) - source.legal), dtype=np.int64)
    rows, columns = np.nonzero(shown[:, strange])
    if len(rows):
        numbers = zip(strange.tolist(), shown[:, strange].sum(axis=0).tolist(), strict=True)
        found = ", ".join(
            f"{value} in {number_of(count, 'mask')}" for value, count in numbers if count
        )
        raise UserError(
            f"mask {paths[rows[0]]} holds value {strange[columns[0]]}, but {source.name!r} has "
            f"{source.legal_text}; correct the mask or the class list (found {found})"
        )
