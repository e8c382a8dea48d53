"""The name of what a data set holds, under which its runs are kept."""

import hashlib
import json
from multiprocessing.pool import ThreadPool
from pathlib import Path

from sparcl_lib.cores import cores
from sparcl_lib.data.cache import Stamp, cache_file, stamp, write_cache
from sparcl_lib.data.lists import file_checksum
from sparcl_lib.data.sources.source import Source
from sparcl_lib.errors import UserError

CACHE_VERSION = 2

Checksums = dict[str, tuple[*Stamp, str]]
ImageChecksums = dict[str, dict[str, tuple[str, str]]]
"""Split -> image id -> sha256 of its mask and of its photograph."""


def fingerprint(source: Source) -> str:
    """A short name of the lists of a data set and of the bytes of its masks and photographs.

    A copy has the same name, wherever and whenever it was made. The first call reads every file; a
    file whose `stamp` stays is not read again, for its checksum is kept in the user's cache folder.
    All of a data set is read once more after it was moved or copied, or its rights were changed.

    Raises UserError for a list, mask or photograph that is missing or cannot be read.
    """
    return name_of(image_checksums(source))


def name_of(checksums: ImageChecksums) -> str:
    """What `fingerprint` is of a data set with these images."""
    digest = hashlib.sha256()
    for split, images in checksums.items():
        for image_id, both in images.items():
            digest.update(f"{split} {image_id} {list(both)}\n".encode())
    return digest.hexdigest()


def image_checksums(source: Source) -> ImageChecksums:
    """The checksums of all images, as `fingerprint` reads them.

    Raises UserError as `fingerprint` does.
    """
    pairs = {
        split: {i: (source.mask(split, i), source.photo(split, i)) for i in source.ids(split)}
        for split in sorted(source.splits)
    }
    stamps = {}
    for images in pairs.values():
        for image_id, (mask, photo) in images.items():
            stamps[mask] = stamp(mask, "mask", image_id)
            stamps[photo] = stamp(photo, "photograph", image_id)
    known = _checksums(source, stamps)
    return {
        split: {i: (known[mask][-1], known[photo][-1]) for i, (mask, photo) in images.items()}
        for split, images in pairs.items()
    }


def _checksums(source: Source, stamps: dict[str, Stamp]) -> Checksums:
    """Stamp and checksum of each file; those that changed are read."""
    cache = cache_file(f"checksums-v{CACHE_VERSION}", str(source.root.resolve()), ".json")
    known = _load(cache)
    changed = [file for file in stamps if known.get(file, ())[:-1] != stamps[file]]
    if changed:
        read = zip(changed, _read(changed), strict=True)
        known |= {file: (*stamps[file], checksum) for file, checksum in read}
        text = json.dumps(known)
        write_cache(cache, lambda file: file.write_text(text, "utf-8"), "every run reads all data")
    return known


def _load(path: Path) -> Checksums:
    try:
        return {file: tuple(row) for file, row in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _read(files: list[str]) -> list[str]:
    from sparcl_lib.progress import tqdm  # here because it is slow to import and mostly not needed

    with ThreadPool(cores()) as pool:
        checksums = pool.imap(_read_one, files, chunksize=16)
        return list(tqdm(checksums, "reading data", len(files), leave=False))


def _read_one(file: str) -> str:
    try:
        return file_checksum(Path(file))
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); restore it") from None
