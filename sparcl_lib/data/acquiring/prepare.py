"""A data set from its published archives, or from the user's own files, to a checked tree.

All work is done in a folder beside the tree; what appears in the tree was checked before, and a
tree that is not there yet appears whole or not at all.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sparcl_lib.data.acquiring.archives import Archive
from sparcl_lib.data.acquiring.disk import format_bytes, free_bytes, write_error
from sparcl_lib.data.acquiring.fetch import fetch, part_of
from sparcl_lib.data.acquiring.unpack import Place, copy, is_archive, names, unpack
from sparcl_lib.data.checking import Line, check, complete
from sparcl_lib.data.sources.source import Source
from sparcl_lib.errors import UserError

ARCHIVES = "archives"
"""Folder under the root for downloads; a file that was there before is used as well, and stays."""


@dataclass(frozen=True)
class Acquisition:
    """How one data set is had, and what becomes of its archive: a tree of folders."""

    name: str
    """Name of its command."""
    title: str
    """Name in messages."""
    archive: Archive
    """What is downloaded if the user has nothing."""
    also: tuple[str, ...]
    """Other archives that a folder of the user's may hold instead, by file name."""
    tree: str
    """Folder of the tree under the root."""
    place: Place
    """Where in the tree a file belongs, by its name in an archive or folder."""
    enough: tuple[str, ...]
    """Nothing is downloaded once one of these is among the user's files."""
    view: Callable[[Path, Path], Source]
    """(new files, tree) -> the data set that the two will make."""
    finish: Callable[[Path, Path], None]
    """(new files, tree): makes what the archive does not hold."""
    needs: "Acquisition | None" = None
    """What must be in the tree before."""
    terms: str = ""
    """Terms of use in a sentence."""


def prepare(
    acquisition: Acquisition,
    root: Path,
    files: Sequence[Path] = (),
    keep_archives: bool = False,
    partial: bool = False,
) -> list[Line]:
    """Put a data set into ``root / acquisition.tree``; if it is there already, nothing is done.

    Args:
        acquisition: of which data set.
        root: folder of all data sets.
        files: archives or folders of the user; they stay as they are.
        keep_archives: keep what was downloaded now, which is no longer needed.
        partial: take what `files` hold, however little, and download nothing.

    Returns:
        What was found, as `checking.check` says it. If a line is not fine, the tree is as before.

    Raises:
        UserError: nothing to be had, an archive not safe, disk full, another process at work.
    """
    tree, stage = root / acquisition.tree, root / f".unpacking-{acquisition.name}"
    try:
        with _locked(root):
            if _is_there(acquisition, tree, partial):
                return [(True, f"{acquisition.title} is in {tree} already: nothing to do")]
            _check_needs(acquisition, root, partial)
            shutil.rmtree(stage, ignore_errors=True)  # of a run that was killed
            archive = root / ARCHIVES / acquisition.archive.name
            was_there = archive.exists()
            try:
                lines = _build(acquisition, root, stage, files, partial)
                if not all(fine for fine, _ in lines):
                    return [*lines, (False, f"{acquisition.title} is not put into {tree}")]
                _install(stage, tree)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
            if not (was_there or keep_archives):
                _discard(archive)
    except OSError as error:
        raise write_error(error, root) from error
    what = f"part of {acquisition.title}" if partial else acquisition.title
    if was_there and not keep_archives:
        text = f"{archive} was there before and stays; remove it if you do not need it"
        lines = [*lines, (True, text)]
    return [*lines, (True, f"{what} is in {tree}: use it with --data-root {root}")]


def assign_files(
    acquisitions: Sequence[Acquisition], files: Iterable[Path]
) -> dict[str, list[Path]]:
    """Name of an acquisition -> which of the user's files and folders hold something for it.

    Raises:
        UserError: a path does not exist, or holds nothing for any of them.
    """
    shares: dict[str, list[Path]] = {acquisition.name: [] for acquisition in acquisitions}
    for path in files:
        if not path.exists():
            raise UserError(f"--from {path} does not exist; name a file or folder that you have")
        takers = [acquisition for acquisition in acquisitions if _offers(path, acquisition)]
        if not takers:
            known = [name for a in acquisitions for name in (a.archive.name, *a.also)]
            raise UserError(
                f"--from {path} holds nothing of {acquisitions[0].title}; "
                f"name {', '.join(known)}, a folder with them, or an unpacked tree"
            )
        for acquisition in takers:
            shares[acquisition.name].append(path)
    return shares


