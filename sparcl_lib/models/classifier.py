"""The classifier that grows by one 1x1 convolution per step."""

import copy
import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

ClassifierInit = Literal["random", "mib", "unknown"]


class GrowingClassifier(nn.Module):
    """One 1x1 convolution per step, outputs concatenated; background is channel 0 of the first.

    in_channels: width of the head; num_classes: channels of each step, background in the first;
    unknown: whether there is one more convolution, `unknown`, for objects of no class so far.
    (B, in_channels, h, w) -> logits (B, K, h, w), K = sum of num_classes, without the unknown.
    """

    def __init__(self, in_channels: int, num_classes: list[int], unknown: bool = False) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Conv2d(in_channels, n, 1) for n in num_classes)
        self.unknown = nn.Conv2d(in_channels, 1, 1) if unknown else None

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([step(x) for step in self.steps], dim=1)

    @property
    def num_classes(self) -> list[int]:
        return [step.out_channels for step in self.steps]

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
        if num_new < 1:
            raise ValueError(f"a step adds at least one class, got num_new={num_new}")
        if init not in get_args(ClassifierInit):
            expected = ", ".join(map(repr, get_args(ClassifierInit)))
            raise ValueError(f"unknown classifier init {init!r}: expected one of {expected}")
        if init == "unknown" and self.unknown is None:
            raise ValueError("classifier init 'unknown' needs a classifier with an unknown class")
        grown = copy.deepcopy(self)
        first = grown.steps[0]
        new = nn.Conv2d(first.in_channels, num_new, 1).to(first.weight.device)
        if init == "mib":
            with torch.no_grad():
                shared = first.bias[0] - math.log(num_new + 1)
                new.weight.copy_(first.weight[:1].expand_as(new.weight))
                new.bias.fill_(shared)
                first.bias[0] = shared
        if init == "unknown":
            with torch.no_grad():
                new.weight.copy_(self.unknown.weight.expand_as(new.weight))
                new.bias.copy_(self.unknown.bias.expand_as(new.bias))
        grown.steps.append(new)
        return grown
