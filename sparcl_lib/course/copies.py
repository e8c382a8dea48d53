"""Notebooks for people: a reader's working copy, and what a teacher hands out, project included.

Chapters link to `../docs` and read `../benchmarks`, so they are used in a folder beside
`notebooks/`.
"""

import hashlib
import json
import platform
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from sparcl_lib.course.chapter import NOTEBOOKS, Chapter, Form, read_chapters, read_times, render
from sparcl_lib.errors import UserError, first_few
from sparcl_lib.writing import write_text

INDEX = "README.md"
PROJECT = "project"
"""Folder of the reader's own project; what was written into it is never overwritten."""
_MARKER = ".gitignore"
_MADE = "sparcl_made"
"""In a notebook's metadata: digest of its cells as they were made."""
_FOR_AUTHORS = re.compile(r"<!-- authors -->.*?<!-- end of authors -->\n?", re.DOTALL)
_BEGINNING = re.compile(r"<!-- beginning -->.*?<!-- end of beginning -->", re.DOTALL)
_FOR_TEACHERS = re.compile(r"<!-- teachers -->.*?<!-- end of teachers -->", re.DOTALL)
_ROW = re.compile(r"^\| \[[^\]]+\]\(([^)]+\.ipynb)\) .*\n", re.MULTILINE)
_TO_CHAPTER = re.compile(r"\[([^\]]+)\]\(([^)#/]+\.ipynb)(?:#[^)]*)?\)")
_OPEN = "In the folder of the repository, `sparcl course lab {folder}` opens these chapters"
_RULE = (
    "An answer may use functions, imports and constants of other cells, but nothing that they "
    "compute: those cells are not run for the mark."
)
_BEGINNINGS: dict[Form, str] = {
    "working": _OPEN + " in JupyterLab, and never overwrites what you wrote. A solution is folded "
    "below the check of each exercise. `sparcl course check {folder}` marks your exercises. "
    + _RULE,
    "student": _OPEN + " in JupyterLab. Write your answers into them. "
    "`sparcl course check {folder}` marks your exercises. " + _RULE,
    "solutions": _OPEN + " in JupyterLab. Each exercise is answered in its place.",
    "published": "These are pages to read, with the outputs of all cells. Who wants to run them "
    "types `make lab` in the folder of the repository.",
}


@dataclass(frozen=True)
class Started:
    """What a working copy got, and what was there before."""

    folder: Path
    added: tuple[str, ...]
    """Names of the chapters that are new in it."""
    kept: tuple[str, ...]
    """Names of the chapters that were there, untouched."""

    def __str__(self) -> str:
        parts = [f"added {', '.join(self.added)}"] if self.added else []
        if self.kept:
            parts.append(f"kept {', '.join(self.kept)} with all that you wrote")
        return f"{self.folder}: {'; '.join(parts)}"


def start(folder: Path) -> Started:
    """Make a working copy, or add the chapters that a copy does not have yet.

    Nothing that is there is overwritten but the index, which holds no answers. Raises UserError for
    a folder that is not beside `notebooks/`, or that holds something else.
    """
    _check_beside(folder, "my-course")
    check_made_here(folder, "working")
    chapters = chapters_of_the_course()
    missing = [chapter for chapter in chapters if not (folder / chapter.notebook.name).exists()]
    _write(folder, chapters, missing, "working")
    kept = [chapter.name for chapter in chapters if chapter not in missing]
    return Started(folder, tuple(chapter.name for chapter in missing), tuple(kept))


def hand_out(folder: Path, form: Form, numbers: list[str]) -> list[Path]:
    """Write the chapters with these numbers (all if empty) in one form; returns the files.

    What this made before is made anew. Raises UserError for an unknown number, for a folder that is
    not beside `notebooks/`, or that holds something else, such as a working copy, and where
    somebody has written into a chapter since.
    """
    _check_beside(folder, "handout")
    check_made_here(folder, form)
    chapters = chapters_of_the_course()
    chosen = choose(chapters, numbers)
    files = [folder / chapter.notebook.name for chapter in chosen]
    changed = [file.name for file in files if file.exists() and not _is_as_made(file)]
    if changed:
        raise UserError(
            f"{folder}: somebody wrote into {first_few(changed)}, which would be lost (or an older "
            f"version made it): move the folder away, or give another one"
        )
    _write(folder, chapters, chosen, form)
    return files


