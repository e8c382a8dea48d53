"""Mechanisms that stand outside the library, by name: `@mechanism` above a class.

Each is a setting of every method: method.mechanisms.averaging.share=0.5. It may stand in a cell of
a notebook, or in a file that `sparcl train --plugin FILE.py` reads.
"""

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar, overload

from torch import Tensor

from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.definitions import WithOptions, failed, plugin_in_reading, register
from sparcl_lib.errors import UserError
from sparcl_lib.methods.hooks import LossValues, Mechanism

M = TypeVar("M", bound=type[Mechanism])
COMMON_OF_MECHANISMS = ("enabled",)
"""Settings that every one has beside its options."""
HOOKS = tuple(
    name for name, value in vars(Mechanism).items()
    if inspect.isfunction(value) and not name.startswith("_")
)  # fmt: skip
"""What the loop calls."""
_SAVED = ("progress", "state_dict")
_BEGINS = ("before_step", "go_on")
_RETURNS: dict[str, tuple[type, ...]] = {
    "batch": (StepBatch,),
    "context_extras": (Mapping,),
    "penalty": (LossValues, type(None)),
    "progress": (dict, type(None)),
    "prototype_sums": (tuple, type(None)),
    "state_dict": (dict, type(None)),
}
"""What the loop takes from a hook."""


@dataclass(frozen=True, kw_only=True)
class RegisteredMechanism(WithOptions):
    """A mechanism and what is known of it."""

    kind: ClassVar[str] = "mechanism"
    group: ClassVar[str] = "method.mechanisms"
    common: ClassVar[tuple[str, ...]] = COMMON_OF_MECHANISMS
    reads_gradients: bool
    """Whether it needs gradients as they are."""
    needs_teacher: bool
    """Whether it needs the previous model in steps after the first."""

    def make(self, options: Mapping[str, Any]) -> Mechanism:
        """It, for one step, with what goes wrong in it as a line."""
        return Guarded(self, options)


ADDED_MECHANISMS: dict[str, RegisteredMechanism] = {}
"""By name; the library's own are settings of a method, and stand in MECHANISMS."""


class Guarded(Mechanism):
    """A mechanism that is not the library's: each hook raises a UserError that names it, whatever
    goes wrong there, and what it wants to save must be what a checkpoint can hold."""

    def __init__(self, found: RegisteredMechanism, options: Mapping[str, Any]) -> None:
        self.name, self.found = found.name, found
        self.inner: Mechanism = self.call(found.function, **options)
        self.reads_gradients = self.inner.reads_gradients

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except UserError:
            raise
        except Exception as error:  # whatever the user's code may raise
            raise UserError(failed(self.found, error)) from error

    def try_saving(self) -> None:
        """What could not be saved is found before the first iteration, not after the last."""
        self.progress()
        value = None
        with suppress(Exception):  # it may need what the iterations find
            value = self.inner.state_dict()
        _check_saved(f"{self.found.title}: state_dict()", value)


def _guard(hook: str) -> Callable[..., Any]:
    def guarded(self: Guarded, *args: Any) -> Any:
        value = self.call(getattr(self.inner, hook), *args)
        if hook in _RETURNS and not isinstance(value, _RETURNS[hook]):
            wanted = " or ".join(kind.__name__ for kind in _RETURNS[hook])
            raise UserError(
                f"{self.found.title}: {hook}() returns a {type(value).__name__}, not a {wanted}"
            )
        if hook in _SAVED and value is not None:
            _check_saved(f"{self.found.title}: {hook}()", value)
        if hook in _BEGINS:
            self.try_saving()
        return value

    return guarded


for _hook in HOOKS:
    setattr(Guarded, _hook, _guard(_hook))


