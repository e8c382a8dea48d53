"""From class defaults, METHODS, the data set's recipe, a user's file and --set to a configuration.

A configuration is plain nested data until `RunConfig` is built from it once.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import reduce
from importlib import resources
from typing import Any

import yaml

from sparcl_lib.config.keys import check_keys
from sparcl_lib.config.settings import CONTENT, ModelConfig, RunConfig, read_config
from sparcl_lib.errors import UserError, shown
from sparcl_lib.methods import METHODS, method_name, with_variant
from sparcl_lib.plain import flatten, is_yaml, merge, nest
from sparcl_lib.tasks.classes import DATASET_CLASSES, unknown_name
from sparcl_lib.yaml_text import YamlProblem, parse_yaml

OPTIONS = {
    "dataset": "--dataset",
    "task": "--task",
    "setup": "--setup",
    "data_root": "--data-root",
    "seed": "--seeds",
}
"""Settings of a run that options say where there are such: of a command, of a Python function."""
_SHOWN = 120


def resolve(
    dataset: str, method: str, overrides: Iterable[Mapping[str, Any]] = (), **fixed: Any
) -> RunConfig:
    """The configuration of one run.

    Later wins: class defaults, METHODS, recipes/<dataset>.yaml, its entry for the method, what
    `method.variant` stands for, each of `overrides` (dotted keys, nested ones or both), `fixed`.
    The variant itself is not kept, what it stands for is; what config.yaml of another run says of
    its content is no setting and is passed over. Paths become absolute: a run must find them from
    any folder.

    Raises UserError naming the key and the nearest known one, and for a setting that says something
    else than `dataset` or `fixed`: it would be ignored.
    """
    fixed = {"dataset": dataset, **fixed}
    method = method_name(method)
    before = _recipe_layers(dataset, method)
    after = [_layer(layer) for layer in ([overrides] if isinstance(overrides, str) else overrides)]
    for layer in [*before, *after]:
        check_keys(layer)
    for layer in after:
        _check_options(layer, fixed)
    plain = with_variant(before, after, ModelConfig.head)
    config = read_config({**plain, **fixed})
    _check_new_terms(plain["method"]["terms"], METHODS[method]["terms"], method)
    config.check_defined()
    return with_absolute_paths(config)


def _layer(layer: Any) -> Mapping[str, Any]:
    if isinstance(layer, Mapping):
        layer = {key: value for key, value in layer.items() if key != CONTENT}
    return nest(layer)


def _check_options(layer: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Raise UserError for a setting that an option decides, unless both say the same."""
    for key in (key for key in OPTIONS if key in layer and key in fixed):
        value = layer[key]
        if value is not None and _place(key, value) != _place(key, fixed[key]):
            raise UserError(
                f"{key}={value if isinstance(value, str) else shown(value)} would be ignored "
                f"among the settings: give it by the option {OPTIONS[key]} (in Python by the "
                f"argument {key}), or leave it out"
            )


def _check_new_terms(given: Mapping[str, Any], known: Mapping[str, Any], method: str) -> None:
    """Raise UserError for an option of a term that the method lacks: it would come with weight 1.

    given, known: term -> its settings, of a run and of the method's row.
    """
    for name, row in given.items():
        if name not in known and row and "weight" not in row:
            key = f"method.terms.{name}"
            raise UserError(
                f"{key}.{next(iter(row))} is of a term that {method} does not have; add the term "
                f"by its weight, such as {key}.weight=1, or leave this out"
            )


def _place(key: str, value: Any) -> Any:
    """A setting as it is compared: of a path, where it leads."""
    is_path = key == "data_root" or (key in ("dataset", "task") and is_yaml(str(value)))
    return _absolute(str(value)) if is_path and value is not None else value


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The same configuration, whose paths hold in any working folder."""
    data, model = config.data, config.model
    if data.splits is not None:
        data = dataclasses.replace(data, splits=_absolute(data.splits))
    if model.weights not in (None, "imagenet"):
        model = dataclasses.replace(model, weights=_absolute(model.weights))
    return dataclasses.replace(
        config,
        dataset=_absolute(config.dataset) if is_yaml(config.dataset) else config.dataset,
        task=_absolute(config.task) if is_yaml(config.task) else config.task,
        data_root=None if config.data_root is None else _absolute(config.data_root),
        data=data,
        model=model,
    )


def _absolute(path: str) -> str:
    """Raises UserError for what no system takes for a path: too long a name, or NUL in it."""
    try:
        absolute = os.path.abspath(os.path.expanduser(path))
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.lstat(absolute)
        return absolute
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{shown(path)} is no path ({reason}): name another") from error


def recipe_settings(dataset: str | None, method: str | None) -> dict[str, Any]:
    """Dotted key -> value, for what a method and the recipe of a data set set; None: of neither.

    Raises UserError for an unknown data set or method.
    """
    if dataset is not None and not is_yaml(dataset) and dataset not in DATASET_CLASSES:
        raise unknown_name("data set", dataset, [*DATASET_CLASSES, "FILE.yaml"])
    return flatten(reduce(merge, _recipe_layers(dataset, method)))


def _recipe_layers(dataset: str | None, method: str | None) -> list[Mapping[str, Any]]:
    """The row of METHODS, the data set's recipe, and its entry for the method."""
    recipe = {} if dataset is None else _recipe(dataset)
    per_method = recipe.pop("methods", {})
    if method is None:
        return [recipe]
    name = method_name(method)
    return [{"method": {**METHODS[name], "name": name}}, recipe, per_method.get(name, {})]


def _recipe(dataset: str) -> dict[str, Any]:
    name = "custom" if is_yaml(dataset) else dataset
    file = resources.files("sparcl_lib") / "recipes" / f"{name}.yaml"
    recipe: dict[str, Any] = yaml.safe_load(file.read_text("utf-8")) if file.is_file() else {}
    return recipe


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """["optim.lr=0.01", ...] -> {"optim": {"lr": 0.01}}; values are read as YAML.

    Of a key that is given twice the last value holds. Raises UserError for what is no key=value.
    """
    plain: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise UserError(f"setting {setting[:_SHOWN]}: expected key=value, as in optim.lr=0.01")
        try:
            value = parse_yaml(text)
        except YamlProblem as problem:
            raise UserError(
                f"setting {key}: {shown(text)} is not a YAML value ({problem})"
            ) from problem
        plain = merge(plain, nest({key.strip(): value}))
    return plain
