"""The published tables as settings: a recipe for each row whose method the library has.

A table is a file of recipes/tables: its rows, what differs from the recipe of the data set, and
the source of every number, or the word unknown. Numbers that were published are in
published/results.csv. Imports no torch, for a shell asks for the names while one types.
"""

import csv
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from sparcl_lib.errors import UserError, shown
from sparcl_lib.tasks.classes import unknown_name

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class PublishedNumbers:
    """mIoU in percent after the last step; None where a source does not say it."""

    old: float | None
    new: float | None
    all: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class RowRecipe:
    """A row of a published table, as `sparcl train --recipe NAME` trains it."""

    name: str
    """Such as voc-15-1-disjoint-SDR."""
    table: str
    dataset: str
    task: str
    setup: str
    method: str
    settings: Mapping[str, Any]
    """Dotted key -> value: what differs from the recipe of the data set."""
    sources: Mapping[str, str]
    """Dotted key, or the group of it -> where the number is from."""
    published: PublishedNumbers | None
    """None where no such row was found."""

    def source(self, key: str) -> str | None:
        """Where the number of a setting is from: said of the key, else of its group."""
        while key and key not in self.sources:
            key = key.rpartition(".")[0]
        return self.sources.get(key)


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A published table: what its rows have in common, and the rows."""

    name: str
    title: str
    rows: tuple[RowRecipe, ...]
    unlike: tuple[str, ...]
    """What no setting makes as it was there, or nobody knows."""
    without_background: bool
    """Whether its means leave the background out."""


def table_names() -> list[str]:
    """The names of all tables; reads none of them."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir())


def _folder() -> Traversable:
    return resources.files("sparcl_lib") / "recipes" / "tables"


@cache
def tables() -> dict[str, PublishedTable]:
    """Name -> table, in the order of the names."""
    texts = {name: (_folder() / f"{name}.yaml").read_text("utf-8") for name in table_names()}
    plain = {name: yaml.safe_load(text) for name, text in texts.items()}
    return {name: _table(name, {**plain.get(p.get("like"), {}), **p}) for name, p in plain.items()}


def get_table(name: str) -> PublishedTable:
    """The table of this name; UserError with the names that there are."""
    if name not in tables():
        raise unknown_name("table", name, tables())
    return tables()[name]


@cache
def recipes() -> dict[str, RowRecipe]:
    """Name -> recipe of a row, of all tables."""
    return {row.name: row for table in tables().values() for row in table.rows}


def get_recipe(name: str) -> RowRecipe:
    """The recipe of this name in any case; UserError with the nearest names otherwise."""
    by_lower = {known.lower(): row for known, row in recipes().items()}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    near = difflib.get_close_matches(name.lower(), by_lower, n=_NAMED, cutoff=0.5)
    hint = f"did you mean {' or '.join(by_lower[n].name for n in near)}? " if near else ""
    raise UserError(f"unknown recipe {shown(name)}: {hint}sparcl recipes lists all")


def _table(name: str, plain: Mapping[str, Any]) -> PublishedTable:
    rows = [
        _row(name, plain, task, setup, method)
        for group in plain["rows"]
        for task in group["tasks"]
        for setup in group["setups"]
        for method in group["methods"]
    ]
    return PublishedTable(
        name=name,
        title=plain["title"],
        rows=tuple(rows),
        unlike=tuple(plain["unlike"]),
        without_background=plain.get("without_background", False),
    )


def _row(table: str, plain: Mapping[str, Any], task: str, setup: str, method: str) -> RowRecipe:
    settings: dict[str, Any] = {}
    sources: dict[str, str] = dict(plain["inherited"])
    place = {"tasks": task, "setups": setup, "methods": method}
    for difference in plain["differences"]:
        if all(value in difference.get(key, [value]) for key, value in place.items()):
            settings |= difference["settings"]
            sources |= dict.fromkeys(difference["settings"], difference["source"])
    dataset = plain["dataset"]
    published_setup = plain.get("published_setup", setup)
    published_method = plain.get("published_method", "{}").format(method)
    return RowRecipe(
        name=f"{plain.get('prefix', '')}{dataset}-{task}-{setup}-{method}",
        table=table, dataset=dataset, task=task, setup=setup, method=method,
        settings=settings, sources=sources,
        published=_published().get((dataset, task, published_setup, published_method)),
    )  # fmt: skip


@cache
def _published() -> dict[tuple[str, str, str, str], PublishedNumbers]:
    """Data set, task, setup and method -> numbers."""
    return {
        (row["dataset"], row["task"], row["setup"], row["method"]): PublishedNumbers(
            old=_number(row["miou_old"]), new=_number(row["miou_new"]),
            all=_number(row["miou_all"]), source=row["source"],
        )
        for row in rows_of("published", "results.csv")
    }  # fmt: skip


def _number(text: str) -> float | None:
    return float(text) if text else None


def rows_of(room: str, file: str) -> Iterator[dict[str, str]]:
    """The rows of a CSV file of the package."""
    text = (resources.files("sparcl_lib") / room / file).read_text("utf-8")
    yield from csv.DictReader(text.splitlines())
