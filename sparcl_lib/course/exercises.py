"""Self-checks of exercises: offline, and with a hint instead of a traceback."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from IPython.display import display

from sparcl_lib.course.output import Output, as_html, coloured

Case = tuple[tuple[Any, ...], Any]
"""Arguments, and what the answer must return for them: a value, or a Property of it."""


@dataclass(frozen=True)
class Property:
    """What must hold of an answer's value where many values are right: for open exercises."""

    text: str
    """What it should be, such as "zero where nothing moved"."""
    holds: Callable[[Any], Any]
    """Whether a value is so."""


@dataclass(frozen=True)
class Result:
    """What a check found."""

    exercise: str
    """Its number, such as 3.1."""
    outcome: Literal["right", "wrong", "not started"]
    problem: str = ""
    """What is wrong, in which case; empty otherwise."""


results: list[Result] = []
"""One entry for each call of `check` in this process, in order: what marks a folder reads."""


def check(
    exercise: str,
    answer: Callable[..., Any],
    cases: Iterable[Case],
    hint: str = "",
    tolerance: float = 1e-4,
) -> None:
    """Call `answer` on every case; show what is wrong with the first that fails, then a hint.

    An answer that raises NotImplementedError is not started, and gets no hint. What was found is
    appended to `results`. An answer that writes into the tensors and arrays that it is given is
    wrong, and told so.

    cases: pairs (arguments, expected); an expected whole number, also in a list, a dictionary or an
    array, is met by nothing else, 2.0 by what is close. tolerance: relative and absolute, for
    floats.
    """
    result = _result(exercise, answer, list(cases), tolerance)
    results.append(result)
    display(_said(result, hint))


def _result(
    exercise: str, answer: Callable[..., Any], cases: list[Case], tolerance: float
) -> Result:
    for number, (arguments, expected) in enumerate(cases, start=1):
        problem = _problem(answer, arguments, expected, tolerance)
        if problem == _NOT_STARTED:
            return Result(exercise, "not started")
        if problem:
            where = f"case {number} of {len(cases)}: " if len(cases) > 1 else ""
            return Result(exercise, "wrong", where + problem)
    return Result(exercise, "right")


def _said(result: Result, hint: str) -> Output:
    """In a page and in a terminal; in both the words say it, and colour repeats them."""
    name = f"Exercise {result.exercise}"
    if result.outcome == "not started":
        return Output(f"<p>{name}: not started yet.</p>", f"{name}: not started yet.")
    if result.outcome == "right":
        return Output(f"<p>{name}: {coloured('success', '✓ right.')}</p>", f"{name}: right.")
    problem = result.problem if result.problem.endswith((".", "?", "!")) else f"{result.problem}."
    page = f"<p>{name}: {coloured('error', '✗ not yet.')} {as_html(problem)}</p>"
    plain = f"{name}: {problem}"
    if hint:
        page += f"<p>Hint: {as_html(hint)}</p>"
        plain += f" Hint: {hint}"
    return Output(page, plain)


_NOT_STARTED = "not started yet"


def _problem(
    answer: Callable[..., Any], arguments: tuple[Any, ...], expected: Any, tolerance: float
) -> str | None:
    before = [_copied(argument) for argument in arguments]
    try:
        got = answer(*arguments)
    except NotImplementedError:
        return _NOT_STARTED
    except Exception as error:  # whatever the reader's code does
        return f"raised {type(error).__name__}: {error}"
    if got is None and expected is not None:
        return "returned nothing; is there a return at the end?"
    for place, pair in enumerate(zip(before, arguments), start=1):
        if not _is_same(*pair):
            return f"wrote into argument {place}; leave what is given as it is, and make a new one"
    if isinstance(expected, Property):
        return _missing(got, expected)
    return _difference(got, expected, tolerance)


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return value.copy() if isinstance(value, np.ndarray) else value


def _is_same(before: Any, now: Any) -> bool:
    """Whether a tensor or an array is what it was; other things are not looked at."""
    if not isinstance(now, (torch.Tensor, np.ndarray)):
        return True
    then, values = np.asarray(_plain(before)), np.asarray(_plain(now))
    if then.shape != values.shape:
        return False
    return bool(((then == values) | (then != then) & (values != values)).all())  # NaN is itself


def _missing(got: Any, wanted: Property) -> str | None:
    try:
        return None if wanted.holds(got) else f"should be {wanted.text}"
    except Exception as error:  # a value of a kind that has no such property
        return f"should be {wanted.text}; asking raised {type(error).__name__}: {error}"


def _difference(got: Any, expected: Any, tolerance: float) -> str | None:
    """What is different, in words, or None."""
    kind, wanted = _kind(got), _kind(expected)
    if {kind, wanted} == {"a list", "a tuple"}:  # "returns two numbers" may be either
        return _sequence_difference(got, expected, tolerance)
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
    if expected.dtype.kind in "iu":  # a whole number, as it was written
        close = got == expected
    else:
        got, expected = (np.asarray(x, dtype=np.float64) for x in (got, expected))
        close = np.isclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    if close.all():
        return None
    place = np.unravel_index(np.argmin(close), got.shape)
    at = f" at index {tuple(int(i) for i in place)}" if place else ""
    mine, theirs = _distinct(got[place].item(), expected[place].item())
    return f"is {mine}{at}, expected {theirs}"


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
