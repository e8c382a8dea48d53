"""Encoders: torchvision's ResNet-50/101 and MobileNetV2 at a chosen output stride, and
a mini one, also with features of four times the channels.

Each is an nn.Module with `.dim` (channels D) and `.stride`; (B, 3, H, W) -> f (B, D, h, w), not
negative (the last layer is a ReLU), the features that the latent losses shape.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeGuard

import torch
import torchvision
from torch import Tensor, nn

from sparcl_lib.errors import UserError


class Backbone(nn.Sequential):
    """A stack of layers that knows its channels, its stride and where its stages end.

    stages: indices of the layers whose outputs `maps` gives; the last layer alone by default.
    """

    def __init__(
        self, layers: list[nn.Module], dim: int, stride: int, stages: tuple[int, ...] = ()
    ) -> None:
        super().__init__(*layers)
        self.dim = dim
        self.stride = stride
        self.stages = stages or (len(layers) - 1,)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The output of every stage, (B, D_s, h_s, w_s); the last one is what `forward` gives."""
        maps, x = [], images
        for index, layer in enumerate(self):
            x = layer(x)
            if index in self.stages:
                maps.append(x)
        return maps


def build_backbone(name: str, output_stride: int = 16, weights: str | None = None) -> Backbone:
    """name: one of BACKBONES. output_stride: 16, or 8 for the ResNets; the mini ones always have 4.

    weights: None (random), "imagenet" (torchvision's, downloaded) or a file with a state dict that
    has torchvision's key names (its classifier is not needed).
    Raises UserError for an unknown name, stride or weights that do not fit.
    """
    if name not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}: choose from {', '.join(BACKBONES)}")
    build, strides = BACKBONES[name]
    if output_stride not in strides:
        raise UserError(
            f"backbone {name} has output stride {' or '.join(map(str, strides))}, "
            f"not {output_stride}: set model.output_stride"
        )
    return build(name, output_stride, weights)


def _resnet(name: str, output_stride: int, weights: str | None) -> Backbone:
    dilate = {16: (False, False, True), 8: (False, True, True)}[output_stride]
    net = getattr(torchvision.models, name)(replace_stride_with_dilation=dilate)
    load_weights(net, name, weights)
    # Without pooling and classifier; torchvision's own order of children is the forward order.
    layers = list(net.children())[:-2]
    return Backbone(layers, dim=2048, stride=output_stride, stages=(4, 5, 6, 7))


def _mobilenet(name: str, output_stride: int, weights: str | None) -> Backbone:
    net = torchvision.models.mobilenet_v2()
    load_weights(net, name, weights)
    _dilate_last_stage(net.features)
    stages = (3, 6, 13, 18)  # the last layer of each resolution
    return Backbone(list(net.features), dim=1280, stride=output_stride, stages=stages)


def _dilate_last_stage(features: nn.Sequential) -> None:
    """Stride 32 -> 16: the last strided depthwise convolution loses its stride, the rest dilate."""
    depthwise = [m for m in features.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    last = max(i for i, conv in enumerate(depthwise) if conv.stride == (2, 2))
    depthwise[last].stride = (1, 1)
    for conv in depthwise[last + 1 :]:
        conv.dilation = conv.padding = (2, 2)


class _Residual(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _mini(name: str, output_stride: int, weights: str | None) -> Backbone:
    if weights == "imagenet":
        raise UserError(
            f"backbone {name} has no ImageNet weights: set model.weights= (nothing behind the =)"
        )
    dim = {"mini": 64, "mini_narrow": 8, "mini_wide": 256}[name]
    layers = [
        nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True)
        ),
        _Residual(24, 48, stride=2),
        _Residual(48, 64),
        _Residual(64, dim),
    ]
    backbone = Backbone(layers, dim=dim, stride=output_stride, stages=(0, 1, 2, 3))
    load_weights(backbone, name, weights)
    return backbone


def load_weights(net: nn.Module, name: str, weights: str | None) -> None:
    """Fill `net` in place from `weights` (see build_backbone); strict but for a classifier."""
    if weights is None:
        return
    state = _imagenet_state(name) if weights == "imagenet" else _file_state(weights)
    classifier = ("fc.", "classifier.")
    state = {key: value for key, value in state.items() if not key.startswith(classifier)}
    wanted = {key: v for key, v in net.state_dict().items() if not key.startswith(classifier)}
    problem = _first_mismatch(wanted, state)
    if problem:
        raise UserError(
            f"weights {weights} do not fit backbone {name}: {problem}; "
            f"give a state dict with torchvision's key names for {name}"
        )
    broken = next((key for key, value in state.items() if not value.isfinite().all()), None)
    if broken:
        raise UserError(f"weights {weights}: {broken} holds what is not a number: save them again")
    net.load_state_dict(state, strict=False)


def _first_mismatch(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> str | None:
    for key, value in wanted.items():
        if key not in given:
            # Old files have no batch counters; those of the network start at zero.
            if not key.endswith("num_batches_tracked"):
                return f"key {key} is missing"
        elif given[key].shape != value.shape:
            return f"{key} is {tuple(given[key].shape)}, expected {tuple(value.shape)}"
    surplus = sorted(given.keys() - wanted.keys())
    return f"key {surplus[0]} is not in the network" if surplus else None


def _is_state_dict(state: object) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(state, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    )


def _imagenet_state(name: str) -> dict[str, Tensor]:
    enum = torchvision.models.get_model_weights(name)
    try:
        state: dict[str, Tensor] = enum.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
        return state
    except OSError as error:
        raise UserError(
            f"cannot download {enum.IMAGENET1K_V1.url} ({error}); fetch it by hand and pass "
            f"--backbone-weights FILE"
        ) from error


def _file_state(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise UserError(
            f"weights file {path} does not exist: give 'imagenet' or a state dict file; "
            f"--set model.weights=null starts from random ones"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling something else can raise anything
        raise UserError(
            f"cannot read weights {path} ({error.__class__.__name__}): "
            f"give a plain state dict saved by torch.save"
        ) from error
    if not _is_state_dict(state):
        raise UserError(f"{path} holds no plain state dict (name -> tensor): save net.state_dict()")
    return state


BACKBONES: dict[str, tuple[Callable[[str, int, str | None], Backbone], tuple[int, ...]]] = {
    "resnet101": (_resnet, (16, 8)),
    "resnet50": (_resnet, (16, 8)),
    "mobilenet_v2": (_mobilenet, (16,)),
    "mini": (_mini, (4,)),
    "mini_narrow": (_mini, (4,)),
    "mini_wide": (_mini, (4,)),
}
"""Name -> what builds it, and the output strides that it can have."""
