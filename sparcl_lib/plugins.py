"""What a run takes from outside the library, and files that define it: `--plugin FILE.py`."""

import ast
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sparcl_lib.config import RunConfig
from sparcl_lib.definitions import Definition, reading_plugin
from sparcl_lib.errors import UserError
from sparcl_lib.methods import ADDED_MECHANISMS, TERMS, get_mechanism, get_term
from sparcl_lib.models import BACKBONES, get_backbone

_PREFIX = "sparcl_plugin_"
"""Of the names under which files of plug-ins are modules."""
_NAMED = 3
"""How many of a file's definitions are named that take no part."""


def load_plugins(files: Iterable[str | Path]) -> None:
    """Run each file once, so that its terms, mechanisms and backbones are registered. It may import
    modules beside it.

    Raises UserError, one line that names the file, for one that is missing, fails or has none.
    """
    for file in files:
        _load(Path(file).expanduser().resolve())


def _load(file: Path) -> None:
    name = f"{_PREFIX}{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    if not file.is_file():
        raise UserError(f"--plugin {file}: there is no such file")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"--plugin {file}: expected a Python file, FILE.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    if str(file.parent) not in sys.path:  # last, so that it hides nothing; a term may import later
        sys.path.append(str(file.parent))
    before = _known()
    try:
        _check_beside(file)
        with reading_plugin(file):
            spec.loader.exec_module(module)
        if before == _known():
            raise UserError(
                "it defines nothing: put @term or @backbone above a function, or @mechanism above "
                "a class"
            )
    except UserError as error:
        del sys.modules[name]
        raise UserError(f"--plugin {file}: {error}") from error
    except (Exception, SystemExit) as error:  # whatever the code of the file may raise
        del sys.modules[name]
        where = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == str(file)]  # fmt: skip
        line = f", line {where[-1]}" if where else ""
        text = " ".join(str(error).split())
        raise UserError(f"--plugin {file}{line}: {type(error).__name__}: {text}") from error


def _check_beside(file: Path) -> None:
    """Raise UserError if a module beside a plug-in, which it imports, is hidden by one of this name
    beside another plug-in: there is one of each name in a process."""
    plugins = [module for name, module in sys.modules.items() if name.startswith(_PREFIX)]
    others = {Path(module.__file__ or "").parent for module in plugins} - {file.parent}
    nodes = list(ast.walk(ast.parse(file.read_bytes(), str(file))))
    asked = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    asked += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level]
    for name in dict.fromkeys(each.partition(".")[0] for each in asked):
        beside = _module_in(file.parent, name)
        known = getattr(sys.modules.get(name), "__file__", "")  # what is built in has none
        hiding = [found for folder in others if (found := _module_in(folder, name)) is not None]
        if beside and hiding and (name not in sys.modules or Path(known or "") in hiding):
            raise UserError(
                f"it imports {name}, and by this name {hiding[0]} is read: give {beside} "
                f"another name"
            )


def _module_in(folder: Path, name: str) -> Path | None:
    places = folder / f"{name}.py", folder / name / "__init__.py"
    return next(filter(Path.is_file, places), None)


def _known() -> dict[str, Definition]:
    """All that is defined now, by title."""
    every = (*TERMS.values(), *ADDED_MECHANISMS.values(), *BACKBONES.values())
    return {found.title: found for found in every}


def outside(configs: Iterable[RunConfig]) -> list[Definition]:
    """What these runs take from outside the library: terms, mechanisms, backbones.

    Raises UserError for one that is not defined here.
    """
    found: dict[str, Definition] = {}
    for config in configs:
        method = config.method
        used = [
            *(get_term(term.name) for term in method.terms),
            *(get_mechanism(row.name) for row in method.mechanisms),
            get_backbone(config.model.backbone),
        ]
        found |= {each.title: each for each in used if not each.of_library}
    return list(found.values())


def tell_of_unused(configs: Iterable[RunConfig]) -> None:
    """Say on stderr what of plugin files takes no part in any of these runs."""
    used = set()
    for config in configs:
        used |= {f"term {t.name}" for t in config.method.terms if t.weight > 0}
        used |= {f"mechanism {row.name}" for row in config.method.mechanisms if row.enabled}
        used.add(f"backbone {config.model.backbone}")
    unused: dict[Path, list[Definition]] = {}
    for found in _known().values():
        if found.plugin is not None and found.title not in used:
            unused.setdefault(found.plugin, []).append(found)
    for file, rest in unused.items():
        listed = [found.title for found in rest]
        more = len(listed) - _NAMED
        listed[_NAMED:] = [f"{more} more"] if more > 0 else []
        titles = " and ".join(listed)
        takes = "takes" if len(rest) == 1 else "take"
        print(
            f"sparcl: the {titles} of {file} {takes} no part: --set {_switch(rest[0])}"
            f"{', or another one' if len(rest) > 1 or rest[0].kind == 'term' else ''}",
            file=sys.stderr,
        )


def _switch(found: Definition) -> str:
    """The setting by which a run has it."""
    if found.kind == "backbone":
        return f"model.backbone={found.name}"
    value = "weight=1" if found.kind == "term" else "enabled=true"
    return f"method.{found.kind}s.{found.name}.{value}"


def can_travel(definitions: Iterable[Definition]) -> bool:
    """Whether another process can know these."""
    return all(found.file is not None for found in definitions)


def files_of(definitions: Iterable[Definition]) -> dict[str, Path]:
    """Title -> the file from which another process can read it.

    Raises UserError for one that stands in no file.
    """
    files = {}
    for found in definitions:
        if found.file is None:
            raise UserError(
                f"the {found.title} was defined in a notebook, where other processes cannot read "
                f"it: train in this one (jobs=1), or write it into a file for --plugin"
            )
        files[found.title] = found.file
    return files


def load_files(files: Mapping[str, Path]) -> None:
    """Read what `files_of` found in another process, but for what is here already. What a plug-in
    of other contents has defined goes: a worker outlives what it was given for an earlier run."""
    for title, file in files.items():
        known = _known().get(title)
        if known is not None and known.plugin is not None and not _alike(known.plugin, file):
            _forget(known.plugin)
    known_titles = _known().keys()
    load_plugins(file for title, file in files.items() if title not in known_titles)


def _alike(one: Path, other: Path) -> bool:
    return one == other or (one.is_file() and one.read_bytes() == other.read_bytes())


def _forget(plugin: Path) -> None:
    registries: tuple[dict[str, Any], ...] = TERMS, ADDED_MECHANISMS, BACKBONES
    for registry in registries:
        for name in [name for name, found in registry.items() if found.plugin == plugin]:
            # Else its file would not be run again.
            sys.modules.pop(registry.pop(name).function.__module__, None)
