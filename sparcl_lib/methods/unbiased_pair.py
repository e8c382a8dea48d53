"""MiB's two losses and their gradients, of the same exponentials: what `strips` adds up."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sparcl_lib.labels import VOID
from sparcl_lib.losses.precision import full_precision

Pair = tuple[Tensor, Tensor]


@full_precision
def unbiased_pair(logits: Tensor, target: Tensor, teacher_logits: Tensor) -> tuple[Pair, Pair]:
    """Sums over pixels of `unbiased_cross_entropy` and `unbiased_knowledge_distillation`, which
    divides by K_old, and the gradient of each sum in the logits.

    With e = exp(x - max x), Z its sum over all classes, A over background and old ones, N over
    background and new ones, and t the teacher's softmax, at a pixel:

    - cross-entropy: log Z - log A for a label below K_old, log Z + max x - x_y for another one y;
      gradient e / Z - e / A on 0 .. K_old-1, e / Z - 1 at y;
    - distillation: (log Z - t_0 log N - sum over old c of t_c (x_c - max x)) / K_old;
      gradient e / Z - t_0 e / N on background and new, e / Z - t_c on old, over K_old.

    Where all logits of A or N are more than 87 below the largest, beyond what a float's exponential
    holds, the loss counts 87 for the gap and leaves the push on those to e / Z.

    Source: MiB (Cermelli et al., CVPR 2020), section 3, equations 5 and 7.
    logits (B, K, H, W); target (B, H, W) int64; teacher_logits (B, K_old, H, W).
    Returns two scalars and two tensors (B, K, H, W).
    """
    old = teacher_logits.shape[1]
    shifted = logits - logits.amax(dim=1, keepdim=True)
    e = shifted.exp()
    first, hidden, new = e[:, :1], e[:, 1:old].sum(1, keepdim=True), e[:, old:].sum(1, keepdim=True)
    # A sum of exponentials that are all too small for a float must not become log 0 or 0 / 0.
    least = torch.finfo(e.dtype).tiny
    z, a, n = first + hidden + new, (first + hidden).clamp(least), (first + new).clamp(least)
    t = F.softmax(teacher_logits, dim=1)

    label = target.unsqueeze(1)
    counts, is_new = label != VOID, (label >= old) & (label != VOID)
    picked = torch.where(is_new, label, 0)
    said = torch.where(is_new, shifted.gather(1, picked), a.log())
    cross_entropy = torch.where(counts, z.log() - said, 0).sum()
    inverse = counts / z
    ce_slope = torch.empty_like(e)
    torch.mul(e[:, :old], inverse - torch.where(is_new, 0, counts / a), out=ce_slope[:, :old])
    torch.mul(e[:, old:], inverse, out=ce_slope[:, old:])
    ce_slope.scatter_add_(1, picked, -is_new.to(e.dtype))

    # What follows is written over what is no longer needed: each such tensor is as large as logits.
    kept = shifted[:, 1:old].mul_(t[:, 1:]).sum(1, keepdim=True)
    distillation = (z.log() - t[:, :1] * n.log() - kept).sum() / old
    of_all = 1 / (z * old)
    folded = of_all - t[:, :1] / (n * old)  # of background and new classes
    kd_slope = e
    kd_slope[:, :1].mul_(folded)
    kd_slope[:, 1:old].mul_(of_all).sub_(t[:, 1:], alpha=1 / old)
    kd_slope[:, old:].mul_(folded)
    return (cross_entropy, distillation), (ce_slope, kd_slope)
