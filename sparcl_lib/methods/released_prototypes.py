"""Prototypes as SDR's released code fills them: `method.prototypes=released`.

Right for a batch of one image; with more, channels and images are mixed, see
`losses.reshaped_features`. In later steps the smallest label of a batch is taken for background,
which no prototype is filled with: a batch without background loses its smallest class.
"""

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from sparcl_lib.losses.released import reshaped_features
from sparcl_lib.methods.context import StepContext
from sparcl_lib.methods.hooks import Mechanism
from sparcl_lib.prototypes.sums import class_sums

if TYPE_CHECKING:
    from sparcl_lib.methods.method import Method


class ReleasedPrototypes(Mechanism):
    """Sums of the features as the released code reads them, in place of the class sums."""

    name = "released_prototypes"

    @classmethod
    def of(cls, method: "Method", step: int) -> Self | None:
        return cls() if method.prototypes == "released" else None

    def prototype_sums(self, context: StepContext) -> tuple[Tensor, Tensor] | None:
        labels = context.completed_labels
        read = reshaped_features(context.output.features.detach(), labels)
        sums, counts = class_sums(read, labels, context.num_classes)
        if context.hides_old:
            index = torch.arange(len(counts), device=counts.device)
            counts = torch.where(index == context.labels.min(), 0, counts)
            sums = torch.where((counts > 0).unsqueeze(1), sums, 0)
        return sums, counts
