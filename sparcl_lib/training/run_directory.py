"""A run on disk: config.yaml, metrics.json, step-k/{checkpoint.pt, predictions.npz}, logs.

Every file is written beside its place and moved there in one go, so that an interrupted run leaves
whole files or none.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from sparcl_lib.config import RunConfig, to_plain
from sparcl_lib.errors import UserError
from sparcl_lib.metrics import dump_json
from sparcl_lib.plain import build, flatten, read_yaml
from sparcl_lib.writing import write_atomically, write_text


class RunDirectory:
    """Paths of a run and what is stored at them."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.json"

    def checkpoint_file(self, step: int) -> Path:
        return self.path / f"step-{step}" / "checkpoint.pt"

    def predictions_file(self, step: int) -> Path:
        return self.path / f"step-{step}" / "predictions.npz"

    def open_for_writing(self, config: RunConfig) -> None:
        """Create the folder with config.yaml, or check that its steps have this configuration."""
        if self.config_file.exists() and self.steps_done():
            self._check_same(config)
        else:
            text = yaml.safe_dump(to_plain(config), sort_keys=False)
            write_text(self.config_file, text)

    def _check_same(self, config: RunConfig) -> None:
        here, asked = flatten(to_plain(self.config())), flatten(to_plain(config))
        # The same images may lie elsewhere now; `check_images` tells whether they are the same.
        here["data_root"] = asked["data_root"]
        # Groups without settings of their own last: another key says more.
        for key in sorted(here.keys() | asked.keys(), key=lambda k: (here.get(k) == {}, k)):
            if key not in here or key not in asked or here[key] != asked[key]:
                raise UserError(
                    f"{self.path} holds a run with {key}={here.get(key)}, not {asked.get(key)}: "
                    f"choose another --out, or give the same settings"
                )

    def check_images(self, sha256: str) -> None:
        """Raise UserError if the steps that are here were trained on other images.

        The configuration may be the same: lists and masks can change behind it.
        """
        kept = self.metrics() if self.steps_done() and self.metrics_file.is_file() else {}
        if kept.get("images_sha256", sha256) != sha256:
            raise UserError(
                f"{self.path} was trained on other images than the lists and masks give now: "
                f"restore them (images_sha256 in its metrics.json), or choose another run"
            )

    def config(self) -> RunConfig:
        if not self.config_file.is_file():
            raise UserError(f"{self.path} is no run directory: it has no config.yaml")
        return build(RunConfig, read_yaml(self.config_file))

    def steps_done(self) -> list[int]:
        """Steps with a checkpoint, in order."""
        steps = (
            p.parent.name.removeprefix("step-") for p in self.path.glob("step-*/checkpoint.pt")
        )
        return sorted(int(step) for step in steps if step.isdigit())

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        def write(draft: Path) -> None:
            try:
                torch.save(state, draft)
            except RuntimeError as error:  # torch's word for a full disk
                raise OSError(str(error).splitlines()[0]) from error

        write_atomically(self.checkpoint_file(step), write)

    def load_checkpoint(self, step: int) -> dict[str, Any]:
        """The state of a step, on the CPU. Raises UserError when it is missing or unreadable."""
        path = self.checkpoint_file(step)
        if not path.is_file():
            raise UserError(
                f"no checkpoint of step {step} in {self.path}: train step {step} first "
                f"(--steps {step}), or all of them (--steps all)"
            )
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling a damaged file can raise anything
            raise UserError(f"cannot read {path}: delete it and train step {step} again") from error

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        text = dump_json(metrics)
        write_text(self.metrics_file, text)

    def metrics(self) -> dict[str, Any]:
        if not self.metrics_file.is_file():
            raise UserError(f"{self.path} has no metrics.json: train it first (sparcl train --out)")
        try:
            return json.loads(self.metrics_file.read_text("utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read {self.metrics_file}: run sparcl evaluate {self.path}"
            ) from error

    def save_predictions(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        def write(draft: Path) -> None:
            with draft.open("wb") as file:  # a name would get another suffix
                np.savez_compressed(file, **arrays)

        write_atomically(self.predictions_file(step), write)

    def predictions(self, step: int) -> dict[str, np.ndarray] | None:
        """images (n, S, S, 3) uint8, truth and prediction (n, S, S) uint8; None if not there."""
        path = self.predictions_file(step)
        if not path.is_file():
            return None
        with np.load(path) as stored:
            return dict(stored)
