"""Nested plain data (dicts, lists, scalars), as YAML holds it, and typed dataclasses from it."""

import dataclasses
import types
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sparcl_lib.errors import UserError, shown
from sparcl_lib.yaml_text import load_yaml

_DEEPEST = 10
"""Levels of settings; method.terms.kd.weight has four."""


def is_yaml(name: object) -> bool:
    """Is this the name of a YAML file, where the name of a data set or a task may stand too?"""
    return isinstance(name, str) and name.endswith((".yaml", ".yml"))


def read_yaml(path: str | Path, example: str = "a run's config.yaml") -> dict[str, Any]:
    """A YAML file that holds a mapping; UserError in one line, with an example, otherwise."""
    content = load_yaml(path, str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold 'key: value' lines, as in {example}")
    return content


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, nested mappings key by key; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge(old, value)
        merged[key] = value
    return merged


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        inner = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def nest(settings: Mapping[str, Any], _level: int = 0) -> dict[str, Any]:
    """Settings by dotted keys, nested ones or both, as nested plain data.

    Raises UserError for what is no mapping of keys to values, and for a key with two values.

    >>> nest({"optim.lr": [0.01, 0.001], "data": {"size": 32}, "data.batch_size": 4})
    {'optim': {'lr': [0.01, 0.001]}, 'data': {'size': 32, 'batch_size': 4}}
    """
    wanted = 'settings are a mapping, as in {"optim.lr": 0.01} or {"optim": {"lr": 0.01}}'
    if not isinstance(settings, Mapping):
        raise UserError(
            f"{wanted}, not {shown(settings)}; "
            f"parse_settings(['optim.lr=0.01']) reads what --set takes"
        )
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        if not isinstance(key, str) or not all(key.split(".")):
            raise UserError(f"{wanted}; got the key {shown(key)}")
        if _level + key.count(".") > _DEEPEST:
            raise UserError(f"{wanted}; {shown(key)} is nested too deep")
        inner: Any = nest(value, _level + 1) if isinstance(value, Mapping) else value
        for part in reversed(key.split(".")):
            inner = {part: inner}
        _check_once(flatten(nested), flatten(inner))
        nested = merge(nested, inner)
    return nested


def _check_once(known: Mapping[str, Any], added: Mapping[str, Any]) -> None:
    """Raise UserError for a setting that has two values, by its dotted key and within a group."""
    for key, value in added.items():
        if key in known and known[key] != value:
            raise UserError(
                f"{key} is {shown(known[key])} and {shown(value)} among the same settings: keep one"
            )
        related = (k for k in known if k.startswith(f"{key}.") or key.startswith(f"{k}."))
        for other in related:
            short, long = sorted((key, other), key=len)
            if known.get(short, added.get(short)) in (None, {}):  # an empty group
                continue
            raise UserError(
                f"{short} has a value of its own and is the group of {long} among the same "
                f"settings: keep one"
            )


def build(cls: type, nested: Mapping[str, Any], prefix: str = "") -> Any:
    """A dataclass from nested plain data, types checked; UserError names the key."""
    hints, values = get_type_hints(cls), {}
    for name, value in nested.items():
        if name not in hints:
            raise UserError(
                f"unknown setting {prefix}{shown(name)}: remove it, or write one of "
                f"{', '.join(hints)}"
            )
        values[name] = convert(hints[name], value, prefix + name)
    try:
        return cls(**values)
    except TypeError as error:
        raise UserError(f"incomplete {prefix or 'configuration'}: {error}") from error


_IN_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def convert(hint: Any, value: Any, key: str) -> Any:
    """A value as the type of its setting takes it. Raises UserError naming the key."""
    origin, choices = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise UserError(f"{key} is a group of settings, not {shown(value)}: set {key}.<name>")
        return build(hint, value, f"{key}.")
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return convert(next(c for c in choices if c is not type(None)), value, key)
    if origin is Literal and value in choices:
        return value
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) and value else [value]
        return tuple(convert(choices[0], item, key) for item in items)
    if hint is float and isinstance(value, (Real, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except (ValueError, OverflowError):
            pass
    elif hint is int and isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)  # numpy has whole numbers of its own
    elif hint in (str, bool) and type(value) is hint:
        return value
    elif origin is dict and isinstance(value, Mapping):
        return as_plain(value)
    expected = _IN_WORDS.get(hint, getattr(hint, "__name__", str(hint)))
    if origin is Literal:
        expected = "one of " + ", ".join(map(str, choices))
    raise UserError(f"{key} must be {expected}, got {shown(value)}")


def as_plain(value: Any) -> Any:
    """Mappings become dicts, lists and tuples become lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: as_plain(item) for key, item in value.items()}
    return [as_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
