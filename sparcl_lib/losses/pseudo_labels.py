"""Pseudo-labels: which of the old model's guesses on unlabelled pixels are sure enough.

PLOP's rule, by entropy, and at the end SSUL's, by sigmoid. Functions of tensors alone, which a
training loop of one's own may call: `docs/engineer.md` shows PLOP's.

B images, K_old classes of the old model, H x W pixels. A guess is accepted where its entropy is
under the median of its class over the images of the step; the medians come from histograms, one a
batch, which are to be summed, over processes too.

Source: PLOP (Douillard et al., CVPR 2021), section 3.3. The released code differs in its median:
see `released_thresholds`.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.losses.precision import full_precision
from sparcl_lib.prototypes.sums import shape_of

Pseudo = Literal["none", "exact", "released"]

# Entropies of a trained network span many powers of ten: bins of equal width in the logarithm,
# each 0.5 % wide.
LOWEST = 1e-9
EXACT_BINS = 4096
RELEASED_BINS = 100
_BINS = {"exact": EXACT_BINS, "released": RELEASED_BINS}
# In the units of the released code; an entropy under it is accepted whatever the median is.
RELEASED_FLOOR = 0.001


@full_precision
def entropy(logits: Tensor) -> Tensor:
    """(B, K, H, W) -> (B, H, W): entropy of the softmax in nats, 0..log K."""
    log_prob = F.log_softmax(logits, dim=1)
    return -(log_prob.exp() * log_prob).sum(dim=1)


def entropy_histogram(logits: Tensor, unlabelled: Tensor, num_classes: int, rule: Pseudo) -> Tensor:
    """Entropies of the unlabelled pixels, counted per class that the old model guesses.

    logits (B, K_old, H, W), those of NaN are not counted; unlabelled (B, H, W) bool; num_classes:
    K, old and new; rule: "exact" or "released". Returns int64 (K_old, bins). Raises ValueError for
    another rule, and for a mask of other pixels or type.
    """
    _check_rule(rule)
    pixels = (len(logits), *logits.shape[2:])
    if unlabelled.dtype != torch.bool or unlabelled.shape != pixels:
        raise ValueError(
            f"unlabelled must be (B, H, W) = {pixels} of torch.bool, got "
            f"{tuple(unlabelled.shape)} of {unlabelled.dtype}"
        )
    num_old, bins = logits.shape[1], _BINS[rule]
    place = _exact_place if rule == "exact" else _released_place
    position = place(entropy(logits), num_old, num_classes)
    index = logits.argmax(dim=1) * bins + (position * bins).long().clamp(0, bins - 1)
    # What is not counted goes to a bin of its own: no host sync for its number, nor one for the
    # length of the result, as bincount needs.
    counted = unlabelled & ~position.isnan()
    index = torch.where(counted, index, num_old * bins).flatten()
    counts = torch.zeros(num_old * bins + 1, dtype=torch.int64, device=index.device)
    return counts.scatter_add_(0, index, torch.ones_like(index))[:-1].view(num_old, bins)


def _check_rule(rule: str) -> None:
    if rule not in _BINS:
        raise ValueError(f"rule is {rule!r}: expected exact or released")


def _exact_place(entropies: Tensor, num_old: int, num_classes: int) -> Tensor:
    """Entropy in nats -> 0..1, logarithmic from LOWEST to the largest possible one."""
    largest = math.log(max(num_old, 2))
    return (entropies.clamp(min=LOWEST) / LOWEST).log() / math.log(largest / LOWEST)


def _released_unit(num_old: int, num_classes: int) -> float:
    """Nats in one unit of the released code, which divides by the number of old classes (a mean
    where a sum is due) and by two logarithms: of old, then of all classes.
    """
    return num_old * math.log(max(num_old, 2)) * math.log(num_classes)


def _released_place(entropies: Tensor, num_old: int, num_classes: int) -> Tensor:
    return entropies / _released_unit(num_old, num_classes)


def entropy_thresholds(histogram: Tensor, num_classes: int, rule: Pseudo) -> Tensor:
    """(K_old, bins) from `entropy_histogram` -> (K_old,) thresholds in nats.

    0 for a class that the old model never guesses. Raises ValueError for another rule than that of
    the histogram, and for what is none.
    """
    _check_rule(rule)
    if not isinstance(histogram, Tensor) or histogram.ndim != 2:
        raise ValueError(
            f"histogram must be (K_old, bins) as entropy_histogram makes it, got "
            f"{shape_of(histogram)}"
        )
    if histogram.shape[1] != _BINS[rule]:
        raise ValueError(
            f"rule {rule!r} has {_BINS[rule]} bins a class, this histogram has "
            f"{histogram.shape[1]}: give the rule that it was made by"
        )
    rule_of = {"exact": exact_thresholds, "released": released_thresholds}
    return rule_of[rule](histogram, num_classes)


def exact_thresholds(histogram: Tensor, num_classes: int) -> Tensor:
    """The medians, interpolated inside their bin."""
    counts = histogram.double()
    until = counts.cumsum(dim=1)
    half = until[:, -1:] / 2
    bin_of = (until < half).sum(dim=1, keepdim=True)  # the first bin that reaches the half
    before = (until - counts).gather(1, bin_of)
    inside = (half - before) / counts.gather(1, bin_of).clamp(min=1)
    largest = math.log(max(len(histogram), 2))
    place = (bin_of + inside) / histogram.shape[1]
    median = LOWEST * (place * math.log(largest / LOWEST)).exp()
    return torch.where(half > 0, median, 0).squeeze(1).float()


def released_thresholds(histogram: Tensor, num_classes: int) -> Tensor:
    """What the released code calls medians.

    While it walks through the bins it adds up their indices instead of their counts, so it stops
    at the first bin that alone holds half of a class (or at the last one), and far more than half
    of the pixels are accepted.
    """
    unit = _released_unit(len(histogram), num_classes)
    medians = [_released_median(row) for row in histogram.tolist()]
    floor = [max(median, RELEASED_FLOOR) if median is not None else 0 for median in medians]
    return unit * torch.tensor(floor, dtype=torch.float32, device=histogram.device)


def _released_median(counts: list[int]) -> float | None:
    if not any(counts):
        return None
    half, running = sum(counts) / 2, 0
    for index, count in enumerate(counts):
        if running <= half <= running + count:
            break
        running += index
    if counts[index] == 0:
        return math.copysign(math.inf, half - running)
    return (index + (half - running) / counts[index]) / len(counts)


def fill_in(
    target: Tensor,
    guess: Tensor,
    sure: Tensor,
    rule: Pseudo = "exact",
    ignore_index: int = VOID,
) -> tuple[Tensor, Tensor]:
    """What `adaptive_cross_entropy` takes: a target with sure guesses, and how many they are.

    target (B, H, W) int64; guess (B, H, W) int64 classes of the old model; sure (B, H, W) bool,
    where its entropy is under the threshold of that class. Returns the target, with guesses where
    it is background and ignore_index where it is background and they are not sure (what else it
    has stays, 255 too); and (B,) the share of an image's background that is sure. Where there is no
    background it is 1, and 0 by the released rule, whose image then does not count. Raises
    ValueError for another rule, and for tensors of other pixels or types.
    """
    _check_rule(rule)
    for name, value, wanted in (
        ("target", target, torch.int64),
        ("guess", guess, torch.int64),
        ("sure", sure, torch.bool),
    ):
        if not isinstance(value, Tensor) or value.dtype != wanted or value.shape != target.shape:
            kind = f" of {value.dtype}" if isinstance(value, Tensor) else ""
            raise ValueError(
                f"target (B, H, W), guess and sure must be of the same pixels, and {name} of "
                f"{wanted}, got {shape_of(value)}{kind}"
            )
    background = target == BACKGROUND
    sure = background & sure
    filled = torch.where(sure, guess, torch.where(background, ignore_index, target))
    pixels = background.sum(dim=(1, 2))
    share = sure.sum(dim=(1, 2)) / pixels.clamp(min=1)
    return filled, torch.where(pixels > 0, share, 0 if rule == "released" else 1)


@full_precision
def confident_guess(logits: Tensor, num_old: int, threshold: float) -> tuple[Tensor, Tensor]:
    """The old model's best class, and whether it is an old class with a sigmoid above threshold.

    logits (B, K_old or K_old + 1, H, W): that of the unknown last, where there is one.
    Returns guess (B, H, W) int64 and sure (B, H, W) bool; a threshold of 1 accepts nothing.
    Source: SSUL (Cha et al., NeurIPS 2021), pseudo-labelling with threshold 0.7, as released.
    """
    best, guess = logits.max(dim=1)
    old = (guess > 0) & (guess < num_old)
    return guess, old & (torch.sigmoid(best) > threshold)
