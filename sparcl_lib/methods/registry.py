"""Loss terms by name. What is known of a term is said once, where it is defined, by `@term`.

A term is a setting of every method: method.terms.feature_gap.weight=0.1. It may stand in a cell of
a notebook, or in a file that `sparcl train --plugin FILE.py` reads.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin, get_type_hints, overload

from torch import Tensor

from sparcl_lib.errors import UserError
from sparcl_lib.fields import FACTOR, require
from sparcl_lib.plain import convert

LossTerm = Callable[..., Tensor]
F = TypeVar("F", bound=LossTerm)
COMMON = ("weight", "from_step")
"""Settings that every term has beside its options."""


@dataclass(frozen=True, kw_only=True)
class RegisteredTerm:
    """A loss term and all that is known of it; calling it is calling its function."""

    name: str
    function: LossTerm
    """Takes a StepContext and keyword options, returns a scalar."""
    needs_teacher: bool | tuple[str, ...]
    """Whether it needs the previous model in steps after the first; or the options that do."""
    needs_maps: bool
    """Whether it compares the maps between the layers."""
    first_step: int
    """The first step at which it can count."""
    hidden_old: tuple[str, ...]
    """Options, one of them at most on, that say what background is where old classes hide in it."""
    acts_later: tuple[str, ...]
    """Options without effect at step 0, where nothing is old."""
    plugin: Path | None = None
    """The file given by --plugin that defines it."""

    def __call__(self, *args: Any, **options: Any) -> Tensor:
        return self.function(*args, **options)

    @cached_property
    def options(self) -> dict[str, object]:
        """Names and defaults of its options."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def on(self, name: str, options: Mapping[str, object]) -> bool:
        """Whether an option is set to something else than its default."""
        return options.get(name, self.options[name]) != self.options[name]

    def asks_teacher(self, options: Mapping[str, object]) -> bool:
        """Whether the previous model is needed with these options in steps after the first."""
        if isinstance(self.needs_teacher, bool):
            return self.needs_teacher
        return any(self.on(name, options) for name in self.needs_teacher)

    @property
    def of_library(self) -> bool:
        return self.function.__module__.partition(".")[0] == "sparcl_lib"

    @property
    def file(self) -> Path | None:
        """The file from which another process can read the term; None for a notebook's cell."""
        module = sys.modules.get(self.function.__module__)
        path = self.plugin or getattr(module, "__file__", None)
        return None if path is None else Path(path)

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options as the term takes them. Raises UserError for one that it has not, or a value
        that it cannot take."""
        for name in options:
            if name not in self.options:
                known = ", ".join([*COMMON, *self.options])
                raise UserError(f"term {self.name} has no option {name!r}: it has {known}")
        chosen = [name for name in self.hidden_old if self.on(name, options)]
        if len(chosen) > 1:
            keys = " and ".join(f"method.terms.{self.name}.{name}" for name in chosen)
            raise UserError(f"{keys} exclude each other: set one of them")
        return {
            name: _checked(f"method.terms.{self.name}.{name}", self.hints.get(name), value)
            for name, value in options.items()
        }

    @cached_property
    def hints(self) -> dict[str, Any]:
        try:
            return get_type_hints(self.function)
        except NameError:  # a name that is imported for type checkers alone
            return {}


TERMS: dict[str, RegisteredTerm] = {}
"""Every term by name: the library's, then those that were registered since."""
_reading: list[Path] = []


@overload
def term(function: F) -> F: ...


@overload
def term(
    *,
    needs_teacher: bool | tuple[str, ...] = False,
    needs_maps: bool = False,
    first_step: int | None = None,
    hidden_old: tuple[str, ...] = (),
    acts_later: tuple[str, ...] = (),
) -> Callable[[F], F]: ...


