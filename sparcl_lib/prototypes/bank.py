"""Running class prototypes: count-weighted means of every feature vector seen in training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparcl_lib.prototypes.sums import check_same_locations, class_sums


class PrototypeBank(nn.Module):
    """p_c = mean of all features of class c seen so far, kept as a sum and a count.

    p_c <- (sum of batch features + n_c * p_c) / (n_c + n_batch), as SDR (CVPR 2021), section 4.1,
    without rounding drift: sums are float64, counts int64, both saved in the state dict, and both
    add up over ranks. They stay so in a network that is cast to another precision, `.half()` or
    `.to(torch.bfloat16)`. Reading never changes the bank.

    A state dict fits a bank of as many classes: `PrototypeBank(*state["sums"].shape)`.

    num_classes: C, background included; dim: D channels.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(num_classes, dim, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PrototypeBank":
        exact = {"sums": self.sums, "counts": self.counts}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch has none
        for name, value in exact.items():
            found = getattr(self, name)
            if found.dtype != value.dtype:  # moved it may be, cast not
                setattr(self, name, value.to(found.device))
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *others: Any
    ) -> None:
        *_, errors = others
        for name in ("sums", "counts"):  # assigned they may be, cast not
            kept = state_dict.get(prefix + name)
            if isinstance(kept, Tensor):
                state_dict[prefix + name] = kept.to(getattr(self, name).dtype)
                if not (kept.is_meta or kept.isfinite().all()):
                    errors.append(f"{prefix}{name} are not finite: they were cast to {kept.dtype}")
        super()._load_from_state_dict(state_dict, prefix, *others)

    def reset_parameters(self) -> None:
        """Forget all, as a module does that was made on the meta device, after `to_empty`."""
        self.sums.zero_()
        self.counts.zero_()

    @property
    def prototypes(self) -> Tensor:
        """(C, D) float32. The row of a class never seen is zero; `counts` tells which."""
        return (self.sums / self.counts.clamp(min=1).unsqueeze(1)).float()

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch of features (B, D, h, w) under labels (B, h, w) int64. Labels outside 0..C-1
        are skipped, and so is a whole batch with a feature that is infinite or NaN, as one is whose
        step a `GradScaler` passes over. With several processes each calls it, as `add`. Raises
        ValueError for other shapes and labels."""
        check_same_locations(features, labels)
        if features.shape[1] != self.sums.shape[1]:
            raise ValueError(
                f"this bank is of features with {self.sums.shape[1]} channels (B, D, h, w), "
                f"got {tuple(features.shape)}"
            )
        self.add(*class_sums(features.double(), labels, len(self.counts)))

    @torch.no_grad()
    def add(self, sums: Tensor, counts: Tensor) -> None:
        """Add class sums (C, D) and counts (C,), of all ranks when there are several: each has to
        call it, also one whose counts are zero. A class whose sums are not finite is left as it is.

        Raises ValueError for other shapes.
        """
        if (sums.shape, counts.shape) != (self.sums.shape, self.counts.shape):
            raise ValueError(
                f"expected sums {tuple(self.sums.shape)} and counts {tuple(self.counts.shape)}, "
                f"got {tuple(sums.shape)} and {tuple(counts.shape)}"
            )
        sums, counts = sums.to(self.sums), counts.to(self.counts)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            sums, counts = sums.clone(), counts.clone()
            torch.distributed.all_reduce(sums)
            torch.distributed.all_reduce(counts)
        finite = sums.isfinite().all(dim=1)  # else the class would be lost for good
        self.sums += torch.where(finite.unsqueeze(1), sums, 0)
        self.counts += torch.where(finite, counts, 0)

    def grow(self, num_classes: int) -> "PrototypeBank":
        """A bank for num_classes >= C classes that remembers what this one knows."""
        known, dim = self.sums.shape
        if num_classes < known:
            raise ValueError(f"a bank of {known} classes cannot shrink to {num_classes}")
        bank = PrototypeBank(num_classes, dim).to(self.sums.device)
        bank.sums[:known] = self.sums
        bank.counts[:known] = self.counts
        return bank
