"""A trained network as an ONNX file, which runs without torch, and such a file as it predicts.

Needs the extra `export`: torch writes the file by onnxscript, and onnxruntime runs it.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sparcl_lib.data.loading.transforms import IMAGENET_MEAN, IMAGENET_STD
from sparcl_lib.errors import UserError
from sparcl_lib.models import Segmenter, SegmenterOutput
from sparcl_lib.prediction import LabelMap, Photograph, predict_photographs
from sparcl_lib.run import Run
from sparcl_lib.writing import write_atomically

if TYPE_CHECKING:
    import onnxruntime

TOLERANCE = 1e-4
"""Of the logits, absolute and relative: how far the file may be from torch."""
_INPUT = (
    "images: float32 (batch, 3, height, width), RGB from 0 to 1, minus mean, divided by std; any "
    "size, the shorter side at test_size pixels where that is not null"
)
_OUTPUT = "logits: float32 (batch, classes, height, width), before softmax; background first"
_UNKNOWN = (
    "; unknown: the same of one more class, no object learned so far; a label is the largest "
    "sigmoid, background's with that of unknown added"
)
_BATCH, _CHECKED = (2, 3, 96, 128), ((1, 3, 96, 128), (3, 3, 83, 70))
"""Shapes: of the traced images, and of those that are compared with torch."""


class _Logits(nn.Module):
    """What goes into the file: no features, and no maps."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        output: SegmenterOutput = self.network(images)
        return tuple(part for part in (output.logits, output.unknown) if part is not None)


def export_onnx(run: Run, file: str | Path, step: int = -1) -> Path:
    """Write the network of a step to `file`, for images of any number, height and width.

    Input and output are described in the file's metadata: `classes` (names, JSON, in the order of
    the logits), `mean`, `std`, `test_size`, `input`, `output`, and of which run and step it is. The
    file is kept only if onnxruntime computes from it what torch does, within `TOLERANCE`.

    Raises UserError where it does not, where the extra `export` is not installed, and for a file
    that cannot be written or is not named .onnx, by which `sparcl predict` knows it.
    """
    if Path(file).suffix.lower() != ".onnx":
        raise UserError(f"{file} does not end in .onnx, by which sparcl predict knows such a file")
    network = _Logits(run.model(step)).eval()
    named = {0: "batch", 2: "height", 3: "width"}
    outputs = ["logits", *(["unknown"] if network.network.classifier.unknown is not None else [])]
    with _needing_extra(), warnings.catch_warnings():
        # Of torch 2.11, about a function that it calls itself.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        program = torch.onnx.export(
            network, (torch.rand(_BATCH),), dynamo=True, verbose=False,
            input_names=["images"], output_names=outputs, dynamic_shapes={"images": named},
        )  # fmt: skip
    assert program is not None  # dynamo=True gives one
    program.model.metadata_props.update(_metadata(run, step, outputs))
    write_atomically(Path(file), partial(_write_checked, program, network))
    return Path(file)


def _metadata(run: Run, step: int, outputs: Sequence[str]) -> dict[str, str]:
    data, metrics = run.config.data, run.metrics
    size = None if data.test == "whole" else data.test_size or data.size
    return {
        "classes": json.dumps(run.classes_after(step)),
        "mean": json.dumps(IMAGENET_MEAN),
        "std": json.dumps(IMAGENET_STD),
        "test_size": json.dumps(size),
        "input": _INPUT,
        "output": _OUTPUT + (_UNKNOWN if "unknown" in outputs else ""),
        "step": json.dumps(run.step_number(step)),
        **{name: str(metrics[name]) for name in ("method", "dataset", "task", "setup", "seed")},
    }


def _write_checked(program: Any, network: _Logits, file: Path) -> None:
    program.save(file)
    session = _session(file)
    generator = torch.Generator().manual_seed(0)
    for shape in _CHECKED:
        images = torch.randn(shape, generator=generator)
        with torch.no_grad():
            expected = network(images)
        for theirs, ours in zip(session.run(None, {"images": images.numpy()}), expected):
            if not np.allclose(theirs, ours.numpy(), rtol=TOLERANCE, atol=TOLERANCE):
                gap = np.abs(theirs - ours.numpy()).max()
                raise UserError(
                    f"the exported network differs from torch by {gap:.2g} in its logits, so it is "
                    f"not kept: try another version of torch or onnxruntime"
                )


def _session(file: Path) -> "onnxruntime.InferenceSession":
    import onnxruntime

    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


@contextmanager
def _needing_extra() -> Iterator[None]:
    """Raise UserError for what the extra has and nobody installed."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401

        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed: pip install 'sparcl-lib[export]'"
        ) from error


class _OnnxNetwork(nn.Module):
    """An exported file in the place of a Segmenter that predicts; on the CPU."""

    def __init__(self, session: "onnxruntime.InferenceSession") -> None:
        super().__init__()
        self.session = session

    def forward(self, images: Tensor) -> SegmenterOutput:
        """Its logits have the size of the images."""
        found = self.session.run(None, {"images": images.contiguous().numpy()})
        logits, *unknown = (torch.from_numpy(part) for part in found)
        return SegmenterOutput(
            low_res_logits=logits,
            features=logits[:, :0],
            low_res_unknown=unknown[0] if unknown else None,
        )


@dataclass(frozen=True)
class ExportedNetwork:
    """What `load_onnx` reads."""

    network: nn.Module
    classes: tuple[str, ...]
    """Background first; label maps hold their indices."""
    test_size: int | None
    """Its shorter side is this when it sees a photograph, in pixels; None: it stays as it is."""

    def predict(self, photograph: Photograph) -> LabelMap:
        """uint8 (H, W) class ids, of the photograph's size, as `Run.predict` gives them."""
        return predict_photographs(self.network, [photograph], self.test_size, 1)[0]


def load_onnx(file: str | Path) -> ExportedNetwork:
    """A file of `export_onnx`, by onnxruntime.

    Raises UserError for a file that is none, and where the extra `export` is not installed.
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(f"{path} is no file: give what sparcl export wrote")
    with _needing_extra():
        try:
            session = _session(path)
            said = session.get_modelmeta().custom_metadata_map
            classes, size = json.loads(said["classes"]), json.loads(said["test_size"])
        except ModuleNotFoundError:
            raise
        except Exception as error:  # onnxruntime has a dozen of its own
            raise UserError(
                f"{path} is not a file of sparcl export ({type(error).__name__}): export it again"
            ) from error
    return ExportedNetwork(_OnnxNetwork(session), tuple(classes), size)
