"""`sparcl methods` and `sparcl settings`: what there is to choose from, in 80 columns."""

import dataclasses
import json
import textwrap
from difflib import get_close_matches
from itertools import groupby
from typing import Annotated, Any

import typer

from sparcl_lib.cli.options import Plugins
from sparcl_lib.errors import UserError
from sparcl_lib.method_table import NO_BREAK, ROWS, loss_text, method_name, other_settings_text

_WIDTH = 80
_WEIGHTS = (
    "Weights are those on VOC. The recipe of a data set may change them: sparcl settings --dataset "
    "minivoc --method MiB shows what it sets."
)
_ARGUMENTS = (
    "In Python dataset, task, setup, data_root and seed are arguments, which settings= refuses; of "
    "a command they are options, but for seed of sparcl train, which --set gives."
)


def methods(
    name: Annotated[str, typer.Argument(help="One of them; all if not given.")] = "",
) -> None:
    """Every method: what it does, where it is from, its loss with the weights on VOC, and what else
    it sets."""
    shown = [method_name(name)] if name else ROWS
    for name, row in ((name, ROWS[name]) for name in shown):
        print(f"{name:<10} {row.summary}")
        said = row.paper, f"loss: {loss_text(row.settings)}", other_settings_text(row.settings)
        text = "; ".join(filter(None, said))
        indent = " " * 11
        filled = textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)
        print(filled.replace(NO_BREAK, " "))
    print(f"\n{textwrap.fill(_WEIGHTS, _WIDTH)}")


def settings(
    prefix: Annotated[
        str,
        typer.Argument(
            help="A setting, a group as in optim, or a part of names as in matching; all if not "
            "given."
        ),
    ] = "",
    dataset: Annotated[
        str | None, typer.Option(help="Show what the recipe of a data set makes of them.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Show what a method makes of them.")] = None,
    plugins: Plugins = None,
) -> None:
    """Every setting that --set takes: its default, which values it takes and what it means."""
    from sparcl_lib.config.describing import described_settings, group_of, group_title
    from sparcl_lib.config.resolving import recipe_settings
    from sparcl_lib.plugins import load_plugins

    load_plugins(plugins or [])
    recipe = recipe_settings(dataset, method)
    rows = described_settings()
    chosen = [row for row in rows if not prefix or f"{row.key}.".startswith(f"{prefix}.")]
    chosen = chosen or [row for row in rows if _is_part(prefix, row.key)]
    if not chosen:
        raise _unknown(prefix, [row.key for row in rows])
    shown = set()
    for group, members in groupby(chosen, key=lambda row: group_of(row.key)):
        print("\n".join(textwrap.wrap(group_title(group) or "the run", _WIDTH)))
        if not group:
            print(textwrap.indent(textwrap.fill(_ARGUMENTS, _WIDTH - 2), "  "))
        for row in members:
            absent = method is not None and _is_absent(row.key, method)
            print(f"  {row.key} = {f'(no term of {method})' if absent else _shown(row.default)}")
            if row.key in recipe and recipe[row.key] != row.default:
                source = ", ".join(filter(None, [dataset, method]))
                print(f"      {source}: {_shown(recipe[row.key])}")
            text = f"{row.meaning.rstrip('.')} [{row.values}]"
            if text not in shown:  # weight and from_step are those of every term
                print(textwrap.indent(textwrap.fill(text, _WIDTH - 6), " " * 6))
            shown.add(text)
        print()


def _is_absent(key: str, method: str) -> bool:
    """Whether a setting is the weight of a term that the method does not have."""
    terms = ROWS[method_name(method)].settings["terms"]
    name = key.removeprefix("method.terms.").removesuffix(".weight")
    return key == f"method.terms.{name}.weight" and name not in terms


def _is_part(part: str, key: str) -> bool:
    """Whether a key holds the whole words of `part`: matching is of released_matching, mat not."""
    words, all_words = part.replace(".", "_"), key.replace(".", "_")
    return f"_{words}_" in f"_{all_words}_"


def _unknown(prefix: str, keys: list[str]) -> UserError:
    groups = {key.rpartition(".")[0] for key in keys} - {""}
    (near,) = get_close_matches(prefix, [*sorted(groups), *keys], n=1, cutoff=0)
    return UserError(f"unknown setting {prefix!r}: did you mean {near}? sparcl settings lists all")


def _shown(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "(has to be given)"
    return "(empty)" if value is None else json.dumps(value)
