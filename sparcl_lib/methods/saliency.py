"""Which pixels stand out: a saliency map that needs the image alone, no network and no other data.

The colour of a pixel, slightly blurred, is compared with the mean colour of its image; what is
further away than `factor` times the mean distance is salient.

Source: Achanta et al., CVPR 2009, "Frequency-tuned Salient Region Detection", which takes the
distance in CIE Lab and factor 2; here it is in the colours that the network sees.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from sparcl_lib.losses.precision import full_precision
from sparcl_lib.methods.hooks import Mechanism

if TYPE_CHECKING:
    from sparcl_lib.data.loading.dataset import StepBatch
    from sparcl_lib.methods.method import Method

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


@full_precision
def salient(images: Tensor, factor: float) -> Tensor:
    """(B, 3, H, W) normalised images -> (B, H, W) bool. factor: 2 in the paper; less, more pixels.

    An image of one colour has no salient pixel.
    """
    difference = _blur(images) - images.mean(dim=(2, 3), keepdim=True)
    distance = torch.linalg.vector_norm(difference, dim=1)
    found: Tensor = distance > factor * distance.mean(dim=(1, 2), keepdim=True)
    return found


def _blur(images: Tensor) -> Tensor:
    """Binomial, 5 x 5, separable."""
    channels = images.shape[1]
    # Filled in on the device, for a copy makes a GPU wait.
    line = torch.stack([images.new_full((), share) for share in BINOMIAL])
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    for shape in ((5, 1), (1, 5)):
        kernel = line.view(1, 1, *shape).expand(channels, 1, *shape)
        padded = F.conv2d(padded, kernel, groups=channels)
    return padded


class Saliency(Mechanism):
    """Which background pixels stand out in each batch: `method.unknown` is the factor."""

    name = "saliency"

    def __init__(self, factor: float) -> None:
        self.factor = factor

    @classmethod
    def of(cls, method: "Method", step: int) -> Self | None:
        return cls(method.unknown) if method.unknown else None

    def context_extras(self, batch: "StepBatch") -> Mapping[str, Tensor]:
        return {"salient": salient(batch.images, self.factor)}
