"""A method is data: weighted loss terms, how the new classifier starts, what holds weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from sparcl_lib.errors import UserError
from sparcl_lib.methods.context import StepContext
from sparcl_lib.methods.pseudo_labels import Pseudo
from sparcl_lib.methods.regularisers import Regulariser
from sparcl_lib.methods.terms import NEEDS_MAPS, NEEDS_TEACHER, TERMS, check_option, term_options
from sparcl_lib.models.classifier import ClassifierInit
from sparcl_lib.models.segmenter import Part
from sparcl_lib.plain import build

# Three answers to one question: what is a pixel of the background?
ONE_OF = ("unbiased", "pseudo", "labelled_only")


class LossValues(NamedTuple):
    """The weighted sum, and every term as it is before its weight."""

    total: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Term:
    """One row of a method's table."""

    name: str
    """A key of TERMS."""
    weight: float = 1.0
    """Factor of the term in the total, >= 0; a term of weight 0 is not computed."""
    from_step: int = 0
    """First step at which the term counts; terms that need a teacher start at 1 by nature."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword options of the term, e.g. distance."""

    def __post_init__(self) -> None:
        if self.name not in TERMS:
            raise UserError(f"unknown loss term {self.name!r}: choose from {', '.join(TERMS)}")
        for key, value in (("weight", self.weight), ("from_step", self.from_step)):
            if not 0 <= value < math.inf:
                raise UserError(f"method.terms.{self.name}.{key} must be >= 0, got {value}")
        for name, value in self.options.items():
            if name not in term_options(self.name):
                known = ", ".join(["weight", "from_step", *term_options(self.name)])
                raise UserError(f"term {self.name} has no option {name!r}: it has {known}")
            check_option(self.name, name, value)
        chosen = [name for name in ONE_OF if self.options.get(name, "none") not in (False, "none")]
        if len(chosen) > 1:
            keys = " and ".join(f"method.terms.{self.name}.{name}" for name in chosen)
            raise UserError(f"{keys} exclude each other: set one of them")

    def active(self, step: int) -> bool:
        first = max(self.from_step, 1 if self.name in NEEDS_TEACHER else 0)
        return self.weight > 0 and step >= first


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of a results table."""

    name: str
    terms: tuple[Term, ...]
    classifier_init: ClassifierInit = "random"
    """How the convolution of new classes starts."""
    joint: bool = False
    """Learn all classes of the task at once: the upper bound, not a continual method."""
    regulariser: Regulariser | None = None
    """EWC, RW or PI: hold the weights that mattered for earlier steps."""
    reshaped_prototypes: bool = False
    """Prototypes as SDR's released code fills them: wrong for more than one image a batch."""
    frozen: tuple[Part, ...] | None = None
    """What learns at its first step alone: features (backbone and head), old (the classifier of
    earlier steps); empty: nothing."""
    unknown: float = 0.0
    """Background pixels whose colour stands out this many times more than the image's mean are an
    unknown object, one more answer of the classifier: see methods.saliency; 0: no such answer."""
    head_per_step: bool = False
    """Each step's classifier, and the unknown answer, has a 3x3 convolution, batch norm and ReLU
    before its 1x1."""
    fuse: float = 0.0
    """After a later step the network is (1 - s) * old + s * new, s = (new classes / all classes) **
    fuse, background counted: 0.5 in EWF, 0 for no fusion."""

    def __post_init__(self) -> None:
        self._check_values()
        if not self.active_terms(0):
            raise UserError(
                f"method {self.name} has no loss term at step 0: give one a positive weight, "
                f"as in method.terms.ce.weight=1"
            )

    def _check_values(self) -> None:
        for key in ("unknown", "fuse"):
            value = getattr(self, key)
            if not 0 <= value < math.inf:
                raise UserError(f"method.{key} must be >= 0, got {value}")
        if self.unknown and "bce" not in (term.name for term in self.active_terms(0)):
            raise UserError(
                "method.unknown is one more yes or no and needs the term bce from step 0 on: "
                "set method.terms.bce.weight=1, or method.unknown=0"
            )
        if self.classifier_init == "unknown" and not self.unknown:
            raise UserError(
                "method.classifier_init=unknown starts new classes from the unknown one: "
                "set method.unknown=2, or another start"
            )

    def new_share(self, num_old: int, num_new: int) -> float:
        """Share of the newly trained weights in the network after a step: see `fuse`."""
        return (num_new / (num_old + num_new)) ** self.fuse

    def active_terms(self, step: int) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if term.active(step))

    def needs_teacher(self, step: int) -> bool:
        """Whether step needs the previous model: for a term of its own, or for pseudo-labels."""
        active = self.active_terms(step)
        latent = any(term.name not in ("ce", "bce") for term in active)
        sure = any(term.options.get("threshold", 1) < 1 for term in active)
        return step > 0 and (latent or sure or self.pseudo(step) != "none")

    def needs_maps(self, step: int) -> bool:
        """Whether a term compares the maps between the layers."""
        return any(term.name in NEEDS_MAPS for term in self.active_terms(step))

    def pseudo(self, step: int) -> Pseudo:
        """PLOP's rule by which guesses of the teacher become labels, if a term asks for them."""
        rules = (term.options.get("pseudo", "none") for term in self.active_terms(step))
        return next((rule for rule in rules if rule != "none" and step > 0), "none")

    def losses(self, context: StepContext) -> LossValues:
        active = self.active_terms(context.step)
        values = {t.name: TERMS[t.name](context, **t.options) for t in active}
        return LossValues(sum(t.weight * values[t.name] for t in active), values)


