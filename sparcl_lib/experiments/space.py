"""What a sweep may vary: settings with a range or a list of choices, from a YAML file.

    optim.lr[1]: {low: 0.005, high: 0.1, log: true}     # of step 1 and later; every method
    model.batch_norm: [frozen, slow]
    methods:
      MiB:
        method.terms.kd.weight: {low: 0.5, high: 30, log: true}
        method.classifier_init: [random]            # a single choice: fixed, for this method alone

A range has low and high, log where steps are factors, and whole where numbers are whole, as in
optim.iterations: {low: 100, high: 400, whole: true}; a list is a choice of numbers, names,
true, false or null.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from sparcl_lib.config import (
    MEASURED,
    OPTIONS,
    RunConfig,
    at_step,
    check_keys,
    parse_settings,
    to_plain,
)
from sparcl_lib.definitions import Definition
from sparcl_lib.errors import UserError, shown
from sparcl_lib.methods import METHODS, get_term, method_name
from sparcl_lib.models import get_backbone
from sparcl_lib.plain import build, flatten, read_yaml

_MOST_STEPS = 254
"""Places of a setting per step: a class needs a mask value, and a step a class."""
_WHOLE = 2**53
"""Whole numbers up to here are exact in a range's float."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from low to high, both finite."""

    low: float
    high: float
    log: bool = False
    """Drawn evenly over orders of magnitude."""
    whole: bool = False
    """Whole numbers alone."""

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise UserError(
                f"a range needs low < high, above 0 with log: got {self.low} to {self.high}"
            )
        if not math.isfinite(self.high - self.low):
            raise UserError(f"a range must be finite: got {self.low} to {self.high}")
        ends = (self.low, self.high)
        if self.whole and not all(float(x).is_integer() and abs(x) <= _WHOLE for x in ends):
            raise UserError(
                f"a range of whole numbers begins and ends with one: got {self.low} to {self.high}"
            )


Space = Mapping[str, Range | tuple[Any, ...]]
"""Setting, as for --set, perhaps with the place in a list -> what it may be."""


def read_space(path: str | Path, method: str) -> Space:
    """The space of a method: the file's settings, and those below `methods` for it.

    Raises UserError for an unknown setting, a place that no step has, an empty space, or what is
    neither range nor list of plain values.
    """
    content = read_yaml(path)
    per_method = _group(path, "methods", content.pop("methods", None))
    known = {method_name(name): _group(path, name, rows) for name, rows in per_method.items()}
    rows = {**content, **known.get(method_name(method), {})}
    if not rows:
        raise UserError(f"{path} gives method {method} nothing to vary: add a setting with a range")
    for key in rows:
        if key in METHODS:
            raise UserError(f"{path}: {key} is a method; put it below methods:")
        name, place = _name_and_place(key)
        if place is not None and name in rows:
            raise UserError(f"{path}: {name} and {key} both vary, and one would be lost: keep one")
    return {key: _read_row(path, key, row) for key, row in rows.items()}


def _group(path: str | Path, name: str, rows: Any) -> Mapping[str, Any]:
    if not isinstance(rows, Mapping | None):
        raise UserError(f"{path}, {name}: expected a group of settings, got {shown(rows)}")
    return rows or {}


def _read_row(path: str | Path, key: str, row: Any) -> Range | tuple[Any, ...]:
    if key in OPTIONS:
        raise UserError(f"{path}, {key}: give the option {OPTIONS[key]}, it cannot vary in a sweep")
    if key in MEASURED or key == "data.test_size":  # the best of them would be the easiest
        raise UserError(
            f"{path}, {key}: it says what is measured, and cannot vary in a sweep; --set {key}=..."
        )
    name, place = _name_and_place(key)
    if place is not None and place >= _MOST_STEPS:
        raise UserError(f"{path}, {key}: no task has so many steps; write a smaller number")
    try:
        check_keys(parse_settings([f"{name}=0"]))
        if isinstance(row, Mapping):
            span: Range = build(Range, row)
            return span
    except UserError as error:
        raise UserError(f"{path}, {key}: {error}") from None
    if isinstance(row, list) and row:
        for choice in row:
            if not isinstance(choice, (bool, int, float, str, NoneType)):
                raise UserError(
                    f"{path}, {key}: {shown(choice)} is no choice: a number, a name, "
                    f"true, false or null is; for a place in a list write {name}[0]"
                )
        return tuple(row)
    raise UserError(
        f"{path}, {key}: expected {{low: ..., high: ...}} or a list of choices, got {shown(row)}"
    )


