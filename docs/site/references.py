"""Pages made from the code: methods, settings, commands, and the public names with docstrings."""

import ast
import dataclasses
import importlib
import inspect
import json
import re
import types
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from textwrap import indent
from typing import Any

import typer
from docstrings import as_rst

import sparcl_lib
from sparcl_lib.cli.program import app
from sparcl_lib.config.describing import described_settings, group_of, group_title
from sparcl_lib.config.resolving import recipe_settings
from sparcl_lib.method_table import NO_BREAK, ROWS, loss_text, other_settings_text

LIBRARY = Path(sparcl_lib.__file__).parent
ROOMS: dict[str, tuple[str, ...]] = {
    "sparcl_lib": (),
    "losses": (),
    "prototypes": (),
    "metrics": (),
    "tasks": (),
    "data": (),
    "models": (),
    "methods": (),
    "training": (),
    "experiments": ("ablation", "comparison", "sweep", "base", "store"),
    "published": ("tables", "differences", "images"),
    "report": ("loading", "page"),
    "reproduction": ("cost", "planning", "outcome"),
    "exporting": (),
    "bench": (),
    "viz": (),
}
"""Room -> its modules whose names are not those of the room."""


def write_references(folder: Path) -> None:
    """All of them, into a folder."""
    (folder / "api").mkdir(parents=True)
    pages = {"methods.md": methods_page(), "settings.md": settings_page()}
    pages["commands.md"] = commands_page()
    pages |= {f"api/{room}.rst": room_page(room, modules) for room, modules in ROOMS.items()}
    pages["api/index.md"] = api_index()
    for name, text in pages.items():
        (folder / name).write_text(text, "utf-8")


def methods_page() -> str:
    parts = [
        "# Methods\n\nWhat `sparcl methods` prints. A method is a list of weighted loss terms, how "
        "the classifier of new classes starts, and what is held or frozen. The weights are those "
        "on VOC; where the recipe of MiniVOC changes something, it stands below. Every one of "
        "these is a [setting](settings.md), such as `--set method.terms.kd.weight=3`."
    ]
    for name, row in ROWS.items():
        others = other_settings_text(row.settings)
        facts = [
            ("Loss", f"`{loss_text(row.settings)}`".replace(NO_BREAK, " ")),
            ("Also sets", f"`{others}`" if others else ""),
            ("On MiniVOC", " ".join(f"`{key}={value}`" for key, value in _recipe_of(name))),
            ("Source", row.paper),
        ]
        parts.append(f"## {name}\n\n{row.summary[0].upper()}{row.summary[1:]}.")
        parts.append("\n".join(f"- {what}: {text}" for what, text in facts if text))
    return "\n\n".join(parts) + "\n"


def _recipe_of(method: str) -> Iterator[tuple[str, str]]:
    """What the recipe of MiniVOC sets for this method, beside what it sets for all."""
    own, common = recipe_settings("minivoc", method), recipe_settings("minivoc", None)
    plain = recipe_settings(None, method)
    for key, value in own.items():
        if key != "method.name" and value != plain.get(key) and value != common.get(key):
            yield key, json.dumps(value).replace(" ", "")


def settings_page() -> str:
    recipe = recipe_settings("minivoc", None)
    parts = [
        "# Settings\n\nWhat `sparcl settings` prints: every name that `--set NAME=VALUE`, a recipe "
        "and `settings=` of `sparcl_lib.train` take. A list with a value for each step serves "
        "settings that are said to be *for each step*, as in `--set optim.lr='[0.01, 0.001]'`. "
        "Where the recipe of MiniVOC has another value, it is named; what a method sets is on "
        "[its page](methods.md)."
    ]
    for group, rows in groupby(described_settings(), key=lambda row: group_of(row.key)):
        name, _, summary = group_title(group).partition(": ")
        parts.append(f"## {name or 'The run'}" + (f"\n\n{summary}." if summary else ""))
        for row in rows:
            value = f" = `{_value(row.default)}`" if row.default is not None else ""
            other = recipe.get(row.key, row.default)
            note = f" On MiniVOC: `{_value(other)}`." if other != row.default else ""
            text = f"{row.meaning.rstrip('.')}. *{_values(row.values)}*.{note}"
            parts.append(f"`{row.key}`{value}\n: {_escaped(text)}")
    return "\n\n".join(parts) + "\n"


