"""Confusion matrix and pictures of one model."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.data.loading.transforms import to_rgb
from sparcl_lib.labels import VOID
from sparcl_lib.models import predict, predict_whole
from sparcl_lib.progress import tqdm


class InPrecision(nn.Module):
    """A network that runs as Fabric's wrapper runs it: under autocast, its output in float32.

    The wrapper of several processes would wait for all of them in a forward pass, and one that has
    no test image never comes.
    """

    def __init__(self, network: nn.Module, fabric: Fabric) -> None:
        super().__init__()
        self.network, self.fabric = network, fabric

    def forward(self, images: Tensor, **options: Any) -> Any:
        with self.fabric.autocast():
            output = self.network(images, **options)
        return self.fabric.strategy.precision.convert_output(output)


def confusion_matrix(
    fabric: Fabric,
    model: nn.Module,
    batches: Iterable[StepBatch],
    num_classes: int,
    label: str = "",
    whole: bool = False,
) -> NDArray[np.int64]:
    """int64 (K, K) pixel counts over all batches and ranks; rows truth, columns prediction.

    Void pixels are left out. The model is evaluated in eval mode and left in it. whole:
    images may be large, and the classes are looked at one by one, which takes less memory.
    """
    labels_of = predict_whole if whole else predict
    model.eval()
    metric = MulticlassConfusionMatrix(num_classes, ignore_index=VOID, validate_args=False)
    metric = metric.to(fabric.device)
    nothing = torch.zeros(0, dtype=torch.int64, device=fabric.device)
    metric.update(nothing, nothing)  # a process may have no image, of which torchmetrics warns
    bar = tqdm(batches, label or "evaluating", disable=not fabric.is_global_zero, leave=False)
    for batch in bar:
        metric.update(labels_of(model, batch.images), batch.labels)
    return metric.compute().cpu().numpy().astype(np.int64)


def picture_arrays(model: nn.Module, batches: Iterable[StepBatch]) -> dict[str, NDArray[np.uint8]]:
    """images (n, S, S, 3), truth (n, S, S) and prediction (n, S, S), all uint8."""
    model.eval()
    images, truth, prediction = [], [], []
    for batch in batches:
        images += [to_rgb(image).permute(1, 2, 0) for image in batch.images]
        truth.append(batch.labels)
        prediction.append(predict(model, batch.images))
    arrays = {
        "images": torch.stack(images),
        "truth": torch.cat(truth),
        "prediction": torch.cat(prediction),
    }
    return {name: array.to(torch.uint8).cpu().numpy() for name, array in arrays.items()}
