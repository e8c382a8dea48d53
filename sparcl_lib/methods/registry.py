"""Loss terms by name. What is known of a term is said once, where it is defined, by `@term`.

A term is a setting of every method: method.terms.feature_gap.weight=0.1. It may stand in a cell of
a notebook, or in a file that `sparcl train --plugin FILE.py` reads.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, overload

from torch import Tensor

from sparcl_lib.definitions import WithOptions, check_facts, plugin_in_reading, register
from sparcl_lib.errors import UserError

LossTerm = Callable[..., Tensor]
F = TypeVar("F", bound=LossTerm)
COMMON = ("weight", "from_step")
"""Settings that every term has beside its options."""


@dataclass(frozen=True, kw_only=True)
class RegisteredTerm(WithOptions):
    """A loss term and all that is known of it; calling it is calling its function, which takes a
    StepContext and keyword options and returns a scalar."""

    kind: ClassVar[str] = "term"
    group: ClassVar[str] = "method.terms"
    common: ClassVar[tuple[str, ...]] = COMMON
    needs_teacher: bool | tuple[str, ...]
    """Whether it needs the previous model in steps after the first; or the options that do."""
    needs_maps: bool
    """Whether it compares the maps between the layers."""
    hidden_old: tuple[str, ...]
    """Options, one of them at most on, that say what background is where old classes hide in it."""

    def __call__(self, *args: Any, **options: Any) -> Tensor:
        value: Tensor = self.function(*args, **options)
        return value

    def asks_teacher(self, options: Mapping[str, object]) -> bool:
        """Whether the previous model is needed with these options in steps after the first."""
        if isinstance(self.needs_teacher, bool):
            return self.needs_teacher
        return any(self.on(name, options) for name in self.needs_teacher)

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        found = super().checked(options)
        chosen = [name for name in self.hidden_old if self.on(name, options)]
        if len(chosen) > 1:
            keys = " and ".join(f"{self.group}.{self.name}.{name}" for name in chosen)
            raise UserError(f"{keys} exclude each other: set one of them")
        return found


TERMS: dict[str, RegisteredTerm] = {}
"""Every term by name: the library's, then those that were registered since."""


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

    facts: dict[str, object] = {"hidden_old": hidden_old, "acts_later": acts_later}
    if not isinstance(needs_teacher, bool):
        facts["needs_teacher"] = needs_teacher

    def keep(function: F) -> F:
        if not inspect.isfunction(function) or function.__name__ == "<lambda>":
            raise UserError(
                f"@term takes a function, not {function!r}: give it a name with def, as in "
                f"def mine(context): ..."
            )
        first = int(needs_teacher is True) if first_step is None else first_step
        check_facts(f"@term of {function.__name__}", first, facts)
        found = RegisteredTerm(
            name=function.__name__, function=function, needs_teacher=needs_teacher,
            needs_maps=needs_maps, first_step=first, hidden_old=hidden_old,
            acts_later=tuple(dict.fromkeys([*hidden_old, *acts_later])),
            plugin=plugin_in_reading(),
        )  # fmt: skip
        _check_definition(found)
        register(found, TERMS)
        return function

    return keep if function is None else keep(function)


def get_term(name: str) -> RegisteredTerm:
    """The term of this name. Raises UserError with the names that there are."""
    if name not in TERMS:
        raise UserError(
            f"unknown loss term {name!r}: choose from {', '.join(TERMS)}, or give the file that "
            f"defines it (--plugin FILE.py)"
        )
    return TERMS[name]


def _check_definition(found: RegisteredTerm) -> None:
    found.check_options(
        f"a context and options by keyword with defaults, as in "
        f"def {found.name}(context, *, strength=1.0)"
    )
    asked = found.needs_teacher if isinstance(found.needs_teacher, tuple) else ()
    found.check_named((*asked, *found.acts_later))
