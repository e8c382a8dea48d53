"""An answer beside what is expected: what is different, in words."""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
import torch


def difference(got: Any, expected: Any, tolerance: float) -> str | None:
    """What is different, in words, or None."""
    kind, wanted = kind_of(got), kind_of(expected)
    sequences = ("a list", "a tuple")  # "returns two numbers" may be either
    if wanted in sequences and (kind in sequences or _may_be_list(got, expected)):
        return _sequence_difference(_listed(got), expected, tolerance)
    if kind != wanted and (kind, wanted) != ("a tensor", "an array"):
        of_shape = f" of shape {tuple(got.shape)}" if kind in ("a tensor", "an array") else ""
        return f"returned {kind}{of_shape}, expected {wanted}"
    if wanted == "a dictionary":
        return _dictionary_difference(got, expected, tolerance)
    if wanted in ("an array", "a tensor", "a number"):
        return _array_difference(np.asarray(plain(got)), np.asarray(plain(expected)), tolerance)
    return None if got == expected else f"returned {got!r}, expected {expected!r}"


def kind_of(value: Any) -> str:
    kinds: dict[str, type | tuple[type, ...]] = {
        "a tensor": torch.Tensor,
        "an array": np.ndarray,
        "a dictionary": dict,
        "a list": list,
        "a tuple": tuple,
        "a truth value": (bool, np.bool_),
        "a number": (int, float, np.number),
        "a text": str,
        "None": type(None),
    }
    found = (name for name, types in kinds.items() if isinstance(value, types))
    # A tensor or array of one element may stand for a number.
    kind = next(found, f"a {type(value).__name__}")
    single = kind in ("a tensor", "an array") and np.ndim(plain(value)) == 0
    return "a number" if single else kind


def plain(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    wide = value.float() if value.dtype == torch.bfloat16 else value  # which numpy does not know
    return wide.detach().cpu().numpy()


def _may_be_list(got: Any, expected: Any) -> bool:
    """Whether an array or a tensor stands for a list of numbers: it has one dimension."""
    one_dimension = isinstance(got, (torch.Tensor, np.ndarray)) and got.ndim == 1
    return one_dimension and all(kind_of(entry) == "a number" for entry in expected)


def _listed(got: Any) -> Any:
    values = plain(got)
    return values.tolist() if isinstance(values, np.ndarray) else values


def _dictionary_difference(
    got: dict[Any, Any], expected: dict[Any, Any], tolerance: float
) -> str | None:
    if got.keys() != expected.keys():
        return f"has the keys {_in_order(got)}, expected {_in_order(expected)}"
    for key, value in expected.items():
        problem = difference(got[key], value, tolerance)
        if problem:
            return f"at {key!r}: {problem}"
    return None


def _in_order(keys: Iterable[Any]) -> list[Any]:
    try:
        return sorted(keys)
    except TypeError:  # of several kinds, such as 1 and "cat"
        return sorted(keys, key=str)


def _sequence_difference(got: Any, expected: Any, tolerance: float) -> str | None:
    if len(got) != len(expected):
        return f"has {len(got)} entries, expected {len(expected)}"
    for place, (mine, theirs) in enumerate(zip(got, expected)):
        problem = difference(mine, theirs, tolerance)
        if problem:
            return f"entry {place}: {problem}"
    return None


def _array_difference(got: np.ndarray, expected: np.ndarray, tolerance: float) -> str | None:
    if got.shape != expected.shape:
        return f"has shape {got.shape}, expected {expected.shape}"
    if got.size == 0:
        return None
    for place in np.ndindex(got.shape) if got.dtype.kind not in "biuf" else ():
        value = got[place].item() if isinstance(got[place], np.generic) else got[place]
        if not isinstance(value, Real):  # None, a text, a complex number
            _, theirs = _distinct(math.nan, expected[place].item())
            return f"is {value!r}{_at(place)}, expected {theirs}"
    if expected.dtype.kind in "iu":  # a whole number, as it was written
        close = got == expected
    else:
        got, expected = (np.asarray(x, dtype=np.float64) for x in (got, expected))
        close = np.isclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    if close.all():
        return None
    place = np.unravel_index(np.argmin(close), got.shape)
    mine, theirs = _distinct(np.asarray(got[place]).item(), expected[place].item())
    return f"is {mine}{_at(place)}, expected {theirs}"


def _at(place: tuple[Any, ...]) -> str:
    return f" at index {tuple(int(i) for i in place)}" if place else ""


def _distinct(got: float, expected: float) -> tuple[str, str]:
    """Both numbers as texts: whole ones in full, others with as many digits as it takes."""
    values = (got, expected)
    largest = max((abs(x) for x in values if math.isfinite(x)), default=0)
    texts = ("", "")
    for digits in range(len(f"{largest:.0f}") if largest < 1e15 else 4, 18):
        mine, theirs = (str(x) if isinstance(x, int) else f"{x:.{max(digits, 4)}g}" for x in values)
        texts = (mine, theirs)
        if mine != theirs:
            break
    return texts
