"""Prototypes as SDR's released code fills them: `method.reshaped_prototypes`.

Right for a batch of one image; with more, channels and images are mixed, see
`losses.reshaped_features`.
"""

from typing import TYPE_CHECKING, Self

from torch import Tensor

from sparcl_lib.losses.released import reshaped_features
from sparcl_lib.methods.context import StepContext, class_sums_of
from sparcl_lib.methods.mechanism import Mechanism

if TYPE_CHECKING:
    from sparcl_lib.methods.method import Method


class ReleasedPrototypes(Mechanism):
    """Sums of the features as the released code reads them, in place of the class sums."""

    name = "reshaped_prototypes"

    @classmethod
    def of(cls, method: "Method", step: int) -> Self | None:
        return cls() if method.reshaped_prototypes else None

    def prototype_sums(self, context: StepContext) -> tuple[Tensor, Tensor] | None:
        labels = context.completed_labels
        read = reshaped_features(context.output.features.detach(), labels)
        return class_sums_of(read, labels, context.num_classes)
