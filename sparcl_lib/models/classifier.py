"""The classifier that grows by one 1x1 convolution per step."""

import copy
import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

ClassifierInit = Literal["random", "mib", "unknown"]


class GrowingClassifier(nn.Module):
    """One 1x1 convolution per step, outputs concatenated; background is channel 0 of the first.

    in_channels: width of the head; num_classes: channels of each step, background in the first;
    unknown: whether there is one more branch, `unknown`, for objects of no class so far;
    head_per_step: whether each branch has a 3x3 convolution, batch norm and ReLU before its 1x1
    (SSUL, Cha et al., NeurIPS 2021, released code).
    (B, in_channels, h, w) -> logits (B, K, h, w), K = sum of num_classes, without the unknown.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: Sequence[int],
        unknown: bool = False,
        head_per_step: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.head_per_step = in_channels, head_per_step
        self.steps = nn.ModuleList(self._branch(n) for n in num_classes)
        self.unknown = self._branch(1) if unknown else None

    def _branch(self, num_classes: int) -> nn.Module:
        width, last = self.in_channels, nn.Conv2d(self.in_channels, num_classes, 1)
        if not self.head_per_step:
            return last
        before = nn.Conv2d(width, width, 3, padding=1, bias=False)
        return nn.Sequential(before, nn.BatchNorm2d(width), nn.ReLU(inplace=True), last)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([step(x) for step in self.steps], dim=1)

    @property
    def num_classes(self) -> list[int]:
        return [_last(step).out_channels for step in self.steps]

    def grow(self, num_new: int, init: ClassifierInit = "random") -> "GrowingClassifier":
        """A copy with num_new more classes; this one is left as it is.

        "random": PyTorch's default; old logits stay bit for bit.
        "mib": new weights = background weights, new biases and the background bias =
        b_bg - log(num_new + 1). The old probability of background is shared out evenly between
        background and new classes, and every old class keeps its probability exactly.
        Source: MiB (Cermelli et al., CVPR 2020), section 3, equations 9 and 10.
        "unknown": new weights and biases = those of `unknown`; all old logits stay bit for bit.
        Source: SSUL (Cha et al., NeurIPS 2021), released code, its weight transfer.
        Raises ValueError for num_new < 1, an init that is none of these, or a missing `unknown`.
        """
        self._check_growth(num_new, init)
        grown = copy.deepcopy(self)
        new = grown._branch(num_new).to(_last(self.steps[0]).weight.device)
        if init == "mib":
            _start_as(new, grown.steps[0])
            with torch.no_grad():
                background = _bias(grown.steps[0])
                shared = background[0] - math.log(num_new + 1)
                _bias(new).fill_(shared)
                background[0] = shared
        if init == "unknown" and grown.unknown is not None:
            _start_as(new, grown.unknown)
        grown.steps.append(new)
        return grown

    def _check_growth(self, num_new: int, init: str) -> None:
        if num_new < 1:
            raise ValueError(f"a step adds at least one class, got num_new={num_new}")
        if init not in get_args(ClassifierInit):
            expected = ", ".join(map(repr, get_args(ClassifierInit)))
            raise ValueError(f"unknown classifier init {init!r}: expected one of {expected}")
        if init == "unknown" and self.unknown is None:
            raise ValueError("classifier init 'unknown' needs a classifier with an unknown class")


def _last(branch: nn.Module) -> nn.Conv2d:
    last = branch[-1] if isinstance(branch, nn.Sequential) else branch
    assert isinstance(last, nn.Conv2d)
    return last


def _bias(branch: nn.Module) -> Tensor:
    bias = _last(branch).bias
    assert bias is not None
    return bias


@torch.no_grad()
def _start_as(new: nn.Module, source: nn.Module) -> None:
    """Every channel of `new` becomes the first channel of `source`."""
    mine, theirs = _last(new).weight, _last(source).weight
    mine.copy_(theirs[:1].expand_as(mine))
    _bias(new).copy_(_bias(source)[:1].expand_as(_bias(new)))
    if isinstance(new, nn.Sequential) and isinstance(source, nn.Sequential):
        new[:-1].load_state_dict(source[:-1].state_dict())
