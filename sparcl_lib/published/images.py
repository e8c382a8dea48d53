"""How many training images each step has, as published or in a folder."""

from functools import cache

from sparcl_lib.config import RunConfig
from sparcl_lib.data import Presence, open_source, partition, scan
from sparcl_lib.errors import UserError
from sparcl_lib.published.tables import rows_of
from sparcl_lib.tasks import get_task

_ADE_IMAGES = 20_210


def images_per_step(config: RunConfig, counted: bool = False) -> list[int] | None:
    """Training images of each step that the method has, by rule; None where they are not known."""
    task = get_task(config.dataset, config.task, config.class_order)
    presence = _presence(config, counted)
    if presence is None and config.dataset != "ade20k":
        return None
    if presence is None:
        return [_ADE_IMAGES] * (1 if config.method.joint else task.num_steps)
    setup = "overlapped" if config.method.joint else config.setup
    try:
        ids = partition(presence, task, setup).values()
    except UserError:  # these images do not do for the task
        return None
    return [len(set().union(*ids))] if config.method.joint else [len(step) for step in ids]


def _presence(config: RunConfig, counted: bool) -> Presence | None:
    if counted:
        return _counted(config.dataset, config.data_root)
    return voc_presence() if config.dataset == "voc" else None


@cache
def _counted(dataset: str, data_root: str | None) -> Presence:
    return scan(open_source(dataset, data_root), "train")


@cache
def voc_presence() -> Presence:
    """The 10,582 images of VOC's train_aug: published are their sets of classes, not their ids."""
    return Presence.from_sets(
        {
            f"{row['classes']}/{n}": set(map(int, row["classes"].split()))
            for row in rows_of("published", "voc_class_sets.csv")
            for n in range(int(row["train_aug"]))
        }
    )
