"""Typed configuration of a run: defaults, the data set's recipe, a user's file, then --set.

A configuration is plain nested data until `RunConfig` is built from it once, and what is saved in
a run directory is that plain data again.
"""

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from importlib import resources
from typing import Any, Literal, get_type_hints

import yaml

from sparcl_lib.errors import UserError
from sparcl_lib.plain import as_plain, build, flatten, is_yaml, merge

VARIANT = "method.variant"
"""Stands for other settings: see sparcl_lib.methods.variants."""


def _require(holds: bool, key: str, expected: str, value: object) -> None:
    if not holds:
        raise UserError(f"{key} must be {expected}, got {value}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    size: int = 512
    """Side of the square crops, in pixels."""
    test_size: int | None = None
    """Side of the squares at test; empty: as in training. Random crops enlarge what they show, so
    a somewhat larger side at test shows objects at the scale of training."""
    batch_size: int = 8
    """Images per iteration and process."""
    scale: tuple[float, ...] | None = (0.5, 2.0)
    """Smallest and largest area of a random crop, as a share of the image's; empty: no crop."""
    workers: int | None = None
    """Loader processes; empty: none where images are cached, else one per core, 16 at most."""
    cache: bool = False
    """Keep decoded images in memory."""
    border: Literal["background", "ignore"] = "background"
    """What pixels of value 255 are in training."""
    future: Literal["background", "ignore"] = "ignore"
    """What pixels of classes not learned yet are at test."""
    zero: Literal["background", "ignore", "ignore_at_test"] = "background"
    """What pixels of value 0 are: ADE20K has no background, its 0 means "none of the 150"."""
    splits: str | None = None
    """Folder with a list of the training images of every step (see sparcl split --import), instead
    of by rule."""

    def __post_init__(self) -> None:
        _require(self.size >= 16, "data.size", "at least 16 pixels", self.size)
        test_size = self.test_size or self.size
        _require(test_size >= 16, "data.test_size", "at least 16 pixels", test_size)
        _require(
            self.batch_size >= 2, "data.batch_size", "at least 2 (batch norm)", self.batch_size
        )
        scale = self.scale or (1, 1)
        low_high = len(scale) == 2 and 0 < scale[0] <= scale[1]
        _require(low_high, "data.scale", "two shares of the area, [0.5, 1.0]", self.scale)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    backbone: str = "resnet101"
    """resnet101, resnet50, mobilenet_v2, mini or mini_wide."""
    weights: str | None = "imagenet"
    """imagenet (downloaded by torchvision), the path of a state dict, or empty."""
    output_stride: int = 16
    """Image pixels per feature location."""
    head: Literal["aspp", "conv", "aspp_linear", "conv_linear"] = "aspp"
    """DeepLab-v3's, or two convolutions; linear: without activations, as SDR's released code."""
    head_channels: int = 256
    """Width of the head, and of the classifier's input."""
    batch_norm: Literal["train", "slow", "frozen"] = "frozen"
    """Statistics of the backbone's batch norm in steps after the first."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    lr: tuple[float, ...] = (1e-3, 1e-4)
    """Learning rate of each step; the last one holds for all later steps."""
    epochs: tuple[float, ...] = (30.0,)
    """Passes over the images of each step, unless iterations are given."""
    iterations: tuple[int, ...] | None = None
    """SGD updates of each step."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    power: float = 0.9
    """Exponent of the poly schedule: lr * (1 - i / n) ** power."""

    def __post_init__(self) -> None:
        _require(all(lr > 0 for lr in self.lr), "optim.lr", "above 0", self.lr)
        _require(all(n > 0 for n in self.epochs), "optim.epochs", "above 0", self.epochs)
        positive = all(n >= 1 for n in self.iterations or (1,))
        _require(positive, "optim.iterations", "at least 1", self.iterations)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    dataset: str
    """minivoc, voc, ade20k, or the YAML file of a data set of one's own."""
    task: str
    """Name of a task, or a YAML file."""
    setup: str = "disjoint"
    """sequential, disjoint or overlapped."""
    class_order: tuple[int, ...] | None = None
    """Another learning order of the task's class ids; the sizes of the steps stay."""
    method: dict[str, Any]
    """name, terms, classifier_init and what else a Method has: see sparcl_lib.methods."""
    data_root: str | None = None
    """Folder of the data; MiniVOC finds its own."""
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    """Lightning Fabric's name of the arithmetic."""


def resolve(
    dataset: str, method: str, overrides: Iterable[Mapping[str, Any]] = (), **fixed: Any
) -> RunConfig:
    """The configuration of one run.

    Later wins: class defaults, METHODS, recipes/<dataset>.yaml, its entry for the method, what
    `method.variant` stands for, each of `overrides` (nested data), `fixed`. The variant itself is
    not kept, what it stands for is. Raises UserError naming the key and the nearest known one.
    """
    from sparcl_lib.methods import METHODS, build_method, method_name, variant_settings

    name = method_name(method)
    recipe = _recipe(dataset)
    per_method = recipe.pop("methods", {}).get(name, {})
    before = [{"method": {**METHODS[name], "name": name}}, recipe, per_method]
    after = list(overrides)
    for layer in [recipe, per_method, *after]:
        check_keys(layer)
    asked = flatten(reduce(merge, [*before, *after]))
    variant = variant_settings(asked, ModelConfig.head) if VARIANT in asked else {}
    plain = reduce(merge, [*before, variant, *after])
    if VARIANT in asked:
        plain["method"] = {k: v for k, v in plain["method"].items() if k != "variant"}
    config = _located(build(RunConfig, {**plain, "dataset": dataset, **fixed}))
    build_method(config.method)  # says now what is wrong with it
    return config


def _located(config: RunConfig) -> RunConfig:
    """Data of one's own by absolute paths: a run must find them from any folder."""
    if not is_yaml(config.dataset):
        return config
    root = None if config.data_root is None else _absolute(config.data_root)
    task = _absolute(config.task) if is_yaml(config.task) else config.task
    return dataclasses.replace(config, dataset=_absolute(config.dataset), task=task, data_root=root)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _recipe(dataset: str) -> dict[str, Any]:
    name = "own" if is_yaml(dataset) else dataset
    file = resources.files("sparcl_lib") / "recipes" / f"{name}.yaml"
    return yaml.safe_load(file.read_text("utf-8")) if file.is_file() else {}


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """["optim.lr=0.01", ...] -> {"optim": {"lr": 0.01}}; values are read as YAML."""
    plain: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {setting}: expected key=value, as in --set optim.lr=0.01")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {setting}: {text!r} is not a YAML value") from error
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        plain = merge(plain, value)
    return plain


