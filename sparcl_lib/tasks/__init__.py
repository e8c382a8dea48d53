"""Tasks, setups and label rules of class-incremental segmentation. Imports no torch."""

from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.tasks.catalog import get_task, shuffled_order, task_names
from sparcl_lib.tasks.classes import (
    ADE_CLASSES,
    DATASET_CLASSES,
    MINIVOC_CLASSES,
    VOC_CLASSES,
    dataset_classes,
)
from sparcl_lib.tasks.labels import (
    PLOP_POLICY,
    SDR_POLICY,
    SETUPS,
    LabelPolicy,
    Setup,
    check_setup,
    evaluation_table,
    training_table,
)
from sparcl_lib.tasks.task import Task

__all__ = [
    "ADE_CLASSES",
    "BACKGROUND",
    "DATASET_CLASSES",
    "MINIVOC_CLASSES",
    "PLOP_POLICY",
    "SDR_POLICY",
    "SETUPS",
    "VOC_CLASSES",
    "VOID",
    "LabelPolicy",
    "Setup",
    "Task",
    "check_setup",
    "dataset_classes",
    "evaluation_table",
    "get_task",
    "shuffled_order",
    "task_names",
    "training_table",
]
