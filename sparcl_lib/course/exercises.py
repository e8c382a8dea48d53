"""Self-checks of exercises: offline, and with a hint instead of a traceback."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

Case = tuple[tuple[Any, ...], Any]
"""Arguments, and what the answer must return for them."""


def check(
    exercise: str,
    answer: Callable[..., Any],
    cases: Iterable[Case],
    hint: str = "",
    tolerance: float = 1e-4,
) -> None:
    """Call `answer` on every case, print what is wrong with the first that fails, and a hint.

    cases: pairs (arguments, expected). tolerance: relative and absolute, for floats."""
    cases = list(cases)
    for number, (arguments, expected) in enumerate(cases, start=1):
        problem = _problem(answer, arguments, expected, tolerance)
        if problem:
            where = f", case {number} of {len(cases)}" if len(cases) > 1 else ""
            where = "" if problem == _NOT_STARTED else where
            print(f"Exercise {exercise}{where}: {problem}." + (f" Hint: {hint}" if hint else ""))
            return
    print(f"Exercise {exercise}: right.")


def compare_guess(what: str, guess: float | None, measured: float) -> None:
    """Print a prediction made before the run beside what came out."""
    mine = "no guess yet" if guess is None else f"guessed {guess:.1f}"
    print(f"{what}: measured {measured:.1f}, {mine}")


_NOT_STARTED = "not started yet"


def _problem(
    answer: Callable[..., Any], arguments: tuple[Any, ...], expected: Any, tolerance: float
) -> str | None:
    try:
        got = answer(*arguments)
    except NotImplementedError:
        return _NOT_STARTED
    except Exception as error:  # whatever the reader's code does
        return f"raised {type(error).__name__}: {error}"
    if got is None and expected is not None:
        return "returned nothing; is there a return at the end?"
    return _difference(got, expected, tolerance)


def _difference(got: Any, expected: Any, tolerance: float) -> str | None:
    """What is different, in words, or None."""
    kind, wanted = _kind(got), _kind(expected)
    if kind != wanted:
        return f"returned {kind}, expected {wanted}"
    if wanted == "a dictionary":
        return _dictionary_difference(got, expected, tolerance)
    if wanted in ("a list", "a tuple"):
        return _sequence_difference(got, expected, tolerance)
    if wanted in ("an array", "a tensor", "a number"):
        return _array_difference(np.asarray(_plain(got)), np.asarray(_plain(expected)), tolerance)
    return None if got == expected else f"returned {got!r}, expected {expected!r}"


def _kind(value: Any) -> str:
    kinds: dict[str, type | tuple[type, ...]] = {
        "a tensor": torch.Tensor,
        "an array": np.ndarray,
        "a dictionary": dict,
        "a list": list,
        "a tuple": tuple,
        "a truth value": (bool, np.bool_),
        "a number": (int, float, np.number),
        "a text": str,
    }
    found = (name for name, types in kinds.items() if isinstance(value, types))
    # A tensor or array of one element may stand for a number.
    kind = next(found, f"a {type(value).__name__}")
    single = kind in ("a tensor", "an array") and np.ndim(_plain(value)) == 0
    return "a number" if single else kind


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _dictionary_difference(
    got: dict[Any, Any], expected: dict[Any, Any], tolerance: float
) -> str | None:
    if got.keys() != expected.keys():
        return f"has the keys {sorted(got)}, expected {sorted(expected)}"
    for key, value in expected.items():
        problem = _difference(got[key], value, tolerance)
        if problem:
            return f"at {key!r}: {problem}"
    return None


def _sequence_difference(got: Any, expected: Any, tolerance: float) -> str | None:
    if len(got) != len(expected):
        return f"has {len(got)} entries, expected {len(expected)}"
    for place, (mine, theirs) in enumerate(zip(got, expected)):
        problem = _difference(mine, theirs, tolerance)
        if problem:
            return f"entry {place}: {problem}"
    return None


def _array_difference(got: np.ndarray, expected: np.ndarray, tolerance: float) -> str | None:
    if got.shape != expected.shape:
        return f"has shape {got.shape}, expected {expected.shape}"
    if got.size == 0:
        return None
    got, expected = (np.asarray(x, dtype=np.float64) for x in (got, expected))
    close = np.isclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    if close.all():
        return None
    place = np.unravel_index(np.argmin(close), got.shape)
    at = f" at index {tuple(int(i) for i in place)}" if place else ""
    return f"is {got[place]:.4g}{at}, expected {expected[place]:.4g}"
