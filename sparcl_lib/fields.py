"""What the declaration of a setting says beside its type: when it acts, and what of it counts.

A setting counts for every step, and so for the key of step 0, unless it says otherwise here.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from sparcl_lib.errors import UserError

T = TypeVar("T")
Acts = Literal["always", "later", "per step", "by content", "never"]

_KEY = "acts"


def later(default: Any = dataclasses.MISSING) -> Any:
    """A setting that changes nothing in step 0."""
    return _field(default, "later")


def per_step(default: Any = dataclasses.MISSING) -> Any:
    """A tuple with a value for each step, of which the last one holds for all later steps."""
    return _field(default, "per step")


def by_content(default: Any = dataclasses.MISSING) -> Any:
    """A place, or a name of what stands elsewhere: what is there counts, not this."""
    return _field(default, "by content")


def never(default: Any) -> Any:
    """A setting that changes how long training takes, and no number."""
    return _field(default, "never")


def acts(field: "dataclasses.Field[Any]") -> Acts:
    """What the declaration of a field says."""
    said: Acts = field.metadata.get(_KEY, "always")
    return said


def _field(default: Any, said: Acts) -> Any:
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata={_KEY: said})
    return dataclasses.field(default=default, metadata={_KEY: said})


def at_step(values: Sequence[T], step: int) -> T:
    """The value for a step of a per-step setting: the last one holds for all later steps."""
    return values[min(step, len(values) - 1)]


def require(holds: bool, key: str, expected: str, value: object) -> None:
    """Raise UserError unless the value of a setting holds."""
    if not holds:
        raise UserError(f"{key} must be {expected}, got {value}")
