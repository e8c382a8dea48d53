"""Parts of the network that learn at their first step alone: `method.frozen`.

Source: SSUL (Cha et al., NeurIPS 2021), which freezes the encoder and the old classifiers.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from sparcl_lib.methods.hooks import Mechanism
from sparcl_lib.models import Segmenter, hold
from sparcl_lib.models.segmenter import Part

if TYPE_CHECKING:
    from sparcl_lib.methods.method import Method


class FrozenParts(Mechanism):
    """Takes parts of the student from what the optimiser moves."""

    name = "frozen"

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.parts = parts

    @classmethod
    def of(cls, method: "Method", step: int) -> Self | None:
        return cls(method.frozen) if method.frozen and step > 0 else None

    def prepare(self, student: Segmenter, before: Mapping[str, Any] | None) -> None:
        hold(student, self.parts)
