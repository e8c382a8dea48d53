"""Typed settings of a run, and the plain nested data that config.yaml holds of them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from sparcl_lib.fields import (
    FACTOR,
    Range,
    by_content,
    check_ranges,
    later,
    never,
    per_step,
    require,
)
from sparcl_lib.methods import Method, build_method, method_to_plain
from sparcl_lib.models import get_backbone
from sparcl_lib.plain import as_plain, build
from sparcl_lib.tasks import Setup

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]
CONTENT = "content"
"""Beside the settings in a run's config.yaml: what the files that they name held."""
MEASURED = ("data.future", "data.held_out", "data.test", "data.zero")
"""Settings that say which images and pixels are tested: no table has two of them."""
Side = Annotated[int, Range(16, 8192, "pixels")]
Rate = Annotated[float, Range(0, 1e37, "(float32)", open_low=True)]
Passes = Annotated[float, Range(0, 1_000_000, open_low=True)]
Count = Annotated[int, Range(1, 10_000_000)]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    size: Side = 512
    """Side of the square crops, in pixels."""
    test: Literal["crop", "whole"] = "crop"
    """What of an image is tested. crop: its centre square, the shorter side resized to test_size,
    which is the published protocol; whole: all of it, at its own resolution."""
    test_size: Side | None = None
    """Side of the squares at test; empty: as in training. Random crops enlarge what they show, so
    a somewhat larger side at test shows objects at the scale of training."""
    batch_size: Annotated[int, Range(2, 4096, "(batch norm)")] = 8
    """Images per iteration and process."""
    scale: tuple[Annotated[float, Range(0, 100, open_low=True)], ...] | None = (0.5, 2.0)
    """Smallest and largest area of a random crop, as a share of the image's; empty: the centre
    square, as at test."""
    workers: Annotated[int, Range(0, 64)] | None = never(None)
    """Loader processes of each process that trains; empty: none where images are cached, else its
    share of the cores, 16 at most."""
    cache: bool = never(False)
    """Keep decoded images in memory; each loader process keeps its own."""
    border: Literal["background", "ignore"] = "background"
    """What pixels of value 255 are in training."""
    future: Literal["background", "ignore"] = "ignore"
    """What pixels of classes not learned yet are at test."""
    zero: Literal["background", "ignore", "ignore_at_test"] = "background"
    """What pixels of value 0 are: ADE20K has no background, its 0 means "none of the 150"."""
    splits: str | None = by_content(None)
    """Folder with a list of the training images of every step (see sparcl split --import), instead
    of by rule."""
    held_out: Annotated[float, Range(0, 0.9)] = 0.0
    """Share of the training images that no step trains on, and that are tested in place of val: so
    a search chooses without the test images. The same ones for every task, method and seed."""

    def __post_init__(self) -> None:
        check_ranges(self, "data.")
        scale = self.scale or (1, 1)
        low_high = len(scale) == 2 and scale[0] <= scale[1]
        require(low_high, "data.scale", "two shares of the area, [0.5, 1.0]", self.scale)
        fits = self.test == "crop" or self.test_size is None
        require(fits, "data.test_size", "empty where data.test is whole", self.test_size)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    backbone: str = "resnet101"
    """What computes the features, before the head. mini, for MiniVOC on a CPU, gives 64 channels;
    mini_narrow gives 8 and mini_wide 256."""
    weights: str | None = by_content("imagenet")
    """imagenet (downloaded by torchvision), the path of a state dict, or empty."""
    output_stride: Annotated[int, Range(1, 64)] = 16
    """Image pixels per feature location."""
    head: Literal["aspp", "conv", "aspp_linear", "conv_linear"] = "aspp"
    """DeepLab-v3's, or two convolutions; linear: without activations, as SDR's released code."""
    head_channels: Annotated[int, Range(1, 4096)] = 256
    """Width of the head, and of the classifier's input."""
    batch_norm: Literal["train", "slow", "frozen"] = later("frozen")
    """Statistics of the backbone's batch norm in steps after the first."""
    sync_batch_norm: bool = False
    """On several GPUs: whether batch norm takes mean and variance over the images of all of them;
    without it each GPU takes those of its own images."""

    def __post_init__(self) -> None:
        check_ranges(self, "model.")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    lr: tuple[Rate, ...] = per_step((1e-3, 1e-4))
    """Learning rate of each step; the last one holds for all later steps."""
    epochs: tuple[Passes, ...] = per_step((30.0,))
    """Passes over the images of each step, unless iterations are given."""
    iterations: tuple[Count, ...] | None = per_step(None)
    """SGD updates of each step."""
    momentum: Annotated[float, Range(0, 1, open_high=True)] = 0.9
    """Share of the last update in the next one (SGD, Nesterov's); 0: none."""
    weight_decay: Annotated[float, FACTOR] = 1e-4
    """Factor of the weights that is added to their gradients (SGD)."""
    power: Annotated[float, Range(0, 1000)] = 0.9
    """Exponent of the poly schedule: lr * (1 - i / n) ** power."""

    def __post_init__(self) -> None:
        check_ranges(self, "optim.")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    dataset: str = by_content()
    """minivoc, minivoc20, voc, ade20k, or the YAML file of a data set of one's own."""
    task: str = by_content()
    """Name of a task, or a YAML file."""
    setup: Setup = "disjoint"
    """Which images and labels a step has: sequential, old classes stay labelled; disjoint and
    overlapped, they are background, and only overlapped has images with classes of later steps."""
    class_order: tuple[int, ...] | None = by_content(None)
    """Another learning order of the task's class ids; the sizes of the steps stay."""
    method: Method
    """Terms with their weights, how new classes start, and what else: see sparcl_lib.methods."""
    data_root: str | None = by_content(None)
    """Folder of the data; MiniVOC finds its own."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Of the first weights, the order of the images, and their crops and flips."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    precision: Precision = "32-true"
    """Lightning Fabric's name of the arithmetic."""
    deterministic: bool = never(False)
    """On a GPU: only algorithms that give the same bits each time, where PyTorch has them, some of
    which are slower."""
    save_minutes: Annotated[float, Range(0, 10_080, "minutes")] = never(10.0)
    """How often a step that is in training is saved, beside the saves at Ctrl-C and at SIGTERM; 0:
    after every iteration. What --resume goes on from."""
    tensorboard: bool = never(True)
    """Whether the log is written for TensorBoard too, beside logs/step-0/metrics.csv and so on."""

    def __post_init__(self) -> None:
        check_ranges(self, "")

    def check_defined(self) -> None:
        """Raise UserError for a term, a mechanism or a backbone that is not defined here: the run
        can be read, but not trained."""
        self.method.check_defined()
        get_backbone(self.model.backbone)


def read_config(plain: Mapping[str, Any]) -> RunConfig:
    """The configuration that `to_plain` wrote, or any nested data; UserError names a wrong key.

    What nobody defines here is kept as it is: whoever trains calls `check_defined`.
    """
    plain = {key: value for key, value in plain.items() if key != CONTENT}
    method = plain.get("method")
    if isinstance(method, Mapping):
        plain["method"] = build_method(method, any_term=True)
    config: RunConfig = build(RunConfig, plain)
    return config


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Nested dicts, lists and scalars, as they stand in config.yaml."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    groups = {name: dataclasses.asdict(values[name]) for name in ("data", "model", "optim")}
    groups["method"] = method_to_plain(config.method)
    plain: dict[str, Any] = as_plain({**values, **groups})
    return plain
