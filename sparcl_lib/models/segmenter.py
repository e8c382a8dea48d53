"""Backbone, head and growing classifier in one module, and what happens to it between steps."""

import copy
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import ASPP

from sparcl_lib.errors import UserError
from sparcl_lib.models.backbones import Backbone, build_backbone
from sparcl_lib.models.classifier import ClassifierInit, GrowingClassifier

BatchNormPolicy = Literal["train", "slow", "frozen"]
Part = Literal["features", "old"]
# The momentum that the released code of SDR gives its backbone.
SLOW_MOMENTUM = 3e-4


class SegmenterOutput(NamedTuple):
    """What one forward pass gives."""

    logits: Tensor
    """(B, K, H, W), at the size of the images."""
    features: Tensor
    """(B, D, h, w), the encoder's output, which the latent losses shape."""
    maps: tuple[Tensor, ...] = ()
    """On request: the stages of the backbone, the head's output, and the logits (B, K, h, w)."""
    unknown: Tensor | None = None
    """(B, 1, H, W) logit of an object that is none of the K, where the classifier has one."""

    @property
    def answers(self) -> Tensor:
        """(B, K or K + 1, H, W): all that is a yes or no, the unknown last."""
        return self.logits if self.unknown is None else torch.cat([self.logits, self.unknown], 1)


class Segmenter(nn.Module):
    """DeepLab-v3 without its auxiliary head: images (B, 3, H, W) -> SegmenterOutput."""

    def __init__(self, backbone: Backbone, head: nn.Module, classifier: GrowingClassifier) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.classifier = classifier

    def forward(self, images: Tensor, maps: bool = False) -> SegmenterOutput:
        """maps: whether the intermediate maps are handed out too; they cost nothing otherwise."""
        stages = self.backbone.maps(images) if maps else [self.backbone(images)]
        before = self.head(stages[-1])
        # Losses reduce over classes: fastest when the classes of the logits are not innermost.
        small = self.classifier(before).contiguous()
        unknown = self.classifier.unknown
        return SegmenterOutput(
            logits=_enlarge(small, images),
            features=stages[-1],
            maps=(*stages, before, small) if maps else (),
            unknown=None if unknown is None else _enlarge(unknown(before), images),
        )


def _enlarge(small: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)


def build_segmenter(
    backbone: str,
    num_classes: int,
    *,
    weights: str | None = None,
    output_stride: int = 16,
    head: str = "aspp",
    head_channels: int = 256,
    unknown: bool = False,
    own: bool = False,
) -> Segmenter:
    """A network for `num_classes` classes, background included. Arguments as in build_backbone;
    head: "aspp" (DeepLab-v3), "conv" (two 3x3 convolutions, much cheaper on a CPU), or one of both
    without its activations: "aspp_linear", "conv_linear"; unknown and own: as in GrowingClassifier.
    """
    encoder = build_backbone(backbone, output_stride, weights)
    classifier = GrowingClassifier(head_channels, [num_classes], unknown, own)
    return Segmenter(encoder, build_head(head, encoder, head_channels), classifier)


def build_head(name: str, backbone: Backbone, channels: int) -> nn.Module:
    kind, linear, rest = name.partition("_linear")
    if kind not in HEADS or rest:
        known = ", ".join([*HEADS, *(f"{head}_linear" for head in HEADS)])
        raise UserError(f"unknown head {name!r}: choose from {known}")
    head = HEADS[kind](backbone, channels)
    return _without_activations(head) if linear else head


def _aspp(backbone: Backbone, channels: int) -> nn.Module:
    # Rates 6, 12, 18 belong to stride 16 (DeepLab-v3, section 3.3) and double at stride 8.
    rates = [rate * 16 // backbone.stride for rate in (6, 12, 18)]
    return ASPP(backbone.dim, rates, channels)


def _two_convolutions(backbone: Backbone, channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(backbone.dim, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=2, dilation=2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


HEADS = {"aspp": _aspp, "conv": _two_convolutions}


def _without_activations(head: nn.Module) -> nn.Module:
    """The same layers and weights, linear in eval mode: as the released code of SDR runs its head,
    whose batch norms expect an activation in them and have none by default.
    """
    for module in list(head.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Identity())
    return head


def grow(model: Segmenter, num_new: int, init: ClassifierInit = "random") -> Segmenter:
    """The student of the next step: a copy of `model` whose classifier has num_new more classes."""
    student = copy.deepcopy(model)
    student.__dict__.pop("train", None)  # of a frozen model
    student.classifier = model.classifier.grow(num_new, init)
    return student.requires_grad_(True)


def hold(model: Segmenter, parts: Iterable[Part]) -> Segmenter:
    """Take parts of a student, in place, from what learns.

    "features": backbone and head; "old": the classifier of the earlier steps, background included.
    """
    modules = {"features": [model.backbone, model.head], "old": model.classifier.steps[:-1]}
    for part in parts:
        for module in modules[part]:
            module.requires_grad_(False)
    return model


def fuse(old: Mapping[str, Tensor], new: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The state (1 - share) * old + share * new; what only the new network has stays as it is.

    share: 0 (old) .. 1 (new). Running statistics of batch norm are fused too, its counters are not.
    Source: EWF (Xiao et al., CVPR 2023), the fusion of its released code.
    """
    shared = {name for name, value in new.items() if name in old and value.is_floating_point()}
    return {
        name: old[name].to(value.device).lerp(value, share) if name in shared else value
        for name, value in new.items()
    }


def freeze(model: Segmenter) -> Segmenter:
    """The teacher: a copy in eval mode, without gradients, that stays so (train() is refused)."""
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    teacher.train = lambda mode=True: teacher  # type: ignore[method-assign]
    return teacher


def train_mode(model: Segmenter, batch_norm: BatchNormPolicy) -> Segmenter:
    """Training mode, with the backbone's batch norm under an explicit policy.

    "train": statistics of the batch, running averages as PyTorch updates them; "slow": the same
    with momentum 3e-4; "frozen": the running statistics of the earlier steps are used and kept
    (weight and bias still learn). Old classes are gone from the images of a later step, so running
    averages forget them without any gradient. A part that does not learn (see `hold`) stays in
    eval mode.
    """
    model.train()
    for module in model.backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(batch_norm != "frozen")
            module.momentum = SLOW_MOMENTUM if batch_norm == "slow" else 0.1
    for part in (model.backbone, model.head, *model.classifier.steps):
        if not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()
    return model


@torch.no_grad()
def predict(model: nn.Module, images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, H, W) class indices.

    A network with an unknown class answers by sigmoids, and an unknown object counts as background:
    its sigmoid is added to background's (SSUL's released code).
    """
    output = model(images)
    if output.unknown is None:
        return output.logits.argmax(dim=1)
    scores = torch.sigmoid(output.logits)
    scores[:, :1] += torch.sigmoid(output.unknown)
    return scores.argmax(dim=1)
