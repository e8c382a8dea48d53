"""A run as one reads it: its numbers, networks, figures, and what it says of a photograph."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sparcl_lib.config import RunConfig
from sparcl_lib.errors import UserError
from sparcl_lib.metrics import StepMatrix
from sparcl_lib.models import Segmenter, freeze
from sparcl_lib.prediction import LabelMap, Photograph, predict_photographs
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.tasks.classes import BACKGROUND_NAME
from sparcl_lib.training.devices import find_device
from sparcl_lib.training.identity import check_same_backbone
from sparcl_lib.training.restore import check_same_settings, restore_bank, restore_model
from sparcl_lib.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = {"old": "miou_old", "new": "miou_new", "all": "miou_all"}
_HELD = 2
"""Networks that a run keeps in memory, so that two can be compared photograph by photograph."""


@dataclass(frozen=True, repr=False)
class Run:
    """A trained run: what `sparcl_lib.train` and `load_run` return.

    Wherever a step is asked for, it counts from 0, and -1 is the last one that was trained. Joint
    training has a single step, 0, whatever its task; its row in `matrix` is the task's last.

    config: every setting that it was trained with. directory: the folder as files. first: where
    step 0 is, in a store shared by all runs that agree on it.

    >>> run
    Run(FT, minivoc 6-4 disjoint, seed 0, steps 0, 1)
    >>> run.classes[:3], len(run.classes)
    (('background', 'disc', 'square'), 11)
    >>> run.matrix.to_frame().shape  # steps, classes
    (2, 11)
    >>> run.metrics["steps"][-1].keys() >= {"miou_old", "miou_new", "miou_all"}
    True
    """

    config: RunConfig
    directory: RunDirectory
    first: RunDirectory
    _networks: dict[tuple[int, str], Segmenter] = field(
        default_factory=dict, init=False, compare=False
    )
    """The last that have predicted, by step and device."""

    @property
    def folder(self) -> Path:
        """The run directory: config.yaml, metrics.json, a folder per step, logs."""
        return self.directory.path

    @property
    def metrics(self) -> dict[str, Any]:
        """Contents of metrics.json: mIoUs and IoU per class after every step, in percent."""
        return self.directory.metrics()

    @property
    def matrix(self) -> StepMatrix:
        """IoU of every class after every step, in percent; `.to_frame()` is the table."""
        return StepMatrix.from_results(self.metrics["classes"], self.metrics["steps"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in learning order, background first; label maps hold their indices."""
        return (BACKGROUND_NAME, *(name for names in self.metrics["classes"] for name in names))

    def classes_after(self, step: int = -1) -> tuple[str, ...]:
        """Those of `classes` that the network of a step knows.

        >>> len(run.classes_after(0))
        7
        """
        return tuple(self.metrics["steps"][self.step_number(step)]["class_iou"])

    @property
    def steps(self) -> list[int]:
        """The steps that were trained."""
        return list(range(len(self.metrics["seconds"])))

    def step_number(self, step: int) -> int:
        """The step counted from 0: -1 is the last one. Raises UserError for one that is not there.

        >>> run.step_number(-1)
        1
        """
        steps = self.steps
        if not isinstance(step, (int, np.integer)):
            raise UserError(f"the step is a whole number, as in {steps[-1]}, got {step!r}")
        if not -len(steps) <= step < len(steps):
            known = ", ".join(map(str, steps))
            raise UserError(f"{self.folder} has no step {step}: it has {known}")
        return steps[step]

    def _place(self, step: int) -> RunDirectory:
        return self.first if step == 0 else self.directory

    def _checkpoint(self, step: int) -> dict[str, Any]:
        """Of a step; refused where config.yaml says other settings than it was trained with."""
        known = self.step_number(step)
        place = self._place(known)
        checkpoint = place.load_checkpoint(known)
        check_same_settings(self.config, place, known, checkpoint)
        check_same_backbone(self.config, checkpoint, str(place.checkpoint_file(known)))
        return checkpoint

    def model(self, step: int = -1) -> Segmenter:
        """The network after a step, in eval mode and frozen, on the CPU. It takes (B, 3, H, W) as
        data.loading.transforms.normalise makes it; models.grow gives a student that trains.

        >>> model = run.model()
        >>> model.training, model.spec.classes  # background counts in the first step
        (False, (7, 4))
        """
        return freeze(restore_model(self._checkpoint(step)))

    def bank(self, step: int = -1) -> PrototypeBank:
        """The prototypes after a step: `.prototypes` (K, D), `.counts` (K,)."""
        return restore_bank(self._checkpoint(step))

    def confusion(self, step: int = -1) -> NDArray[np.int64]:
        """(K, K) pixels of the test images, rows truth, columns prediction, K classes known."""
        found = self._checkpoint(step).get("confusion")
        if found is None:
            raise UserError(f"step {step} was not tested yet: run sparcl evaluate {self.folder}")
        confusion: NDArray[np.int64] = found.numpy()
        return confusion

    def log(self, step: int = -1) -> pd.DataFrame:
        """Loss terms, their total and the learning rate of a step, a row every tenth iteration
        and for the last one; column `step` counts the iterations of the whole run.

        Raises UserError where they are not in this folder: a step 0 that was taken from another
        run has its log there.
        """
        step = self.step_number(step)
        path = self._place(step).path / "logs" / f"step-{step}" / "metrics.csv"
        if not path.is_file():
            raise UserError(f"{path} is missing: step {step} was trained in another folder")
        try:
            return pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot read {path} ({error}): delete step {step} and train it again"
            ) from error

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is a Sequence[str]
        self,
        images: str | Path | Image.Image,
        step: int = -1,
        *,
        device: str | None = None,
    ) -> LabelMap: ...

    @overload
    def predict(
        self,
        images: NDArray[np.uint8] | Tensor,
        step: int = -1,
        *,
        device: str | None = None,
    ) -> LabelMap | list[LabelMap]: ...

    @overload
    def predict(
        self, images: Sequence[Photograph], step: int = -1, *, device: str | None = None
    ) -> list[LabelMap]: ...

    def predict(
        self,
        images: Photograph | Sequence[Photograph],
        step: int = -1,
        *,
        device: str | None = None,
    ) -> LabelMap | list[LabelMap]:
        """What the network of a step sees in photographs of any size.

        images: one photograph or a list of them; each is a file, a PIL image, a uint8 array
        (H, W, 3), or a uint8 tensor (3, H, W), in RGB; an array (B, H, W, 3) and a tensor
        (B, 3, H, W) are lists of B. Files and PIL images are turned upright where their EXIF tag
        says so. device: where the network runs, as "cpu" or "cuda:1"; a GPU if there is one,
        unless said.

        Returns a uint8 map (H, W) for each, of its own size: class ids, the indices of `.classes`;
        viz.colorize paints it. One photograph gives one map, a list gives a list.

        The network sees each photograph whole, its shorter side at the size that the run was
        tested at (`data.test_size`, else `data.size`; at its own with `data.test=whole`), and its
        logits are brought back to the photograph's size bilinearly. (The test itself cuts out the
        centre square, as the published numbers do, unless `data.test=whole`.) Raises UserError
        for a file that cannot be read, other kinds of arrays, and a device that is not there.

        >>> import numpy as np
        >>> grey = np.full((48, 96, 3), 128, dtype=np.uint8)
        >>> labels = run.predict(grey)
        >>> labels.shape, labels.dtype
        ((48, 96), dtype('uint8'))
        >>> seen = [run.classes[class_id] for class_id in np.unique(labels)]
        >>> [labels.shape for labels in run.predict([grey, grey[:20, :30]], step=0)]
        [(48, 96), (20, 30)]
        """
        several = isinstance(images, (Tensor, np.ndarray)) and images.ndim > 3
        many = isinstance(images, (list, tuple)) or several
        data = self.config.data
        maps = predict_photographs(
            self._network(self.step_number(step), device),
            list(images) if many else [images],  # type: ignore[arg-type, list-item]
            None if data.test == "whole" else data.test_size or data.size,
            data.batch_size if data.test == "crop" else 1,
        )
        return maps if many else maps[0]

    def _network(self, step: int, device: str | None) -> Segmenter:
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        network = self._networks.pop((step, device), None)
        if network is None:
            network = self.model(step).to(find_device(device))
        self._networks[step, device] = network  # as the last one
        while len(self._networks) > _HELD:
            del self._networks[next(iter(self._networks))]
        return network

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which reads the networks that it needs."""
        return {**self.__dict__, "_networks": {}}

    def plot_forgetting(self) -> "Figure":
        """mIoU after each step, of all classes learned so far and of those of step 0."""
        from sparcl_lib.viz import forgetting_curves

        return forgetting_curves({self.metrics["method"]: [self.matrix]})

    def plot_steps(self) -> "Figure":
        """IoU of every class after every step, as a heat map."""
        from sparcl_lib.viz import step_heat_map

        return step_heat_map(self.matrix, self._title)

    def plot_predictions(self) -> "Figure":
        """Some test images, their truth, and what the network of each step sees in them.

        Raises UserError where the pictures were not kept.
        """
        from sparcl_lib.viz import prediction_strips

        pictures = {step: self._place(step).predictions(step) for step in self.steps}
        kept = {step: arrays for step, arrays in pictures.items() if arrays is not None}
        if not kept:
            raise UserError(f"{self.folder} has no predictions.npz: run sparcl evaluate on it")
        last = kept[max(kept)]
        columns = {f"step {step}": arrays["prediction"] for step, arrays in kept.items()}
        new = self.metrics["classes"][-1] if len(kept) > 1 else ()
        return prediction_strips(last["images"], last["truth"], columns, self.classes, new)

    def complete(self, checkpoints: bool = False) -> bool:
        """Whether every step was evaluated; checkpoints: and its network is there too."""
        if not self.directory.metrics_file.is_file():
            return False
        metrics = self.metrics
        if not metrics["steps"] or metrics["steps"][-1]["step"] < len(metrics["classes"]) - 1:
            return False
        files = (self._place(step).checkpoint_file(step) for step in self.steps)
        return not checkpoints or all(file.is_file() for file in files)

    @property
    def _title(self) -> str:
        names = self.metrics
        place = f"{names['dataset']} {names['task']} {names['setup']}"
        return f"{names['method']}, {place}, seed {names['seed']}"

    def __repr__(self) -> str:
        return f"Run({self._title}, steps {', '.join(map(str, self.steps))})"

    def _repr_html_(self) -> str:
        """mIoU after every step, in percent."""
        rows = {
            f"step {entry['step']}": {title: entry[name] for title, name in _SHOWN.items()}
            for entry in self.metrics["steps"]
        }
        table = pd.DataFrame.from_dict(rows, orient="index", dtype=float)
        shown = table.to_html(float_format="{:.1f}".format, na_rep="–", border=0)
        return f"<p><b>{html.escape(self._title)}</b>: mIoU in percent</p>{shown}"


def load_run(folder: str | Path) -> Run:
    """A run directory, as `sparcl train --out` and `sparcl_lib.train(..., out=...)` make it.

    Raises UserError where there is none, or nothing was evaluated yet.

    >>> from sparcl_lib import load_run
    >>> load_run(run.folder).metrics == run.metrics
    True
    """
    if not isinstance(folder, (str, Path)):
        raise UserError(f"{folder!r} is no run directory: give the out of a training")
    directory = RunDirectory(Path(folder).expanduser())
    if not directory.path.is_dir():
        raise UserError(f"{folder} is no run directory: give the out of a training")
    config = directory.config()
    if not directory.metrics()["steps"]:
        raise UserError(f"{folder} has no evaluated step: train it first")
    return Run(config, directory, directory)
