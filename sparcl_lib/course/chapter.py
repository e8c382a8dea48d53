"""A chapter's one source, and the notebooks made of it.

Sources are Jupytext percent scripts (`notebooks/sources/NN_name.py`). Their first cell is raw YAML
(see `Meta`); from it come header and closing. A code cell has tags, and a tolerance if its numbers
come from training (`sparcl_lib.course.comparison`). What is made of it:

- Cells tagged `draw`, `quiz` or `verify` are folded. Asserts at the end of any other cell become a
  `verify` cell of their own, so that what is read is the method.
- In cells tagged `exercise` the lines between `# SOLUTION` and `# END` are the solution: readers
  get a stub that raises NotImplementedError, and the whole cell, folded, below the check that
  follows.
- A cell tagged `predict` holds `my_guess = None`, or another name of a guess; where outputs are
  saved it is a "pass". The ids of the cells below say which guess they wait for
  (`sparcl_lib.course.guesses`).
- Everything from a heading `## Further: ...` on is read by those who want more; the core, before
  it, stands alone.
"""

import ast
import copy
import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jupytext
import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from sparcl_lib.course.comparison import KEY, tolerance_of
from sparcl_lib.course.guesses import prediction_id, waiting_id
from sparcl_lib.errors import UserError
from sparcl_lib.plain import build

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
Form = Literal["published", "working", "student", "solutions"]
"""published: saved with outputs. working: a reader's copy, with folded solutions. student: without
solutions. solutions: with the answers in place of the stubs."""
TAGS = frozenset(
    {"setup", "predict", "exercise", "check", "ablation", "draw", "quiz", "verify",
     "raises-exception", "nbval-ignore-output"}
)  # fmt: skip
FOLDED = frozenset({"draw", "quiz", "verify"})
HIDDEN = "hide-input"
"""What the site calls a folded cell; JupyterLab has `source_hidden` for it."""
_FURTHER = re.compile(r"## Further: \S")
_OF_TABLES = {"describe", "fillna", "head", "join", "rename", "rename_axis", "round", "unstack"}
_CLAIMS = "# What the text says of it, checked:\n"
_GUESS = re.compile(r"(my_(?:\w+_)?guess) = None")
_PAGES = " · ".join(
    f"[{name}](../docs/{name.lower()}.md)" for name in ("Notation", "Glossary", "Troubleshooting")
)
_KERNEL = {  # as JupyterLab writes it, so that opening a chapter changes nothing
    "kernelspec": {
        "name": "python3",
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
    },
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}
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
    """Of the core, exercises and quiz counted in."""
    further_minutes: int = 0
    """Of the part after `## Further: ...`; 0 without one."""
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


def times_file() -> Path:
    """Where the measured seconds of all chapters are kept."""
    return NOTEBOOKS / "times.csv"


def read_times() -> dict[str, Times]:
    """Chapter name -> seconds, as last measured."""
    if not times_file().is_file():
        return {}
    with times_file().open(encoding="utf-8", newline="") as file:
        return {
            row["chapter"]: Times(
                shipped=float(row["shipped"]), empty=float(row["empty"]) if row["empty"] else None
            )
            for row in csv.DictReader(file)
        }


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
    _check_further(path, meta, cells)
    return Chapter(path, meta, tuple(cells[1:]))


def _check_further(path: Path, meta: Meta, cells: list[NotebookNode]) -> None:
    starts = [n for n, cell in enumerate(cells) if starts_further(cell)]
    if len(starts) != bool(meta.further_minutes):
        raise UserError(
            f"{path}: further_minutes is {meta.further_minutes} and {len(starts)} cells start with "
            f"'## Further: ...'; give the one such part its minutes"
        )
    in_core = ("## Exercises", "## Quiz")
    core = [n for n, cell in enumerate(cells) if cell.source.startswith(in_core)]
    if starts and core and starts[0] < max(core):
        raise UserError(f"{path}: the further part comes after exercises and quiz, which are core")


def starts_further(cell: NotebookNode) -> bool:
    """Does the further part of a chapter begin with this cell?"""
    return cell.cell_type == "markdown" and bool(_FURTHER.match(cell.source))


