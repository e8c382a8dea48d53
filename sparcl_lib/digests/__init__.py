"""Short digests of what code says: the same in every process and version of Python."""

from sparcl_lib.digests.functions import function_digest
from sparcl_lib.digests.statements import DIGITS, statements_digest, text_digest, tree_digest
from sparcl_lib.digests.training_code import training_code_digest

__all__ = [
    "DIGITS",
    "function_digest",
    "statements_digest",
    "text_digest",
    "training_code_digest",
    "tree_digest",
]
