"""Tasks, setups and label rules of class-incremental segmentation. Imports no torch."""

from sparcl_lib.tasks.catalog import get_task, task_names
from sparcl_lib.tasks.classes import (
    ADE_CLASSES,
    DATASET_CLASSES,
    MINIVOC_CLASSES,
    VOC_CLASSES,
    dataset_classes,
)
from sparcl_lib.tasks.labels import (
    BACKGROUND,
    PLOP_POLICY,
    SDR_POLICY,
    SETUPS,
    VOID,
    LabelPolicy,
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
    "Task",
    "check_setup",
    "dataset_classes",
    "evaluation_table",
    "get_task",
    "task_names",
    "training_table",
]
