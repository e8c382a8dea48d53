"""Backbone, head and growing classifier in one module, and what happens to it between steps."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import ASPP

from sparcl_lib.definitions import failed
from sparcl_lib.errors import OutsideFailed, UserError
from sparcl_lib.models.backbones import Backbone, build_backbone, get_backbone
from sparcl_lib.models.classifier import ClassifierInit, GrowingClassifier
from sparcl_lib.models.spec import NetworkSpec

BatchNormPolicy = Literal["train", "slow", "frozen"]
Part = Literal["features", "old"]
# The momentum that the released code of SDR gives its backbone.
SLOW_MOMENTUM = 3e-4
_USUAL_MOMENTUM = "usual_momentum"
# An image with more upsampled logits than that goes through the losses in strips of rows: at 512
# pixels ADE20K does, with 151 classes, and VOC does not, with 21.
MAX_LOGITS_PER_IMAGE = 2**24
# Upsampled logits of a strip, over the whole batch; on a CPU they stay in its cache.
STRIP_ON_CPU, STRIP_ON_GPU = 2**20, 2**25


@dataclass(kw_only=True)
class SegmenterOutput:
    """What one forward pass gives. Logits are upsampled to the images on demand: see `strips`."""

    low_res_logits: Tensor
    """(B, K, h, w), at the resolution of the features, as the classifier gives them."""
    features: Tensor
    """(B, D, h, w), the encoder's output, which the latent losses shape."""
    maps: tuple[Tensor, ...] = ()
    """On request: the stages of the backbone, the head's output, and the logits (B, K, h, w)."""
    low_res_unknown: Tensor | None = None
    """(B, 1, h, w) logit of an object that is none of the K, where the classifier has one."""
    upsample_to: tuple[int, int] | None = None
    """Height and width of the images, H x W; None: the logits have it already."""

    @cached_property
    def logits(self) -> Tensor:
        """(B, K, H, W): `low_res_logits` at the size of the images, bilinear."""
        return self._at_image_size(self.low_res_logits)

    @cached_property
    def unknown(self) -> Tensor | None:
        """(B, 1, H, W): `low_res_unknown` at the size of the images."""
        return None if self.low_res_unknown is None else self._at_image_size(self.low_res_unknown)

    @property
    def binary_logits(self) -> Tensor:
        """(B, K or K + 1, H, W): all logits that go through a sigmoid, the unknown last."""
        return self.logits if self.unknown is None else torch.cat([self.logits, self.unknown], 1)

    @property
    def needs_strips(self) -> bool:
        """Whether the upsampled logits of an image are too many to be held for a whole batch."""
        return self.low_res_logits.shape[1] * math.prod(self.image_size) > MAX_LOGITS_PER_IMAGE

    def strips(self, *pixels: Tensor, binary: bool = False) -> Iterator[tuple[Tensor, ...]]:
        """Upsampled logits (B, K, rows, W) and these rows of `pixels` (B, H, W), strip by strip.

        One strip of all rows unless `needs_strips`. binary: `binary_logits` instead.
        """
        if not self.needs_strips:
            yield (self.binary_logits if binary else self.logits, *pixels)
            return
        rows = self.rows_per_strip
        high = self.upsampled_in_height(binary).split(rows, dim=2)
        for strip, *others in zip(high, *(p.split(rows, dim=1) for p in pixels), strict=True):
            yield (self.upsampled_in_width(strip), *others)

    @property
    def rows_per_strip(self) -> int:
        """How many rows of upsampled logits are held at once."""
        logits = self.low_res_logits
        numbers = STRIP_ON_CPU if logits.device.type == "cpu" else STRIP_ON_GPU
        return max(1, numbers // (len(logits) * logits.shape[1] * self.image_size[1]))

    def upsampled_in_height(self, binary: bool = False) -> Tensor:
        """(B, K, H, w): half the way to `logits`. Bilinear upsampling is the one side's, then the
        other's, and this half is small. binary: the unknown last, where there is one."""
        logits = self.low_res_logits
        if binary and self.low_res_unknown is not None:
            logits = torch.cat([logits, self.low_res_unknown], 1)
        height = self.image_size[0]
        return logits if logits.shape[2] == height else upsample(logits, (height, logits.shape[3]))

    def upsampled_in_width(self, rows: Tensor) -> Tensor:
        """(B, K, rows, w) -> (B, K, rows, W): the other half."""
        width = self.image_size[1]
        if rows.shape[3] == width:
            return rows
        if rows.device.type != "cpu":
            return upsample(rows, (rows.shape[2], width))
        # The same as a product, whose backward pass is five times faster on a CPU. Of rows that lie
        # apart in memory it would be many small products, and take twice as long.
        unit = torch.eye(rows.shape[3], dtype=rows.dtype)
        across = F.interpolate(unit[None], width, mode="linear", align_corners=False)[0]
        return rows.contiguous() @ across

    def logits_at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(B, K, r, c): the upsampled logits at rows (r,) and columns (c,)."""
        if not self.needs_strips:
            return self.logits[:, :, rows.unsqueeze(1), columns]
        return self.upsampled_in_width(self.upsampled_in_height()[:, :, rows])[:, :, :, columns]

    @property
    def image_size(self) -> tuple[int, int]:
        """H, W."""
        shape = self.low_res_logits.shape
        return self.upsample_to or (shape[2], shape[3])

    def _at_image_size(self, logits: Tensor) -> Tensor:
        return logits if self.upsample_to is None else upsample(logits, self.upsample_to)


class Segmenter(nn.Module):
    """DeepLab-v3 without its auxiliary head: images (B, 3, H, W) -> SegmenterOutput.

    spec: what it is made of; None for one put together by hand, which no checkpoint describes.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        classifier: GrowingClassifier,
        spec: NetworkSpec | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.classifier = classifier
        self.spec = spec
        self.frozen = False

    def train(self, mode: bool = True) -> Self:
        """Training or eval mode. What does not learn stays in eval mode: all of a frozen network
        (see `freeze`), else backbone, head and classifiers without a parameter with a gradient
        (see `hold`).
        """
        super().train(mode and not self.frozen)
        for part in (self.backbone, self.head, *self.classifier.steps):
            learns = [parameter.requires_grad for parameter in part.parameters()]
            if learns and not any(learns):
                part.eval()
        return self

    if TYPE_CHECKING:  # nn.Module calls return Any

        def __call__(self, images: Tensor, maps: bool = False) -> SegmenterOutput: ...

    def forward(self, images: Tensor, maps: bool = False) -> SegmenterOutput:
        """maps: whether the intermediate maps are handed out too; they cost nothing otherwise."""
        stages = self._stages(images, maps)
        before = self.head(stages[-1])
        # Losses reduce over classes: fastest when the classes of the logits are not innermost.
        logits = self.classifier(before).contiguous()
        unknown = self.classifier.unknown
        return SegmenterOutput(
            low_res_logits=logits,
            features=stages[-1],
            maps=(*stages, before, logits) if maps else (),
            low_res_unknown=None if unknown is None else unknown(before),
            upsample_to=(images.shape[2], images.shape[3]),
        )

    def _stages(self, images: Tensor, maps: bool) -> list[Tensor]:
        """Of the backbone, the last one alone without maps. Raises UserError where one that is not
        the library's fails, as on images of a size that it does not take."""
        if self.backbone.outside is None:
            return self.backbone.maps(images) if maps else [self.backbone(images)]
        try:
            return self.backbone.maps(images) if maps else [self.backbone(images)]
        except (Exception, SystemExit) as error:  # whatever the user's code may raise
            said = failed(get_backbone(self.backbone.outside), error)
            raise OutsideFailed(f"{said}, of images {tuple(images.shape)}") from error


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, K, h, w) -> (B, K, *size), bilinear."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def build_segmenter(spec: NetworkSpec, weights: str | None = None) -> Segmenter:
    """A network as specified, its weights drawn from torch's generator but for the backbone's.

    weights: of the backbone, as in build_backbone. Raises UserError for an unknown backbone or
    head, a stride that the backbone does not have, and weights that do not fit.
    """
    backbone = build_backbone(spec.backbone, spec.output_stride, weights)
    classifier = GrowingClassifier(
        spec.head_channels, spec.classes, spec.unknown, spec.head_per_step
    )
    head = build_head(spec.head, backbone, spec.head_channels)
    return Segmenter(backbone, head, classifier, spec)


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
    head: nn.Module = ASPP(backbone.dim, rates, channels)
    return head