def _name_and_place(key: str) -> tuple[str, int | None]:
    """optim.lr[1] -> (optim.lr, 1)."""
    match = re.fullmatch(r"(.*)\[(\d+)\]", key)
    return (match[1], int(match[2])) if match else (key, None)


def switches(space: Space) -> dict[str, Any]:
    """Settings, nested, by which a run has all plug-in terms and mechanisms that a space varies."""
    found = []
    for group, name in ((".".join(key.split(".")[:2]), key.split(".")[2:3]) for key in space):
        if group == "method.mechanisms":
            found.append(f"{group}.{name[0]}.enabled=true")
        elif group == "method.terms" and not get_term(name[0]).of_library:
            found.append(f"{group}.{name[0]}.weight=1")
    return parse_settings(found)


def extremes(space: Space) -> Iterator[dict[str, Any]]:
    """Draws that together have every choice, and both ends of every range: values of all settings,
    one of them at its extreme, the others amid."""
    amid = {key: _amid(row) for key, row in space.items()}
    yield amid
    for key, row in space.items():
        for value in _ends(row) if isinstance(row, Range) else row[1:]:
            yield {**amid, key: value}


def _ends(row: Range) -> tuple[float, float]:
    """Those of a range of any numbers a little inside: no trial draws an end, which may be open."""
    inside = (row.high - row.low) / 1000
    return (int(row.low), int(row.high)) if row.whole else (row.low + inside, row.high - inside)


def _amid(row: Range | tuple[Any, ...]) -> Any:
    if not isinstance(row, Range):
        return row[0]
    if row.whole:
        return int(row.low)
    return row.low + (row.high - row.low) / math.pi  # as good as never whole, like what is drawn


def searched_backbones(space: Space) -> list[Definition]:
    """Those of a user's among its choices."""
    choices = space.get("model.backbone")
    named = [str(name) for name in choices] if isinstance(choices, tuple) else []
    return [found for found in map(get_backbone, named) if not found.of_library]


def plain_space(space: Space) -> dict[str, Any]:
    """The space as JSON holds it."""
    return {k: vars(r) if isinstance(r, Range) else list(r) for k, r in space.items()}


def settings_of(values: Mapping[str, Any], config: RunConfig) -> list[str]:
    """Settings as for --set, four digits each; a place in a list changes the list of `config`.

    Raises UserError for a place in a setting that is no list there.
    """
    rows: dict[str, Any] = {}
    flat = flatten(to_plain(config))
    for key, value in values.items():
        name, place = _name_and_place(key)
        value = float(f"{value:.4g}") if isinstance(value, float) else value
        if place is None:
            rows[name] = value
        else:
            row = rows.get(name, flat.get(name))
            if not isinstance(row, list):
                raise UserError(
                    f"{key}: {name} is {shown(row)} there, no list with places: give "
                    f"it a list, or leave [{place}] out"
                )
            rows[name] = [at_step(row, k) for k in range(max(len(row), place + 1))]
            rows[name][place] = value
    return [f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in rows.items()]


def recipe_values(space: Space, config: RunConfig) -> dict[str, Any]:
    """The values of `config` that lie in the space: where a search begins."""
    flat, values = flatten(to_plain(config)), {}
    for key, row in space.items():
        name, place = _name_and_place(key)
        value = flat.get(name)
        if place is not None:
            value = at_step(value, place) if isinstance(value, list) else None
        elif isinstance(value, list) and len(value) == 1:  # the same at all steps
            value = value[0]
        if value is not None and _holds(row, value):
            values[key] = value
    return values


def _holds(row: Range | Sequence[Any], value: Any) -> bool:
    if not isinstance(row, Range):
        return value in row
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and row.low <= value <= row.high


def suggest(trial: Any, space: Space) -> dict[str, Any]:
    """Values of an Optuna trial; those that it has already stay."""
    return {key: _suggest(trial, key, row) for key, row in space.items()}


def _suggest(trial: Any, key: str, row: Range | tuple[Any, ...]) -> Any:
    if not isinstance(row, Range):
        return trial.suggest_categorical(key, row)
    if row.whole:
        return trial.suggest_int(key, int(row.low), int(row.high), log=row.log)
    return trial.suggest_float(key, row.low, row.high, log=row.log)
