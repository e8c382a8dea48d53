"""What may be defined outside the library: loss terms, mechanisms, backbones.

Each kind has a registry of its own. Here is what they share: whose a definition is, in which file
another process finds it, and the options that it takes. Free of torch.
"""

import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_origin, get_type_hints

from sparcl_lib.digests.edits import note_reading
from sparcl_lib.errors import UserError
from sparcl_lib.fields import FACTOR, require
from sparcl_lib.plain import convert

D = TypeVar("D", bound="Definition")


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A function or a class under a name."""

    kind: ClassVar[str]
    """What it is, in a word."""
    name: str
    function: Callable[..., Any]
    """The function, or the class."""
    plugin: Path | None = None
    """The file given by --plugin that defines it."""

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def of_library(self) -> bool:
        return self.function.__module__.partition(".")[0] == "sparcl_lib"

    @property
    def file(self) -> Path | None:
        """The file from which another process can read it; None for a notebook's cell."""
        module = sys.modules.get(self.function.__module__)
        path = self.plugin or getattr(module, "__file__", None)
        return None if path is None else Path(path)


@dataclass(frozen=True, kw_only=True)
class WithOptions(Definition):
    """One that has settings of its own in a method: keyword arguments with defaults."""

    group: ClassVar[str]
    """Where they stand among the settings, as in method.terms."""
    common: ClassVar[tuple[str, ...]]
    """Settings that every one of the kind has beside its options."""
    first_step: int
    """The first step at which it can count."""
    acts_later: tuple[str, ...]
    """Options without effect at step 0, where nothing is old."""

    @property
    def _called(self) -> Callable[..., Any]:
        """What takes the options."""
        if not isinstance(self.function, type):
            return self.function
        # That of `object` takes anything.
        inits = (vars(cls).get("__init__") for cls in self.function.__mro__ if cls is not object)
        return next(filter(None, inits), _without_options)

    @cached_property
    def options(self) -> dict[str, object]:
        """Names and defaults of its options."""
        parameters = inspect.signature(self._called).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @cached_property
    def hints(self) -> dict[str, Any]:
        try:
            return get_type_hints(self._called)
        except NameError:  # a name that is imported for type checkers alone
            return {}

    def on(self, name: str, options: Mapping[str, object]) -> bool:
        """Whether an option is set to something else than its default."""
        return options.get(name, self.options[name]) != self.options[name]

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options as it takes them. Raises UserError for one that it has not, or a value that
        it cannot take."""
        for name in options:
            if name not in self.options:
                known = ", ".join([*self.common, *self.options])
                raise UserError(f"{self.title} has no option {name!r}: it has {known}")
        return {
            name: _checked(f"{self.group}.{self.name}.{name}", self._hint(name, value), value)
            for name, value in options.items()
        }

    def _hint(self, name: str, value: object) -> Any:
        """The annotation of an option; without one, a number where the default is one and the text
        says one, for YAML takes 1e-3 for a text."""
        if name in self.hints or type(self.options[name]) not in (int, float):
            return self.hints.get(name)
        with suppress(ValueError):
            if isinstance(value, str):
                float(value)
                return float
        return None

    def check_options(self, example: str) -> None:
        """Raise UserError unless it takes one argument, or self, and options with defaults by
        keyword; example: a signature that does."""
        parameters = list(inspect.signature(self._called).parameters.values())
        wrong = [
            p.name for p in parameters[1:] if p.kind is not p.KEYWORD_ONLY or p.default is p.empty
        ]
        if wrong or not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
            raise UserError(f"{self.title} must take {example}: mend {', '.join(wrong) or 'them'}")
        for name in self.common:
            if name in self.options:
                raise UserError(
                    f"every {self.kind} has {name}: give the option of {self.name} another name"
                )

    def check_named(self, names: Iterable[str]) -> None:
        """Raise UserError for the name of an option that its decorator speaks of and it has not."""
        for name in names:
            if name not in self.options:
                raise UserError(
                    f"{self.title} has no option {name!r} that @{self.kind} speaks of: correct the "
                    f"name there, or give it this option"
                )


def check_facts(title: str, first_step: object, names: Mapping[str, object]) -> None:
    """Raise UserError for what a decorator is given in another form: the first step, and names of
    options."""
    for fact, value in names.items():
        if not isinstance(value, tuple) or not all(isinstance(name, str) for name in value):
            given = tuple(value) if isinstance(value, (list, set)) else (value,)
            raise UserError(f"{title}: {fact} are names in a tuple, as in {given!r}")
    if type(first_step) is not int or first_step < 0:
        raise UserError(f"{title}: first_step is a whole number from 0 on, got {first_step!r}")


def _without_options(self: object) -> None:
    """What makes an instance of a class that says nothing about it."""


def _checked(key: str, hint: Any, value: Any) -> Any:
    """The value of an option, text of a number as a number; of other types anything goes."""
    if hint not in (bool, int, float, str) and get_origin(hint) is not Literal:
        return value
    converted = convert(hint, value, key)
    if hint is float:
        require(converted in FACTOR, key, str(FACTOR), value)
    # 1 stays 1, for it is in keys of runs.
    return value if type(value) in (bool, int, float) else converted


def failed(found: Definition, error: BaseException) -> str:
    """The error of a definition in a line, with the last place in the file where it stands."""
    frames, files = traceback.extract_tb(error.__traceback__), _files(found.function)
    lines = [(frame.filename, frame.lineno) for frame in frames if frame.filename in files]
    where = f" ({lines[-1][0]}, line {lines[-1][1]})" if lines else ""
    return f"{found.title}{where}: {type(error).__name__}: {' '.join(str(error).split())}"


def _files(made: Any) -> set[str]:
    """Where the code of a function, or of the functions of a class, stands."""
    functions = vars(made).values() if isinstance(made, type) else [made]
    return {
        inspect.unwrap(function).__code__.co_filename
        for function in functions
        if inspect.isfunction(function)
    }


_reading: list[Path] = []


@contextmanager
def reading_plugin(file: Path) -> Iterator[None]:
    """What is registered meanwhile is known to come from this file."""
    _reading.append(file)
    try:
        yield
    finally:
        _reading.pop()


def plugin_in_reading() -> Path | None:
    """The file given by --plugin that is read now."""
    return _reading[-1] if _reading else None


def register(found: D, registry: dict[str, D]) -> None:
    """Add it to the registry of its kind, in place of one of the same name.

    Raises UserError for the name of one of the library, or of another plugin's.
    """
    if not found.of_library:
        module = sys.modules.get(found.function.__module__)
        for file in (found.file, getattr(module, "__file__", None)):
            if file is not None:
                note_reading(Path(file), found.function)
    known = registry.get(found.name)
    if known is not None and known.of_library and not found.of_library:
        raise UserError(
            f"{found.name} is a {found.kind} of the library, which cannot be replaced: give yours "
            f"another name"
        )
    if known is not None and known.plugin and found.plugin and known.plugin != found.plugin:
        raise UserError(
            f"{known.plugin} and {found.plugin} both define the {found.title}: rename one"
        )
    registry[found.name] = found
