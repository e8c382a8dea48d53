"""A chapter's one source, and the notebook made of it.

Sources are Jupytext percent scripts (`notebooks/sources/NN_name.py`). Their first cell is raw YAML
(see `Meta`); from it come header and closing. A code cell has tags, and a tolerance if its numbers
come from training (`sparcl_lib.course.comparison`). In cells tagged `exercise` the lines between
`# SOLUTION` and `# END` are the solution: readers get a stub that raises NotImplementedError, and
the whole cell, folded, below the check that follows.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from sparcl_lib.course.comparison import KEY, tolerance_of
from sparcl_lib.errors import UserError
from sparcl_lib.plain import build

TAGS = frozenset(
    {"setup", "predict", "exercise", "check", "ablation", "raises-exception",
     "nbval-ignore-output"}
)  # fmt: skip
_SOLUTION = re.compile(r"^(?P<indent> *)# SOLUTION\n.*?^ *# END\n?", re.DOTALL | re.MULTILINE)
_OF_JUPYTEXT = {"lines_to_next_cell", "lines_to_end_of_cell_marker"}  # blank lines of a source
_MARKERS = re.compile(r"^ *# (SOLUTION|END)\n?", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Meta:
    """The raw YAML cell at the top of a source."""

    title: str
    goals: tuple[str, ...]
    """What the reader can do afterwards, as "You can ...": one each."""
    summary: tuple[str, ...]
    """What was found, one for each goal, in the same order."""
    ends_with: str
    """The result of the chapter, for the index."""
    reading_minutes: int
    prerequisites: tuple[str, ...] = ()
    """Numbers of the chapters to read before."""
    differs: tuple[str, ...] = ()
    """Where the chapter differs from the paper."""
    references: tuple[str, ...] = ()
    """With equation or section numbers."""


@dataclass(frozen=True)
class Chapter:
    """One source of the course, read."""

    path: Path
    meta: Meta
    cells: tuple[NotebookNode, ...]

    @property
    def name(self) -> str:
        """Such as 01_dataset_partitioning."""
        return self.path.stem

    @property
    def number(self) -> str:
        """Such as 01."""
        return self.name[:2]

    @property
    def notebook(self) -> Path:
        """The file that is made of it."""
        return self.path.parent.parent / f"{self.name}.ipynb"


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds that a notebook took on 2 CPU cores."""

    shipped: float
    """With the runs that come with the repository."""
    empty: float | None = None
    """With every run trained anew; None when there is none, or it was not measured."""


def read_chapter(path: Path) -> Chapter:
    """Raises UserError for a source that is no chapter: no YAML, unknown tags, open solutions."""
    cells = jupytext.read(path, fmt="py:percent").cells
    if not cells or cells[0].cell_type != "raw":
        raise UserError(f"{path}: the first cell must be raw YAML with title, goals, summary ...")
    meta = build(Meta, yaml.safe_load(cells[0].source), f"{path.name}: ")
    if len(meta.goals) != len(meta.summary):
        raise UserError(
            f"{path}: {len(meta.goals)} goals but {len(meta.summary)} lines of summary; "
            f"write one for each"
        )
    for cell in cells[1:]:
        _check_cell(path, cell)
    return Chapter(path, meta, tuple(cells[1:]))


def _check_cell(path: Path, cell: NotebookNode) -> None:
    unknown = set(cell.metadata) - {"tags", KEY} - _OF_JUPYTEXT
    if unknown:
        raise UserError(f"{path}: unknown {min(unknown)!r} of a cell; valid: tags, {KEY}")
    tags = set(cell.metadata.get("tags", []))
    if tags - TAGS:
        raise UserError(
            f"{path}: unknown tag {min(tags - TAGS)!r}; valid: {', '.join(sorted(TAGS))}"
        )
    try:
        tolerance_of(cell)
    except UserError as error:
        raise UserError(f"{path}: {error}: {cell.source.splitlines()[0]}") from error
    if "exercise" in tags and len(_SOLUTION.findall(cell.source + "\n")) != 1:
        raise UserError(
            f"{path}: an exercise cell needs one # SOLUTION ... # END, each on its own line: "
            f"{cell.source.splitlines()[0]}"
        )


def read_chapters(folder: Path) -> list[Chapter]:
    """All chapters of a folder of sources, in order."""
    return [read_chapter(path) for path in sorted(folder.glob("[0-9][0-9]_*.py"))]