def _two_convolutions(backbone: Backbone, channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(backbone.dim, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=2, dilation=2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


HEADS: dict[str, Callable[[Backbone, int], nn.Module]] = {"aspp": _aspp, "conv": _two_convolutions}


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
    student.frozen = False
    student.classifier = model.classifier.grow(num_new, init)
    student.spec = None if model.spec is None else model.spec.grown(num_new)
    return student.requires_grad_(True)


def hold(model: Segmenter, parts: Iterable[Part]) -> Segmenter:
    """Take parts of a student, in place, from what learns; they stay in eval mode from then on.

    "features": backbone and head; "old": the classifier of the earlier steps, background included.
    """
    modules: dict[Part, list[nn.Module]] = {
        "features": [model.backbone, model.head],
        "old": list(model.classifier.steps)[:-1],
    }
    for part in parts:
        for module in modules[part]:
            module.requires_grad_(False).eval()
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
    """The teacher: a copy in eval mode, without gradients, that stays so: `train()` leaves it in
    eval mode, as it does its copies, pickled or not. `grow` gives a student that trains.
    """
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    teacher.frozen = True
    return teacher


def train_mode(model: Segmenter, batch_norm: BatchNormPolicy) -> Segmenter:
    """Training mode, with the backbone's batch norm under an explicit policy.

    "train": statistics of the batch, running averages with the momentum that each module has;
    "slow": the same with momentum 3e-4; "frozen": the running statistics of the earlier steps are
    used and kept (weight and bias still learn). Old classes are gone from the images of a later
    step, so running averages forget them without any gradient. A part that does not learn stays in
    eval mode (see `hold`).
    """
    model.train()
    for module in model.backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if batch_norm == "frozen":
                module.eval()
            _set_momentum(module, slow=batch_norm == "slow")
    return model


def synchronise_batch_norm(model: Segmenter) -> None:
    """Make batch norm take its statistics over all processes, in place, with the same parameters.

    Torch's conversion makes new layers, which would not know their momentum before "slow" (see
    `train_mode`): it is handed on.
    """
    norms = {
        name: module for name, module in model.named_modules() if _USUAL_MOMENTUM in vars(module)
    }
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name, norm in norms.items():
        setattr(model.get_submodule(name), _USUAL_MOMENTUM, getattr(norm, _USUAL_MOMENTUM))


def _set_momentum(norm: nn.modules.batchnorm._BatchNorm, slow: bool) -> None:
    """The slow momentum, or the one that the module had before it."""
    usual = getattr(norm, _USUAL_MOMENTUM, norm.momentum)
    if slow:
        setattr(norm, _USUAL_MOMENTUM, usual)
    norm.momentum = SLOW_MOMENTUM if slow else usual


@torch.no_grad()
def predict(model: nn.Module, images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, H, W) class indices.

    A network with an unknown class answers by sigmoids, and an unknown object counts as background:
    its sigmoid is added to background's (SSUL's released code).
    """
    output: SegmenterOutput = model(images)
    if output.low_res_unknown is None:
        return torch.cat([logits.argmax(dim=1) for (logits,) in output.strips()], dim=1)
    return torch.cat([_most_likely(logits) for (logits,) in output.strips(binary=True)], dim=1)


def _most_likely(binary_logits: Tensor) -> Tensor:
    scores = torch.sigmoid(binary_logits)
    scores[:, :1] += scores[:, -1:]
    return scores[:, :-1].argmax(dim=1)


@torch.no_grad()
def predict_whole(model: nn.Module, images: Tensor) -> Tensor:
    """`predict` for images (B, 3, H, W) of any size -> class ids, uint8 (B, H, W): the classes are
    upsampled one by one.

    All logits of a large image at once would fill the memory.
    """
    output: SegmenterOutput = model(images)
    shape = (images.shape[2], images.shape[3])
    return torch.stack([label_map(output, n, shape) for n in range(len(images))])


def label_map(
    output: SegmenterOutput, n: int, shape: tuple[int, int], over_images: bool = False
) -> Tensor:
    """uint8 (H, W) class indices of the n-th image of a batch at another size, as `predict`.

    over_images: the logits are upsampled to the size of the images first.
    """
    logits, unknown = output.low_res_logits, output.low_res_unknown
    if over_images:
        logits, unknown = output.logits, output.unknown
    best = _score(logits[n, :1], shape, unknown is not None)
    if unknown is not None:
        best = best + torch.sigmoid(_one_map(unknown[n], shape))
    labels = torch.zeros(shape, dtype=torch.uint8, device=best.device)
    for index in range(1, logits.shape[1]):
        score = _score(logits[n, index : index + 1], shape, unknown is not None)
        labels[score > best] = index
        best = torch.maximum(best, score)
    return labels


def _score(logits: Tensor, shape: tuple[int, int], yes_or_no: bool) -> Tensor:
    logits = _one_map(logits, shape)
    return torch.sigmoid(logits) if yes_or_no else logits


def _one_map(logits: Tensor, shape: tuple[int, int]) -> Tensor:
    """Of one class and image: (1, h, w) -> (H, W), bilinear."""
    return logits[0] if logits.shape[1:] == shape else upsample(logits[None], shape)[0, 0]
