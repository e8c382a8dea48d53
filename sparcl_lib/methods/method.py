"""A method is data: weighted loss terms, how the new classifier starts, what holds weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from sparcl_lib.definitions import failed
from sparcl_lib.errors import OutsideFailed, UserError, printable, shown
from sparcl_lib.fields import FACTOR, Range, check_ranges, later, require
from sparcl_lib.methods.added_mechanisms import (
    ADDED_MECHANISMS,
    COMMON_OF_MECHANISMS,
    RegisteredMechanism,
    get_mechanism,
)
from sparcl_lib.methods.context import StepContext
from sparcl_lib.methods.frozen_parts import FrozenParts
from sparcl_lib.methods.fusion import Fusion
from sparcl_lib.methods.hooks import LossValues, Mechanism
from sparcl_lib.methods.pseudo_labels import PseudoLabels
from sparcl_lib.methods.registry import COMMON, TERMS, RegisteredTerm, get_term
from sparcl_lib.methods.regularisers import Regulariser, RegulariserSettings
from sparcl_lib.methods.released_prototypes import ReleasedPrototypes
from sparcl_lib.methods.saliency import Saliency
from sparcl_lib.models.classifier import ClassifierInit
from sparcl_lib.models.segmenter import Part
from sparcl_lib.plain import as_plain, build

# In the order in which their hooks are called, which matters: what Fusion brings nearer to the old
# network is what those before it left as the student.
MECHANISMS: tuple[type[Mechanism], ...] = (
    FrozenParts,
    PseudoLabels,
    Saliency,
    ReleasedPrototypes,
    Regulariser,
    Fusion,
)
"""What a method may do around the loop, in the order in which it is asked."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One row of a method's table."""

    name: str
    """A key of TERMS. Another one is kept, so that a run with a term of its own can be read where
    nobody defines it: training asks for it, evaluation does not."""
    weight: Annotated[float, FACTOR] = 1.0
    """Factor of the term in the total, >= 0; a term of weight 0 is not computed."""
    from_step: Annotated[int, Range(0, 1000)] = 0
    """First step at which the term counts, if its own first step is not later: that is 1 for a term
    that compares with the old model, 0 for any other."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword options of the term, e.g. distance."""

    def __post_init__(self) -> None:
        check_ranges(self, f"method.terms.{self.name}.")
        if self.registered is not None:
            object.__setattr__(self, "options", self.registered.checked(self.options))

    @property
    def registered(self) -> RegisteredTerm | None:
        """What is known of the term; None where it is not defined."""
        return TERMS.get(self.name)

    def active(self, step: int) -> bool:
        first = 0 if self.registered is None else self.registered.first_step
        return self.weight > 0 and step >= max(self.from_step, first)

    @property
    def asks_teacher(self) -> bool:
        """Whether it needs the previous model in steps after the first."""
        return self.registered is not None and self.registered.asks_teacher(self.options)