def term(
    function: F | None = None,
    *,
    needs_teacher: bool | tuple[str, ...] = False,
    needs_maps: bool = False,
    first_step: int | None = None,
    hidden_old: tuple[str, ...] = (),
    acts_later: tuple[str, ...] = (),
) -> F | Callable[[F], F]:
    """Register a function as a loss term under its name; used bare or with arguments.

    function: takes a `StepContext` and, by keyword, options with defaults; returns a scalar tensor
    with a gradient path to `context.output`. Options are checked by their annotations bool, int,
    float (>= 0), str or Literal. One that differs from its default is called "on".
    What its docstring says behind `OPTION: ` is what `sparcl settings` shows.
    needs_teacher: the frozen model of the previous step is needed, or the names of the options that
    need it when on. Without it `context.teacher` may be None, and hidden old classes stay
    background in `context.completed_labels`.
    needs_maps: `context.output.maps`, the maps between the layers, are needed.
    first_step: from which step on the term can count; left out: 1 if it always needs the teacher,
    else 0. With needs_teacher=True and first_step=0 the teacher is None at step 0.
    hidden_old: options, one of them at most on, that say what to do about old classes hidden in the
    background of the target.
    acts_later: further options that do nothing at step 0, so that runs that differ in them alone
    share one step 0; those of hidden_old are among them anyway.

    A kept run is known by what the function says, by the functions, classes and values of its
    module that it names, tensors and arrays by what they hold, and by the modules beside its file
    that it names. So it must not change them as it trains: what is to be remembered from one
    iteration to the next is a mechanism's. What it reads from files does not count.

    Registering a name again replaces the term, as when a cell of a notebook runs again. Raises
    UserError for the name of a term of the library, for parameters that are no options, and for
    facts about options that the function does not have.

    >>> @term(needs_teacher=True)
    ... def feature_gap(context: "StepContext", *, power: float = 2.0) -> Tensor:
    ...     # Features stay where they were.
    ...     gap = context.output.features - context.teacher_output.features
    ...     return gap.abs().pow(power).mean()
    >>> settings = {"method.terms.feature_gap.weight": 0.1, "method.terms.feature_gap.power": 1}
    >>> quick = {"optim.iterations": 2, "data.batch_size": 4}  # to see it run, not to learn
    >>> import sparcl_lib
    >>> run = sparcl_lib.train("minivoc", "FT", task="6-4", settings=settings | quick)
    >>> "feature_gap" in run.log(1)
    True
    """

    facts = {"needs_teacher": needs_teacher, "hidden_old": hidden_old, "acts_later": acts_later}

    def register(function: F) -> F:
        if not inspect.isfunction(function) or function.__name__ == "<lambda>":
            raise UserError(
                f"@term takes a function, not {function!r}: give it a name with def, as in "
                f"def mine(context): ..."
            )
        for name, value in facts.items():
            if isinstance(value, str):
                raise UserError(
                    f"@term of {function.__name__}: {name} are names in a tuple, as in ({value!r},)"
                )
        first = int(needs_teacher is True) if first_step is None else first_step
        found = RegisteredTerm(
            name=function.__name__, function=function, needs_teacher=needs_teacher,
            needs_maps=needs_maps, first_step=first, hidden_old=hidden_old,
            acts_later=tuple(dict.fromkeys([*hidden_old, *acts_later])),
            plugin=_reading[-1] if _reading else None,
        )  # fmt: skip
        _check_definition(found)
        _check_name(found)
        TERMS[found.name] = found
        return function

    return register if function is None else register(function)


def get_term(name: str) -> RegisteredTerm:
    """The term of this name. Raises UserError with the names that there are."""
    if name not in TERMS:
        raise UserError(
            f"unknown loss term {name!r}: choose from {', '.join(TERMS)}, or give the file that "
            f"defines it (--plugin FILE.py)"
        )
    return TERMS[name]


def term_options(name: str) -> dict[str, object]:
    """Options of a term and their defaults, beside `weight` and `from_step` that all have."""
    return dict(get_term(name).options)


@contextmanager
def reading_plugin(file: Path) -> Iterator[None]:
    """Terms registered meanwhile are known to come from this file."""
    _reading.append(file)
    try:
        yield
    finally:
        _reading.pop()


def _check_name(found: RegisteredTerm) -> None:
    known = TERMS.get(found.name)
    if known is None:
        return
    if known.of_library and not found.of_library:
        raise UserError(
            f"{found.name} is a loss term of the library, which cannot be replaced: give your "
            f"function another name"
        )
    if known.plugin and found.plugin and known.plugin != found.plugin:
        raise UserError(
            f"{known.plugin} and {found.plugin} both define the term {found.name}: rename one"
        )


def _check_definition(found: RegisteredTerm) -> None:
    parameters = list(inspect.signature(found.function).parameters.values())
    wrong = [p.name for p in parameters[1:] if p.kind is not p.KEYWORD_ONLY or p.default is p.empty]
    if wrong or not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise UserError(
            f"term {found.name} must take a context and options by keyword with defaults, as in "
            f"def {found.name}(context, *, strength=1.0): mend {', '.join(wrong) or 'them'}"
        )
    for name in COMMON:
        if name in found.options:
            raise UserError(
                f"every term has a {name}: give the option of {found.name} another name"
            )
    asked = found.needs_teacher if isinstance(found.needs_teacher, tuple) else ()
    for name in (*asked, *found.acts_later):
        if name not in found.options:
            raise UserError(
                f"term {found.name} has no option {name!r} that @term speaks of: correct the name "
                f"there, or give the function this option"
            )


def _checked(key: str, hint: Any, value: Any) -> Any:
    """The value of an option, text of a number as a number; of other types anything goes."""
    if hint not in (bool, int, float, str) and get_origin(hint) is not Literal:
        return value
    converted = convert(hint, value, key)
    if hint is float:
        require(converted in FACTOR, key, str(FACTOR), value)
    # 1 stays 1, for it is in keys of runs.
    return value if type(value) in (bool, int, float) else converted
