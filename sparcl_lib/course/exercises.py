"""Self-checks of exercises: offline, and with a hint instead of a traceback."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import signature
from numbers import Real
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

    An answer that raises NotImplementedError in the first case is not started, and gets no hint.
    What was found is appended to `results`. An answer that writes into the tensors, arrays, lists,
    sets and dictionaries that it is given is wrong, and told so.

    cases: pairs (arguments, expected); an expected whole number, also in a list, a dictionary or an
    array, is met by nothing else, 2.0 by what is close. A list and a tuple are the same here; where
    one of numbers is expected, an array or a tensor of one dimension is right too, and where an
    array is expected, a tensor. What is said of one that fails names the call. tolerance: relative
    and absolute, for floats.
    """
    result = _result(exercise, answer, list(cases), tolerance)
    results.append(result)
    display(_said(result, hint))


def _result(
    exercise: str, answer: Callable[..., Any], cases: list[Case], tolerance: float
) -> Result:
    for number, (arguments, expected) in enumerate(cases, start=1):
        asked = _call(answer, arguments)  # as it was: an answer may write into its arguments
        problem = _problem(answer, arguments, expected, tolerance)
        if number == 1 and (problem or "").startswith(_NOT_STARTED):
            return Result(exercise, "not started")
        if problem:
            where = f"case {number} of {len(cases)}, " if len(cases) > 1 else ""
            return Result(exercise, "wrong", f"{where}`{asked}`: {problem}")
    return Result(exercise, "right")


def _call(answer: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    """What was asked, such as `f(labels=int64 (2, 4, 4), num_old=3)`."""
    try:
        names = [f"{name}=" for name in signature(answer).bind(*arguments).arguments]
    except (TypeError, ValueError):  # it takes others, which is what will be said
        names = []
    if len(names) != len(arguments):  # *args is one name of several
        names = [""] * len(arguments)
    given = ", ".join(name + _in_short(value) for name, value in zip(names, arguments, strict=True))
    name = getattr(answer, "__name__", "answer").replace("<lambda>", "answer")
    return f"{name}({given})"


def _in_short(value: Any) -> str:
    """A value in a few words: what it is where it is small, else its kind and size."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        array = np.asarray(_plain(value))
        if array.size > _FEW or array.ndim > 2:
            return f"{array.dtype} {array.shape}"
        return str(
            np.round(array.astype(float), 3).tolist() if array.dtype.kind == "f" else array.tolist()
        )
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        pairs = ", ".join(f"{_in_short(key)}: {_in_short(x)}" for key, x in [*value.items()][:_FEW])
        return _unless_long(f"{{{pairs}}}", value, len(value) <= _FEW)
    if isinstance(value, (list, tuple, set)):
        entries = ", ".join(_in_short(x) for x in [*value][:_FEW])
        first, last = {list: "[]", set: "{}"}.get(
            type(value), ("(", ",)" if len(value) == 1 else ")")
        )
        return _unless_long(f"{first}{entries}{last}", value, len(value) <= _FEW)
    if value is None or isinstance(value, (bool, int, str, np.generic)):
        return _unless_long(repr(value), value, True)
    return getattr(value, "__name__", f"a {type(value).__name__}")


def _unless_long(text: str, value: Any, whole: bool) -> str:
    if whole and len(text) <= _LONG:
        return text
    return f"{_kind(value)} of {len(value)}" if hasattr(value, "__len__") else f"{text[:_LONG]}..."


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


_FEW = 8
"""Numbers or entries that are shown one by one."""
_LONG = 80
"""Characters that an argument may take."""
_NOT_STARTED = "raised NotImplementedError"
"""So begins what is said of the first case if the answer is still the stub."""


def _problem(
    answer: Callable[..., Any], arguments: tuple[Any, ...], expected: Any, tolerance: float
) -> str | None:
    before = [_copied(argument) for argument in arguments]
    try:
        got = answer(*arguments)
    except Exception as error:  # whatever the reader's code does
        return f"raised {type(error).__name__}" + (f": {error}" if str(error) else "")
    if got is None and expected is not None:
        return "returned nothing; is there a return at the end?"
    for place, pair in enumerate(zip(before, arguments), start=1):
        if not _is_same(*pair):
            return f"wrote into argument {place}; leave what is given as it is, and make a new one"
    if isinstance(expected, Property):
        return _missing(got, expected)
    return _difference(got, expected, tolerance)


def _copied(value: Any) -> Any:
    """A copy of what can be written into, at any depth; other things as they are."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, (np.ndarray, set)):
        return value.copy()
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _is_same(before: Any, now: Any) -> bool:
    """Whether `now` is what `_copied` made `before` of: nothing was written into it."""
    if isinstance(now, dict) and isinstance(before, dict):
        return before.keys() == now.keys() and all(_is_same(before[key], now[key]) for key in now)
    if isinstance(now, (list, tuple)) and isinstance(before, list):
        return len(before) == len(now) and all(map(_is_same, before, now))
    if isinstance(now, set) and isinstance(before, set):
        return before == now
    arrays = (torch.Tensor, np.ndarray)
    if not (isinstance(now, arrays) and isinstance(before, arrays)):
        return before is now
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
    sequences = ("a list", "a tuple")  # "returns two numbers" may be either
    if wanted in sequences and (kind in sequences or _may_be_list(got, expected)):
        return _sequence_difference(_listed(got), expected, tolerance)
    if kind != wanted and (kind, wanted) != ("a tensor", "an array"):
        return f"returned {kind}, expected {wanted}"
    if wanted == "a dictionary":
        return _dictionary_difference(got, expected, tolerance)
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
        "None": type(None),
    }
    found = (name for name, types in kinds.items() if isinstance(value, types))
    # A tensor or array of one element may stand for a number.
    kind = next(found, f"a {type(value).__name__}")
    single = kind in ("a tensor", "an array") and np.ndim(_plain(value)) == 0
    return "a number" if single else kind


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _may_be_list(got: Any, expected: Any) -> bool:
    """Whether an array or a tensor stands for a list of numbers: it has one dimension."""
    one_dimension = isinstance(got, (torch.Tensor, np.ndarray)) and got.ndim == 1
    return one_dimension and all(_kind(entry) == "a number" for entry in expected)


def _listed(got: Any) -> Any:
    plain = _plain(got)
    return plain.tolist() if isinstance(plain, np.ndarray) else plain


def _dictionary_difference(
    got: dict[Any, Any], expected: dict[Any, Any], tolerance: float
) -> str | None:
    if got.keys() != expected.keys():
        return f"has the keys {_in_order(got)}, expected {_in_order(expected)}"
    for key, value in expected.items():
        problem = _difference(got[key], value, tolerance)
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
        problem = _difference(mine, theirs, tolerance)
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