@dataclass(frozen=True, kw_only=True)
class MechanismSettings:
    """A mechanism of a user's in a method."""

    name: str
    """A key of ADDED_MECHANISMS. Another one is kept, as with terms."""
    enabled: bool = True
    """Whether the method has it."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword options of the mechanism."""

    def __post_init__(self) -> None:
        if self.registered is not None:
            object.__setattr__(self, "options", self.registered.checked(self.options))

    @property
    def registered(self) -> RegisteredMechanism | None:
        """What is known of it; None where it is not defined."""
        return ADDED_MECHANISMS.get(self.name)

    def active(self, step: int) -> bool:
        first = 0 if self.registered is None else self.registered.first_step
        return self.enabled and step >= first


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of a results table."""

    name: str = later()
    """What it is called in tables and pages."""
    terms: tuple[Term, ...]
    classifier_init: ClassifierInit = later("random")
    """How the convolution of new classes starts."""
    joint: bool = False
    """Learn all classes of the task at once: the upper bound, not a continual method."""
    regulariser: RegulariserSettings | None = None
    """EWC, RW or PI: hold the weights that mattered for earlier steps."""
    prototypes: Literal["means", "released"] = "means"
    """Class means, or what SDR's released code takes for them: methods.released_prototypes."""
    frozen: tuple[Part, ...] | None = later(None)
    """What learns at its first step alone: features (backbone and head), old (the classifier of
    earlier steps); empty: nothing."""
    unknown: Annotated[float, Range(0, 1000)] = 0.0
    """Background pixels whose colour stands out this many times more than the image's mean are an
    unknown object, one more output of the classifier: see methods.saliency; 0: none."""
    head_per_step: bool = False
    """Each step's classifier, and the unknown one, has a 3x3 convolution, batch norm and ReLU
    before its 1x1."""
    fuse: Annotated[float, Range(0, 1000)] = later(0.0)
    """After a later step the network is (1 - γ) * old + γ * new, γ = (new classes / all classes) **
    fuse, background counted: 0.5 in EWF, 0 for no fusion."""
    mechanisms: tuple[MechanismSettings, ...] = ()
    """What stands outside the library, in the order in which it is asked."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))
        require(0 < len(self.name) <= 100, "method.name", "of 1 to 100 characters", self.name)
        self._check_values()
        if not self.active_terms(0):
            raise UserError(
                f"method {self.name} has no loss term at step 0: give one a positive weight, "
                f"as in method.terms.ce.weight=1"
            )

    def _check_values(self) -> None:
        check_ranges(self, "method.")
        if self.unknown and "bce" not in (term.name for term in self.active_terms(0)):
            raise UserError(
                "method.unknown is one more sigmoid and needs the term bce from step 0 on: "
                "set method.terms.bce.weight=1, or method.unknown=0"
            )
        if self.classifier_init == "unknown" and not self.unknown:
            raise UserError(
                "method.classifier_init=unknown starts new classes from the unknown one: "
                "set method.unknown=2, or another start"
            )

    def check_defined(self) -> None:
        """Raise UserError for a term or mechanism that is not defined here: none can train it."""
        for term in self.terms:
            get_term(term.name)
        for row in self.mechanisms:
            get_mechanism(row.name)

    def term(self, name: str) -> Term:
        """The row of a term; UserError if the method has none of this name."""
        found = {term.name: term for term in self.terms}
        if name not in found:
            raise UserError(f"method {self.name} has no term {name!r}: it has {', '.join(found)}")
        return found[name]

    def active_terms(self, step: int) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if term.active(step))

    def needs_teacher(self, step: int) -> bool:
        """Whether a term of the step needs the previous model, for its loss or for its labels, or
        a mechanism does."""
        asked = [term.asks_teacher for term in self.active_terms(step)]
        asked += [found.needs_teacher for _, found in self._added(step)]
        return step > 0 and any(asked)

    def needs_maps(self, step: int) -> bool:
        """Whether a term compares the maps between the layers."""
        return any(get_term(term.name).needs_maps for term in self.active_terms(step))

    def both_unbiased(self, step: int) -> bool:
        """Whether MiB's cross-entropy and its distillation are both terms of the step."""
        unbiased = {term.name for term in self.active_terms(step) if term.options.get("unbiased")}
        return unbiased >= {"ce", "kd"}

    def around(self, step: int) -> tuple[Mechanism, ...]:
        """What the method does around the loop of a step, besides its terms: the library's
        mechanisms, then those that stand outside."""
        made = (mechanism.of(self, step) for mechanism in MECHANISMS)
        known = tuple(mechanism for mechanism in made if mechanism is not None)
        return (*known, *(found.make(row.options) for row, found in self._added(step)))

    def gradient_readers(self) -> list[str]:
        """The settings whose mechanisms need gradients as they are."""
        library = [m for m in MECHANISMS if m.reads_gradients and m.of(self, 0) is not None]
        added = [row.registered for row in self.mechanisms if row.enabled and row.registered]
        return [
            *(f"method.{found.name}" for found in library),
            *(f"{found.group}.{found.name}" for found in added if found.reads_gradients),
        ]

    def _added(self, step: int) -> list[tuple[MechanismSettings, RegisteredMechanism]]:
        return [(row, get_mechanism(row.name)) for row in self.mechanisms if row.active(step)]

    def losses(self, context: StepContext) -> LossValues:
        """The terms of the context's step. Raises UserError for one that is not defined here."""
        active = self.active_terms(context.step)
        values = {t.name: _loss(get_term(t.name), context, t.options) for t in active}
        first, *others = (t.weight * values[t.name] for t in active)
        return LossValues(sum(others, start=first), values)


