"""Methods as data: lists of weighted loss terms over the context of one training step."""

from sparcl_lib.method_table import METHODS, method_name

from sparcl_lib.methods import terms as _terms  # noqa: F401  # isort: skip
from sparcl_lib.methods import released_terms as _released  # noqa: F401  # isort: skip
from sparcl_lib.losses.pseudo_labels import entropy_histogram, entropy_thresholds
from sparcl_lib.methods.added_mechanisms import (
    ADDED_MECHANISMS,
    Guarded,
    RegisteredMechanism,
    get_mechanism,
    mechanism,
)
from sparcl_lib.methods.context import StepContext, labelled_sums
from sparcl_lib.methods.fusion import new_share
from sparcl_lib.methods.hooks import LossValues, Mechanism, state_of
from sparcl_lib.methods.method import (
    MECHANISMS,
    MechanismSettings,
    Method,
    Term,
    build_method,
    method_to_plain,
)
from sparcl_lib.methods.registry import TERMS, RegisteredTerm, get_term, term
from sparcl_lib.methods.regularisers import RegulariserSettings, WeightPenalty
from sparcl_lib.methods.saliency import salient
from sparcl_lib.methods.variants import VARIANT, with_variant

__all__ = [
    "ADDED_MECHANISMS",
    "MECHANISMS",
    "METHODS",
    "TERMS",
    "VARIANT",
    "Guarded",
    "LossValues",
    "Mechanism",
    "MechanismSettings",
    "Method",
    "RegisteredMechanism",
    "RegisteredTerm",
    "RegulariserSettings",
    "StepContext",
    "Term",
    "WeightPenalty",
    "build_method",
    "entropy_histogram",
    "entropy_thresholds",
    "get_mechanism",
    "get_term",
    "labelled_sums",
    "mechanism",
    "method_name",
    "method_to_plain",
    "new_share",
    "salient",
    "state_of",
    "term",
    "with_variant",
]
