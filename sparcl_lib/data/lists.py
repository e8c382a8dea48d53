"""Training images of every step as files: published lists in, our own out, a checksum of both.

A folder of lists has one file per step, its name ending in the step's number: ``train-0.npy``,
``step0.txt``, ``0.txt``. Files whose names begin with ``val`` or ``test`` belong to the tests of
the released codes and are passed over. A ``.txt`` holds an id per line, or the line
``JPEGImages/ID.jpg SegmentationClassAug/ID.png`` of the published lists; a ``.npy`` holds integer
positions in the data set's training list, from 0.

Source of the ``.npy`` form: the released code of MiB (github.com/fcdl94/MiB, dataset/voc.py and
dataset/ade.py), which SDR and PLOP build on: positions in train_aug.txt (VOC), or in the sorted
folder of the photographs (ADE20K).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from sparcl_lib.data.presence import Presence
from sparcl_lib.data.sources.files import MASK_SUFFIXES, PHOTO_SUFFIXES, visible_names
from sparcl_lib.data.sources.source import read_list
from sparcl_lib.data.splits import step_ids
from sparcl_lib.errors import UserError, first_few, number_of
from sparcl_lib.tasks.task import Task
from sparcl_lib.writing import appearing_whole

FORMS = ("txt", "npy")
"""What lists can be written as: ids, or positions in the training list."""

_NAME = re.compile(r"(?!val|test).*?(\d+)\.(?:txt|npy)")


def split_checksum(steps: Mapping[int, Iterable[str]]) -> str:
    """sha256 of which image is in which step, whatever the lists' order, form and names.

    It is that of what ``sparcl split --format txt`` prints: lines ``STEP ID``, sorted.
    """
    lines = (f"{step} {i}\n" for step in sorted(steps) for i in sorted(steps[step]))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_checksum(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: str | Path) -> dict[int, Path]:
    """step -> file of a folder of lists, by step.

    Raises:
        UserError: no folder, no list in it, or two for one step.
    """
    folder = Path(folder)
    files: dict[int, Path] = {}
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name one with a list per step, as in train-0.txt")
    for path in (folder / name for name in visible_names(folder)):
        if match := _NAME.fullmatch(path.name):
            step = int(match[1])
            if step in files:
                raise UserError(f"{files[step]} and {path.name} are both for step {step}: keep one")
            files[step] = path
    if not files:
        raise UserError(f"{folder} holds no list; its files must be named as train-0.txt or .npy")
    return dict(sorted(files.items()))


def read_lists(folder: str | Path, presence: Presence, task: Task) -> dict[int, list[str]]:
    """Training images of every step from a folder of lists.

    Args:
        folder: one file per step of the task, as the module says.
        presence: the whole training list with what its images show.
        task: classes of every step.

    Returns:
        step -> image ids, sorted: the order in a file has no meaning.

    Raises:
        UserError: another number of steps; a list that is empty, cannot be read, names an image
            twice or one that the data set does not have; a step whose images show none of its
            classes.
    """
    files = list_files(folder)
    if list(files) != list(range(task.num_steps)):
        found = ", ".join(map(str, files))
        raise UserError(
            f"{folder} has lists of steps {found}, but task {task.name!r} has steps 0 to "
            f"{task.num_steps - 1}: add or remove files, or name the task of these lists"
        )
    steps = {step: _read(file, presence.ids) for step, file in files.items()}
    for step, ids in steps.items():
        if len(_without_new(ids, presence, task, step)) == len(ids):
            names = ", ".join(task.classes[c] for c in task.steps[step])
            raise UserError(
                f"{files[step]}: none of {len(ids)} images shows a class of step {step} ({names}): "
                f"name the task of these lists, not {task.name!r}"
            )
    return steps


def describe(
    steps: Mapping[int, Sequence[str]], presence: Presence, task: Task, setup: str
) -> list[str]:
    """A line per step: number of images, and how they differ from those of the split rule."""
    lines = []
    for step, ids in steps.items():
        more, fewer = beside_rule(ids, presence, task, setup, step)
        differs = f"{more} more, {fewer} fewer than by rule" if more + fewer else "as by rule"
        empty = len(_without_new(ids, presence, task, step))
        warning = f"; {empty} show no class of the step" if empty else ""
        lines.append(f"step {step}: {len(ids)} images, {differs} ({setup}){warning}")
    return lines


def beside_rule(
    ids: Sequence[str], presence: Presence, task: Task, setup: str, step: int
) -> tuple[int, int]:
    """How many images a list of a step has that the split rule has not, and how many it lacks."""
    listed, ruled = set(ids), set(step_ids(presence, task, setup, step))
    return len(listed - ruled), len(ruled - listed)


def write_lists(
    steps: Mapping[int, Sequence[str]], train: Sequence[str], folder: Path, form: str = "txt"
) -> list[Path]:
    """Write ``train-STEP.txt`` or ``.npy`` for every step; the folder appears whole or not at all.

    Args:
        steps: step -> image ids.
        train: the data set's training list, to which the positions of ``npy`` refer.
        folder: must be empty or not there yet.
        form: one of ``FORMS``.

    Returns:
        The files, by step.

    Raises:
        UserError: another form; an id that ``train`` does not have, for ``npy``; the folder holds
            something or cannot be written.
    """
    if form not in FORMS:
        raise UserError(f"lists are {' or '.join(FORMS)}, not {form!r}: choose one")
    with appearing_whole(folder, "name another --export") as draft:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty: name another --export, or clear it")
        for step, ids in steps.items():
            _write(draft / f"train-{step}.{form}", ids, train)
    return [folder / f"train-{step}.{form}" for step in steps]


def _write(file: Path, ids: Sequence[str], train: Sequence[str]) -> None:
    if file.suffix == ".txt":
        file.write_text("".join(f"{i}\n" for i in ids), "utf-8")
        return
    position = {image_id: n for n, image_id in enumerate(train)}
    if strange := [i for i in ids if i not in position]:
        raise UserError(f"{file.name}: no position in the training list: {first_few(strange)}")
    np.save(file, np.array([position[i] for i in ids], dtype=np.int64), allow_pickle=False)


def _without_new(ids: Iterable[str], presence: Presence, task: Task, step: int) -> set[str]:
    """Those that show no class of the step."""
    shows = presence.table[:, list(task.steps[step])].any(axis=1)
    return set(ids) - {presence.ids[n] for n in np.flatnonzero(shows)}


def _read(file: Path, train: Sequence[str]) -> list[str]:
    """Checked ids of one list, sorted."""
    ids = _ids_at(file, train) if file.suffix == ".npy" else _ids_named(file, train)
    if not ids:
        raise UserError(f"{file} names no image; a step needs some")
    double = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if double:
        raise UserError(f"{file} names {first_few(double)} more than once; keep each once")
    return sorted(ids)


def _ids_named(file: Path, train: Sequence[str]) -> list[str]:
    known = set(train)
    ids = [line if line in known else _id_of_paths(line) for line in read_list(file)]
    unknown = [image_id for image_id in ids if image_id not in known]
    if unknown:
        raise UserError(
            f"{file} names {number_of(len(unknown), 'image')} that the training list of "
            f"{len(train)} does not have: {first_few(unknown)}; take what is not there off this "
            "list, or complete the data set"
        )
    return ids


def _id_of_paths(line: str) -> str:
    """``JPEGImages/ID.jpg SegmentationClassAug/ID.png`` -> ``ID``; an id stays itself."""
    path = PurePosixPath(line.split()[0])
    return path.stem if path.suffix.lower() in {*PHOTO_SUFFIXES, *MASK_SUFFIXES} else line


def _ids_at(file: Path, train: Sequence[str]) -> list[str]:
    try:
        with file.open("rb") as opened:
            positions = np.lib.format.read_array(opened, allow_pickle=False)  # pickles run code
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"cannot read {file} ({reason}); save integers with numpy.save") from None
    if positions.dtype.kind not in "iu":
        raise UserError(
            f"{file} holds {positions.dtype} and not integer positions; save ids as .txt instead"
        )
    outside = positions[(positions < 0) | (positions >= len(train))].ravel()
    if len(outside):
        raise UserError(
            f"{file} has {len(outside)} positions outside 0 to {len(train) - 1}: "
            f"{first_few(outside.tolist())}; they belong to another training list"
        )
    return [train[n] for n in positions.ravel()]
