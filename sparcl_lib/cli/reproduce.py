"""`sparcl recipes` and `reproduce`: rows of published tables. Imports the heavy modules late."""

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparcl_lib.cli.options import (
    Accelerator,
    BackboneWeights,
    DataRoot,
    Seeds,
    Settings,
    end_with,
    given,
    layers,
    names,
    numbers,
)
from sparcl_lib.published.tables import (
    RowRecipe,
    get_recipe,
    get_table,
    table_names,
    tables,
)
from sparcl_lib.published.tables import recipes as known_recipes

if TYPE_CHECKING:
    from sparcl_lib.published.tables import PublishedTable

_WIDTH = 80


def complete_recipe(incomplete: str) -> list[str]:
    """The recipes whose names go on from what is typed."""
    return [name for name in known_recipes() if name.lower().startswith(incomplete.lower())]


def complete_table(incomplete: str) -> list[str]:
    """The tables whose names go on from what is typed."""
    return [name for name in table_names() if name.startswith(incomplete.lower())]


def recipes(
    name: Annotated[
        str,
        typer.Argument(
            help="A table, for its rows; or a row, for its settings and sources.",
            autocompletion=lambda incomplete: (
                complete_table(incomplete) + complete_recipe(incomplete)
            ),
        ),
    ] = "",
) -> None:
    """Rows of published tables that sparcl train --recipe trains, and the source of each number."""
    if not name:
        for table in tables().values():
            print(f"{table.name}, {len(table.rows)} rows")
            print(_wrapped(table.title, "    "))
        print("\nsparcl recipes TABLE lists the rows of one, sparcl recipes ROW what it sets.")
    elif name in tables():
        table = get_table(name)
        print(f"{_wrapped(table.title, '')}\n")
        print("\n".join(f"{row.name:<{_longest(table)}}  {_published(row)}" for row in table.rows))
    else:
        _print_recipe(get_recipe(name))


def _longest(table: "PublishedTable") -> int:
    return max(len(row.name) for row in table.rows)


def _published(row: RowRecipe) -> str:
    if row.published is None:
        return "no published numbers found"
    values = row.published.old, row.published.new, row.published.all
    return " / ".join("–" if value is None else f"{value:g}" for value in values)


def _print_recipe(row: RowRecipe) -> None:
    from sparcl_lib.config import resolve
    from sparcl_lib.config.first_step import all_settings
    from sparcl_lib.plain import as_plain

    config = resolve(row.dataset, row.method, [row.settings], task=row.task, setup=row.setup)
    print(f"{row.name}, of the table {row.table}")
    print(_wrapped(f"published old / new / all: {_published(row)}", "  "))
    if row.published is not None:
        print(_wrapped(row.published.source, "      "))
    settings = {key: as_plain(setting.value) for key, setting in all_settings(config).items()}
    for key, value in {**row.settings, **settings}.items():
        if key in row.settings or (_is_number(value) and row.source(key)):
            mark = "* " if key in row.settings else "  "
            print(f"{mark}{key} = {json.dumps(value)}")
            print(_wrapped(row.source(key) or "", "      "))
    print("\n* differs from the recipe of the data set and the defaults")
    for text in get_table(row.table).unlike:
        print(_wrapped(f"- {text}", ""))


def _is_number(value: Any) -> bool:
    """Whether a value is a number, or numbers, that somebody chose; 0 is what is off."""
    values = value if isinstance(value, list) else [value]
    return any(isinstance(v, (int, float)) and not isinstance(v, bool) and v for v in values)


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)


def reproduce(
    table: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(table_names())}; sparcl recipes says what they are.",
            autocompletion=complete_table,
        ),
    ],
    rows: Annotated[
        str | None,
        typer.Option(help="Rows of it, names or patterns with commas, as in '*-15-1-*'."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("reproduction"),
    data_root: DataRoot = None,
    backbone_weights: BackboneWeights = None,
    seeds: Seeds = "0",
    settings: Settings = None,
    run: Annotated[
        bool, typer.Option("--run", help="Train what is missing, one run after another.")
    ] = False,
    accelerator: Accelerator = "auto",
) -> None:
    """A published table: commands, expected hours and memory, and our numbers beside theirs.

    Without --run nothing is trained: the commands are printed as a shell script, with what each
    should take, and the runs that are done stand beside the published rows. Runs of several
    devices or machines are trained by the commands, each with its own options.
    """
    from sparcl_lib.reproduction.outcome import outcome_table, outcome_text
    from sparcl_lib.reproduction.planning import plan_runs, plan_text, select_rows, train_missing
    from sparcl_lib.writing import write_csv

    chosen = get_table(table)
    if backbone_weights is not None:
        layers(None, settings, backbone_weights)  # refuses two that differ
        weights = "" if backbone_weights == "none" else backbone_weights
        settings = [*(settings or []), f"model.weights={weights}"]
    planned = plan_runs(
        select_rows(chosen, names(rows, "--rows") if rows is not None else []),
        numbers(seeds, "--seeds"), out, data_root, settings or [], [given(settings)], accelerator,
    )  # fmt: skip
    errors: list[str] = []
    if run:
        errors = train_missing(planned, accelerator)
    else:
        print(plan_text(chosen, planned))
    text = outcome_text(chosen, planned)
    if text:
        file = out / f"{chosen.name}.csv"
        write_csv(file, outcome_table(chosen, planned))
        shown = f"{text}\n\nThe same as a table: {file}"
        print(shown if run else "\n".join(f"# {line}".rstrip() for line in shown.splitlines()))
    end_with(errors)
