"""A class-incremental task: which classes are learned at which step. Knows no files, no torch."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from sparcl_lib.errors import UserError, shown
from sparcl_lib.tasks.classes import BACKGROUND_NAME


@dataclass(frozen=True)
class Task:
    """The classes of a data set and the steps in which they are learned.

    Raw ids are the values in the masks, or what those are read as. Training indices are the
    channels of the classifier: 0 is the background, then 1, 2, ... in learning order.

    Raises:
        UserError: no or empty steps, a class twice, an id that is not a class, bad ``unused``.
    """

    name: str
    """Name shown in results, such as ``15-1``."""
    dataset: str
    """Data set the raw ids belong to."""
    classes: tuple[str, ...]
    """Class names indexed by raw id; ``classes[0]`` is ``background``."""
    steps: tuple[tuple[int, ...], ...]
    """Raw ids learned at each step, in learning order."""
    unused: Literal["background", "ignore"] = "background"
    """What pixels of classes that no step learns become."""

    def __post_init__(self) -> None:
        problem = _class_problem(self.classes) or _step_problem(self)
        if problem:
            raise UserError(f"task {self.name!r} on {self.dataset!r}: {problem}")

    @property
    def num_steps(self) -> int:
        """Number of continual steps."""
        return len(self.steps)

    @property
    def used(self) -> tuple[int, ...]:
        """Raw ids of all classes of the task, in learning order."""
        return tuple(c for step in self.steps for c in step)

    def seen(self, step: int) -> tuple[int, ...]:
        """Raw ids learned up to and including ``step``, in learning order."""
        self.check_step(step)
        return tuple(c for new in self.steps[: step + 1] for c in new)

    def num_classes(self, step: int) -> int:
        """Channels of the classifier at ``step``: the background and every class seen so far."""
        return 1 + len(self.seen(step))

    def class_names(self, step: int) -> tuple[str, ...]:
        """Names of those channels, by training index."""
        return (self.classes[0], *(self.classes[c] for c in self.seen(step)))

    def merged(self) -> "Task":
        """The same task in one step (joint training), with the same training indices."""
        return replace(self, steps=(self.used,))

    def check_step(self, step: int) -> None:
        """Raise a UserError unless the task has this step (the first one is 0)."""
        if step not in range(self.num_steps):
            raise UserError(
                f"task {self.name!r} has no step {step}; valid steps: 0 to {self.num_steps - 1}"
            )


def check_task(task: object) -> None:
    """Raise UserError for what is no task: its name, above all."""
    if not isinstance(task, Task):
        raise UserError(
            f"task is {shown(task)}: give a Task, as get_task('minivoc', '6-4') returns one"
        )


def _class_problem(classes: tuple[str, ...]) -> str | None:
    """What is wrong with the class names of a data set, or None."""
    if not classes or classes[0] != BACKGROUND_NAME:
        first = classes[0] if classes else None
        return f"the first class must be {BACKGROUND_NAME!r}, not {first!r}"
    if len(classes) > 255:
        return f"{len(classes) - 1} classes are too many; masks have room for ids 1 to 254"
    for name, count in Counter(classes).items():
        if count > 1:
            return f"class name {name!r} stands {count} times in the data set; make names unique"
    return None


def _step_problem(task: Task) -> str | None:
    """What is wrong with the steps of a task, or None."""
    last = len(task.classes) - 1
    if not task.steps:
        return "there are no steps; give at least one list of classes"
    for k, step in enumerate(task.steps):
        if not step:
            return f"step {k} is empty; give it a class or leave it out"
    for c in task.used:
        if type(c) is not int or not 1 <= c <= last:
            return f"{c!r} is not a class id; valid ids: 1 to {last} (0 is the background)"
        if task.used.count(c) > 1:
            return f"class {c} ({task.classes[c]}) is learned twice; keep it once"
    if task.unused not in ("background", "ignore"):
        return f"unused is {task.unused!r}; use 'background' or 'ignore'"
    return None
