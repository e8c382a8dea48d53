"""Tasks by name, and tasks of one's own from a YAML file."""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sparcl_lib.errors import UserError, printable, shown
from sparcl_lib.plain import is_yaml
from sparcl_lib.tasks.classes import (
    BACKGROUND_NAME,
    DATASET_CLASSES,
    dataset_classes,
    unknown_name,
)
from sparcl_lib.tasks.task import Task
from sparcl_lib.yaml_text import load_yaml

Steps = tuple[tuple[int, ...], ...]

# Per data set: name -> (classes of the first step, classes of each later step).
_TWENTY = {"19-1": (19, 1), "15-5": (15, 5), "15-1": (15, 1), "10-10": (10, 10), "10-1": (10, 1)}
_RULES: dict[str, dict[str, tuple[int, int]]] = {
    "minivoc": {"6-4": (6, 4), "6-1": (6, 1), "6-2": (6, 2)},
    "minivoc20": _TWENTY,
    "voc": {
        **_TWENTY, "19-1b": (19, 1), "10-5": (10, 5), "5-3": (5, 3), "2-1": (2, 1), "2-2": (2, 2),
    },
    "ade20k": {"100-50": (100, 50), "100-10": (100, 10), "50-50": (50, 50), "100-5": (100, 5)},
}  # fmt: skip
_ALIASES = {"15-5s": "15-1", "10-10s": "10-1"}
"""Names in released codes; 15-5s_b is 15-1b."""
_PUBLISHED = {"voc": "voc_tasks.yaml", "ade20k": "ade_tasks.yaml"}
_LEARNED_LAST = {"19-1b": "bottle"}
_LONGEST_NAME = 100
_FILE_KEYS = ("name", "dataset", "steps", "unused")


def get_task(
    dataset: str,
    name: str | Path,
    order: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
) -> Task:
    """The task of this name on a data set, or the one that a YAML file describes.

    A task file has the keys ``steps`` (lists of class names; of raw ids too where the data set is
    one of the library's), and optionally ``name`` (the file's if not; kept runs are found by it),
    ``dataset`` (must be the one asked for) and
    ``unused`` (``background`` or ``ignore``).

    Args:
        dataset: a data set of ``DATASET_CLASSES``, or any name if ``classes`` is given.
        name: one of ``task_names(dataset)``, or the path of a ``.yaml`` or ``.yml`` file (text or
            a ``Path``).
        order: raw ids of the task's classes in another learning order; step sizes stay.
        classes: class names of a data set of one's own, background first.

    Raises:
        UserError: unknown data set, task, class or key; an order that is no permutation.

    Source: MiB, SDR and PLOP for the named tasks; ``published/ade_tasks.yaml`` and
        ``voc_tasks.yaml`` for the published permutations.

    >>> task = get_task("voc", "15-5")
    >>> task.num_steps, task.class_names(1)[-5:]
    (2, ('pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor'))
    """
    names = tuple(classes) if classes is not None else dataset_classes(dataset)
    if isinstance(name, Path):
        name = str(name)
    if not isinstance(name, str):
        raise unknown_name(f"task of {dataset}", name, [*task_names(dataset), "FILE.yaml"])
    if is_yaml(name):
        task = _read_task(Path(name), dataset, names)
    else:
        task = _named_task(dataset, name, names)
    if order is None:
        return task
    return Task(task.name, dataset, names, _reorder(task, order), task.unused)


def task_names(dataset: str) -> tuple[str, ...]:
    """Names that ``get_task`` knows for a data set; every data set has ``offline``."""
    return tuple(dict.fromkeys(["offline", *_RULES.get(dataset, {}), *_published(dataset)]))


def shuffled_order(task: Task, number: int) -> tuple[int, ...]:
    """The task's classes (raw ids) in a random learning order, the same wherever it is drawn.

    Not drawn from a generator, whose stream may change between versions: classes are sorted by the
    SHA-256 of ``number`` and id.

    >>> shuffled_order(get_task("minivoc", "6-4"), 1)
    (1, 6, 3, 5, 7, 4, 9, 8, 10, 2)
    """

    def place(raw_id: int) -> bytes:
        return hashlib.sha256(f"{number} {raw_id}".encode()).digest()

    return tuple(sorted(task.used, key=place))