def _value(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "(has to be given)"
    return "(empty)" if value is None else json.dumps(value)


def _values(text: str) -> str:
    return text[0].upper() + text[1:]


def _escaped(text: str) -> str:
    """Options as code, and nothing else that Markdown reads as its own."""
    return re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", re.sub(r"([_<>])", r"\\\1", text))


def commands_page() -> str:
    parts = [
        "# Commands\n\nWhat `sparcl --help` and `sparcl COMMAND --help` say. A mistake ends in one "
        "line and exit status 2, Ctrl-C in 130."
    ]
    group = typer.main.get_command(app)
    for name, command in _commands(group, "sparcl"):
        parts.append(f"## {name}\n\n{' '.join((command.help or '').split())}")
        for parameter in command.params:
            shown = _parameter(parameter)
            if shown:
                parts.append(shown)
    return "\n\n".join(parts) + "\n"


def _commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for key, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {key}")
        else:
            yield f"{name} {key}", command


def _parameter(parameter: Any) -> str:
    """A definition: how it is written, and what it means."""
    if parameter.param_type_name == "argument":
        more = "..." if parameter.nargs == -1 else ""
        written = f"{(parameter.name or '').upper()}{more}"
    else:
        written = "/".join([*parameter.opts[:1], *parameter.secondary_opts])
    help_text = " ".join((getattr(parameter, "help", "") or "").split())
    if not help_text:
        return ""
    if parameter.required:
        help_text += " Has to be given."
    elif isinstance(parameter.default, (str, int, float, Path)) and not isinstance(
        parameter.default, bool
    ):
        help_text += f" Default: `{parameter.default}`."
    return f"`{written}`\n: {_escaped(help_text)}"


def api_index() -> str:
    rows = []
    for room in ROOMS:
        module = _module(room)
        summary = (module.__doc__ or "").strip().splitlines()[0]
        rows.append(f"[{module.__name__}]({room}.rst)\n: {summary}")
    toctree = "\n".join(["```{toctree}", ":hidden:", "", *ROOMS, "```"])
    return (
        "# API\n\nWhat may be imported, room by room, with shapes, errors and sources. What is "
        "not here may change without a word.\n\n" + "\n\n".join(rows) + f"\n\n{toctree}\n"
    )


def room_page(room: str, modules: Sequence[str]) -> str:
    module = _module(room)
    parts = [_title(module.__name__), f".. automodule:: {module.__name__}\n   :no-members:\n"]
    parts += [_entry(module.__name__, name, value) for name, value in _public(module)]
    for name in modules:
        inner = importlib.import_module(f"{module.__name__}.{name}")
        parts += [_title(inner.__name__, "-"), f".. automodule:: {inner.__name__}\n"]
        parts += [_entry(inner.__name__, key, value) for key, value in _defined(inner)]
    return "\n\n".join(parts) + "\n"


def _module(room: str) -> types.ModuleType:
    return importlib.import_module("sparcl_lib" if room == "sparcl_lib" else f"sparcl_lib.{room}")


def _title(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}"


def _public(module: types.ModuleType) -> Iterator[tuple[str, object]]:
    names = getattr(module, "__all__", None)
    if names is None:
        yield from _defined(module)
    else:
        yield from ((n, getattr(module, n)) for n in names if not n.startswith("_"))


def _defined(module: types.ModuleType) -> Iterator[tuple[str, object]]:
    """Functions and classes that a module defines, in the order of its lines."""
    for name, value in vars(module).items():
        ours = getattr(value, "__module__", "") == module.__name__
        if ours and not name.startswith("_") and (inspect.isclass(value) or callable(value)):
            yield name, value


def _entry(module: str, name: str, value: object) -> str:
    if inspect.isclass(value):
        if issubclass(value, tuple):  # its fields are told in the class
            return (
                f".. autoclass:: {module}.{name}\n   :members:\n   :exclude-members: count, index"
            )
        return f".. autoclass:: {module}.{name}\n   :members:"
    if callable(value) and hasattr(value, "__module__") and not hasattr(value, "__origin__"):
        return f".. autofunction:: {module}.{name}"
    return f".. py:data:: {name}\n   :module: {module}\n\n{indent(_said_of(name), ' ' * 3)}"


def _said_of(name: str) -> str:
    """What stands below a constant where the library defines it."""
    for path in sorted(LIBRARY.rglob("*.py")):
        body = ast.parse(path.read_text("utf-8")).body
        for statement, following in pairwise(body):
            if isinstance(statement, ast.Assign | ast.AnnAssign):
                targets = getattr(statement, "targets", None) or [
                    getattr(statement, "target", None)
                ]
                named = any(isinstance(t, ast.Name) and t.id == name for t in targets)
                if named and isinstance(following, ast.Expr):
                    value = following.value
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        return "\n".join(as_rst(inspect.cleandoc(value.value).splitlines()))
    return ""
