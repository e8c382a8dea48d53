"""The dotted keys that --set and settings files may use."""

import dataclasses
import difflib
from collections.abc import Container, Mapping
from typing import Any, get_type_hints

from sparcl_lib.config.settings import RunConfig
from sparcl_lib.errors import UserError, shown
from sparcl_lib.methods import ADDED_MECHANISMS, TERMS, VARIANT, RegulariserSettings
from sparcl_lib.plain import flatten

_ELSEWHERE = {
    "crop": "data.size",
    "learning_rate": "optim.lr",
    "num_workers": "data.workers",
    "rate": "optim.lr",
    "wd": "optim.weight_decay",
}
"""What a setting is called in other codes, of which no letter may be the same -> its key here."""


def known_keys() -> list[str]:
    """Every dotted key that --set and settings files may use."""
    rows = ("method.terms", "method.mechanisms")
    keys = [VARIANT, *(key for key in _field_keys(RunConfig) if key not in rows)]
    keys += _field_keys(RegulariserSettings, "method.regulariser.")
    for found in (*TERMS.values(), *ADDED_MECHANISMS.values()):
        options = (*found.common, *found.options)
        keys += [f"{found.group}.{found.name}.{option}" for option in options]
    return keys


def _field_keys(cls: type, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, hint in get_type_hints(cls).items():
        nested = dataclasses.is_dataclass(hint)
        keys += _field_keys(hint, f"{prefix}{name}.") if nested else [prefix + name]
    return keys


def check_keys(plain: Mapping[str, Any]) -> None:
    """Raise UserError for the first key that no configuration has, with the nearest one."""
    known = known_keys()
    for key in flatten(plain):
        if key not in known and not any(k.startswith(key + ".") for k in known):
            ends = [k for k in known if k.endswith("." + key)]  # kd.weight, of a term
            near = ends or _near(key, known)
            group = key.rpartition(".")[0]
            there = f" {group}" if any(k.startswith(f"{group}.") for k in known) else ""
            hint = f": did you mean {near[0]}?" if near else f"; sparcl settings{there} lists them"
            raise UserError(f"unknown setting {shown(key)}{hint}{_plugin_hint(key)}")


def _near(key: str, known: list[str]) -> list[str]:
    """Keys like this one whose own name is like its: data.zero is not what data.crop meant."""
    name = key.rpartition(".")[2]
    if name in _ELSEWHERE:
        return [_ELSEWHERE[name]]
    names = {k: k.rpartition(".")[2] for k in difflib.get_close_matches(key, known, n=5)}
    return [k for k in names if difflib.get_close_matches(name, [names[k]], cutoff=0.55)]


def _plugin_hint(key: str) -> str:
    """What else may be wrong with the setting of a term or mechanism that nobody has defined."""
    kinds: dict[str, Container[str]] = {"terms": TERMS, "mechanisms": ADDED_MECHANISMS}
    for kind, known in kinds.items():
        prefix = f"method.{kind}."
        if key.startswith(prefix) and key.removeprefix(prefix).partition(".")[0] not in known:
            return (
                f". A {kind[:-1]} of your own is known once its cell was run, with @{kind[:-1]} "
                f"above it, or the file that defines it is given: --plugin FILE.py"
            )
    return ""
