"""Methods as data: lists of weighted loss terms over the context of one training step."""

from sparcl_lib.methods.context import StepContext, labelled_sums
from sparcl_lib.methods.method import (
    METHODS,
    ONE_OF,
    LossValues,
    Method,
    Term,
    build_method,
    method_name,
)
from sparcl_lib.methods.pseudo_labels import entropy_histogram, entropy_thresholds
from sparcl_lib.methods.regularisers import Regulariser, WeightPenalty
from sparcl_lib.methods.saliency import salient
from sparcl_lib.methods.terms import TERMS, term_options
from sparcl_lib.methods.variants import variant_settings

__all__ = [
    "METHODS",
    "ONE_OF",
    "TERMS",
    "LossValues",
    "Method",
    "Regulariser",
    "StepContext",
    "Term",
    "WeightPenalty",
    "build_method",
    "entropy_histogram",
    "entropy_thresholds",
    "labelled_sums",
    "method_name",
    "salient",
    "term_options",
    "variant_settings",
]
