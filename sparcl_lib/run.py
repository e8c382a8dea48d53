"""A run as one reads it: its numbers, networks and figures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sparcl_lib.config import RunConfig
from sparcl_lib.metrics import StepMatrix
from sparcl_lib.models import Segmenter, freeze
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training.restore import restore_bank, restore_model
from sparcl_lib.training.run_directory import RunDirectory


@dataclass(frozen=True)
class Run:
    """A run and what one reads from it."""

    config: RunConfig
    directory: RunDirectory
    first: RunDirectory
    """Where step 0 is: shared by all runs of a store that agree on it."""

    @property
    def metrics(self) -> dict[str, Any]:
        """Contents of metrics.json."""
        return self.directory.metrics()

    @property
    def matrix(self) -> StepMatrix:
        return StepMatrix.from_results(self.metrics["classes"], self.metrics["steps"])

    def _place(self, step: int) -> RunDirectory:
        return self.first if step == 0 else self.directory

    def _checkpoint(self, step: int) -> dict[str, Any]:
        return self._place(step).load_checkpoint(step)

    def model(self, step: int) -> Segmenter:
        """The network after a step, frozen and in eval mode."""
        return freeze(restore_model(self._checkpoint(step)))

    def bank(self, step: int) -> PrototypeBank:
        """The prototypes after a step."""
        return restore_bank(self._checkpoint(step))

    def confusion(self, step: int) -> np.ndarray:
        """int64 (K, K) pixels of the test images, rows truth, columns prediction."""
        return self._checkpoint(step)["confusion"].numpy()

    def log(self, step: int) -> pd.DataFrame:
        """Loss terms, total and learning rate, a row every tenth iteration (column `step`)."""
        return pd.read_csv(self._place(step).path / "logs" / f"step-{step}" / "metrics.csv")

    def complete(self, checkpoints: bool = False) -> bool:
        """Whether every step was evaluated; checkpoints: and its network is there too."""
        if not self.directory.metrics_file.is_file():
            return False
        metrics = self.metrics
        if not metrics["steps"] or metrics["steps"][-1]["step"] < len(metrics["classes"]) - 1:
            return False
        steps = range(len(metrics["seconds"]))
        return not checkpoints or all(self._place(k).checkpoint_file(k).is_file() for k in steps)
