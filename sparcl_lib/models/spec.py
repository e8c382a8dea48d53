"""What a network is, apart from its weights. Free of torch."""

import dataclasses
from dataclasses import KW_ONLY, dataclass


@dataclass(frozen=True)
class NetworkSpec:
    """All that `build_segmenter` needs: it lies on the network and in every checkpoint.

    >>> spec = NetworkSpec("mini", (7,), output_stride=4, head="conv", head_channels=64)
    >>> spec.grown(4).classes
    (7, 4)
    """

    backbone: str
    """One of models.BACKBONES."""
    classes: tuple[int, ...]
    """Channels that each step adds to the classifier; the first counts the background."""
    _: KW_ONLY
    output_stride: int = 16
    """Image pixels per feature location."""
    head: str = "aspp"
    """"aspp" (DeepLab-v3), "conv" (a 1x1 and a 3x3 convolution, much cheaper on a CPU), or one of
    both without its activations: "aspp_linear", "conv_linear"."""
    head_channels: int = 256
    """Width of the head, and of the classifier's input."""
    unknown: bool = False
    """Whether the classifier has one more output, for objects of no class so far."""
    head_per_step: bool = False
    """Whether each step's classifier has a 3x3 convolution, batch norm and ReLU before its 1x1
    (SSUL, Cha et al., NeurIPS 2021, released code)."""

    def grown(self, num_new: int) -> "NetworkSpec":
        """The specification after one more step of num_new classes."""
        return dataclasses.replace(self, classes=(*self.classes, num_new))