def _check_saved(where: str, value: object) -> None:
    """Raise UserError for what could be saved, and not be loaded again."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_saved(f"{where}[{key!r}]", inner)
    elif isinstance(value, (list, tuple)):
        for position, inner in enumerate(value):
            _check_saved(f"{where}[{position}]", inner)
    elif not (isinstance(value, Tensor) or type(value) in (bool, int, float, str, type(None))):
        raise UserError(
            f"{where} holds a {type(value).__name__}: a checkpoint keeps tensors, numbers, texts, "
            f"and lists and dicts of these"
        )


@overload
def mechanism(cls: M) -> M: ...


@overload
def mechanism(
    *, needs_teacher: bool = False, first_step: int = 0, acts_later: tuple[str, ...] = ()
) -> Callable[[M], M]: ...


def mechanism(
    cls: M | None = None,
    *,
    needs_teacher: bool = False,
    first_step: int = 0,
    acts_later: tuple[str, ...] = (),
) -> M | Callable[[M], M]:
    """Register a `Mechanism`, what a method does around the loop, under its `name`.

    cls: made anew for every step from options that `__init__` takes by keyword, with defaults; they
    are checked by their annotations bool, int, float (>= 0), str or Literal. What its docstring
    says behind `OPTION: ` is what `sparcl settings` shows. Hooks that it does not have do nothing.
    `state_dict` is for the next step, which finds it by `state_of`; `progress` and `go_on` are for
    a run that is stopped inside a step.
    needs_teacher: the frozen model of the previous step is needed, as `trainer.teacher`.
    first_step: from which step on it takes part; 1: it changes nothing at step 0, which runs with
    and without it share.
    acts_later: options that do nothing at step 0.

    A method has it once one of its settings is given, as in
    method.mechanisms.averaging.enabled=true; hooks are called in the order in which the settings
    name their mechanisms. A kept run is known by what the class says and names, as
    with `term`. Registering a name again replaces the mechanism. Raises UserError for a class that
    is none, and for a name that another one has.

    >>> @mechanism(first_step=1)
    ... class Halved(Mechanism):
    ...     # After a later step the classifier's weights are scaled.
    ...     name = "halved"
    ...     def __init__(self, *, factor: float = 0.5) -> None:
    ...         self.factor = factor
    ...     def prepare(self, student, before):
    ...         self.student = student
    ...     def after_step(self):
    ...         for parameter in self.student.classifier.parameters():
    ...             parameter.data *= self.factor
    >>> settings = {"method.mechanisms.halved.factor": 0.9}
    >>> quick = {"optim.iterations": 2, "data.batch_size": 4}  # to see it run, not to learn
    >>> import sparcl_lib
    >>> run = sparcl_lib.train("minivoc", "FT", task="6-4", settings=settings | quick)
    >>> run.config.method.mechanisms[0].options
    {'factor': 0.9}
    """

    def keep(cls: M) -> M:
        _check_class(cls)
        if isinstance(acts_later, str):
            raise UserError(
                f"@mechanism of {cls.__name__}: acts_later are names in a tuple, as in "
                f"({acts_later!r},)"
            )
        found = RegisteredMechanism(
            name=cls.name, function=cls, reads_gradients=cls.reads_gradients,
            needs_teacher=needs_teacher, first_step=first_step,
            acts_later=tuple(acts_later), plugin=plugin_in_reading(),
        )  # fmt: skip
        found.check_options("options by keyword with defaults, as in __init__(self, *, share=0.5)")
        for name in found.acts_later:
            if name not in found.options:
                raise UserError(f"mechanism {found.name} has no option {name!r}: see acts_later")
        register(found, ADDED_MECHANISMS)
        return cls

    return keep if cls is None else keep(cls)


def _check_class(cls: object) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Mechanism)):
        raise UserError(
            f"@mechanism takes a class of sparcl_lib.methods.Mechanism, not {cls!r}: "
            f"class Mine(Mechanism): ..."
        )
    name = getattr(cls, "name", None)
    if not (isinstance(name, str) and name.isidentifier()):
        has = "" if name is None else f"; {name!r} is none of letters, digits and _"
        raise UserError(
            f"{cls.__name__} needs a name for its settings, in its body, as in name = "
            f'"{cls.__name__.lower()}"{has}'
        )
    others = _subclasses(Mechanism) - {cls}
    if name in {getattr(known, "name", None) for known in others if _of_library(known)}:
        raise UserError(f"{name} is a mechanism of the library: give {cls.__name__} another name")
    _check_hooks(cls)


def _check_hooks(cls: type[Mechanism]) -> None:
    """Raise UserError for a hook that is mistyped, takes something else, or has no counterpart."""
    written = {n for base in cls.__mro__ if not _of_library(base) for n in vars(base)}
    for name in sorted(written - {*HOOKS}):
        near = [] if name.startswith("_") else get_close_matches(name, HOOKS, n=1, cutoff=0.8)
        if near:
            raise UserError(f"{cls.__name__}: {name} is no hook; did you mean {near[0]}?")
    for hook in (hook for hook in HOOKS if hook in written):
        taken = inspect.signature(getattr(Mechanism, hook))
        try:
            inspect.signature(getattr(cls, hook)).bind(*taken.parameters)
        except TypeError:
            wanted = ", ".join(taken.parameters)
            raise UserError(f"{cls.__name__}: write def {hook}({wanted})") from None
    if written & {"before_step", "progress"} and "go_on" not in written:
        raise UserError(
            f"{cls.__name__} needs go_on, which a step that was stopped inside calls in place of "
            f"before_step; where nothing moves: def go_on(self, trainer, progress): "
            f"self.before_step(trainer, ())"
        )


def _subclasses(cls: type[Mechanism]) -> set[type[Mechanism]]:
    return {inner for sub in cls.__subclasses__() for inner in (sub, *_subclasses(sub))}


def _of_library(cls: type) -> bool:
    return cls is object or cls.__module__.partition(".")[0] == "sparcl_lib"


def get_mechanism(name: str) -> RegisteredMechanism:
    """The added mechanism of this name. Raises UserError with the names that there are."""
    if name not in ADDED_MECHANISMS:
        known = f"choose from {', '.join(ADDED_MECHANISMS)}, or " if ADDED_MECHANISMS else ""
        raise UserError(
            f"unknown mechanism {name!r}: {known}give the file that defines it (--plugin FILE.py)"
        )
    return ADDED_MECHANISMS[name]
