"""Encoders: torchvision's ResNet-50/101 and MobileNetV2 at a chosen output stride, and a mini one
for MiniVOC, also with features of four times and of an eighth of the channels.

Each is an nn.Module with `.dim` (channels D) and `.stride`; (B, 3, H, W) -> f (B, D, h, w), not
negative (the last layer is a ReLU), the features that the latent losses shape.
"""

import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeGuard, TypeVar

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sparcl_lib.definitions import Definition, failed, plugin_in_reading, register
from sparcl_lib.errors import OutsideFailed, UserError, shown

F = TypeVar("F", bound=Callable[..., "Backbone"])


class Backbone(nn.Sequential):
    """A stack of layers that knows its channels, its stride and where its stages end.

    layers: in their order; one module that does all is a stack, too. dim: channels D of the last
    one's output (B, D, h, w). stride: image pixels per location. stages: indices of the layers
    whose outputs `maps` gives; the last layer alone by default.
    """

    def __init__(
        self, layers: list[nn.Module], dim: int, stride: int, stages: tuple[int, ...] = ()
    ) -> None:
        super().__init__(*layers)
        last = len(layers) - 1
        if stages and (
            stages[-1] != last or not all(stage in range(last) for stage in stages[:-1])
        ):
            raise UserError(
                f"stages {stages} of a backbone: they are indices of its layers, the last one, "
                f"{last}, at the end"
            )
        self.dim = dim
        self.stride = stride
        self.stages = stages or (len(layers) - 1,)
        self.outside: str | None = None
        """Its name, if it is not the library's."""

    def maps(self, images: Tensor) -> list[Tensor]:
        """The output of every stage, (B, D_s, h_s, w_s); the last one is what `forward` gives."""
        maps, x = [], images
        for index, layer in enumerate(self):
            x = layer(x)
            if index in self.stages:
                maps.append(x)
        return maps


@dataclass(frozen=True, kw_only=True)
class RegisteredBackbone(Definition):
    """A function that builds a backbone, and the output strides that it can have."""

    kind: ClassVar[str] = "backbone"
    strides: tuple[int, ...]


BACKBONES: dict[str, RegisteredBackbone] = {}
"""Every backbone by name: the library's, then those that were registered since."""


def backbone(*, strides: tuple[int, ...]) -> Callable[[F], F]:
    """Register a function that builds a backbone under its name: model.backbone=NAME.

    The function takes output_stride, one of strides, and weights (see build_backbone), and returns
    a `Backbone`. It is called for every step and every checkpoint that is read, with weights None
    but for step 0 of a run, so it must build the same layers each time and fetch nothing then.
    A kept run is known by what the function says and names, as with `sparcl_lib.term`. Registering
    a name again replaces it. Raises UserError for the name of one of the library's, and for a
    function that takes something else.

    >>> @backbone(strides=(4,))
    ... def two_layers(output_stride: int, weights: str | None) -> Backbone:
    ...     layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    ...     return Backbone(layers, dim=32, stride=output_stride, stages=(1, 3))
    >>> build_backbone("two_layers", 4).maps(torch.zeros(1, 3, 64, 64))[-1].shape
    torch.Size([1, 32, 16, 16])
    """

    def keep(function: F) -> F:
        if not inspect.isfunction(function) or function.__name__ == "<lambda>":
            raise UserError(f"@backbone takes a function with a name, not {function!r}")
        if not (isinstance(strides, tuple) and strides and all(type(s) is int for s in strides)):
            raise UserError(
                f"@backbone of {function.__name__}: strides are whole numbers in a tuple, as in "
                f"(16,), not {strides!r}"
            )
        taken = list(inspect.signature(function).parameters)
        if taken[:2] != ["output_stride", "weights"]:
            raise UserError(
                f"backbone {function.__name__} must take output_stride and weights, as in "
                f"def {function.__name__}(output_stride, weights)"
            )
        found = RegisteredBackbone(
            name=function.__name__, function=function, strides=strides, plugin=plugin_in_reading()
        )
        register(found, BACKBONES)
        return function

    return keep


def get_backbone(name: str) -> RegisteredBackbone:
    """The backbone of this name. Raises UserError with the names that there are."""
    if name not in BACKBONES:
        raise UserError(
            f"unknown backbone {shown(name)}: model.backbone is one of {', '.join(BACKBONES)}, or "
            f"give the file that defines it (--plugin FILE.py)"
        )
    return BACKBONES[name]


