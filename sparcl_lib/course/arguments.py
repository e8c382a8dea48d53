"""Arguments of an exercise: copied, so that writing into them is seen, and shown in a few words."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import pandas as pd
import torch

from sparcl_lib.course.comparing import kind_of, plain

_FEW = 8
"""Numbers or entries that are shown one by one."""
_LONG = 80
"""Characters that an argument may take."""


def function_name(function: Callable[..., Any]) -> str:
    """Its name; `answer` where it has none."""
    return getattr(function, "__name__", "answer").replace("<lambda>", "answer")


def argument_names(function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[str]:
    """What the function calls each of these arguments; empty texts where that is not known."""
    try:
        names = list(signature(function).bind(*arguments).arguments)
    except (TypeError, ValueError):  # it takes others, which is what will be said
        names = []
    return names if len(names) == len(arguments) else [""] * len(arguments)  # or *args is one name


def call_text(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    """Such as `f(labels=int64 (2, 4, 4), num_old=3)`."""
    pairs = zip(argument_names(function, arguments), arguments, strict=True)
    given = ", ".join(f"{name}={in_short(x)}" if name else in_short(x) for name, x in pairs)
    return f"{function_name(function)}({given})"


def in_short(value: Any) -> str:
    """A value in a few words: what it is where it is small, else its kind and size."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        array = np.asarray(plain(value))
        if array.size > _FEW or array.ndim > 2:
            return f"{array.dtype} {array.shape}"
        return in_short(array.tolist())
    if isinstance(value, pd.DataFrame):
        return f"a table of {len(value)} rows"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    if isinstance(value, dict):
        pairs = ", ".join(f"{in_short(key)}: {in_short(x)}" for key, x in [*value.items()][:_FEW])
        return _unless_long(f"{{{pairs}}}", value, len(value) <= _FEW)
    if isinstance(value, (list, tuple, set)):
        entries = ", ".join(in_short(x) for x in [*value][:_FEW])
        first, last = {list: ("[", "]"), set: ("{", "}")}.get(type(value), ("(", ")"))
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return _unless_long(f"{first}{entries}{comma}{last}", value, len(value) <= _FEW)
    if value is None or isinstance(value, (bool, int, str, np.generic)):
        return _unless_long(repr(value), value, True)
    return getattr(value, "__name__", f"a {type(value).__name__}")


def _unless_long(text: str, value: Any, whole: bool) -> str:
    if whole and len(text) <= _LONG:
        return text
    return (
        f"{kind_of(value)} of {len(value)}" if hasattr(value, "__len__") else f"{text[:_LONG]}..."
    )


def copied(value: Any) -> Any:
    """A copy of what can be written into, at any depth; other things as they are."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, (np.ndarray, set, pd.DataFrame, pd.Series)):
        return value.copy()
    if isinstance(value, dict):
        return {key: copied(entry) for key, entry in value.items()}
    return [copied(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def is_same(before: Any, now: Any) -> bool:
    """Whether `now` is what `copied` made `before` of: nothing was written into it."""
    if isinstance(now, dict) and isinstance(before, dict):
        return before.keys() == now.keys() and all(is_same(before[key], now[key]) for key in now)
    if isinstance(now, (list, tuple)) and isinstance(before, list):
        return len(before) == len(now) and all(map(is_same, before, now))
    if isinstance(now, set) and isinstance(before, set):
        return before == now
    if isinstance(now, (pd.DataFrame, pd.Series)) and isinstance(before, type(now)):
        return bool(before.equals(now))
    arrays = (torch.Tensor, np.ndarray)
    if not (isinstance(now, arrays) and isinstance(before, arrays)):
        return before is now
    then, values = np.asarray(plain(before)), np.asarray(plain(now))
    if then.shape != values.shape:
        return False
    return bool(((then == values) | (then != then) & (values != values)).all())  # NaN is itself
