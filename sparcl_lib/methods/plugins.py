"""Files of one's own that define loss terms: `sparcl train --plugin FILE.py`."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparcl_lib.errors import UserError
from sparcl_lib.methods.registry import TERMS, get_term, reading_plugin

if TYPE_CHECKING:
    from sparcl_lib.methods.method import Method


def load_plugins(files: Iterable[str | Path]) -> None:
    """Run each file once, so that its terms are registered. It may import modules beside it.

    Raises UserError, one line that names the file, for one that is missing, fails or has no term.
    """
    for file in files:
        _load(Path(file).expanduser().resolve())


def _load(file: Path) -> None:
    name = f"sparcl_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
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
    before = dict(TERMS)
    try:
        with reading_plugin(file):
            spec.loader.exec_module(module)
        if before == TERMS:
            raise UserError("it defines no term: put @term above a function")
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


def tell_of_unused(methods: Iterable["Method"]) -> None:
    """Say on stderr which terms of plugin files have no weight in any of these methods."""
    used = {t.name for method in methods for t in method.terms if t.weight > 0}
    unused: dict[Path, list[str]] = {}
    for found in TERMS.values():
        if found.plugin is not None and found.name not in used:
            unused.setdefault(found.plugin, []).append(found.name)
    for file, names in unused.items():
        said = f"term {names[0]} of {file} has no weight and takes no part"
        if len(names) > 1:
            said = f"terms {', '.join(names)} of {file} have no weight and take no part"
        print(
            f"sparcl: the {said}: --set method.terms.{names[0]}.weight=1, or another one",
            file=sys.stderr,
        )


def can_travel(names: Iterable[str]) -> bool:
    """Whether another process can know these terms."""
    return all(found.of_library or found.file is not None for found in map(get_term, names))


def files_of(names: Iterable[str]) -> dict[str, Path]:
    """Term -> the file from which another process can read it; terms of the library need none.

    Raises UserError for a term that stands in no file.
    """
    terms = [found for found in map(get_term, dict.fromkeys(names)) if not found.of_library]
    for found in terms:
        if found.file is None:
            raise UserError(
                f"the term {found.name} was defined in a notebook, where other processes cannot "
                f"read it: train in this one (jobs=1), or write it into a file for --plugin"
            )
    return {found.name: found.file for found in terms if found.file is not None}


def load_terms(files: Mapping[str, Path]) -> None:
    """Read what `files_of` found in another process, but for terms that are here already."""
    load_plugins(file for name, file in files.items() if name not in TERMS)
