"""A mark for a folder of chapters: each exercise right, wrong or not started.

Set-up and check cells are those of our sources. Of a reader's notebook count the cells that define
what an exercise asks for, wherever they are now, and what they may call: functions, classes,
imports and plain constants of all other cells; of two of one name the last one above the answer.
What other cells compute is not there, for no chapter is run. Answers run in a process of their own,
each with the state of torch and numpy as it was at first, so that an endless loop, `exit()`, a
crash or gradients that were switched off cost that exercise alone. This is no protection against
somebody who attacks the machine, or sets out to change the mark: run answers of strangers where you
would run their programs.
"""

import ast
import faulthandler
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nbformat
import numpy as np
import torch
from IPython.core.inputtransformer2 import TransformerManager

from sparcl_lib.cores import cores
from sparcl_lib.course.chapter import (
    Chapter,
    exercise_id,
    solution,
    starts_further,
    stub,
    tags_of,
)
from sparcl_lib.course.copies import chapters_of_the_course, choose
from sparcl_lib.course.exercises import Result, results
from sparcl_lib.course.lab import ONE_THREAD
from sparcl_lib.errors import UserError, first_few
from sparcl_lib.plain import build
from sparcl_lib.progress import tqdm

if TYPE_CHECKING:
    from sparcl_lib.course.project import Outcome

SECONDS = 60
"""What one exercise may take; the solutions take less than one."""
_STARTING = 120  # for the imports, on a busy machine
_WIDTHS = (10, 14)
_LONGEST, _SHORTEST_CALL = 160, 24
_CALL = re.compile(r"(?P<before>[^`]*`)(?P<call>.*?)(?P<verdict>`: .*)")
"""How what is wrong in a case is said."""
_TITLE = re.compile(r"### \d+\.\d+ ")
"""How the text of an exercise begins."""
_OPEN = re.compile(r"### \d+\.\d+ (Open: |.*\(open\)$)", re.MULTILINE)
"""The same of one without one right answer: its check asks for what any answer has."""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a source."""

    number: str
    """Such as 3.1."""
    name: str
    """Of the function that it asks for."""
    id: str
    """Of its cell in the notebooks that we make."""
    stub: str
    check: str
    """Source of the check cell."""


@dataclass(frozen=True)
class Marks:
    """What was found in a folder."""

    folder: Path
    results: tuple[Result, ...]
    """One for each exercise of the chapters that are there."""
    missing: tuple[str, ...]
    """A line for each chapter that is not there, cannot be read, or wants a look."""
    project: "Outcome | None" = None
    """The reader's own project; None where there is none, or chapters were asked for."""

    @property
    def right(self) -> int:
        """How many exercises are right."""
        return Counter(result.outcome for result in self.results)["right"]

    def to_json(self) -> str:
        """As {"folder", "right", "of", "exercises": [{"exercise", "outcome", "problem"}],
        "missing", "project"}; project is null, or {"score", "level", "problem", "written"}."""
        content = {
            "folder": str(self.folder),
            "right": self.right,
            "of": len(self.results),
            "exercises": [asdict(result) for result in self.results],
            "missing": list(self.missing),
            "project": self.project and asdict(self.project),
        }
        return json.dumps(content, indent=1, ensure_ascii=False)

    def table(self) -> str:
        """A line for each exercise, what is missing, the project, and the mark."""
        rows = [("exercise", "outcome", "what is wrong")]
        rows += [(r.exercise, r.outcome, _one_line(r.problem)) for r in self.results]
        lines = [f"{a:<{_WIDTHS[0]}}{b:<{_WIDTHS[1]}}{c}".rstrip() for a, b, c in rows]
        lines += [*self.missing, *([str(self.project)] if self.project else [])]
        chapters = dict.fromkeys(f"{int(r.exercise.split('.')[0]):02}" for r in self.results)
        marked = f"chapter{'s' if len(chapters) > 1 else ''} {', '.join(chapters)}"
        return "\n".join([*lines, f"mark: {self.right} of {len(self.results)} right, {marked}"])


def mark(folder: Path, numbers: list[str], seconds: float = SECONDS, core: bool = False) -> Marks:
    """Check every exercise of the chapters in a folder, and the project.

    numbers: of chapters that must be there, such as 03, without the project; whatever is there if
    empty. seconds: what one exercise may take. core: leave further parts and open exercises out.
    Raises UserError for a folder without chapters and an unknown number.
    """
    chapters = choose(chapters_of_the_course(), numbers)
    if folder.is_file():
        raise UserError(f"{folder} is a file; name the folder with the chapters, unpacked")
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; sparcl course start makes one")
    places = [(chapter, _notebook(folder, chapter)) for chapter in chapters]
    there = [(chapter, path) for chapter, path in places if path is not None or numbers]
    if not any(path for _, path in there):
        raise UserError(_none_of(folder, chapters))
    with ThreadPoolExecutor(cores()) as pool:
        marking = pool.map(lambda pair: _mark_chapter(pair[0], pair[1], seconds, core), there)
        marked = list(tqdm(marking, "chapters", total=len(there)))
    found = [result for results_, _ in marked for result in results_]
    missing = tuple(line for _, line in marked if line)
    from sparcl_lib.course.project import check_project  # imports what the answers need not

    return Marks(folder, tuple(found), missing, None if numbers else check_project(folder))


