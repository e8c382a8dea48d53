"""Which images each step trains and tests on, and what their labels become."""

import hashlib
import sys
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from sparcl_lib.data.presence import Presence
from sparcl_lib.errors import UserError
from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.tasks.labels import check_setup
from sparcl_lib.tasks.task import Task, check_task

if TYPE_CHECKING:
    from torch import Tensor


def partition(
    presence: Presence | Mapping[str, Iterable[int]],
    task: Task,
    setup: str,
    may_be_empty: Container[int] = (),
) -> dict[int, list[str]]:
    """Training images of every step.

    An image belongs to step k if it shows a class of that step and, unless the setup is
    ``overlapped``, no class of a later step. Only the task's own classes count.

    Args:
        presence: N images, or a mapping image id -> raw values in its mask.
        task: classes of every step.
        setup: ``sequential``, ``disjoint`` or ``overlapped``.
        may_be_empty: steps that need no image, for they are trained already.

    Returns:
        step -> image ids, sorted.

    Raises:
        UserError: unknown setup, what is no task, or a step without images.

    Source: setups of MiB (CVPR 2020) and SDR (CVPR 2021); image counts as published for VOC2012.
    """
    check_setup(setup)
    check_task(task)
    presence = _as_presence(presence)
    steps = {step: step_ids(presence, task, setup, step) for step in range(task.num_steps)}
    for step, ids in steps.items():
        if not ids and step not in may_be_empty:
            names = ", ".join(task.classes[c] for c in task.steps[step])
            raise UserError(
                f"step {step} of task {task.name!r} ({setup}) has no image; it learns {names}: "
                f"add images of them, or choose another task or setup{_hint(presence)}"
            )
    return steps


def hold_out(presence: Presence, share: float) -> tuple[Presence, Presence]:
    """The images to train on, and about a share of them, 0 to 1, to choose settings by.

    An image's id decides: it is held out in every task, setup and list, or in none.
    """
    drawn = [hashlib.sha256(image_id.encode()).digest()[:8] for image_id in presence.ids]
    held = np.array([int.from_bytes(number) < share * 2**64 for number in drawn], dtype=bool)
    return presence.select(~held), presence.select(held)


def step_ids(presence: Presence, task: Task, setup: str, step: int) -> list[str]:
    """Training images of one step by the rule of ``partition``, sorted; there may be none."""
    chosen = _shows(presence, task.steps[step])
    if setup != "overlapped":
        future = [c for later in task.steps[step + 1 :] for c in later]
        chosen &= ~_shows(presence, future)
    return _sorted_ids(presence, chosen)


def evaluation_ids(
    presence: Presence | Mapping[str, Iterable[int]], task: Task, step: int
) -> list[str]:
    """Test images after a step: those that show some class seen so far, ids sorted.

    Raises:
        UserError: unknown step, or no such image.
    """
    check_task(task)
    presence = _as_presence(presence)
    seen = task.seen(step)
    chosen = _shows(presence, seen)
    if not chosen.any():
        names = ", ".join(task.classes[c] for c in seen)
        raise UserError(
            f"no test image for step {step} of task {task.name!r}; add images that show {names}"
            f"{_hint(presence)}"
        )
    return _sorted_ids(presence, chosen)


@overload
def remap_labels(mask: "Tensor", table: "np.ndarray | Tensor") -> "Tensor": ...


@overload
def remap_labels(mask: npt.ArrayLike, table: np.ndarray) -> np.ndarray: ...


def remap_labels(
    mask: "Tensor | npt.ArrayLike", table: "np.ndarray | Tensor"
) -> "Tensor | np.ndarray":
    """Training indices of a mask, by one table lookup.

    Args:
        mask: raw values 0 to 255 of any shape: a torch tensor, or anything numpy can read.
        table: uint8 (256,) from ``training_table`` or ``evaluation_table``. For tensors it may be
            one too: on their device already, so that nothing waits for its copy.

    Returns:
        Same shape: int64 tensor on the mask's device for a tensor, else uint8 array.

    Raises:
        UserError: values that are no whole numbers of 0 to 255.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(mask, torch.Tensor):
        if mask.dtype is not torch.uint8:
            _check_values(mask.detach().cpu().numpy())
        lookup = torch.as_tensor(table, device=mask.device)
        # Bytes are looked up, then widened: three times faster than looking up wide numbers.
        found = lookup.index_select(0, mask.reshape(-1).int())
        labels: Tensor = found.view(mask.shape).to(torch.int64)
        return labels
    values = np.asarray(mask)
    _check_values(values)
    return np.asarray(table[values])


def _check_values(values: np.ndarray) -> None:
    """Raise UserError for what is no mask: a negative number would count from the table's end."""
    if values.dtype == np.uint8:
        return
    if values.dtype.kind not in "iu":
        raise UserError(f"mask values are {values.dtype}; give whole numbers of 0 to 255")
    outside = values[(values < 0) | (values > 255)]
    if outside.size:
        raise UserError(
            f"a mask holds {outside.flat[0]}, and mask values are 0 to 255; give it as its file "
            "stores it, before any other mapping"
        )


def without_classes(presence: Presence, task: Task) -> list[str]:
    """Images that show no class of a task, in list order: no step trains or tests on them."""
    shows = _shows(presence, task.used)
    return [image_id for image_id, shown in zip(presence.ids, shows, strict=True) if not shown]


def _as_presence(presence: Presence | Mapping[str, Iterable[int]]) -> Presence:
    return presence if isinstance(presence, Presence) else Presence.from_sets(presence)


def _shows(presence: Presence, classes: Iterable[int]) -> np.ndarray:
    """bool (N,): does the image show any of these classes?"""
    return np.asarray(presence.table[:, list(classes)].any(axis=1))


def _sorted_ids(presence: Presence, chosen: np.ndarray) -> list[str]:
    return sorted(presence.ids[n] for n in np.flatnonzero(chosen))


def _hint(presence: Presence) -> str:
    """For masks in black and white, or of other values than those of the classes."""
    known = presence.table[:, [k for k in range(256) if k not in (BACKGROUND, VOID)]]
    return "" if known.any() else "; no mask shows any class: sparcl data check says what they hold"
