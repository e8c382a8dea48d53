"""The methods by name, as plain data: the one list of them. Imports no torch, for --help reads it.

A row is what `sparcl_lib.methods.build_method` makes a `Method` of: terms with their options, how
the new classifier starts, what holds weights.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparcl_lib.errors import UserError

NO_BREAK = "\u00a0"

# Weights are those of the released codes on VOC (MSE distances for SDR, see docs); a data set's
# recipe file may override any of them.
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


class Row(NamedTuple):
    """One method."""

    summary: str
    """What it does, in a few words."""
    paper: str
    """Where it is from; empty for what is nobody's."""
    settings: dict[str, Any]
    """What `build_method` takes, but for the name."""


ROWS = {
    "FT": Row("fine-tuning, nothing holds the old classes: the lower bound", "", {"terms": _CE}),
    "Joint": Row("all classes at once: the upper bound", "", {"terms": _CE, "joint": True}),
    "LwF": Row(
        "the old network's outputs are targets too",
        "Li & Hoiem, ECCV 2016",
        {"terms": _LWF},
    ),
    "LwF-MC": Row(
        "LwF with one sigmoid per class",
        "Rebuffi et al., CVPR 2017",
        {"terms": {"bce": {}, "bce_kd": {"weight": 10.0}}},
    ),
    "ILT": Row(
        "LwF, and the encoder's features stay where they were",
        "Michieli & Zanuttigh, ICCV Workshops 2019",
        {"terms": {**_LWF, "feature_kd": {"weight": 100.0}}},
    ),
    "EWC": Row(
        "holds weights by their Fisher information",
        "Kirkpatrick et al., PNAS 2017",
        {"terms": _CE, "regulariser": {"name": "ewc", "weight": 500.0}},
    ),
    "RW": Row(
        "holds weights by Fisher information and path integral",
        "Chaudhry et al., ECCV 2018",
        {"terms": _CE, "regulariser": {"name": "rw", "weight": 100.0}},
    ),
    "PI": Row(
        "holds weights by the path integral of their changes",
        "Zenke et al., ICML 2017",
        {"terms": _CE, "regulariser": {"name": "pi", "weight": 500.0}},
    ),
    "CIL": Row(
        "distillation where nothing is labelled, stronger in doubt",
        "Klingner et al., ITSC 2020",
        {"terms": {"ce": {"labelled_only": True}, "entropy_kd": {}}},
    ),
    "MiB": Row(
        "background may be an old class, or a new one",
        "Cermelli et al., CVPR 2020",
        {"terms": _MIB, "classifier_init": "mib"},
    ),
    "PLOP": Row(
        "pooled maps of all layers stay; sure guesses become labels",
        "Douillard et al., CVPR 2021",
        {"terms": _PLOP, "classifier_init": "mib"},
    ),
    "SDR": Row(
        "shapes the latent space around class prototypes",
        "Michieli & Zanuttigh, CVPR 2021",
        {"terms": _SDR},
    ),
    "SDR+MiB": Row(
        "SDR, new classes start as in MiB",
        "Michieli & Zanuttigh, CVPR 2021",
        {"terms": _SDR, "classifier_init": "mib"},
    ),
    # Beyond the family; what is as in the papers and what is not: docs/later_ideas.md.
    "SSUL-like": Row(
        "a class for unknown objects; what was learned is frozen",
        "after Cha et al., NeurIPS 2021",
        {
            "terms": {"bce": {"threshold": 0.7}},
            "classifier_init": "unknown",
            "frozen": ["features", "old"],
            "unknown": 2.0,
            "head_per_step": True,
        },
    ),
    "MiB+EWF": Row(
        "MiB, then old and new weights are averaged",
        "Xiao et al., CVPR 2023",
        {"terms": _MIB, "classifier_init": "mib", "frozen": ["old"], "fuse": 0.5},
    ),
}
METHODS: dict[str, dict[str, Any]] = {name: row.settings for name, row in ROWS.items()}
"""Method -> its settings, as `build_method` takes them."""


def method_name(name: str) -> str:
    """The method's proper spelling; UserError with the valid names otherwise."""
    by_lower = {known.lower(): known for known in METHODS}
    if not isinstance(name, str) or name.lower() not in by_lower:
        raise UserError(f"unknown method {name!r}: choose from {', '.join(METHODS)}")
    return by_lower[name.lower()]


def loss_text(settings: Mapping[str, Any]) -> str:
    """Such as `ce(unbiased) + 10 kd(unbiased)`; lines break between summands alone."""
    parts = [_summand(name, options) for name, options in settings["terms"].items()]
    if held := settings.get("regulariser"):
        parts.append(_summand(f"{held['name']}{NO_BREAK}penalty", {"weight": held["weight"]}))
    return f" +{NO_BREAK}".join(parts)


def other_settings_text(settings: Mapping[str, Any]) -> str:
    """Such as `classifier_init=mib, frozen=[old]`."""
    said = {k: v for k, v in settings.items() if k not in ("name", "terms", "regulariser")}
    return ", ".join(f"{k}={json.dumps(v)}".replace('"', "") for k, v in said.items())


def _summand(name: str, options: Mapping[str, Any]) -> str:
    weight = options.get("weight", 1.0)
    said = [
        key if value is True else f"{key}={value}"
        for key, value in options.items()
        if key != "weight"
    ]
    factor = "" if weight == 1 else f"{weight:g}{NO_BREAK}"
    return f"{factor}{name}" + (f"({', '.join(said)})" if said else "")