def _none_of(folder: Path, chapters: list[Chapter]) -> str:
    """What a folder without chapters holds instead, and where some are."""
    wanted = f"{folder} holds no chapter, such as {chapters[0].notebook.name}"
    below = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    inside = [name for name in below if any(_notebook(folder / name, c) for c in chapters)]
    if inside:
        return f"{wanted}; name a folder in it: {first_few(inside)}"
    names = [path.name for path in sorted(folder.iterdir())]
    return f"{wanted}; it holds {first_few(names)}" if names else f"{wanted}; it is empty"


def _one_line(text: str) -> str:
    """Cut to a few lines of a screen; of a call its arguments, for the verdict is behind it."""
    words = " ".join(text.split())
    call = _CALL.match(words)
    if len(words) > _LONGEST and call is not None:
        room = max(_SHORTEST_CALL, _LONGEST - len(call["before"]) - len(call["verdict"]))
        cut = call["call"] if len(call["call"]) <= room else f"{call['call'][:room]} ..."
        words = f"{call['before']}{cut}{call['verdict']}"
    return words if len(words) <= 2 * _LONGEST else f"{words[: 2 * _LONGEST]} ..."


def _notebook(folder: Path, chapter: Chapter) -> Path | None:
    """By its name, or else by its number."""
    named = folder / chapter.notebook.name
    return named if named.exists() else next(iter(_of_number(folder, chapter)), None)


def _of_number(folder: Path, chapter: Chapter) -> list[Path]:
    return sorted(folder.glob(f"{chapter.number}_*.ipynb"))


def exercises_of(chapter: Chapter, core: bool = False) -> list[Exercise]:
    """The exercises of a source, in order; with `core` those before its further part that have one
    answer."""
    found: list[Exercise] = []
    waiting = None
    is_open = False
    for cell in chapter.cells:
        if core and starts_further(cell):
            break
        if cell.cell_type == "markdown" and _TITLE.match(cell.source):
            is_open = bool(_OPEN.match(cell.source))
        if "exercise" in tags_of(cell):
            waiting = None if core and is_open else cell.source
        elif "check" in tags_of(cell) and waiting is not None:
            number, checked = _checked(cell.source)
            defined = _defined(solution(waiting))
            # An open exercise is checked through a function of the check cell.
            name = checked if checked in defined or len(defined) != 1 else min(defined)
            place = exercise_id(chapter.number, len(found) + 1, "exercise")
            found.append(Exercise(number, name, place, stub(waiting), cell.source))
            assert name in defined, f"{number} defines no {name}"
            waiting = None
    return found


