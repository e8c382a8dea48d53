"""What the loss terms of one training iteration see; shared parts are computed once, on demand.

B images, K classes now, K_old classes of the teacher, D channels, H x W pixels, h x w feature map.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.losses.pseudo_labels import Pseudo, confident_guess, entropy, fill_in
from sparcl_lib.methods.strips import mean_over_pixels, unbiased_means
from sparcl_lib.models import SegmenterOutput
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.prototypes.sums import class_sums


def nearest_grid(size: Sequence[int], grid: Sequence[int], device: torch.device) -> list[Tensor]:
    """Rows and columns of the pixels that nearest down-sampling takes: floor(i * H / h)."""
    return [
        torch.arange(n, device=device) * pixels // n for pixels, n in zip(size, grid, strict=True)
    ]


@dataclass(frozen=True)
class StepContext:
    """One batch of step `step`: what student and teacher say, what is known, what is remembered."""

    output: SegmenterOutput
    """logits (B, K, H, W) and features (B, D, h, w) of the student, with gradient. A loss on pixels
    goes through `mean_over_pixels`, which does without all logits at once where they are many."""
    target: Tensor
    """(B, H, W) int64 labels of this step, 255 ignored."""
    teacher: SegmenterOutput | None
    """The frozen previous model on the same images, (B, K_old, H, W) and (B, D, h, w), or None."""
    bank: PrototypeBank
    """Running prototypes of all K classes."""
    num_old: int
    """K_old: classes of the earlier steps, background included; 1 at step 0."""
    old_labelled: bool
    """Whether the target names old classes (sequential), or hides them in background."""
    step: int = 0
    both_unbiased: bool = False
    """Whether MiB's cross-entropy and its distillation are both terms of the step."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """What the method's mechanisms add. thresholds (K_old,): entropies in nats under which the
    teacher's guesses become labels; salient (B, H, W) bool: background that stands out is an
    unknown object."""

    @property
    def teacher_output(self) -> SegmenterOutput:
        """`teacher`, where there must be one. Raises ValueError where there is none."""
        if self.teacher is None:
            raise ValueError("no previous model here: say @term(needs_teacher=True)")
        return self.teacher

    def mean_over_pixels(
        self,
        loss: Callable[..., Tensor],
        *pixels: Tensor,
        counted: Tensor | None = None,
        teacher: bool = False,
        binary: bool = False,
    ) -> Tensor:
        """`loss(logits, *pixels)`, with `teacher` `loss(logits, teacher's logits, *pixels)`: a mean
        over pixels, see `strips.mean_over_pixels`."""
        outputs = (self.output, self.teacher_output) if teacher else (self.output,)
        return mean_over_pixels(loss, outputs, *pixels, counted=counted, binary=binary)

    @property
    def shares_exponentials(self) -> bool:
        """Whether MiB's two losses are to be taken from `unbiased_means`: one alone is not, which
        would compute the other for nothing."""
        possible = self.output.needs_strips and self.teacher is not None
        return possible and self.both_unbiased and not self.old_labelled

    @cached_property
    def unbiased_means(self) -> tuple[Tensor, Tensor]:
        """MiB's cross-entropy and distillation, see `strips.unbiased_means`."""
        return unbiased_means(self.output, self.teacher_output, self.target)

    @property
    def hides_old(self) -> bool:
        """Whether old classes stand in the target as background."""
        return self.num_old > 1 and not self.old_labelled

    @cached_property
    def _grid(self) -> tuple[Tensor, Tensor]:
        size, grid = self.target.shape[1:], self.output.features.shape[2:]
        rows, columns = nearest_grid(size, grid, self.target.device)
        return rows, columns

    @cached_property
    def labels(self) -> Tensor:
        """(B, h, w): the target at feature resolution, nearest."""
        rows, columns = self._grid
        return self.target[:, rows.unsqueeze(1), columns]

    @cached_property
    def completed_labels(self) -> Tensor:
        """(B, h, w): `labels`, with hidden old classes filled in by the teacher's argmax.

        Only where the label is background; the labels themselves where old classes are annotated.
        """
        if self.teacher is None or self.old_labelled:
            return self.labels
        guess = self.teacher.logits_at(*self._grid).argmax(dim=1)
        return torch.where(self.labels == BACKGROUND, guess, self.labels)

    @cached_property
    def anchored_labels(self) -> Tensor:
        """(B, h, w): `completed_labels` with 255 for classes that have no prototype yet."""
        known = self.bank.counts[self.completed_labels.clamp(0, self.num_classes - 1)] > 0
        return torch.where(known, self.completed_labels, VOID)

    def pseudo_target(self, rule: Pseudo) -> tuple[Tensor, Tensor]:
        """The target with the teacher's sure guesses, and their share, as `fill_in` has them."""
        strips = self.teacher_output.strips()
        guesses, entropies = zip(*((x.argmax(dim=1), entropy(x)) for (x,) in strips), strict=True)
        guess = torch.cat(guesses, dim=1)
        sure = torch.cat(entropies, dim=1) < self.extras["thresholds"][guess]
        return fill_in(self.target, guess, sure, rule)

    def binary_target(self, threshold: float) -> Tensor:
        """(B, H, W) target of `output.binary_logits`: salient background is K, the unknown object;
        on background, salient or not, the teacher's guesses above `threshold` (sigmoid) are labels.
        """
        background, target = self.target == BACKGROUND, self.target
        if "salient" in self.extras:
            unknown = background & self.extras["salient"]
            target = torch.where(unknown, self.num_classes, target)
        if threshold < 1 and self.hides_old:
            strips = self.teacher_output.strips(binary=True)
            found = (confident_guess(logits, self.num_old, threshold) for (logits,) in strips)
            guess, sure = (torch.cat(part, dim=1) for part in zip(*found, strict=True))
            target = torch.where(background & sure, guess, target)
        return target

    @property
    def num_classes(self) -> int:
        return self.output.low_res_logits.shape[1]

    @cached_property
    def sums(self) -> tuple[Tensor, Tensor]:
        """Class sums (K, D) and counts (K,) of `completed_labels`, with gradient."""
        return class_sums(self.output.features, self.completed_labels, self.num_classes)

    @cached_property
    def anchored_sums(self) -> tuple[Tensor, Tensor]:
        """`sums` without the classes that have no prototype."""
        sums, counts = self.sums
        return sums, torch.where(self.bank.counts > 0, counts, 0)


def labelled_sums(
    context: StepContext, background: bool, sums: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The class sums that may enter the bank: annotated classes, never pseudo-labels.

    background: whether class 0 counts. Its meaning moves with every step, so the paper's rule is
    "only at step 0, and never in the overlapped setup" (SDR, section 4.1). sums: class sums (K, D)
    and counts (K,) in place of `context.sums`.
    """
    values, counts = (x.detach() for x in (context.sums if sums is None else sums))
    index = torch.arange(len(counts), device=counts.device)
    allowed = index >= (1 if context.old_labelled else context.num_old)
    if background:
        allowed = allowed | (index == BACKGROUND)
    return values * allowed.unsqueeze(1), counts * allowed