def plan(
    acquisition: Acquisition, root: Path, files: Sequence[Path] = (), partial: bool = False
) -> list[str]:
    """What `prepare` would do, in words: files, sizes, free space, terms of use."""
    tree, archive = root / acquisition.tree, acquisition.archive
    if _is_there(acquisition, tree, partial):
        return [f"{acquisition.title} is in {tree} already: nothing to do"]
    lines = [f"{acquisition.title}, into {tree}"]
    lines += [f"  from {path}" for path in files]
    if not files and not partial:
        got = _downloaded(archive, root)
        about = "" if archive.exact else "about "
        lines.append(f"  download {archive.name}, {about}{format_bytes(archive.size)}, of which "
                     f"{format_bytes(got)} are here; {archive.checksum}")  # fmt: skip
        lines += [f"    from {url}" for url in archive.urls]
        lines.append(f"  needs up to {format_bytes(2 * archive.size - got)} more while it works")
    lines.append(f"  free: {format_bytes(free_bytes(root))}")
    return [*lines, f"  terms of use: {acquisition.terms}"]


def _is_there(acquisition: Acquisition, tree: Path, partial: bool) -> bool:
    try:
        return complete(acquisition.view(tree, tree), partial)
    except UserError:
        return False


def _check_needs(acquisition: Acquisition, root: Path, partial: bool) -> None:
    base = acquisition.needs
    if base and not partial and not _is_there(base, root / base.tree, partial):
        raise UserError(
            f"{acquisition.title} builds on {base.title}, which is not complete in "
            f"{root / base.tree}: run sparcl data {base.name} --root {root} first"
        )


def _build(
    acquisition: Acquisition,
    root: Path,
    stage: Path,
    files: Sequence[Path],
    partial: bool,
) -> list[Line]:
    """Fill `stage` and check what it will make of the tree."""
    tree, archive = root / acquisition.tree, acquisition.archive
    stage.mkdir(parents=True)
    for path in files:
        for piece in _pieces(path, acquisition):
            if is_archive(piece):
                unpack(piece, stage, acquisition.place, archive.unpacked)
            else:
                copy(piece, stage, acquisition.place)
    if not partial and not any((stage / name).exists() for name in acquisition.enough):
        _check_room(acquisition, root)
        file = fetch(archive, root / ARCHIVES)
        unpack(file, stage, acquisition.place, archive.unpacked)
    acquisition.finish(stage, tree)
    _check_lists(stage, tree)
    source = acquisition.view(stage, tree)
    if partial and not any(where.place.is_dir() for where in source.splits.values()):
        return []  # lists or photographs alone, to which masks come later
    return check(source, partial)


def _check_lists(stage: Path, tree: Path) -> None:
    """A tree with other id lists is another data set: what comes is not mixed into it."""
    for path in stage.glob("ImageSets/Segmentation/*.txt"):
        old = tree / path.relative_to(stage)
        if old.exists() and old.read_bytes().split() != path.read_bytes().split():
            raise UserError(f"{old} lists other images than the new one: name another --root")


def _check_room(acquisition: Acquisition, root: Path) -> None:
    archive, free = acquisition.archive, free_bytes(root)
    needed = archive.size - _downloaded(archive, root)
    if acquisition.needs is None:  # else little of it is unpacked
        needed += archive.size
    if needed > free:
        raise UserError(
            f"{archive.name} needs {format_bytes(needed)} more, to come and to be unpacked, "
            f"but the disk of {root} has {format_bytes(free)}: free some space or name another "
            f"--root"
        )


def _downloaded(archive: Archive, root: Path) -> int:
    folder = root / ARCHIVES
    files = [folder / archive.name, part_of(archive, folder)]
    return next((path.stat().st_size for path in files if path.exists()), 0)


def _pieces(path: Path, acquisition: Acquisition) -> list[Path]:
    """The archives that a folder holds under their published names, or else the path itself."""
    known = [path / name for name in (acquisition.archive.name, *acquisition.also)]
    return [file for file in known if file.is_file()] or [path]


def _offers(path: Path, acquisition: Acquisition) -> bool:
    found = (name for piece in _pieces(path, acquisition) for name in names(piece))
    return any(acquisition.place(name) for name in found)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Two processes must not unpack into one folder; the lock of one that was killed is free."""
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".sparcl.lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"another sparcl is at work in {root}; wait until it has ended") from None


def _install(stage: Path, tree: Path) -> None:
    """Move what is new into the tree: at one stroke, or file by file where there is one already."""
    if not tree.exists():
        tree.parent.mkdir(parents=True, exist_ok=True)
        os.replace(stage, tree)
        return
    files = [path for path in stage.rglob("*") if path.is_file()]
    # Lists last: they make a loader look for the rest.
    for path in sorted(files, key=lambda path: path.suffix == ".txt"):
        target = tree / path.relative_to(stage)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


def _discard(archive: Path) -> None:
    archive.unlink(missing_ok=True)
    folder = archive.parent
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