def known_keys() -> list[str]:
    """Every dotted key that --set and recipe files may use."""
    from sparcl_lib.methods import TERMS, Method, Regulariser, term_options

    keys = _field_keys(RunConfig)
    keys.remove("method")
    keys += [
        VARIANT,
        *(f"method.{f.name}" for f in dataclasses.fields(Method) if f.name != "terms"),
    ]
    keys += _field_keys(Regulariser, "method.regulariser.")
    for term in TERMS:
        options = ("weight", "from_step", *term_options(term))
        keys += [f"method.terms.{term}.{option}" for option in options]
    return keys


def _field_keys(cls: type, prefix: str = "") -> list[str]:
    keys = []
    for name, hint in get_type_hints(cls).items():
        nested = dataclasses.is_dataclass(hint)
        keys += _field_keys(hint, f"{prefix}{name}.") if nested else [prefix + name]
    return keys


def check_keys(plain: Mapping[str, Any]) -> None:
    """Raise UserError for the first key that no configuration has, with the nearest one."""
    known = known_keys()
    for key in flatten(plain):
        if key not in known and not any(k.startswith(key + ".") for k in known):
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.3)
            hint = f": did you mean {near[0]}?" if near else ""
            raise UserError(f"unknown setting {key!r}{hint}")


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Nested dicts, lists and scalars, as they stand in config.yaml."""
    return as_plain(dataclasses.asdict(config))


def at_step(values: tuple[Any, ...], step: int) -> Any:
    """The value for a step of a per-step setting: the last one holds for all later steps."""
    return values[min(step, len(values) - 1)]