def chapters_of_the_course() -> list[Chapter]:
    """All of them, in order."""
    return read_chapters(NOTEBOOKS / "sources")


def choose(chapters: list[Chapter], numbers: list[str]) -> list[Chapter]:
    """The chapters with these numbers, all if none is given; UserError for an unknown one."""
    known = [chapter.number for chapter in chapters]
    unknown = [number for number in numbers if number not in known]
    if unknown:
        raise UserError(f"no chapter {unknown[0]}; there are {', '.join(known)}")
    return [chapter for chapter in chapters if not numbers or chapter.number in numbers]


def _check_beside(folder: Path, name: str) -> None:
    """UserError for a folder from which the links of chapters lead nowhere."""
    root = NOTEBOOKS.parent
    if folder.resolve().parent != root.resolve():
        raise UserError(
            f"{folder} is not beside {NOTEBOOKS}: chapters link to ../docs and read ../benchmarks; "
            f"give a folder there, such as {root / name}"
        )


def check_made_here(folder: Path, form: str) -> None:
    """UserError for a folder that holds what was not made by us in this form."""
    marker = folder / _MARKER
    ours = marker.is_file() and marker.read_text("utf-8") == _marker(form)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not ours):
        raise UserError(f"{folder} holds something else; give a new folder")


def is_hand_out(folder: Path) -> bool:
    """Was the folder made by `hand_out`?"""
    marker = folder / _MARKER
    forms = ("student", "solutions")
    return marker.is_file() and marker.read_text("utf-8") in map(_marker, forms)


def _marker(form: str) -> str:
    """What git is told of a folder of copies, which also says what it is."""
    return f"# Made by sparcl course ({form}): git leaves it alone.\n*\n"


def _write(folder: Path, chapters: list[Chapter], chosen: list[Chapter], form: Form) -> None:
    times = read_times()
    write_text(folder / _MARKER, _marker(form))
    there = {path.name for path in folder.glob("*.ipynb")} | {c.notebook.name for c in chosen}
    for chapter in chosen:
        notebook = render(chapters, chapters.index(chapter), times.get(chapter.name), form)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = without_links_to_others(cell.source, there)
        # JupyterLab adds it, and what it opens counts as changed; a copy stays on one machine.
        notebook.metadata.language_info.version = platform.python_version()
        notebook.metadata[_MADE] = _sources_digest(notebook)
        write_text(folder / chapter.notebook.name, nbformat.writes(notebook) + "\n")
    for file in sorted((NOTEBOOKS / PROJECT).glob("*.*")):
        if file.is_file() and not (folder / PROJECT / file.name).exists():
            write_text(folder / PROJECT / file.name, file.read_text("utf-8"))
    write_text(folder / INDEX, index_of_copies(form, there, folder.resolve().name))


def _sources_digest(notebook: Any) -> str:
    """Of what stands in its cells; outputs may come and go."""
    sources = [[cell.cell_type, cell.source] for cell in notebook.cells]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]


def _is_as_made(file: Path) -> bool:
    """Whether nobody wrote into a chapter since it was made here."""
    try:
        notebook = nbformat.read(file, as_version=4)
    except Exception:  # whatever stands there now
        return False
    return bool(notebook.metadata.get(_MADE) == _sources_digest(notebook))


def without_links_to_others(text: str, there: Collection[str]) -> str:
    """Links to chapters that are not handed out become their words. there: files that are."""
    return _TO_CHAPTER.sub(lambda link: link[0] if link[2] in there else link[1], text)


def index_of_copies(form: Form, there: Collection[str], folder: str = "") -> str:
    """The index as it is true of copies, without what it says to authors of chapters.

    there: file names of the chapters that it lists. folder: name of theirs, for the commands.
    """
    index = _FOR_AUTHORS.sub("", (NOTEBOOKS / INDEX).read_text("utf-8"))
    beginning = _BEGINNINGS[form].format(folder=folder)
    index = _BEGINNING.sub(lambda _: beginning, index)
    if form == "student":
        index = _FOR_TEACHERS.sub("", index)
    index = _ROW.sub(lambda row: row[0] if row[1] in there else "", index)
    return index.rstrip() + "\n"
