"""Training and evaluation over the steps of a task, on whatever device Lightning Fabric finds."""

from sparcl_lib.training.devices import check_devices, make_fabric
from sparcl_lib.training.plan import StepPlan
from sparcl_lib.training.restore import restore_bank, restore_model
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.training.runner import evaluate, train
from sparcl_lib.training.step import StepTrainer, poly_lr
from sparcl_lib.training.workspace import Workspace, open_workspace

__all__ = [
    "RunDirectory",
    "StepPlan",
    "StepTrainer",
    "Workspace",
    "check_devices",
    "evaluate",
    "make_fabric",
    "open_workspace",
    "poly_lr",
    "restore_bank",
    "restore_model",
    "train",
]
