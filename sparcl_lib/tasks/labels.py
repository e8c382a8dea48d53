"""What the target of a pixel is: lookup tables from raw mask values to training indices."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.tasks.classes import unknown_name
from sparcl_lib.tasks.task import Task, check_task

Setup = Literal["sequential", "disjoint", "overlapped"]
"""Which images and labels a step has: sequential, disjoint or overlapped."""
SETUPS: tuple[Setup, ...] = get_args(Setup)
"""All of them."""

_MEANING = {"background": BACKGROUND, "ignore": VOID}
# What value 0 is: in training, at test.
_ZERO = {
    "background": (BACKGROUND, BACKGROUND),
    "ignore": (VOID, VOID),
    "ignore_at_test": (BACKGROUND, VOID),
}


@dataclass(frozen=True)
class LabelPolicy:
    """The label rules in which published codes differ; the defaults are SDR's and MiB's on VOC.

    Raises:
        UserError: a value that a rule does not have.
    """

    border: Literal["background", "ignore"] = "background"
    """What mask value 255 (object borders) is in training."""
    future: Literal["background", "ignore"] = "ignore"
    """What classes that are not learned yet are at test."""
    zero: Literal["background", "ignore", "ignore_at_test"] = "background"
    """What raw id 0 is. In ADE20K it is no background but "none of the 150": the released codes of
    MiB and SDR train on it as background and leave it out at test (``ignore_at_test``), PLOP's
    counts it at test too unless told not to (``--ignore_test_bg``); ``dataset/ade.py`` of each."""

    def __post_init__(self) -> None:
        for field, valid in (("border", _MEANING), ("future", _MEANING), ("zero", _ZERO)):
            if getattr(self, field) not in valid:
                raise unknown_name(f"label policy for {field}", getattr(self, field), valid)


SDR_POLICY = LabelPolicy(border="background", future="ignore")
"""The rules of SDR's and MiB's released codes: the default."""
PLOP_POLICY = LabelPolicy(border="ignore", future="background")
"""Those of PLOP's and RCIL's."""


def check_setup(name: str) -> None:
    """Raise a UserError unless ``name`` is one of ``SETUPS``."""
    if name not in SETUPS:
        raise unknown_name("setup", name, SETUPS)


def training_table(
    task: Task, step: int, setup: str, policy: LabelPolicy = SDR_POLICY
) -> np.ndarray:
    """Training targets of a step, as a lookup table.

    New classes have their training index; old ones too in the sequential setup, else they are
    background; future classes are background. Values that are no class of the data set are VOID.

    Args:
        step: continual step, from 0.
        setup: one of ``SETUPS``.
        policy: decides on mask values 255 and 0.

    Returns:
        uint8 (256,), raw mask value -> training index, 255 = ignored.

    Raises:
        UserError: unknown setup or step.

    Source: setups of MiB (CVPR 2020, disjoint and overlapped) and SDR (CVPR 2021, sequential).
    """
    check_setup(setup)
    check_task(task)
    seen = task.seen(step)
    labelled = set(seen if setup == "sequential" else task.steps[step])
    table = _base_table(task, outside=BACKGROUND)
    for index, raw in enumerate(seen, start=1):
        if raw in labelled:
            table[raw] = index
    table[BACKGROUND] = _ZERO[policy.zero][0]
    table[VOID] = _MEANING[policy.border]
    return table


def evaluation_table(task: Task, step: int, policy: LabelPolicy = SDR_POLICY) -> np.ndarray:
    """Test targets after a step, as a lookup table; mask value 255 is always ignored.

    Args:
        step: continual step, from 0; every class seen so far is labelled.
        policy: decides on classes that are not learned yet, and on mask value 0.

    Returns:
        uint8 (256,), raw mask value -> training index, 255 = ignored.

    Raises:
        UserError: unknown step.

    Source: as ``training_table``; the other choice for future classes is PLOP's (CVPR 2021).
    """
    check_task(task)
    seen = task.seen(step)
    table = _base_table(task, outside=_MEANING[policy.future])
    table[list(seen)] = np.arange(1, len(seen) + 1)
    table[BACKGROUND] = _ZERO[policy.zero][1]
    return table


def _base_table(task: Task, outside: int) -> np.ndarray:
    """Unused classes as the task says, its own classes ``outside``, the rest VOID."""
    table = np.full(256, VOID, dtype=np.uint8)
    table[: len(task.classes)] = _MEANING[task.unused]
    table[list(task.used)] = outside
    return table
