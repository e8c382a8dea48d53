"""What the declaration of a setting says beside its type: when it acts, what of it counts, and
which numbers it may have.

A setting counts for every step, and so for the key of step 0, unless it says otherwise here.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from sparcl_lib.errors import UserError, shown

T = TypeVar("T")
Acts = Literal["always", "later", "per step", "by content", "never"]

_KEY = "acts"


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a setting may have: `size: Annotated[int, Range(16, 8192)] = 512`.

    A whole dataclass is checked by `check_ranges`, and `sparcl settings` shows the range.

    >>> str(Range(0, 1, open_high=True)), 1 in Range(0, 1, open_high=True)
    ('at least 0 and below 1', False)
    """

    low: float
    high: float
    note: str = ""
    """The unit, or why: `(batch norm)`."""
    _: dataclasses.KW_ONLY
    open_low: bool = False
    """Whether `low` itself is out."""
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if self.open_low else 'at least'} {_number(self.low)}"
        high = f"{'below' if self.open_high else 'at most'} {_number(self.high)}"
        return f"{low} and {high}{f' {self.note}' if self.note else ''}"


FACTOR = Range(0, 1e37, "(float32)")
"""Weights of losses and numbers in them: whoever needs more has an infinite loss soon."""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def range_of(hint: Any) -> Range | None:
    """The range in a type; of a tuple that of its elements."""
    if get_origin(hint) is Annotated:
        return next((part for part in get_args(hint)[1:] if isinstance(part, Range)), None)
    return next(filter(None, map(range_of, get_args(hint))), None)


@cache
def _ranges(cls: type) -> Mapping[str, Range]:
    hints = get_type_hints(cls, include_extras=True)
    found = {name: range_of(hint) for name, hint in hints.items()}
    return MappingProxyType({name: span for name, span in found.items() if span is not None})


def check_ranges(group: object, prefix: str) -> None:
    """Raise UserError for the first field of a dataclass whose value is out of its range."""
    cls: type = type(group)
    for name, span in _ranges(cls).items():
        value = getattr(group, name)
        for number in _numbers(value):
            require(number in span, f"{prefix}{name}", str(span), number)


def _numbers(value: Any) -> Iterator[float]:
    if value is not None:
        yield from value if isinstance(value, tuple) else (value,)


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
        raise UserError(f"{key} must be {expected}, got {shown(value)}")
