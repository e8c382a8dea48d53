"""Losses are computed in float32 (or float64) whatever precision the network runs in."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from sparcl_lib.prototypes.sums import outside_autocast

F = TypeVar("F", bound=Callable[..., Any])


def _promote(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


def _device_type(values: list[Any]) -> str:
    """Of the first tensor; the loss says what is wrong where there is none."""
    for value in values:
        if isinstance(value, Tensor):
            return value.device.type
    return "cpu"


def full_precision(loss: F) -> F:
    """Run `loss` outside autocast, with half-precision tensors promoted to float32.

    Sums over thousands of locations and exponentials lose their digits in bf16, and the losses
    are too small a share of a step for the speed to matter.
    """

    @functools.wraps(loss)
    def wrapper(*args: Any, **options: Any) -> Any:
        with outside_autocast(_device_type([*args, *options.values()])):
            return loss(
                *(_promote(a) for a in args),
                **{name: _promote(value) for name, value in options.items()},
            )

    return cast(F, wrapper)
