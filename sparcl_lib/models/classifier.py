"""The classifier that grows by one 1x1 convolution per step."""

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn

ClassifierInit = Literal["random", "mib"]


class GrowingClassifier(nn.Module):
    """One 1x1 convolution per step, outputs concatenated; background is channel 0 of the first.

    in_channels: width of the head; num_classes: channels of each step, background in the first.
    (B, in_channels, h, w) -> logits (B, K, h, w), K = sum of num_classes.
    """

    def __init__(self, in_channels: int, num_classes: list[int]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Conv2d(in_channels, n, 1) for n in num_classes)

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
        Raises ValueError for num_new < 1 or an unknown init.
        """
        if num_new < 1:
            raise ValueError(f"a step adds at least one class, got num_new={num_new}")
        if init not in ("random", "mib"):
            raise ValueError(f"unknown classifier init {init!r}: expected 'random' or 'mib'")
        grown = copy.deepcopy(self)
        first = grown.steps[0]
        new = nn.Conv2d(first.in_channels, num_new, 1).to(first.weight.device)
        if init == "mib":
            with torch.no_grad():
                shared = first.bias[0] - math.log(num_new + 1)
                new.weight.copy_(first.weight[:1].expand_as(new.weight))
                new.bias.fill_(shared)
                first.bias[0] = shared
        grown.steps.append(new)
        return grown
