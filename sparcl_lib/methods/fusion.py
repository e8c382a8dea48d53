"""The trained network brought nearer to the one of the step before: `method.fuse`.

Source: EWF (Xiao et al., CVPR 2023), section 3.3, the fusion of whole networks.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from sparcl_lib.methods.hooks import Mechanism
from sparcl_lib.models import Segmenter, fuse

if TYPE_CHECKING:
    from sparcl_lib.methods.method import Method


def new_share(exponent: float, num_old: int, num_new: int) -> float:
    """Share of the newly trained weights: (new classes / all classes) ** exponent.

    num_old counts background. 1, the new network alone, for exponent 0.
    """
    share: float = (num_new / (num_old + num_new)) ** exponent
    return share


class Fusion(Mechanism):
    """After the step the student is (1 - share) * previous network + share * student."""

    name = "fuse"

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent

    @classmethod
    def of(cls, method: "Method", step: int) -> Self | None:
        return cls(method.fuse) if method.fuse and step > 0 else None

    def prepare(self, student: Segmenter, before: Mapping[str, Any] | None) -> None:
        self.student, self.previous = student, (before or {})["model"]

    def after_step(self) -> None:
        *old, new = self.student.classifier.num_classes
        share = new_share(self.exponent, sum(old), new)
        self.student.load_state_dict(fuse(self.previous, self.student.state_dict(), share))
