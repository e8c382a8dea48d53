"""Losses are computed in float32 (or float64) whatever precision the network runs in."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor


def _promote(value: object) -> object:
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


def full_precision(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run `loss` outside autocast, with half-precision tensors promoted to float32.

    Sums over thousands of locations and exponentials lose their digits in bf16, and the losses
    are too small a share of a step for the speed to matter.
    """

    @functools.wraps(loss)
    def wrapper(features_or_logits: Tensor, *args: object, **options: object) -> Tensor:
        with torch.autocast(features_or_logits.device.type, enabled=False):
            return loss(
                _promote(features_or_logits),
                *(_promote(a) for a in args),
                **{name: _promote(value) for name, value in options.items()},
            )

    return wrapper
