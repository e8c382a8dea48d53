"""What every setting of a run is: its default, the values that it takes, and its meaning.

Meanings are read where settings are declared: in the texts below the fields of the dataclasses, and
behind `OPTION: ` in the docstrings of the loss terms.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from sparcl_lib.config.settings import RunConfig
from sparcl_lib.definitions import WithOptions
from sparcl_lib.fields import FACTOR, acts, range_of
from sparcl_lib.methods import ADDED_MECHANISMS, TERMS, VARIANT, MechanismSettings, Term, variants
from sparcl_lib.models import BACKBONES
from sparcl_lib.plain import as_plain

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_GROUPS = ("", "data", "model", "optim", "method", "method.regulariser")
"""In the order in which they are listed; the loss terms follow."""


class Described(NamedTuple):
    """One setting."""

    key: str
    """With dots, as --set takes it."""
    default: Any
    """Plain data, None for an empty one; `dataclasses.MISSING` where it has to be given."""
    values: str
    """Which ones it takes, in words."""
    meaning: str
    """In one or more sentences."""


def described_settings() -> list[Described]:
    """Every setting that --set and settings files may use, group by group."""
    meaning = " ".join((variants.__doc__ or "").partition(": ")[2].split())
    choices = (
        f"one of {', '.join(variants.VARIANTS)}; or a list of {', '.join(variants.DIFFERENCES)}"
    )
    rows = [*_of_class(RunConfig, ""), Described(VARIANT, variants.VARIANTS[0], choices, meaning)]
    rows.sort(key=lambda row: _GROUPS.index(group_of(row.key)))
    known = (*TERMS.values(), *ADDED_MECHANISMS.values())
    return [*rows, *(row for found in known for row in _of_options(found))]


def group_of(key: str) -> str:
    """data.size -> data; empty for a setting of no group."""
    return key.rpartition(".")[0]


def group_title(group: str) -> str:
    """The group's name, for a term or mechanism with the first sentence of its docstring."""
    name = group.rpartition(".")[2]
    found = {f"{f.group}.{f.name}": f for f in (TERMS.get(name), ADDED_MECHANISMS.get(name)) if f}
    if group not in found:
        return group
    summary = re.split(r"\.(?: |$)", _one_line(inspect.getdoc(found[group].function) or ""))[0]
    return f"{group}: {summary}"


def _of_class(cls: type, prefix: str) -> Iterator[Described]:
    hints, meanings = get_type_hints(cls, include_extras=True), field_meanings(cls)
    for field in dataclasses.fields(cls):
        key, hint = prefix + field.name, hints[field.name]
        group = next((c for c in (hint, *get_args(hint)) if dataclasses.is_dataclass(c)), None)
        if key in ("method.terms", "method.mechanisms"):
            continue
        if group is not hint:
            named = f"one of {', '.join(BACKBONES)}" if key == "model.backbone" else ""
            values = named or _values(hint)
            values += "; for each step" if acts(field) == "per step" else ""
            yield Described(key, as_plain(field.default), values, meanings.get(field.name, ""))
        if isinstance(group, type):
            yield from _of_class(group, f"{key}.")


def _of_options(found: WithOptions) -> Iterator[Described]:
    row = Term if found.group == "method.terms" else MechanismSettings
    prefix, common = f"{found.group}.{found.name}.", field_meanings(row)
    hints = get_type_hints(row, include_extras=True)
    for field in dataclasses.fields(row):
        if field.name in found.common:
            values = _values(hints[field.name])
            yield Described(prefix + field.name, field.default, values, common[field.name])
    said = option_meanings(found)
    for name, default in found.options.items():
        hint = found.hints.get(name, str)
        values = _values(Annotated[float, FACTOR] if hint is float else hint)
        yield Described(prefix + name, as_plain(default), values, said.get(name, ""))


@cache
def field_meanings(cls: type) -> dict[str, str]:
    """Field of a dataclass -> the text below it."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for pair in zip(definition.body, definition.body[1:]):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                found[name] = _one_line(str(text))
    return found


def option_meanings(found: WithOptions) -> dict[str, str]:
    """Option -> what the docstring of its term or mechanism says behind `OPTION:`, until a blank
    line."""
    names = "|".join(map(re.escape, found.options)) or "(?!)"
    meanings: dict[str, str] = {}
    for paragraph in (inspect.getdoc(found.function) or "").split("\n\n"):
        parts = re.split(rf"(?:^|(?<=[.;:] ))({names}): ", _one_line(paragraph))
        meanings |= {name: said.strip().rstrip(";") for name, said in zip(parts[1::2], parts[2::2])}
    return meanings


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _values(hint: Any) -> str:
    """What a type takes, in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(part for part in parts if part is not type(None))
        return f"{_values(inner)}; may be empty"
    if origin is Annotated:
        span = range_of(hint)
        return _values(parts[0]) + (f" {span}" if span else "")
    if origin is Literal:
        return "one of " + ", ".join(map(str, parts))
    if origin is tuple:
        inner = _values(parts[0])
        return f"list, each {inner}"
    if dataclasses.is_dataclass(hint):
        return "a group of settings"
    return _KINDS.get(hint, "text")