def build_backbone(name: str, output_stride: int = 16, weights: str | None = None) -> Backbone:
    """name: one of BACKBONES. output_stride: 16, or 8 for the ResNets; the mini ones always have 4.

    weights: None (random), "imagenet" (torchvision's, downloaded) or a file with a state dict that
    has torchvision's key names (its classifier is not needed).
    Raises UserError for an unknown name, stride or weights that do not fit.
    """
    found = get_backbone(name)
    if weights not in (None, "imagenet"):
        _check_file(str(weights))
    if output_stride not in found.strides:
        raise UserError(
            f"backbone {name} has output stride {' or '.join(map(str, found.strides))}, "
            f"not {output_stride}: set model.output_stride"
        )
    if found.of_library:
        built: Backbone = found.function(output_stride, weights)
        return built
    try:
        given = found.function(output_stride, weights)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code may raise
        raise OutsideFailed(failed(found, error)) from error
    if not isinstance(given, Backbone):
        raise UserError(
            f"{found.title} must return a Backbone, as in Backbone([network], dim=512, stride=16), "
            f"got a {type(given).__name__}"
        )
    given.outside = name
    return given


def try_out(backbone: Backbone, name: str, output_stride: int, size: int) -> None:
    """Raise UserError unless a backbone that is not the library's is what it says: built anew
    without weights it has the same layers, and an image of size x size pixels becomes features
    (1, dim, h, w) of its stride."""
    if backbone.outside is None:
        return
    found = get_backbone(name)
    if any(is_lazy(parameter) for parameter in backbone.parameters()):
        raise UserError(f"{found.title} has layers that wait for their channels: give them theirs")
    with torch.random.fork_rng(devices=[]):
        anew = build_backbone(name, output_stride).state_dict()
    here = backbone.state_dict()
    shapes = [{key: value.shape for key, value in state.items()} for state in (here, anew)]
    differing = sorted({key for key, _ in shapes[0].items() ^ shapes[1].items()})
    if differing:
        raise UserError(
            f"{found.title} builds other layers each time, or without weights ({differing[0]}): "
            f"checkpoints are read into what it builds with weights=None"
        )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        image = torch.zeros(1, 3, size, size)
        try:
            features = backbone.eval().maps(image)[-1]
        except (Exception, SystemExit) as error:  # whatever the user's code may raise
            raise OutsideFailed(
                f"{failed(found, error)}, of images {tuple(image.shape)}"
            ) from error
        finally:
            backbone.train()
    if not isinstance(features, Tensor):
        raise UserError(f"{found.title} gives a {type(features).__name__}, not features, a tensor")
    fits = features.ndim == 4 and features.shape[1] == backbone.dim
    near = fits and all(abs(side - size / backbone.stride) < 1 for side in features.shape[2:])
    if not near or backbone.stride != output_stride:
        raise UserError(
            f"{found.title} says dim={backbone.dim}, stride={backbone.stride}, and gives features "
            f"{tuple(features.shape)} of images {tuple(image.shape)}, with model.output_stride="
            f"{output_stride}: these must agree"
        )


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


def _mini(name: str, dim: int, output_stride: int, weights: str | None) -> Backbone:
    if weights == "imagenet":
        raise UserError(
            f"backbone {name} has no ImageNet weights: set model.weights= (nothing behind the =)"
        )
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
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        file = Path(torch.hub.get_dir(), "checkpoints", Path(enum.IMAGENET1K_V1.url).name)
        raise UserError(
            f"cannot read {file} ({' '.join(str(error).split())}): remove it, and it is downloaded "
            f"again"
        ) from error


def _check_file(path: str) -> None:
    if not Path(path).is_file():
        raise UserError(
            f"weights file {path} does not exist: give 'imagenet' or a state dict file; "
            f"--set model.weights=null starts from random ones"
        )


def _file_state(path: str) -> dict[str, Tensor]:
    _check_file(path)
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


@backbone(strides=(16, 8))
def resnet101(output_stride: int, weights: str | None) -> Backbone:
    return _resnet("resnet101", output_stride, weights)


@backbone(strides=(16, 8))
def resnet50(output_stride: int, weights: str | None) -> Backbone:
    return _resnet("resnet50", output_stride, weights)


@backbone(strides=(16,))
def mobilenet_v2(output_stride: int, weights: str | None) -> Backbone:
    return _mobilenet("mobilenet_v2", output_stride, weights)


@backbone(strides=(4,))
def mini(output_stride: int, weights: str | None) -> Backbone:
    return _mini("mini", 64, output_stride, weights)


@backbone(strides=(4,))
def mini_narrow(output_stride: int, weights: str | None) -> Backbone:
    return _mini("mini_narrow", 8, output_stride, weights)


@backbone(strides=(4,))
def mini_wide(output_stride: int, weights: str | None) -> Backbone:
    return _mini("mini_wide", 256, output_stride, weights)
