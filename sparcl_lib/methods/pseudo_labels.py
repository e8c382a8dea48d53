"""Pseudo-labels: which of the old model's guesses on unlabelled pixels are sure enough.

PLOP's rule, by entropy, and at the end SSUL's, by sigmoid.

B images, K_old classes of the old model, H x W pixels. A guess is accepted where its entropy is
under the median of its class over the images of the step; the medians come from histograms, which
are filled batch by batch and add up over ranks.

Source: PLOP (Douillard et al., CVPR 2021), section 3.3. The released code differs in its median:
see `released_thresholds`.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sparcl_lib.labels import BACKGROUND
from sparcl_lib.losses.precision import full_precision
from sparcl_lib.methods.mechanism import Mechanism

if TYPE_CHECKING:
    from sparcl_lib.data.loading.dataset import StepBatch
    from sparcl_lib.methods.method import Method
    from sparcl_lib.training.step import StepTrainer

Pseudo = Literal["none", "exact", "released"]

# Entropies of a trained network span many powers of ten: bins of equal width in the logarithm,
# each 0.5 % wide.
LOWEST = 1e-9
EXACT_BINS = 4096
RELEASED_BINS = 100
# In the units of the released code; an entropy under it is accepted whatever the median is.
RELEASED_FLOOR = 0.001


@full_precision
def entropy(logits: Tensor) -> Tensor:
    """(B, K, H, W) -> (B, H, W): entropy of the softmax in nats, 0..log K."""
    log_prob = F.log_softmax(logits, dim=1)
    return -(log_prob.exp() * log_prob).sum(dim=1)


def entropy_histogram(logits: Tensor, unlabelled: Tensor, num_classes: int, rule: Pseudo) -> Tensor:
    """Entropies of the unlabelled pixels, counted per class that the old model guesses.

    logits (B, K_old, H, W); unlabelled (B, H, W) bool; num_classes: K, old and new; rule: "exact"
    or "released". Returns int64 (K_old, bins).
    """
    num_old, bins = logits.shape[1], EXACT_BINS if rule == "exact" else RELEASED_BINS
    place = _exact_place if rule == "exact" else _released_place
    position = place(entropy(logits), num_old, num_classes)
    index = logits.argmax(dim=1) * bins + (position * bins).long().clamp(0, bins - 1)
    # What is not counted goes to a bin of its own: no host sync for its number, nor one for the
    # length of the result, as bincount needs.
    index = torch.where(unlabelled, index, num_old * bins).flatten()
    counts = torch.zeros(num_old * bins + 1, dtype=torch.int64, device=index.device)
    return counts.scatter_add_(0, index, torch.ones_like(index))[:-1].view(num_old, bins)


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

    0 for a class that the old model never guesses.
    """
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


class PseudoLabels(Mechanism):
    """PLOP's thresholds, measured in one pass of the teacher over the step's images.

    The next step needs nothing of it: it measures its own.
    """

    name = "pseudo_labels"

    def __init__(self, rule: Pseudo) -> None:
        self.rule: Pseudo = rule
        self.thresholds: Tensor | None = None
        """(K_old,) in nats; None where nothing is hidden."""

    @classmethod
    def of(cls, method: "Method", step: int) -> Self | None:
        """By the option `pseudo` of a term that is active."""
        rules = (term.options.get("pseudo", "none") for term in method.active_terms(step))
        rule = next((rule for rule in rules if rule != "none"), None)
        return cls(rule) if rule and step > 0 else None

    def before_step(self, trainer: "StepTrainer", batches: "Iterable[StepBatch]") -> None:
        if trainer.plan.setup == "sequential":
            return
        num_classes, histogram = len(trainer.bank.counts), torch.zeros((), dtype=torch.int64)
        for batch, output in trainer.teacher_pass(batches, "pseudo-labels"):
            for logits, unlabelled in output.strips(batch.labels == BACKGROUND):
                found = entropy_histogram(logits, unlabelled, num_classes, self.rule)
                histogram = histogram + found
        total = cast(Tensor, trainer.fabric.all_reduce(histogram, reduce_op="sum"))
        self.thresholds = entropy_thresholds(total, num_classes, self.rule)

    def progress(self) -> dict[str, Any] | None:
        return None if self.thresholds is None else {"thresholds": self.thresholds}

    def go_on(self, trainer: "StepTrainer", progress: Mapping[str, Any]) -> None:
        self.thresholds = progress["thresholds"].to(trainer.fabric.device)

    def context_extras(self, batch: "StepBatch") -> Mapping[str, Tensor]:
        return {} if self.thresholds is None else {"thresholds": self.thresholds}


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
