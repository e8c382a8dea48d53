"""Cross-entropy on a step's labels. B images, K classes with background first, H x W pixels.

A label is a class, 0..K-1, or ignore_index: what else it may be, -100 or K, is an IndexError or a
RuntimeError of torch's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sparcl_lib.labels import VOID
from sparcl_lib.losses.precision import full_precision
from sparcl_lib.prototypes.sums import check_labels, is_whole, shape_of, shown_number

__all__ = [
    "adaptive_cross_entropy",
    "binary_cross_entropy",
    "cross_entropy",
    "unbiased_cross_entropy",
]


def _check_pixels(logits: Tensor, target: Tensor) -> None:
    check_labels(target, "target")
    if not isinstance(logits, Tensor) or logits.ndim < 2:
        raise ValueError(f"logits must be a tensor (B, K, H, W), got {shape_of(logits)}")
    pixels = (logits.shape[0], *logits.shape[2:])
    if target.shape != pixels:
        raise ValueError(
            f"target must label the pixels of the logits: expected {tuple(pixels)}, "
            f"got {tuple(target.shape)}"
        )


def check_num_old(num_old: int, logits: Tensor) -> None:
    """Raise ValueError for a number of old classes that logits (B, K, H, W) cannot have."""
    if not is_whole(num_old) or not 1 <= num_old <= logits.shape[1]:
        raise ValueError(
            f"num_old counts the old classes with background: expected 1..{logits.shape[1]} "
            f"(channels of the logits), got {shown_number(num_old)}"
        )


@full_precision
def cross_entropy(logits: Tensor, target: Tensor, ignore_index: int = VOID) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored; 0 if all are.

    Source: the usual loss of the field, MiB (Cermelli et al., CVPR 2020), equation 1.
    logits (B, K, H, W); target (B, H, W) int64. Returns a scalar, 0 if all pixels are ignored.
    Raises ValueError when they have other pixels, or the target is not int64.
    """
    _check_pixels(logits, target)
    total = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="sum")
    return total / (target != ignore_index).sum().clamp(min=1)


@full_precision
def unbiased_cross_entropy(
    logits: Tensor, target: Tensor, num_old: int, ignore_index: int = VOID
) -> Tensor:
    """Cross-entropy in which "background" means "background or any old class".

    log p(0) = logsumexp(logits of 0..num_old-1) - logsumexp(all logits); targets below num_old
    become 0. Old classes are hidden in the background of the target, so a pixel labelled 0 must
    not teach the network that it is no old class.

    Source: MiB (Cermelli et al., CVPR 2020), section 3, equation 5.
    logits (B, K, H, W); target (B, H, W) int64; num_old: number of classes of the earlier steps,
    background included, 1..K (1 gives plain cross-entropy). Returns the mean over the pixels that
    are not ignored, 0 if all are. Raises ValueError when num_old is outside 1..K, or the target has
    other pixels or is not int64.
    """
    _check_pixels(logits, target)
    check_num_old(num_old, logits)
    log_prob = F.log_softmax(logits, dim=1)
    log_background = log_prob[:, :num_old].logsumexp(dim=1)  # background or old
    ignored = target == ignore_index
    picked = log_prob.gather(1, torch.where(ignored, 0, target).unsqueeze(1)).squeeze(1)
    picked = torch.where(target < num_old, log_background, picked)
    return -torch.where(ignored, 0, picked).sum() / (~ignored).sum().clamp(min=1)


@full_precision
def binary_cross_entropy(logits: Tensor, target: Tensor, ignore_index: int = VOID) -> Tensor:
    """One sigmoid per class: sum over classes, mean over the pixels that are not ignored.

    sum over c of log(1 + exp(x_c)) - x_target, which is binary cross-entropy of sigmoid(x).
    Source: iCaRL (Rebuffi et al., CVPR 2017), equation 1, first sum, in the dense form of MiB's
    released code, which also asks the old classes: there a hidden old class is a "no".
    logits (B, K, H, W); target (B, H, W) int64. Returns a scalar, 0 if all pixels are ignored.
    Raises ValueError when they have other pixels, or the target is not int64.
    """
    _check_pixels(logits, target)
    ignored = target == ignore_index
    picked = logits.gather(1, torch.where(ignored, 0, target).unsqueeze(1)).squeeze(1)
    losses = F.softplus(logits).sum(dim=1) - picked
    return torch.where(ignored, 0, losses).sum() / (~ignored).sum().clamp(min=1)


@full_precision
def adaptive_cross_entropy(
    logits: Tensor, target: Tensor, share: Tensor, ignore_index: int = VOID
) -> Tensor:
    """Cross-entropy on pseudo-labels, each image weighed by how many of them were accepted.

    Mean over images of share * (sum over pixels of -log p(target)) / (H * W). The divisor counts
    ignored pixels too, so an image full of doubt weighs less twice.

    Source: PLOP (Douillard et al., CVPR 2021), section 3.3, the pseudo-label loss with its
    adaptive factor nu.
    logits (B, K, H, W); target (B, H, W) int64 and share (B,), 0 to 1, as `pseudo_labels.fill_in`
    makes them. Returns a scalar, 0 if all pixels are ignored.
    Raises ValueError when share is not one number per image, or the target has other pixels or is
    not int64.
    """
    _check_pixels(logits, target)
    if not isinstance(share, Tensor) or share.shape != target.shape[:1]:
        raise ValueError(f"share must be (B,) with B = {len(target)} images, got {shape_of(share)}")
    losses = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    weighed = losses.mean(dim=(1, 2)) * share.to(losses)
    return weighed.mean() if len(weighed) else weighed.sum()