def _checked(source: str) -> tuple[str, str]:
    """The first two arguments of a check: the number and the function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check":
            number, answer = node.args[:2]
            return ast.literal_eval(number), ast.unparse(answer)
    raise UserError(f"a cell tagged check calls check(number, function, ...): {source!r}")


def _defined(source: str) -> set[str]:
    """Names of the functions and classes that a cell defines; none if it does not parse."""
    kinds = ast.FunctionDef | ast.ClassDef
    return {node.name for node in _statements(source) if isinstance(node, kinds)}


def _statements(source: str) -> list[ast.stmt]:
    """Of a cell; none if it does not parse: half a character, ten thousand brackets."""
    try:
        return ast.parse(source).body
    except Exception:
        return []


def _assigned(source: str) -> set[str]:
    """Names that a cell gives to values."""
    return {name for node in _statements(source) for name in _targets(node)}


def _targets(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _mark_chapter(
    chapter: Chapter, path: Path | None, seconds: float, core: bool
) -> tuple[list[Result], str]:
    """Its results, and a line if there is no notebook to read."""
    exercises = exercises_of(chapter, core)
    not_started = [Result(exercise.number, "not started") for exercise in exercises]
    unread = [Result(exercise.number, "not readable") for exercise in exercises]
    if path is None:
        return not_started, f"{chapter.notebook.name} is not there"
    try:
        notebook = nbformat.read(path, as_version=4)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    except Exception as error:  # whatever is wrong with a file that a person sends
        return unread, f"{path.name} cannot be read as a notebook: {_one_line(str(error))}"
    for cell in cells:
        cell.source = _as_python(cell.source)
    setup = "\n".join(cell.source for cell in chapter.cells if "setup" in tags_of(cell))
    given = [(exercise, _answer(cells, exercise)) for exercise in exercises]
    definitions = [_definitions(cell.source) for cell in cells]
    stubs = {exercise.stub.strip() for exercise in exercises}
    answered = {place for _, place in given}
    helpers = [
        {} if place in answered or cell.source.strip() in stubs else found
        for place, (cell, found) in enumerate(zip(cells, definitions, strict=True))
    ]
    started = [
        (exercise, _Answer(cells[place].source, _above(helpers, place)))
        for exercise, place in given
        if place is not None
    ]
    everything = [*chain(*(found.values() for found in definitions))]
    marked = dict(_run(path.parent, setup, everything, started, seconds))
    for exercise, place in given:
        if place is None:
            said = _renamed(cells, exercise)
            marked[exercise.number] = Result(exercise.number, "not started", said)
    found = [marked[exercise.number] for exercise in exercises]
    return found, _odd(path, chapter, cells, exercises)


def _above(helpers: Sequence[Mapping[str, str]], place: int) -> list[str]:
    """Of the names that several cells define, what the last of them above this one says."""
    counts = Counter(chain(*helpers))
    found = {name: text for cell in helpers[:place] for name, text in cell.items()}
    return [text for name, text in found.items() if counts[name] > 1]


def _odd(path: Path, chapter: Chapter, cells: list[Any], exercises: list[Exercise]) -> str:
    """What a person should look at: a notebook of another chapter, or a second one."""
    others = [other.name for other in _of_number(path.parent, chapter) if other != path]
    if others:
        return f"{path.name} was marked, and not {first_few(others)}"
    places = {exercise.id for exercise in exercises}
    names = {exercise.name for exercise in exercises}
    if exercises and not any(c.get("id") in places or names & _defined(c.source) for c in cells):
        return f"{path.name} holds no exercise of chapter {chapter.number}: is it another notebook?"
    return ""


def _as_python(source: str) -> str:
    """A cell without what only IPython understands: `%%time` above it goes, `x?` is a call."""
    first, _, rest = source.lstrip().partition("\n")
    text: str = rest if first.startswith("%%") else source
    with suppress(Exception):  # else the answer says it
        text = TransformerManager().transform_cell(text)
    return text


def _definitions(source: str) -> dict[str, str]:
    """What a cell defines without computing, by name: functions, classes, imports and plain
    constants. Several names of one statement are one."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    found: dict[str, str] = {}
    for node in _statements(source):
        if isinstance(node, kinds) or _is_constant(node):
            with suppress(Exception):  # nested too deep
                found[_names(node)] = ast.unparse(node)
    return found


def _names(node: ast.stmt) -> str:
    """What a definition gives a meaning to."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return ", ".join(alias.asname or alias.name for alias in node.names)
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.target)
    return getattr(node, "name", "") or ", ".join(map(ast.unparse, getattr(node, "targets", ())))


def _is_constant(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return False
    try:
        ast.literal_eval(node.value)
    except Exception:  # a name, or what has no value, such as {[]: 0}
        return False
    return True


class _Answer(NamedTuple):
    """The cell of an exercise."""

    source: str
    above: list[str]
    """What cells above it define and others define anew, a statement each."""


def _answer(cells: list[Any], exercise: Exercise) -> int | None:
    """Where the exercise's cell is, if it was changed; else the last one that defines the function
    and is no stub. None if there is neither."""
    found = None
    for place, cell in enumerate(cells):
        if cell.source.strip() in ("", exercise.stub.strip()):
            continue
        own, defined = cell.get("id") == exercise.id, _defined(cell.source)
        defines = exercise.name in defined or (own and exercise.name in _assigned(cell.source))
        if own and (defines or not defined):
            return place
        if defines:
            found = place
    return found


def _renamed(cells: list[Any], exercise: Exercise) -> str:
    """What to say of an exercise's cell that defines something else."""
    places = [cell.source for cell in cells if cell.get("id") == exercise.id]
    others = sorted(set().union(*map(_defined, places)) - {exercise.name})
    if not others:
        return ""
    return f"its cell defines {first_few(others)}, and no cell defines {exercise.name}"


