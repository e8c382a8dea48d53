"""The methods by name, as plain data: the one list of them. Imports no torch, for --help reads it.

A row is what `sparcl_lib.methods.build_method` makes a `Method` of: terms with their options, how
the new classifier starts, what holds weights.
"""

from typing import Any

from sparcl_lib.errors import UserError

# Weights are those of the released codes on VOC (MSE distances for SDR, see docs); a data set's
# own recipe file may override any of them.
_CE: dict[str, Any] = {"ce": {}}
_LWF: dict[str, Any] = {"ce": {}, "kd": {"weight": 100.0}}
_MIB: dict[str, Any] = {"ce": {"unbiased": True}, "kd": {"unbiased": True, "weight": 10.0}}
_SDR: dict[str, Any] = {
    "ce": {"unbiased": True},
    "kd": {"unbiased": True, "weight": 100.0},
    "matching": {"distance": "mse", "weight": 1e-2},
    "attraction": {"distance": "mse", "weight": 1e-3},
    "repulsion": {"weight": 1e-3},
    "sparsification": {"weight": 1e-3},
}
_PLOP: dict[str, Any] = {"ce": {"pseudo": "exact"}, "pod": {"weight": 0.01}}
METHODS: dict[str, dict[str, Any]] = {
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
