"""Methods as data: lists of weighted loss terms over the context of one training step."""

from sparcl_lib.methods.context import StepContext, labelled_sums
from sparcl_lib.methods.method import (
    METHODS,
    LossValues,
    Method,
    Term,
    build_method,
    method_name,
)
from sparcl_lib.methods.terms import TERMS, term_options

__all__ = [
    "METHODS",
    "TERMS",
    "LossValues",
    "Method",
    "StepContext",
    "Term",
    "build_method",
    "labelled_sums",
    "method_name",
    "term_options",
]