# Weights are those of the released codes on VOC (MSE distances for SDR, see docs); a data set's
# own recipe file may override any of them.
_CE = {"ce": {}}
_LWF = {"ce": {}, "kd": {"weight": 100.0}}
_MIB = {"ce": {"unbiased": True}, "kd": {"unbiased": True, "weight": 10.0}}
_SDR = {
    "ce": {"unbiased": True},
    "kd": {"unbiased": True, "weight": 100.0},
    "matching": {"distance": "mse", "weight": 1e-2},
    "attraction": {"distance": "mse", "weight": 1e-3},
    "repulsion": {"weight": 1e-3},
    "sparsification": {"weight": 1e-3},
}
_PLOP = {"ce": {"pseudo": "exact"}, "pod": {"weight": 0.01}}
METHODS: dict[str, dict[str, object]] = {
    "FT": {"terms": _CE},
    "Joint": {"terms": _CE, "joint": True},
    "LwF": {"terms": _LWF},
    "LwF-MC": {"terms": {"bce": {}, "bce_kd": {"weight": 10.0}}},
    "ILT": {"terms": {**_LWF, "feature_kd": {"weight": 100.0}}},
    "EWC": {"terms": _CE, "regulariser": {"name": "ewc", "weight": 500.0}},
    "RW": {"terms": _CE, "regulariser": {"name": "rw", "weight": 100.0}},
    "PI": {"terms": _CE, "regulariser": {"name": "pi", "weight": 500.0}},
    "CIL": {"terms": {"ce": {"labelled_only": True}, "entropy_kd": {}}},
    "MiB": {"terms": _MIB, "classifier_init": "mib"},
    "PLOP": {"terms": _PLOP, "classifier_init": "mib"},
    "SDR": {"terms": _SDR},
    "SDR+MiB": {"terms": _SDR, "classifier_init": "mib"},
    # Beyond the family; what is as in the papers and what is not: docs/later_ideas.md.
    "SSUL-like": {
        "terms": {"bce": {"threshold": 0.7}},
        "classifier_init": "unknown",
        "frozen": ["features", "old"],
        "unknown": 2.0,
        "head_per_step": True,
    },
    "MiB+EWF": {"terms": _MIB, "classifier_init": "mib", "frozen": ["old"], "fuse": 0.5},
}


def method_name(name: str) -> str:
    """The method's proper spelling; UserError with the valid names otherwise."""
    by_lower = {known.lower(): known for known in METHODS}
    if name.lower() not in by_lower:
        raise UserError(f"unknown method {name!r}: choose from {', '.join(METHODS)}")
    return by_lower[name.lower()]


def build_method(recipe: Mapping[str, object]) -> Method:
    """A Method from plain data: {"name", "terms": {name: {"weight", "from_step", option...}}, ...}.

    Raises UserError for anything that no method has.
    """
    rows = recipe.get("terms", {})
    if not isinstance(rows, Mapping):
        raise UserError(f"method.terms must be a group of terms, got {rows!r}")
    terms = tuple(_build_term(name, row) for name, row in rows.items())
    others = {key: value for key, value in recipe.items() if key != "terms"}
    return build(Method, {**others, "terms": terms}, "method.")


def _build_term(name: str, row: Mapping[str, object] | None) -> Term:
    if row is not None and not isinstance(row, Mapping):
        raise UserError(f"method.terms.{name} is a group of settings, not {row!r}: set its weight")
    options = dict(row or {})
    common = {key: options.pop(key) for key in ("weight", "from_step") if key in options}
    return build(Term, {"name": name, "options": options, **common}, f"method.terms.{name}.")
