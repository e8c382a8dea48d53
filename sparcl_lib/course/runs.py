"""Runs that a notebook asks for: at once when they are kept, trained live with a bar when not.

A run is kept under a key of its configuration, the data and the library's version. Kept runs come
with the package (`shipped/`, small), new ones go to the user's cache. Both are run directories.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import platformdirs

import sparcl_lib
from sparcl_lib.config import RunConfig, parse_settings, resolve, to_plain
from sparcl_lib.data import open_source
from sparcl_lib.data.minivoc import checksum
from sparcl_lib.metrics import StepMatrix
from sparcl_lib.models import Segmenter, freeze
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training import restore_bank, restore_model, train
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.training.workspace import first_step_settings

SHIPPED = Path(__file__).parent / "shipped"
CACHE_VARIABLE = "SPARCL_COURSE_CACHE"
USES_VARIABLE = "SPARCL_COURSE_USES"


def minivoc_config(
    method: str, *settings: str, task: str = "6-4", setup: str = "disjoint", seed: int = 0
) -> RunConfig:
    """The configuration of a run on MiniVOC.

    settings: as for `sparcl train --set`, e.g. "method.terms.kd.weight=3".
    Raises UserError for whatever is unknown.
    """
    return resolve("minivoc", method, [parse_settings(settings)], task=task, setup=setup, seed=seed)


@dataclass(frozen=True)
class CourseRun:
    """A finished run and what its notebook reads from it."""

    config: RunConfig
    directory: RunDirectory
    first: RunDirectory
    """Where step 0 is: shared by all runs that agree on it."""

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


def run_or_load(config: RunConfig, checkpoints: bool = False) -> CourseRun:
    """The run of this configuration: kept, or trained now.

    checkpoints: whether the networks are needed too; some runs are kept as numbers only.
    Step 0 is trained once for all runs that agree on it, so another weight of a later step
    costs that step alone.
    """
    key, first_key = run_keys(config)
    for root in _roots():
        run = CourseRun(config, RunDirectory(root / key), RunDirectory(root / first_key))
        if _complete(run, checkpoints):
            break
    else:
        run = _train(config, _roots()[-1], key, first_key)
    _note_use(run, checkpoints)
    return run


def run_keys(config: RunConfig) -> tuple[str, str]:
    """Names under which a run and its step 0 are kept."""
    data = checksum(open_source(config.dataset, config.data_root).root)
    common = {"data": data, "version": sparcl_lib.__version__}
    whole = _digest({**common, "config": to_plain(config)})
    first = _digest({**common, "first": first_step_settings(config)})
    name = config.method["name"].replace("+", "-")
    return f"{name}-{whole}", f"first-{first}"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _roots() -> list[Path]:
    """Where runs may be, the writable folder last. CACHE_VARIABLE names one that stands alone."""
    if CACHE_VARIABLE in os.environ:
        return [Path(os.environ[CACHE_VARIABLE])]
    return [SHIPPED, Path(platformdirs.user_cache_dir("sparcl", appauthor=False)) / "course"]


def _complete(run: CourseRun, checkpoints: bool) -> bool:
    if not run.directory.metrics_file.is_file():
        return False
    metrics = run.metrics
    if metrics["steps"][-1]["step"] < len(metrics["classes"]) - 1:
        return False
    steps = range(len(metrics["seconds"]))
    return not checkpoints or all(run._place(k).checkpoint_file(k).is_file() for k in steps)


def _train(config: RunConfig, root: Path, key: str, first_key: str) -> CourseRun:
    """Train step 0, unless it is there, and then the rest from it. Goes on where it stopped."""
    first = next((r / first_key for r in _roots() if _has_first(r / first_key)), root / first_key)
    if not _has_first(first):
        train(config, first, steps=[0], resume=True, accelerator="cpu")
    train(config, root / key, resume=True, start_from=first, accelerator="cpu")
    return CourseRun(config, RunDirectory(root / key), RunDirectory(first))


def _has_first(path: Path) -> bool:
    return RunDirectory(path).checkpoint_file(0).is_file()


def _note_use(run: CourseRun, checkpoints: bool) -> None:
    """For the build: which runs a notebook used, a line each."""
    file = os.environ.get(USES_VARIABLE)
    if file:
        line = json.dumps(
            {"run": str(run.directory.path), "first": str(run.first.path), "whole": checkpoints}
        )
        with open(file, "a") as uses:
            uses.write(line + "\n")
