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
from sparcl_lib.definitions import WithOptions, check_facts, failed, plugin_in_reading, register
from sparcl_lib.errors import OutsideFailed, UserError
from sparcl_lib.methods.hooks import LossValues, Mechanism
from sparcl_lib.prototypes import PrototypeBank

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
_MOVING = {"before_step", "progress", "batch", "after_backward", "after_update"}
"""Hooks beside which something may be set up, or move, within a step."""
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
    it raises there, and what it returns or wants to save must be what the loop takes."""

    def __init__(self, found: RegisteredMechanism, options: Mapping[str, Any]) -> None:
        self.name, self.found = found.name, found
        self.inner: Mechanism = self.call(found.function, **options)
        self.reads_gradients = self.inner.reads_gradients

    def call(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code may raise
            raise OutsideFailed(failed(self.found, error)) from error

    def try_saving(self) -> None:
        """What could not be saved is found before the first iteration, not after the last."""
        self.progress()
        value = None
        with suppress(Exception):  # it may need what the iterations find
            value = self.inner.state_dict()
        self.check_returned("state_dict", value)

    def check_returned(self, hook: str, value: Any, *given: Any) -> None:
        """Raise UserError for what the loop, or a checkpoint, cannot take from a hook; given: what
        the hook was given."""
        where = f"{self.found.title}: {hook}()"
        if hook in _RETURNS and not isinstance(value, _RETURNS[hook]):
            wanted = " or ".join(kind.__name__ for kind in _RETURNS[hook])
            raise OutsideFailed(f"{where} returns a {type(value).__name__}, not a {wanted}")
        if hook in _SAVED:
            _check_saved(where, value)
        if hook == "batch" and not _fits(value):
            shapes = f"{tuple(value.images.shape)} and {tuple(value.labels.shape)}"
            raise OutsideFailed(
                f"{where} returns images and labels {shapes}: (B, 3, H, W), (B, H, W)"
            )
        if hook == "prototype_sums" and value is not None:
            self.check_sums(where, value, given[0].bank)
        if hook == "penalty" and value is not None:
            self.check_penalty(where, value)

    def check_sums(self, where: str, value: tuple[Any, ...], bank: PrototypeBank) -> None:
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in value]
        sums, counts = tuple(bank.sums.shape), tuple(bank.counts.shape)
        if shapes != [sums, counts]:
            got = " and ".join(map(str, shapes))
            raise OutsideFailed(f"{where} returns {got}: class sums {sums} and counts {counts}")

    def check_penalty(self, where: str, value: LossValues) -> None:
        parts = (value.total, *value.terms.values())
        if not all(isinstance(part, Tensor) and part.ndim == 0 for part in parts):
            raise OutsideFailed(f"{where} returns LossValues of something else than scalar tensors")
        if value.total.requires_grad:
            raise OutsideFailed(
                f"{where} returns a total with a gradient, which nobody takes: it is for the log. "
                f"Add its gradient in after_backward, or write a term, @sparcl_lib.term"
            )


def _fits(batch: "StepBatch") -> bool:
    count, channels, *size = batch.images.shape if batch.images.ndim == 4 else (0, 0)
    return channels == 3 and list(batch.labels.shape) == [count, *size]


def _guard(hook: str) -> Callable[..., Any]:
    def guarded(self: Guarded, *args: Any) -> Any:
        value = self.call(getattr(self.inner, hook), *args)
        self.check_returned(hook, value, *args)
        if hook in _BEGINS:
            self.try_saving()
        return value

    return guarded


for _hook in HOOKS:
    setattr(Guarded, _hook, _guard(_hook))


def _check_saved(where: str, value: object) -> None:
    """Raise UserError for what could be saved, and not be loaded again."""
    if isinstance(value, dict) and type(value) is dict:
        for key, inner in value.items():
            _check_saved(f"{where}, a key", key)
            _check_saved(f"{where}[{key!r}]", inner)
    elif isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        for position, inner in enumerate(value):
            _check_saved(f"{where}[{position}]", inner)
    elif not (isinstance(value, Tensor) or type(value) in (bool, int, float, str, type(None))):
        raise OutsideFailed(
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
        title = f"@mechanism of {cls.__name__}"
        check_facts(title, first_step, {"acts_later": acts_later})
        if type(needs_teacher) is not bool:
            raise UserError(f"{title}: needs_teacher is True or False, got {needs_teacher!r}")
        found = RegisteredMechanism(
            name=cls.name, function=cls, reads_gradients=cls.reads_gradients,
            needs_teacher=needs_teacher, first_step=first_step,
            acts_later=acts_later, plugin=plugin_in_reading(),
        )  # fmt: skip
        found.check_options("options by keyword with defaults, as in __init__(self, *, share=0.5)")
        found.check_named(found.acts_later)
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
    bases = [vars(base) for base in cls.__mro__ if not _of_library(base)]
    written = {n for base in bases for n, value in base.items() if inspect.isfunction(value)}
    for name in sorted(written - {*HOOKS}):
        near = [] if name.startswith("_") else get_close_matches(name, HOOKS, n=1, cutoff=0.8)
        if near and name != "load_state_dict":
            raise UserError(
                f"{cls.__name__}: {name} is no hook; did you mean {near[0]}? If not, begin its "
                f"name with _"
            )
    for hook in (hook for hook in HOOKS if hook in written):
        taken = inspect.signature(getattr(Mechanism, hook))
        try:
            inspect.signature(getattr(cls, hook)).bind(*taken.parameters)
        except TypeError:
            wanted = ", ".join(taken.parameters)
            raise UserError(f"{cls.__name__}: write def {hook}({wanted})") from None
    if written & _MOVING and "go_on" not in written:
        again = "self.before_step(trainer, ())" if "before_step" in written else "pass"
        raise UserError(
            f"{cls.__name__} needs go_on, which is called in place of before_step, with what "
            f"progress has returned, where a step goes on that was stopped inside; if nothing "
            f"moves in it: def go_on(self, trainer, progress): {again}"
        )
    if "after_backward" in written and not any("reads_gradients" in base for base in bases):
        raise UserError(
            f"{cls.__name__} has after_backward, so say in its body reads_gradients = True if it "
            f"needs gradients as they are (16-mixed scales them), else False"
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
