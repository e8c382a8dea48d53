"""Files out of tar and zip archives, or out of a folder, into a folder of ours, and nowhere else.

Nothing is extracted by name: a function decides where, if anywhere, a file belongs. An archive
with a name that leads elsewhere, a link, a device or more content than it may have is refused.
"""

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from sparcl_lib.data.acquiring.disk import format_bytes, write_error
from sparcl_lib.errors import UserError
from sparcl_lib.progress import tqdm

Place = Callable[[str], str | None]
"""Name in an archive, parts joined by / -> relative path to write it to; None = not wanted."""

_BLOCK = 1 << 20
_MOST_MEMBERS = 500_000
_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error,
            EOFError, RuntimeError)  # fmt: skip
_MACOS_FILES = ("__MACOSX", ".DS_Store")  # so are files named ._*


class _Member(NamedTuple):
    name: str
    size: int
    """Bytes as declared."""
    is_file: bool
    is_folder: bool
    open: Callable[[], IO[bytes]]
    position: int
    """Bytes of the archive that are read once this member is."""


def is_archive(path: Path) -> bool:
    """Is this file a tar or a zip, by content or at least by name?"""
    return path.is_file() and (
        path.suffix in _SUFFIXES or zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    )


def names(source: Path) -> Iterator[str]:
    """Names of the files in an archive or a folder (starting with the folder's), or of one file.

    Raises:
        UserError: the archive is damaged or holds what no archive of data should.
    """
    if is_archive(source):
        with _damage_named(source):
            yield from (name for name, _ in _wanted_members(source, lambda name: name, None))
    else:
        yield from (name for _, name in _files(source))


def unpack(archive: Path, folder: Path, place: Place, limit: int, progress: bool = True) -> None:
    """Write the wanted files of a tar or zip archive into `folder`.

    Args:
        archive: file; its content says whether it is a tar or a zip.
        folder: made if need be.
        place: where a file goes.
        limit: bytes that the archive may hold at most, wanted or not.
        progress: show a bar on stderr.

    Raises:
        UserError: archive damaged, not safe to unpack, or with a file twice; disk full.
    """
    bar = tqdm(
        desc=f"unpacking {archive.name}",
        total=archive.stat().st_size,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=not progress,
    )
    try:
        with bar, _damage_named(archive):
            for placed, member in _wanted_members(archive, place, limit):
                _write(member, folder / placed)
                bar.update(member.position - bar.n)
    except FileExistsError as error:
        raise UserError(f"{error.filename} comes twice, again in {archive}: not unpacked") from None
    except OSError as error:
        raise write_error(error, folder) from error


def copy(source: Path, folder: Path, place: Place, progress: bool = True) -> None:
    """Copy the wanted files of a folder (or one file) into `folder`; the originals stay.

    Raises:
        UserError: two files for one place; a file that cannot be read; disk full.
    """
    places = [(path, place(name)) for path, name in _files(source)]
    wanted = [(path, folder / placed) for path, placed in places if placed]
    try:
        for path, target in tqdm(
            wanted, f"copying {source.name}", leave=False, disable=not progress
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as read, target.open("xb") as write:
                shutil.copyfileobj(read, write, _BLOCK)
    except FileExistsError:
        raise UserError(f"{path} is a second file for {target.name}: give one of them") from None
    except OSError as error:
        raise write_error(error, folder) from error


def _files(source: Path) -> Iterator[tuple[Path, str]]:
    """(path, name) of every file below a folder, links followed; the name starts with its own."""
    if source.is_file():
        yield source, source.name
        return
    source, seen = source.absolute(), set()
    for folder, folders, files in os.walk(source, followlinks=True):
        # A link to a folder above would go round for ever.
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for path in (Path(folder, file) for file in sorted(files)):
            name = path.relative_to(source.parent).as_posix()
            if not _is_of_macos(name):
                yield path, name


def _wanted_members(
    archive: Path, place: Place, limit: int | None
) -> Iterator[tuple[str, _Member]]:
    """(relative path, member) of what `place` wants, every member looked at first."""
    total = 0
    with archive.open("rb") as raw:
        for count, member in enumerate(_members(raw)):
            total += member.size
            if (limit is not None and total > limit) or count >= _MOST_MEMBERS:
                raise UserError(
                    f"{archive} holds more than it should ({format_bytes(total)} in {count + 1} "
                    "files and counting): not unpacked; get it from its official source"
                )
            name = _safe_name(archive, member)
            placed = place(name) if member.is_file and not _is_of_macos(name) else None
            if placed:
                yield placed, member


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        reason = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        raise UserError(
            f"{archive} is damaged or no tar or zip ({reason}): delete it and get it again"
        ) from error


def _members(raw: IO[bytes]) -> Iterator[_Member]:
    is_zip = zipfile.is_zipfile(raw)
    raw.seek(0)
    return _zip_members(raw) if is_zip else _tar_members(raw)


def _tar_members(raw: IO[bytes]) -> Iterator[_Member]:
    with tarfile.open(fileobj=raw, mode="r:*") as file:
        for info in file:
            is_file = info.isreg() and not info.issparse()
            content = partial(_tar_content, file, info)
            yield _Member(info.name, info.size, is_file, info.isdir(), content, raw.tell())


def _tar_content(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = file.extractfile(info)
    if content is None:
        raise tarfile.ReadError(f"{info.name} has no content")
    return content


def _zip_members(raw: IO[bytes]) -> Iterator[_Member]:
    position = 0
    with zipfile.ZipFile(raw) as file:
        for info in file.infolist():
            position += info.compress_size
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0: made where there are no such kinds
            is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
            is_folder = info.is_dir() and kind in (0, stat.S_IFDIR)
            content = partial(file.open, info)
            yield _Member(info.filename, info.file_size, is_file, is_folder, content, position)


def _safe_name(archive: Path, member: _Member) -> str:
    """The name without needless dots; UserError for one that leads out, a link or a device."""
    name = member.name
    if name.startswith("/") or set(name) & set("\\:\0") or ".." in name.split("/"):
        what = "leads out of the folder"
    elif not member.is_file and not member.is_folder:
        what = "is a link or a device"
    else:
        return PurePosixPath(name).as_posix()
    raise UserError(f"{archive} is not safe to unpack: {name!r} {what}; get it from its source")


def _is_of_macos(name: str) -> bool:
    return any(part in _MACOS_FILES or part.startswith("._") for part in name.split("/"))


def _write(member: _Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as read, target.open("xb") as write:
        shutil.copyfileobj(read, write, _BLOCK)