def tags_of(cell: NotebookNode) -> list[str]:
    """The tags of a cell, of a source or a notebook."""
    return list(cell.metadata.get("tags", []))


def _check_cell(path: Path, cell: NotebookNode) -> None:
    unknown = set(cell.metadata) - {"tags", KEY} - _OF_JUPYTEXT
    if unknown:
        raise UserError(f"{path}: unknown {min(unknown)!r} of a cell; valid: tags, {KEY}")
    tags = set(tags_of(cell))
    if tags - TAGS:
        raise UserError(
            f"{path}: unknown tag {min(tags - TAGS)!r}; valid: {', '.join(sorted(TAGS))}"
        )
    try:
        tolerance_of(cell)
    except UserError as error:
        raise UserError(f"{path}: {error}: {cell.source.splitlines()[0]}") from error
    if cell.cell_type == "code":
        _check_code(path, cell.source)
    if "predict" in tags and not _GUESS.match(cell.source):
        raise UserError(
            f"{path}: a cell tagged predict starts with my_guess = None: {cell.source!r}"
        )
    if "exercise" in tags and len(_SOLUTION.findall(cell.source + "\n")) != 1:
        raise UserError(
            f"{path}: an exercise cell needs one # SOLUTION ... # END, each on its own line: "
            f"{cell.source.splitlines()[0]}"
        )


def _check_code(path: Path, source: str) -> None:
    try:
        ast.parse(source)
    except SyntaxError as error:
        raise UserError(f"{path}: {error.msg}: {(error.text or source).strip()!r}") from error
    for statement in ast.parse(split_claims(source)[0]).body[:-1]:
        if isinstance(statement, ast.Expr) and _only_shows(statement.value):
            raise UserError(
                f"{path}: a notebook shows the last expression of a cell alone; only asserts may "
                f"follow {ast.unparse(statement)!r}"
            )


def _only_shows(expression: ast.expr) -> bool:
    """Is it there for what Jupyter makes of its value? A table, and not a call that does something.

    Of methods by their name, as nobody knows of what they are.
    """
    if isinstance(expression, ast.Tuple):
        return any(map(_only_shows, expression.elts))
    if isinstance(expression, ast.Call):
        method = expression.func
        return isinstance(method, ast.Attribute) and method.attr in _OF_TABLES
    return not isinstance(expression, ast.Constant)


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


def render(
    chapters: list[Chapter], place: int, times: Times | None, form: Form = "published"
) -> NotebookNode:
    """The notebook of one of the chapters, without outputs.

    Exercises and their checks have ids by their number in the chapter, so that they are found again
    in a reader's copy whatever else changed. Other cells are counted; those of a prediction, and
    below it those that wait for its guess, have the ids of `sparcl_lib.course.guesses`.
    """
    chapter = chapters[place]
    cells = [new_markdown_cell(header(chapters, place, times))]
    pending: list[NotebookNode] = []
    exercises = 0
    for cell in chapter.cells:
        made = _rendered(cell, form, pending)
        tags = tags_of(cell)
        exercises += "exercise" in tags
        for kind in ("exercise", "check"):
            if kind in tags:
                made[0].id = exercise_id(chapter.number, exercises, kind)
        cells += made
    cells += pending
    cells.append(new_markdown_cell(closing(chapters, place)))
    guesses = 0
    for index, cell in enumerate(cells):
        kinds = {"predict", "exercise", "check", "setup"} & set(tags_of(cell))
        guesses += "predict" in kinds
        if "predict" in kinds:
            cell.id = prediction_id(chapter.number, guesses)
        elif not {"exercise", "check"} & kinds:
            cell.id = f"{chapter.number}-{index:03d}"
            if guesses and cell.cell_type == "code" and not kinds:
                cell.id = waiting_id(cell.id, guesses)
    notebook: NotebookNode = new_notebook(cells=cells, metadata=copy.deepcopy(_KERNEL))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def exercise_id(number: str, exercise: int, kind: str) -> str:
    """The id of a cell, such as 03-exercise-1; kind: exercise or check."""
    return f"{number}-{kind}-{exercise}"


