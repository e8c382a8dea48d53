"""Losses on pixels where the upsampled logits of a batch do not fit, or are slow to hold.

A strip of rows is upsampled, its losses and their gradients are added up, and it is forgotten: no
tensor of (B, K, H, W) is held. What waits for the backward pass is (B, K, H, w), upsampled in
height only.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparcl_lib.labels import VOID
from sparcl_lib.methods.unbiased_pair import unbiased_pair
from sparcl_lib.models import SegmenterOutput

Evaluate = Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]
"""Upsampled logits of each output and the same rows of pixels -> sums of losses over the strip, and
their gradients in the first logits."""


def mean_over_pixels(
    loss: Callable[..., Tensor],
    outputs: Sequence[SegmenterOutput],
    *pixels: Tensor,
    counted: Tensor | None = None,
    binary: bool = False,
) -> Tensor:
    """`loss(*logits, *pixels)`, in one piece or, where the logits need it, strip by strip, which
    is equal but for rounding.

    loss: a mean over exactly the pixels of `counted`, 0 with a gradient where there are none: what
    it gives for a strip is weighed by how many the strip has. outputs: each gives logits
    (B, K, H, W), with `binary` its `binary_logits`; the first says whether they need strips,
    and alone has a gradient. pixels: (B, H, W) each. counted: (B, H, W) bool; None for all pixels.
    Returns a scalar.
    """
    first = outputs[0]
    if not first.needs_strips:
        logits = (o.binary_logits if binary else o.logits for o in outputs)
        return loss(*logits, *pixels)
    counted = _all_pixels(first) if counted is None else counted

    def evaluate(logits: Tensor, *rest: Tensor) -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
        with torch.enable_grad():
            value = loss(logits.requires_grad_(), *rest[:-1]) * rest[-1].sum()
        return (value.detach(),), torch.autograd.grad(value, logits)

    (total,) = _sums_over_strips(evaluate, outputs, [*pixels, counted], binary)
    return total / counted.sum().clamp(min=1)


def unbiased_means(
    student: SegmenterOutput, teacher: SegmenterOutput, target: Tensor
) -> tuple[Tensor, Tensor]:
    """MiB's cross-entropy and distillation in strips, which share their exponentials.

    Equal to `losses.unbiased_cross_entropy` and `losses.unbiased_knowledge_distillation` but for
    rounding, up to the gap of `unbiased_pair`. target (B, H, W). Returns two scalars.
    """

    def evaluate(logits: Tensor, soft: Tensor, labels: Tensor) -> Any:
        return unbiased_pair(logits, labels, soft)

    ce, kd = _sums_over_strips(evaluate, (student, teacher), [target], binary=False)
    return ce / (target != VOID).sum().clamp(min=1), kd / target.numel()


def _all_pixels(output: SegmenterOutput) -> Tensor:
    logits = output.low_res_logits
    return torch.ones((len(logits), *output.image_size), dtype=torch.bool, device=logits.device)


def _sums_over_strips(
    evaluate: Evaluate, outputs: Sequence[SegmenterOutput], pixels: Sequence[Tensor], binary: bool
) -> tuple[Tensor, ...]:
    first, rows = outputs[0], outputs[0].rows_per_strip
    high, *others = (output.upsampled_in_height(binary) for output in outputs)
    columns = [x.split(rows, dim=2) for x in others] + [x.split(rows, dim=1) for x in pixels]
    sums: tuple[Tensor, ...] = _Strips.apply(high, evaluate, first, rows, columns)
    return sums


class _Strips(torch.autograd.Function):
    """Sums over strips; their gradients are computed at the same time, as the strip is there."""

    @staticmethod
    def forward(
        ctx: Any,
        high: Tensor,
        evaluate: Evaluate,
        output: SegmenterOutput,
        rows: int,
        columns: Sequence[Sequence[Tensor]],
    ) -> tuple[Tensor, ...]:
        sums, slopes = [], []
        for strip, *beside in zip(high.split(rows, dim=2), *columns, strict=True):
            with torch.enable_grad():
                strip = strip.detach().requires_grad_()
                wide = output.upsampled_in_width(strip)
            others = [output.upsampled_in_width(x) if x.ndim == 4 else x for x in beside]
            values, wide_slopes = evaluate(wide.detach(), *others)
            sums.append(torch.stack(values))
            slopes.append(
                [torch.autograd.grad(wide, strip, s, retain_graph=True)[0] for s in wide_slopes]
            )
        ctx.save_for_backward(*(torch.cat(parts, dim=2) for parts in zip(*slopes, strict=True)))
        return torch.stack(sums).sum(dim=0).unbind()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        first, *others = (u * s for u, s in zip(upstream, ctx.saved_tensors, strict=True))
        return sum(others, start=first), None, None, None, None
