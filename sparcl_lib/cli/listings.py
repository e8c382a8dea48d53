"""`sparcl methods`: what there is to choose from, in 80 columns."""

import textwrap
from collections.abc import Mapping
from typing import Any

from sparcl_lib.method_table import ROWS, Row

_WIDTH = 80
_NO_BREAK = "\u00a0"


def methods() -> None:
    """Every method: what it does, where it is from, and its loss with the weights on VOC."""
    for name, row in ROWS.items():
        print(f"{name:<10} {row.summary}")
        text = "; ".join(filter(None, [row.paper, f"loss: {_loss(row)}"]))
        indent = " " * 11
        filled = textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)
        print(filled.replace(_NO_BREAK, " "))


def _loss(row: Row) -> str:
    """Such as `ce(unbiased) + 10 kd(unbiased)`."""
    parts = [_summand(name, options) for name, options in row.settings["terms"].items()]
    if held := row.settings.get("regulariser"):
        parts.append(_summand(f"{held['name']}{_NO_BREAK}penalty", {"weight": held["weight"]}))
    return f" +{_NO_BREAK}".join(parts)


def _summand(name: str, options: Mapping[str, Any]) -> str:
    weight = options.get("weight", 1.0)
    said = [
        key if value is True else f"{key}={value}"
        for key, value in options.items()
        if key != "weight"
    ]
    factor = "" if weight == 1 else f"{weight:g}{_NO_BREAK}"
    return f"{factor}{name}" + (f"({', '.join(said)})" if said else "")
