"""A run on disk: config.yaml, metrics.json, step-k/{checkpoint.pt, predictions.npz}, logs.

A step that is not finished has step-k/in_progress.pt, and the save before it.

Every file is written beside its place and moved there in one go, so that an interrupted run leaves
whole files or none.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from sparcl_lib.config import (
    CONTENT,
    RunConfig,
    first_step_difference,
    read_config,
    settings_difference,
    to_plain,
)
from sparcl_lib.errors import UserError, shown
from sparcl_lib.plain import read_yaml
from sparcl_lib.training.checkpoint import (
    CheckpointProblem,
    read_checkpoint,
    record_of,
    write_checkpoint,
)
from sparcl_lib.training.content import Content, content_from_plain, content_to_plain
from sparcl_lib.training.devices import is_first_process
from sparcl_lib.training.metrics_file import MetricsProblem, metrics_text, parse_metrics
from sparcl_lib.writing import remove_drafts, replace_file, write_atomically, write_text

_FOLDER = "folder"
_LOCK = ".lock"
_PICTURES = ("images", "truth", "prediction")
_ABOUT = "# What the files named above held when this run was trained; folder: where the run lay.\n"


def config_text(config: RunConfig, content: Content | None, folder: Path | None = None) -> str:
    """What config.yaml says: settings, and with `content` what the files that they name held.

    folder: where the run lies; without it a moved run finds no files that moved along.
    """
    text = yaml.safe_dump(to_plain(config), sort_keys=False)
    if content is None:
        return text
    record = content_to_plain(content) | ({_FOLDER: str(folder)} if folder else {})
    dumped = yaml.safe_dump({CONTENT: record}, sort_keys=False, default_flow_style=None)
    return f"{text}{_ABOUT}{dumped}"


_Version = tuple[int, int, int]


def _version(file: Path) -> _Version | None:
    """By what a file is known that is always replaced as a whole; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class RunDirectory:
    """Paths of a run and what is stored at them."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._records: dict[int, tuple[_Version | None, dict[str, Any]]] = {}

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.json"

    def checkpoint_file(self, step: int) -> Path:
        return self.path / f"step-{step}" / "checkpoint.pt"

    def progress_files(self, step: int) -> tuple[Path, Path]:
        """Where a step that is not finished is saved: the last save, and the one before it."""
        folder = self.path / f"step-{step}"
        return folder / "in_progress.pt", folder / "in_progress_before.pt"

    def predictions_file(self, step: int) -> Path:
        return self.path / f"step-{step}" / "predictions.npz"

    def open_for_writing(self, config: RunConfig, content: Content | None = None) -> None:
        """Write config.yaml, unless the steps that are here have other settings.

        Places are no settings: the same files may lie elsewhere now, and what they hold is
        compared with the checkpoints. Settings per step may differ in later steps.
        """
        self.check_settings(config)
        self._check_own()
        write_text(self.config_file, config_text(config, content, self.path.absolute()))

    def _check_own(self) -> None:
        """Raise UserError where files of somebody else bear the names of a run's."""
        if self.steps_done():
            return
        if self.config_file.exists():
            found = [] if self._is_of_a_run() else [self.config_file]
        else:
            found = [*self.path.glob("metrics.json"), *self.path.glob("logs/step-*")]
        if found:
            raise UserError(
                f"{found[0]} is there and of no run, and a training would write over it: "
                f"choose another --out"
            )

    def _is_of_a_run(self) -> bool:
        """Whether config.yaml is one, and not settings for --config."""
        with suppress(UserError):
            self.config()
            return True
        return False

    def check_settings(self, config: RunConfig) -> None:
        """Raise UserError if the steps that are here have other settings."""
        if not (self.config_file.exists() and self.steps_done()):
            return
        there = self.config()
        in_first_test = self.steps_done() == [0] and not self.metrics_file.exists()
        if in_first_test and first_step_difference(config, there) is None:
            return  # nothing is said yet of the run to which step 0 belongs
        # A step that was deleted counts too where later ones grew from it.
        steps = range(self.steps_done()[-1] + 1)
        difference = settings_difference(config, there, steps)
        if difference:
            raise UserError(
                f"{self.path} holds a run with {difference}: "
                f"choose another --out, or give the same settings"
            )

    def config(self) -> RunConfig:
        """The run's configuration; UserError where there is none, or a wrong one."""
        if not self.config_file.is_file():
            raise UserError(
                f"{self.path} is no run directory: it has no config.yaml; "
                "give the out of a training"
            )
        try:
            return read_config(read_yaml(self.config_file))
        except UserError as error:
            if str(self.config_file) in str(error):
                raise
            raise UserError(f"cannot read {self.config_file}: {error}") from error

    def content(self) -> Content | None:
        """What the run's files held as it was trained; None for runs of version 0.2."""
        plain = self._record()
        try:
            return content_from_plain(plain) if plain else None
        except UserError as error:
            raise UserError(f"cannot read {self.config_file}: {error}") from error

    def moved_along(self, path: str) -> str:
        """Where something lies that was moved together with the run, or `path` as it is."""
        before = self._record_folder()
        if before is None or Path(path).exists():
            return path
        moved = os.path.normpath(self.path.absolute() / os.path.relpath(path, before))
        return moved if Path(moved).exists() else path

    def _record(self) -> dict[str, Any]:
        return {key: value for key, value in self._written().items() if key != _FOLDER}

    def _record_folder(self) -> str | None:
        folder = self._written().get(_FOLDER)
        return folder if isinstance(folder, str) else None

    def _written(self) -> dict[str, Any]:
        plain = read_yaml(self.config_file).get(CONTENT) or {}
        if not isinstance(plain, dict):
            raise UserError(f"cannot read {self.config_file}: {CONTENT} is {shown(plain)}")
        return plain

    def trained_on(self, step: int) -> list[str]:
        """Ids of the images that a step was trained on; UserError where it has no record of them.

        That is a run of version 0.2.
        """
        images = self.record(step).get("images")
        if images is None:
            raise UserError(f"{self.checkpoint_file(step)} does not say its images: restore the "
                            f"lists that data.splits names in {self.config_file}")  # fmt: skip
        return sorted(images)

    def steps_done(self) -> list[int]:
        """Steps with a checkpoint, in order. Folders that are named otherwise are nobody's."""
        names = (file.parent.name for file in self.path.glob("step-*/checkpoint.pt"))
        found = (re.fullmatch(r"step-(0|[1-9][0-9]{0,3})", name) for name in names)
        return sorted(int(match[1]) for match in found if match)

    def check_whole(self, coming: Iterable[int] = ()) -> None:
        """Raise UserError for a step whose checkpoint is gone: metrics.json would lose its numbers.

        coming: steps that are trained now.
        """
        lost = sorted({*range(self._steps_measured())} - {*self.steps_done(), *coming})
        if lost:
            step = lost[0]
            raise UserError(
                f"{self.path} has no checkpoint of step {step} any more, and metrics.json would "
                f"lose its numbers: restore {self.checkpoint_file(step)}, or train step {step} "
                f"again too (sparcl train --resume)"
            )

    def _steps_measured(self) -> int:
        """How many are in metrics.json, whatever they are called there: joint training's one step
        has the number of the task's last. 0 where it is not there or cannot be read."""
        try:
            return len(self.metrics()["steps"])
        except UserError:
            return 0

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        """Write a step, for `load_checkpoint`."""
        write_atomically(self.checkpoint_file(step), partial(write_checkpoint, state))
        self._remember(step, _version(self.checkpoint_file(step)), state)

    def load_checkpoint(self, step: int) -> dict[str, Any]:
        """The state of a step, on the CPU, verified as `read_checkpoint` does.

        Raises UserError when it is missing, damaged, of another step or no checkpoint.
        """
        path = self.checkpoint_file(step)
        if not path.is_file():
            raise UserError(
                f"no checkpoint of step {step} in {self.path}: train step {step} first "
                f"(--steps {step}), or all of them (--steps all)"
            )
        version = _version(path)
        try:
            state = read_checkpoint(path, step)
        except CheckpointProblem as problem:
            raise UserError(
                f"cannot read {path}: {problem}: delete it and train step {step} again"
            ) from problem
        self._remember(step, version, state)
        return state

    def record(self, step: int) -> dict[str, Any]:
        """What the checkpoint of a step holds besides networks and prototypes. The file, of some
        hundred megabytes, is read for it once, as by `load_checkpoint`, while it stays the same."""
        version, record = self._records.get(step, (None, {}))
        if version is None or version != _version(self.checkpoint_file(step)):
            return record_of(self.load_checkpoint(step))
        return dict(record)

    def forget_record(self, step: int) -> None:
        """For a process beside the one that writes: a network folder may show it an older state."""
        self._records.pop(step, None)

    def _remember(self, step: int, version: "_Version | None", state: Mapping[str, Any]) -> None:
        self._records[step] = version, record_of(state)

    def save_progress(self, step: int, state: dict[str, Any], anew: bool) -> None:
        """Save a step that is not finished, and keep the last save too. Raises OSError.

        anew: the step began anew, so that earlier saves are of another attempt and go away.
        """
        last, before = self.progress_files(step)

        def write(draft: Path) -> None:
            write_checkpoint(state, draft)
            if anew:
                before.unlink(missing_ok=True)
            elif last.exists():
                os.replace(last, before)

        replace_file(last, write)

    def remove_progress(self, steps: Iterable[int]) -> None:
        """Forget that these steps were begun."""
        for file in (file for step in steps for file in self.progress_files(step)):
            file.unlink(missing_ok=True)

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        write_text(self.metrics_file, metrics_text(metrics))

    def metrics(self) -> dict[str, Any]:
        """Contents of metrics.json; UserError where there are none that training wrote."""
        if not self.metrics_file.is_file():
            raise UserError(f"{self.path} has no metrics.json: train it first (sparcl train --out)")
        try:
            return parse_metrics(self.metrics_file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, MetricsProblem) as problem:
            is_text = not isinstance(problem, UnicodeDecodeError)
            raise UserError(
                f"cannot read {self.metrics_file}: {problem if is_text else 'it is no UTF-8'}: "
                f"delete it, then run sparcl evaluate {self.path}"
            ) from problem

    def save_predictions(self, step: int, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
        def write(draft: Path) -> None:
            with draft.open("wb") as file:  # a name would get another suffix
                np.savez_compressed(file, **dict[str, Any](arrays))

        write_atomically(self.predictions_file(step), write)

    def predictions(self, step: int) -> dict[str, NDArray[np.uint8]] | None:
        """images (n, S, S, 3) uint8, truth and prediction (n, S, S) uint8; None if not there.

        Raises UserError for a file that holds something else.
        """
        path = self.predictions_file(step)
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in _PICTURES}
            shape = arrays["truth"].shape
            fits = arrays["images"].shape == (*shape, 3) and arrays["prediction"].shape == shape
            if len(shape) != 3 or not fits or any(a.dtype != np.uint8 for a in arrays.values()):
                raise ValueError("these are no pictures")
        except Exception as error:  # of a damaged archive numpy may raise anything
            raise UserError(
                f"cannot read {path}: it is damaged, or no pictures of a step: delete it, then run "
                f"sparcl evaluate {self.path}"
            ) from error
        return arrays

    @contextmanager
    def written_by_one(self) -> Iterator[None]:
        """Hold the folder while it is written; what killed writers left half-written is removed.

        Raises UserError while another process holds it. The system frees it when a process ends,
        however. Of several processes that train one run together the first one holds it for all.
        """
        if not is_first_process():
            yield
            return
        lock = FileLock(self.path / _LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another process writes into {self.path}: wait until it has ended, or choose "
                f"another --out"
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror or error}; permit writing there, or "
                f"choose another place"
            ) from error
        try:
            remove_drafts([self.config_file, self.metrics_file])
            for folder in self.path.glob("step-*"):
                names = ("checkpoint.pt", "in_progress.pt", "predictions.npz")
                remove_drafts([folder / name for name in names])
            yield
        finally:
            lock.release()