def _named_task(dataset: str, name: str, classes: tuple[str, ...]) -> Task:
    if dataset == "voc":
        base, mark, letter = name.partition("_")
        meant = _ALIASES.get(base, "") + letter
        name = meant if bool(mark) == bool(letter) and meant in task_names(dataset) else name
    ids = list(range(1, len(classes)))
    rules = _RULES.get(dataset, {})
    if name == "offline":
        steps = _cut(ids, len(ids), len(ids))
    elif name in rules:
        last = _LEARNED_LAST.get(name)
        steps = _cut(sorted(ids, key=lambda c: classes[c] == last), *rules[name])
    elif name in task_names(dataset):
        steps = _published(dataset)[name]
    else:
        valid = [*task_names(dataset), "FILE.yaml"]
        raise unknown_name(f"task of {dataset}", name, valid)
    return Task(name, dataset, classes, steps)


def _cut(ids: Sequence[int], first: int, later: int) -> Steps:
    """Ids in one piece of ``first`` and then pieces of ``later``."""
    starts = range(first, len(ids), later)
    return (tuple(ids[:first]), *(tuple(ids[s : s + later]) for s in starts))


def _reorder(task: Task, order: Sequence[int]) -> Steps:
    """Another learning order in steps of the same sizes."""
    if sorted(order) != sorted(task.used):
        ids = ", ".join(f"{c} {task.classes[c]}" for c in sorted(task.used))
        raise UserError(
            f"order is not a permutation of the {len(task.used)} class ids of task "
            f"{task.name!r}; list the number of each of these once: {ids}"
        )
    rest = iter(map(int, order))
    return tuple(tuple(next(rest) for _ in step) for step in task.steps)


@cache
def _published(dataset: str) -> dict[str, Steps]:
    """Tasks that stand class by class in a file, for the order is not the classes' own."""
    if dataset not in _PUBLISHED:
        return {}
    text = (resources.files("sparcl_lib") / "published" / _PUBLISHED[dataset]).read_text("utf-8")
    return {name: tuple(map(tuple, steps)) for name, steps in yaml.safe_load(text).items()}


def _read_task(path: Path, dataset: str, classes: tuple[str, ...]) -> Task:
    content = _read_yaml(path)
    for key in content:
        if key not in _FILE_KEYS:
            raise unknown_name(f"key in task file {path}:", key, _FILE_KEYS)
    if content.get("dataset", dataset) != dataset:
        raise UserError(
            f"task file {path} is for dataset {content['dataset']!r}, not {dataset!r}; "
            "change its 'dataset' or the data set asked for"
        )
    steps = content.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, list) for step in steps):
        raise UserError(f"task file {path}: 'steps' must be a list of lists of class names or ids")
    known = dataset in DATASET_CLASSES  # whose ids are those of its masks, and published
    ids = tuple(tuple(_class_id(c, classes, path, known) for c in step) for step in steps)
    name = printable(str(content.get("name", path.stem)))
    if len(name) > _LONGEST_NAME:
        raise UserError(f"task file {path}: the name is longer than {_LONGEST_NAME} characters")
    try:
        return Task(name, dataset, classes, ids, content.get("unused", "background"))
    except UserError as error:
        raise UserError(f"task file {path}: {error}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    content = load_yaml(path, f"task file {path}")
    if not isinstance(content, dict):
        raise UserError(f"task file {path} must hold keys: {', '.join(_FILE_KEYS)}")
    return content


def _class_id(entry: Any, classes: tuple[str, ...], path: Path, known: bool) -> Any:
    """Raw id of a class name; ids of a known data set pass through and are checked by the task. Of
    another one they are refused, for its masks may hold other numbers than they are."""
    if not isinstance(entry, str):
        if known:
            return entry
        raise UserError(
            f"task file {path}: {shown(entry)} is no class name, and numbers could mean masks or "
            f"places: write names (in quotes where one is a number), such as {classes[-1]!r}"
        )
    if entry == BACKGROUND_NAME:
        raise UserError(f"task file {path}: every step learns {entry}; leave it out")
    if entry not in classes:
        raise unknown_name(f"class in task file {path}:", entry, classes[1:])
    return classes.index(entry)