def _rendered(cell: NotebookNode, form: Form, pending: list[NotebookNode]) -> list[NotebookNode]:
    """The cell as readers get it; a solution waits in `pending` for the check that follows."""
    if cell.cell_type == "markdown":
        return [new_markdown_cell(cell.source)]
    tags = tags_of(cell)
    if "exercise" in tags:
        if form == "solutions":
            return [_code(solution(cell.source), cell)]
        if form != "student":
            pending.append(_folded_solution(cell.source))
        return [_code(stub(cell.source), cell)]
    if "check" in tags:
        cells = [_code(cell.source, cell), *pending]
        pending.clear()
        return cells
    if "predict" in tags and form in ("published", "solutions"):
        return [_code(_GUESS.sub(r'\1 = "pass"', cell.source, count=1), cell)]
    return _with_claims_folded(cell)


def _code(source: str, of: NotebookNode) -> NotebookNode:
    """A code cell with the tags and the tolerance of a source's, folded if its tags say so."""
    metadata = {key: of.metadata[key] for key in ("tags", KEY) if key in of.metadata}
    cell: NotebookNode = new_code_cell(source, metadata=metadata)
    _fold(cell)
    return cell


def _fold(cell: NotebookNode) -> None:
    if FOLDED & set(tags_of(cell)):
        cell.metadata.tags = [*tags_of(cell), HIDDEN]
        cell.metadata.jupyter = {"source_hidden": True}


def _with_claims_folded(cell: NotebookNode) -> list[NotebookNode]:
    """The cell, and the asserts at its end in a folded cell of their own."""
    shown, claims = split_claims(cell.source)
    if not claims or "verify" in tags_of(cell):
        return [_code(cell.source, cell)]
    folded = new_code_cell(_CLAIMS + claims, metadata={"tags": ["verify"]})
    _fold(folded)
    return [_code(shown, cell), folded] if shown else [folded]


def split_claims(source: str) -> tuple[str, str]:
    """What a cell does, and the asserts at its end with the comments above them.

    >>> split_claims("x = 1\\nassert x")
    ('x = 1', 'assert x')
    """
    body = ast.parse(source).body
    first = len(body)
    while first and isinstance(body[first - 1], ast.Assert):
        first -= 1
    if first == len(body):
        return source, ""
    lines = source.splitlines()
    start = body[first].lineno - 1
    if first and body[first - 1].end_lineno == start + 1:  # two statements on one line
        return source, ""
    while start and lines[start - 1].startswith("#"):
        start -= 1
    return "\n".join(lines[:start]).rstrip(), "\n".join(lines[start:])


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
    further = f", {meta.further_minutes} more for the further part" if meta.further_minutes else ""
    running = "not measured yet" if times is None else _running(times)
    return (
        f"# {chapter.number} {meta.title}\n\n{_navigation(chapters, place)}\n\n"
        f"**Afterwards you can**\n\n{goals}\n\n"
        f"**Before this:** {before}. **Reading:** {meta.reading_minutes} minutes with exercises "
        f"and quiz{further}. **Running, on 2 CPU cores:** {running}."
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
    """Each goal and what was found, where the paper differs, references, way on."""
    meta = chapters[place].meta
    found = [
        f"{n}. **{goal[0].upper()}{goal[1:]}.**  \n   {answer}"
        for n, (goal, answer) in enumerate(zip(meta.goals, meta.summary), start=1)
    ]
    parts = ["## Summary", "\n".join(found)]
    for title, lines in (("Differs from the paper", meta.differs), ("References", meta.references)):
        if lines:
            parts += [f"### {title}", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join([*parts, _navigation(chapters, place)])


def _link(chapter: Chapter) -> str:
    return f"[{chapter.number} {chapter.meta.title}]({chapter.notebook.name})"


def _navigation(chapters: list[Chapter], place: int) -> str:
    """Back, index and forth; below, the pages that all chapters share."""
    parts = ["[Index](README.md)"]
    if place > 0:
        parts.insert(0, f"← {_link(chapters[place - 1])}")
    if place + 1 < len(chapters):
        parts.append(f"{_link(chapters[place + 1])} →")
    return f"{' · '.join(parts)}\n\n{_PAGES}"