def solution(source: str) -> str:
    """An exercise cell with its solution and without the markers."""
    return _MARKERS.sub("", source + "\n").rstrip()


def stub(source: str) -> str:
    """An exercise cell as readers get it."""
    raise_line = r'\g<indent>raise NotImplementedError("write your answer here")' + "\n"
    return _SOLUTION.sub(raise_line, source + "\n").rstrip()


def render(chapters: list[Chapter], place: int, times: Times | None) -> NotebookNode:
    """The notebook of one of the chapters, without outputs."""
    chapter = chapters[place]
    cells = [new_markdown_cell(header(chapters, place, times))]
    pending: list[NotebookNode] = []
    for cell in chapter.cells:
        cells += _rendered(cell, pending)
    cells += pending
    cells.append(new_markdown_cell(closing(chapters, place)))
    for index, cell in enumerate(cells):
        cell.id = f"{chapter.number}-{index:03d}"
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    notebook: NotebookNode = new_notebook(cells=cells, metadata=metadata)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def _rendered(cell: NotebookNode, pending: list[NotebookNode]) -> list[NotebookNode]:
    """The cell as readers get it; a solution waits in `pending` for the check that follows."""
    if cell.cell_type == "markdown":
        return [new_markdown_cell(cell.source)]
    metadata = {key: cell.metadata[key] for key in ("tags", KEY) if key in cell.metadata}
    tags = metadata.get("tags", [])
    if "exercise" in tags:
        pending.append(_folded_solution(cell.source))
        return [new_code_cell(stub(cell.source), metadata=metadata)]
    cells = [new_code_cell(cell.source, metadata=metadata)]
    if "check" in tags:
        cells += pending
        pending.clear()
    return cells


def _folded_solution(source: str) -> NotebookNode:
    code = solution(source)
    cell: NotebookNode = new_markdown_cell(
        f"<details><summary>Solution</summary>\n\n```python\n{code}\n```\n\n</details>"
    )
    return cell


def header(chapters: list[Chapter], place: int, times: Times | None) -> str:
    """Number, title, way back and forth, goals, prerequisites, times."""
    chapter, meta = chapters[place], chapters[place].meta
    goals = "\n".join(f"{n}. {goal}" for n, goal in enumerate(meta.goals, start=1))
    earlier = {c.number: c for c in chapters[:place]}
    missing = [number for number in meta.prerequisites if number not in earlier]
    if missing:
        raise UserError(f"{chapter.path}: prerequisite {missing[0]} is no chapter before this one")
    before = ", ".join(_link(earlier[number]) for number in meta.prerequisites) or "none"
    running = "not measured yet" if times is None else _running(times)
    return (
        f"# {chapter.number} {meta.title}\n\n{_navigation(chapters, place)}\n\n"
        f"**Afterwards you can**\n\n{goals}\n\n"
        f"**Before this:** {before}. **Reading:** {meta.reading_minutes} minutes. "
        f"**Running, on 2 CPU cores:** {running}."
    )


def _running(times: Times) -> str:
    if times.empty is None:  # nothing is trained
        return duration(times.shipped)
    return (
        f"{duration(times.shipped)} with the runs that come with the course, "
        f"{duration(times.empty)} when all are trained anew"
    )


def duration(seconds: float) -> str:
    """Rounded as one says it: 20 s, 3 min."""
    if seconds < 95:
        return f"{max(5, 5 * round(seconds / 5))} s"
    return f"{seconds / 60:.1f} min"


def closing(chapters: list[Chapter], place: int) -> str:
    """What was found, goal by goal, where the paper differs, references, way on."""
    meta = chapters[place].meta
    parts = ["## Summary", "\n".join(f"{n}. {s}" for n, s in enumerate(meta.summary, start=1))]
    for title, lines in (("Differs from the paper", meta.differs), ("References", meta.references)):
        if lines:
            parts += [f"### {title}", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join([*parts, _navigation(chapters, place)])


def _link(chapter: Chapter) -> str:
    return f"[{chapter.number} {chapter.meta.title}]({chapter.notebook.name})"


def _navigation(chapters: list[Chapter], place: int) -> str:
    parts = ["[Index](README.md)"]
    if place > 0:
        parts.insert(0, f"← {_link(chapters[place - 1])}")
    if place + 1 < len(chapters):
        parts.append(f"{_link(chapters[place + 1])} →")
    return " · ".join(parts)
