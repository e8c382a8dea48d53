"""The reader's own project: does the final run keep to the rules, and which level does it reach?

Its task, and the template of its report, lie in `notebooks/project`; the levels are numbers that
`benchmarks/studies/reader_project` measured. A run is believed by its checkpoints: settings and
mIoU are those that they hold, whatever config.yaml and metrics.json say. That is no protection
against somebody who forges checkpoints.
"""

import csv
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from sparcl_lib.api import configure
from sparcl_lib.config import RunConfig, settings_difference
from sparcl_lib.course.chapter import NOTEBOOKS
from sparcl_lib.course.copies import PROJECT
from sparcl_lib.data import open_source
from sparcl_lib.errors import UserError
from sparcl_lib.metrics import class_iou, mean_iou
from sparcl_lib.run import Run, load_run
from sparcl_lib.training.content import Content, content_from_plain, read_content

RUN, REPORT, TASK, GUIDE = "run", "report.md", "task.yaml", "README.md"
SETUP = "overlapped"
HELD_OUT_SEED = 2026
"""Of the final run; no study and no search used it."""
LEVELS = ("FT", "SDR", "MiB")
"""Level n is reached by beating the n-th of these, as the library's recipe trains it."""
MARGIN = 1.0
"""Points of mIoU by which one is ahead: less may be chance, as seeds differ by about as much."""
_STUDY = Path("benchmarks") / "studies" / "reader_project" / "results.csv"
_SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ROUNDING = 0.01


@dataclass(frozen=True)
class Written:
    """Parts of a report."""

    parts: int
    """How many say something else than the template."""
    of: int


@dataclass(frozen=True)
class Outcome:
    """What was found of a project."""

    score: float | None
    """mIoU of all classes after the last step, in percent; None for a run that does not count."""
    level: int
    """0 to 3."""
    problem: str
    """Why there is no score; empty otherwise."""
    written: Written

    def __str__(self) -> str:
        if self.score is None:
            found = self.problem
        else:
            found = f"{self.score:.1f} on all classes, level {self.level} of {len(LEVELS)}"
            if self.level < len(LEVELS):
                wanted = thresholds()[self.level]
                found += f"; the next one is {LEVELS[self.level]} and a point, {wanted:.1f}"
        written = f"{self.written.parts} of {self.written.of} parts written"
        return f"project: {found}\nreport: {written}"


def check_project(folder: Path) -> Outcome | None:
    """The project in a folder of chapters; None where there is none."""
    place = folder / PROJECT
    if not place.is_dir():
        return None
    written = _written(place / REPORT)
    if not (place / RUN).is_dir():
        problem = f"not started: {place / RUN} is not there; train it as {place / GUIDE} says"
        return Outcome(None, 0, problem, written)
    try:
        score = final_score(place / RUN)
    except UserError as error:
        return Outcome(None, 0, str(error), written)
    level = sum(score >= wanted for wanted in thresholds())
    return Outcome(score, level, "", written)


def thresholds() -> list[float]:
    """The mIoU from which each level is reached, in rising order. Raises UserError where the study
    that measured them is not there."""
    study = NOTEBOOKS.parent / _STUDY
    try:
        with study.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(
            f"cannot read {study} ({error.strerror}), which the levels are from: restore it with "
            f"git checkout benchmarks"
        ) from error
    last = max(row["step"] for row in rows)
    measured = {row["method"]: float(row["miou_all"]) for row in rows if row["step"] == last}
    return [measured[name] + MARGIN for name in LEVELS]


def reference() -> RunConfig:
    """The configuration of a run of the project that changes nothing."""
    task = NOTEBOOKS / PROJECT / TASK
    return configure("minivoc", "FT", task=task, setup=SETUP, seed=HELD_OUT_SEED)


