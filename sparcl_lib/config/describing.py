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
from sparcl_lib.fields import FACTOR, acts, range_of
from sparcl_lib.methods import TERMS, VARIANT, RegisteredTerm, Term, variants
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
    return [*rows, *(row for term in TERMS.values() for row in _of_term(term))]


def group_of(key: str) -> str:
    """data.size -> data; empty for a setting of no group."""
    return key.rpartition(".")[0]


def group_title(group: str) -> str:
    """The group's name, for a term with the first sentence of its docstring."""
    term = TERMS.get(group.removeprefix("method.terms."))
    if term is None:
        return group
    summary = re.split(r"\.(?: |$)", _one_line(inspect.getdoc(term.function) or ""))[0]
    return f"{group}: {summary}"


def _of_class(cls: type, prefix: str) -> Iterator[Described]:
    hints, meanings = get_type_hints(cls, include_extras=True), field_meanings(cls)
    for field in dataclasses.fields(cls):
        key, hint = prefix + field.name, hints[field.name]
        group = next((c for c in (hint, *get_args(hint)) if dataclasses.is_dataclass(c)), None)
        if key == "method.terms":
            continue
        if group is not hint:
            values = _values(hint) + ("; for each step" if acts(field) == "per step" else "")
            yield Described(key, as_plain(field.default), values, meanings.get(field.name, ""))
        if isinstance(group, type):
            yield from _of_class(group, f"{key}.")


def _of_term(term: RegisteredTerm) -> Iterator[Described]:
    prefix, common = f"method.terms.{term.name}.", field_meanings(Term)
    hints = get_type_hints(Term, include_extras=True)
    for field in dataclasses.fields(Term):
        if field.name not in ("name", "options"):
            values = _values(hints[field.name])
            yield Described(prefix + field.name, field.default, values, common[field.name])
    said = option_meanings(term)
    for name, default in term.options.items():
        hint = term.hints.get(name, str)
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


def option_meanings(term: RegisteredTerm) -> dict[str, str]:
    """Option of a term -> what its docstring says behind `OPTION:`, until a blank line."""
    names = "|".join(map(re.escape, term.options)) or "(?!)"
    found: dict[str, str] = {}
    for paragraph in (inspect.getdoc(term.function) or "").split("\n\n"):
        parts = re.split(rf"(?:^|(?<=[.;:] ))({names}): ", _one_line(paragraph))
        found |= {name: said.strip().rstrip(";") for name, said in zip(parts[1::2], parts[2::2])}
    return found


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
