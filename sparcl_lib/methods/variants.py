"""`method.variant`: one word for the settings that turn SDR's formulas into its released code.

paper: the formulas, as every setting has them by default; released: what the authors' code of 2021
computes. Each setting is reached alone, too: docs/paper_and_released.md is the table.
"""

from collections.abc import Mapping
from typing import Any

from sparcl_lib.errors import UserError

VARIANTS = ("paper", "released")
RELEASED_TERMS: dict[str, dict[str, object]] = {
    "matching": {"distance": "mse", "reshaped": True},
    "attraction": {
        "distance": "mse",
        "reshaped": True,
        "division": "nested",
        "labels": "raw",
        "from_step": 1,
    },
    "repulsion": {"distances": "matmul", "reshaped": True, "labels": "raw", "from_step": 1},
    "sparsification": {"floor": 0.0, "signed": True, "labels": "raw"},
}
RELEASED_CE: dict[str, object] = {"fold_labels": True}


def variant_settings(asked: Mapping[str, Any], head: str) -> dict[str, Any]:
    """Nested settings that the variant in `asked` stands for: those of the terms that are there.

    asked: all settings of a run by dotted key; head: the default of model.head. Raises UserError
    for an unknown variant and for a method without a term that has two forms.
    """
    variant, name = asked["method.variant"], asked.get("method.name")
    if variant not in VARIANTS:
        raise UserError(f"method.variant must be {' or '.join(VARIANTS)}, got {variant!r}")
    there = {key.split(".")[2] for key in asked if key.startswith("method.terms.")}
    terms = {term: options for term, options in RELEASED_TERMS.items() if term in there}
    if not terms:
        raise UserError(
            f"method.variant={variant} is for methods with a term of {', '.join(RELEASED_TERMS)}: "
            f"method {name} has none, SDR and SDR+MiB have all"
        )
    if variant == "paper":
        return {}
    if "ce" in there:
        terms["ce"] = RELEASED_CE
    return {
        "method": {"terms": terms, "reshaped_prototypes": True},
        "model": {
            "head": str(asked.get("model.head", head)).removesuffix("_linear") + "_linear",
            "batch_norm": "slow",
        },
    }