def final_score(path: Path) -> float:
    """mIoU of all classes after the last step of a run that keeps to the rules, from its network's
    confusion matrix. Raises UserError for a run that does not, or is not whole."""
    run = load_run(path)
    _check_settings(path, run.config)
    expected = _content(reference())
    steps = range(1, len(expected.steps))
    if run.steps[-1] != steps[-1]:
        raise UserError(
            f"{path} ends with step {run.steps[-1]}, not {steps[-1]}: train the others with the "
            f"same command and --steps all --resume"
        )
    for step in steps:
        _check_content(run, step, expected)
        # Refuses settings other than those that the step was trained with.
        confusion = run.confusion(step)
    score = mean_iou(class_iou(confusion))
    said = run.metrics["steps"][-1]["miou_all"]
    if abs(said - score) > _ROUNDING:
        raise UserError(
            f"{path / 'metrics.json'} says {said:.1f}, and the network has {score:.1f}: "
            f"run sparcl evaluate {path}"
        )
    return score


def _check_settings(path: Path, config: RunConfig) -> None:
    """Raise UserError for a setting that the rules keep fixed: all but the method, rates and what
    belongs to them, and the policy of batch norm."""
    if config.method.joint:
        raise UserError(
            f"{path} is joint training, which sees all classes at once and is the ceiling, no "
            f"entry: train a continual method, as {path.parent / GUIDE} says"
        )
    fixed = reference()
    optim = replace(
        config.optim, lr=fixed.optim.lr, momentum=fixed.optim.momentum,
        weight_decay=fixed.optim.weight_decay, power=fixed.optim.power,
    )  # fmt: skip
    model = replace(config.model, batch_norm=fixed.model.batch_norm)
    theirs = replace(config, method=fixed.method, optim=optim, model=model)
    steps = range(len(_content(fixed).steps))
    difference = settings_difference(fixed, theirs, steps)
    if difference:
        raise UserError(
            f"{path} was trained with {difference}, which the rules fix: train it anew with the "
            f"command in {path.parent / GUIDE}"
        )
    if config.data.splits is not None:
        raise UserError(
            f"{path} was trained on images of its own choice, which the rules fix: train it anew "
            f"without data.splits"
        )


def _check_content(run: Run, step: int, expected: Content) -> None:
    """Raise UserError for a step that was trained on another task or other data."""
    found = content_from_plain(run.directory.load_checkpoint(step).get("content", {}))
    for name in ("dataset", "task", "steps", "unused", "classes", "weights", "data"):
        theirs, ours = getattr(found, name), getattr(expected, name)
        if theirs != ours:
            what = f"{theirs}, not {ours}" if name in ("dataset", "task", "steps") else "another"
            raise UserError(
                f"step {step} of {run.folder} was trained on something else, its {name} is {what}: "
                f"train it anew with --dataset minivoc --task {run.folder.parent / TASK}"
            )


def _content(config: RunConfig) -> Content:
    source = open_source(config.dataset, config.data_root)
    task = source.task(config.task)
    return read_content(config, source, task)


def _written(report: Path) -> Written:
    template = _parts((NOTEBOOKS / PROJECT / REPORT).read_text("utf-8"))
    try:
        text = report.read_text("utf-8", errors="replace") if report.is_file() else ""
    except OSError as error:
        raise UserError(
            f"cannot read {report} ({error.strerror}): give yourself the right to"
        ) from error
    theirs = _parts(text, known=template)
    done = [name for name, asked in template.items() if theirs.get(name, asked) not in (asked, "")]
    return Written(len(done), len(template))


def _parts(text: str, known: Collection[str] | None = None) -> dict[str, str]:
    """Heading -> what stands below it; a heading that is not known, if some are, is text of the
    part above it."""
    parts: dict[str, str] = {}
    part = ""
    for heading, body in _SECTION.findall(text):
        name = heading.strip().rstrip(":").rstrip()
        if known is None or name in known:
            part = name
            parts[part] = parts.get(part, "") + body
        elif part:
            parts[part] += f"{heading}\n{body}"
    return {name: " ".join(body.split()) for name, body in parts.items()}