def _run(
    folder: Path,
    setup: str,
    definitions: list[str],
    waiting: list[tuple[Exercise, _Answer]],
    seconds: float,
) -> Iterator[tuple[str, Result]]:
    """Results by number. Where an answer ends the process, another goes on with the next one.

    definitions: what any answer may call, a statement each.
    """
    before: list[str] = []
    while waiting:
        with tempfile.TemporaryDirectory() as place:
            job, said = Path(place, "job.json"), Path(place, "results.jsonl")
            asked = [(e.number, e.name, e.check, *answer) for e, answer in waiting]
            content = {
                "setup": setup,
                "before": [*definitions, *before],
                "asked": asked,
                "seconds": seconds,
            }
            job.write_text(json.dumps(content), "utf-8")
            _start(folder, job, said, _STARTING + seconds * len(waiting))
            late = time.time() - job.stat().st_mtime >= seconds
            lines = said.read_text("utf-8").splitlines() if said.is_file() else []
        for result in map(_result, lines):
            yield result.exercise, result
        before += [answer.source for _, answer in waiting[: len(lines)]]
        waiting = waiting[len(lines) :]
        if waiting:
            number = waiting[0][0].number
            problem = f"ran for more than {seconds:g} s" if late else "ended Python"
            yield number, Result(number, "wrong", problem)
            waiting = waiting[1:]


def _result(line: str) -> Result:
    result: Result = build(Result, json.loads(line), "")
    return result


def _start(folder: Path, job: Path, said: Path, limit: float) -> None:
    """Run the answers of a chapter; whatever they start ends with them.

    Their temporary files lie beside the job and go with it, also where they are killed.
    """
    paths = filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])
    environment = {
        **ONE_THREAD,
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "MPLBACKEND": "Agg",
        "TMPDIR": str(job.parent),
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sparcl_lib.course.marking", str(job), str(said)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(OSError, AttributeError):  # gone already; no groups on Windows
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _answer_job(job: Path, said: Path) -> None:
    """In the process of its own: a line for each answer as soon as it is known."""
    asked = json.loads(job.read_text("utf-8"))
    setup, names = asked["setup"], {"__name__": "answers"}
    sys.path.append(os.getcwd())  # last: a module of the reader's, which hides none
    exec(setup, names)
    for definition in asked["before"]:  # which an answer may call
        _define(definition, names)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        for number, name, check_cell, answer, above in asked["asked"]:
            os.utime(job)  # when it began
            # A watchdog outside of Python, which ends a loop that never lets go of the interpreter.
            faulthandler.dump_traceback_later(asked["seconds"], exit=True, file=nowhere)
            with _state_left_as_it_was():
                for definition in above:  # again, for one below may have taken its name
                    _define(definition, names)
                result = _one_result(setup, names, number, name, check_cell, answer)
            faulthandler.cancel_dump_traceback_later()
            with said.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(asdict(result)) + "\n")


def _define(definition: str, names: dict[str, Any]) -> None:
    with suppress(Exception, SystemExit):
        exec(definition, names)


@contextmanager
def _state_left_as_it_was() -> Iterator[None]:
    """What an answer sets for a whole process is not there for the next one."""
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    drawn, folder = (torch.get_rng_state(), np.random.get_state(), random.getstate()), os.getcwd()
    with warnings.catch_warnings(), np.errstate():
        try:
            yield
        finally:
            torch.set_grad_enabled(grad)
            torch.set_default_dtype(dtype)
            torch.set_default_device(None)
            torch.set_rng_state(drawn[0])
            np.random.set_state(drawn[1])
            random.setstate(drawn[2])
            os.chdir(folder)


def _one_result(
    setup: str, names: dict[str, Any], number: str, name: str, check_cell: str, answer: str
) -> Result:
    """Run an answer among those before it, then the check with nothing of theirs but the answer."""
    try:
        _run_cell(answer, names, name)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return _explained(
            Result(number, "wrong", f"its cell raised {type(error).__name__}: {error}")
        )
    if name not in names:
        return Result(number, "wrong", f"defines no {name}")
    clean: dict[str, Any] = {"__name__": "check"}
    exec(setup, clean)
    clean[name] = names[name]
    results.clear()
    try:
        exec(check_cell, clean)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return Result(number, "wrong", f"raised {type(error).__name__}: {error}")
    return _explained(results[0])


def _explained(found: Result) -> Result:
    """A name that is not there may be what another cell computes."""
    if "NameError" not in found.problem:
        return found
    why = "of other cells its answer may use functions, imports and constants, no results"
    return replace(found, problem=f"{found.problem}; {why}")


def _run_cell(source: str, names: dict[str, Any], name: str) -> None:
    """Run a cell. What is shown or tried out, or stands below the function, may fail: it may need
    what other cells compute."""
    defined = False
    for node in ast.parse(source).body:
        statement = compile(ast.Module([node], []), "<answer>", "exec")
        if isinstance(node, ast.Expr) or defined:
            with suppress(Exception):
                exec(statement, names)
        else:
            exec(statement, names)
        defined = defined or name in (getattr(node, "name", None), *_targets(node))


if __name__ == "__main__":
    _answer_job(Path(sys.argv[1]), Path(sys.argv[2]))