def _loss(found: RegisteredTerm, context: StepContext, options: Mapping[str, Any]) -> Tensor:
    """The value of a term. Raises UserError, naming it, where one of the user's own fails."""
    if found.of_library:
        return found(context, **options)
    try:
        value: object = found(context, **options)
    except (Exception, SystemExit) as error:  # whatever the user's code may raise
        raise OutsideFailed(_what_failed(found, context, error)) from error
    if not isinstance(value, Tensor) or value.ndim > 0:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise OutsideFailed(
            f"term {found.name} must return a scalar tensor, as .mean() makes it, got {got}"
        )
    if torch.is_grad_enabled() and not value.requires_grad:
        raise OutsideFailed(
            f"term {found.name} returns a tensor without a gradient{_cure(context)}"
        )
    return value


def _cure(context: StepContext) -> str:
    """How a term gets a gradient. The logits of the newest classes always have one, the features
    not where they are held; those that are not upsampled cost nothing."""
    zero = "return 0 * context.output.low_res_logits.sum()"
    if context.output.features.requires_grad:
        return f": compute it from context.output, and where there is nothing to learn {zero}"
    return (
        f", for context.output.features do not learn at step {context.step}: leave features out of "
        f"method.frozen, compute the term from the logits, or {zero}"
    )


def _what_failed(found: RegisteredTerm, context: StepContext, error: BaseException) -> str:
    """The error of a term in a line, with advice."""
    advice = ""
    if isinstance(error, AttributeError) and error.obj is None and context.teacher is None:
        advice = "; context.teacher is None at step 0, and without @term(needs_teacher=True)"
    return f"{failed(found, error)}{advice}"


def build_method(plain: Mapping[str, Any], *, any_term: bool = False) -> Method:
    """A Method from plain data: {"name", "terms": {name: {"weight", "from_step", option...}},
    "mechanisms": {name: {"enabled", option...}}, ...}.

    any_term: terms and mechanisms that nobody defines here are kept as they are; the method can be
    read so, but not trained. Raises UserError for anything that no method has.
    """
    rows = {"terms": _build_rows(Term, COMMON, "method.terms", plain.get("terms", {}))}
    if plain.get("mechanisms"):
        rows["mechanisms"] = _build_rows(
            MechanismSettings, COMMON_OF_MECHANISMS, "method.mechanisms", plain["mechanisms"]
        )
    others = {key: value for key, value in plain.items() if key not in ("terms", "mechanisms")}
    method: Method = build(Method, {**others, **rows}, "method.")
    if not any_term:
        method.check_defined()
    return method


def _build_rows(cls: type, common: tuple[str, ...], group: str, rows: object) -> tuple[Any, ...]:
    """cls: Term or MechanismSettings. common: what each has beside the options."""
    if not isinstance(rows, Mapping):
        raise UserError(f"{group} must be a group of {group.partition('.')[2]}, got {shown(rows)}")
    return tuple(_build_row(cls, common, f"{group}.", name, row) for name, row in rows.items())


def _build_row(cls: type, common: tuple[str, ...], prefix: str, name: str, row: object) -> Any:
    if row is not None and not isinstance(row, Mapping):
        raise UserError(
            f"{prefix}{name} is a group of settings, not {shown(row)}: set its {common[0]}"
        )
    options = dict(row or {})
    said = {key: options.pop(key) for key in common if key in options}
    return build(cls, {"name": name, "options": options, **said}, f"{prefix}{name}.")


def method_to_plain(method: Method) -> dict[str, Any]:
    """The plain data from which `build_method` makes this method; defaults are left out."""
    others = {
        f.name: getattr(method, f.name)
        for f in fields(method)
        if f.name not in ("name", "terms", "mechanisms") and getattr(method, f.name) != f.default
    }
    if method.regulariser is not None:
        others["regulariser"] = asdict(method.regulariser)
    rows = {
        row.name: {"enabled": row.enabled, **as_plain(row.options)} for row in method.mechanisms
    }
    return {
        "name": method.name,
        "terms": {t.name: _term_to_plain(t) for t in method.terms},
        **as_plain(others),
        **({"mechanisms": rows} if rows else {}),
    }


def _term_to_plain(term: Term) -> dict[str, Any]:
    first = {"from_step": term.from_step} if term.from_step else {}
    return {"weight": term.weight, **first, **as_plain(term.options)}
