"""Confusion matrix and pictures of one model."""

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

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


def pixel_counts(truth: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """int64 (K, K) pixel counts; rows truth, columns prediction, both (B, H, W) or any one shape.

    Void pixels are left out. A GPU is waited for once, to leave them out.
    """
    known = truth != VOID
    cells = truth[known] * num_classes + prediction[known]
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


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
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=fabric.device)
    bar = tqdm(batches, label or "evaluating", disable=not fabric.is_global_zero, leave=False)
    for batch in bar:
        counts += pixel_counts(batch.labels, labels_of(model, batch.images), num_classes)
    return cast(Tensor, fabric.all_reduce(counts, reduce_op="sum")).cpu().numpy()


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
