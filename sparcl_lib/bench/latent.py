"""Each latent loss, forward and backward, against a loop over the classes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparcl_lib import losses
from sparcl_lib.bench import loops
from sparcl_lib.bench.timing import seconds_of
from sparcl_lib.losses import released
from sparcl_lib.prototypes import PrototypeBank

Loss = Callable[[Tensor], Tensor]
"""Features (B, D, h, w) -> the loss, a scalar."""


class Sizes(NamedTuple):
    """Of what the losses see."""

    batch: int
    dim: int
    """D, channels of the features."""
    side: int
    """Height and width of the feature map."""
    classes: int
    """K, background included."""


def pairs(labels: Tensor, prototypes: Tensor) -> dict[str, tuple[Loss, Loss]]:
    """Name of a loss -> SPARCL's form and the loop, with labels (B, h, w), prototypes (K, D)."""
    classes = len(prototypes)
    return {
        "matching": (
            lambda f: losses.prototypes_matching(f, labels, prototypes),
            lambda f: loops.matching(f, labels, prototypes),
        ),
        "attraction": (
            lambda f: losses.attraction(f, labels, prototypes),
            lambda f: loops.attraction(f, labels, prototypes),
        ),
        "repulsion": (
            lambda f: losses.repulsion(f, labels, classes),
            lambda f: loops.repulsion(f, labels),
        ),
        "sparsification": (
            lambda f: losses.sparsification(f, labels, classes),
            lambda f: loops.sparsification(f, labels),
        ),
    }


def released_pairs(labels: Tensor, prototypes: Tensor) -> dict[str, tuple[Loss, Loss]]:
    """As `pairs`, of the released form, whose loops are in the way of the release."""
    classes = len(prototypes)
    return {
        "matching": (
            lambda f: released.released_matching(f, labels, prototypes),
            lambda f: loops.released_matching(f, labels, prototypes),
        ),
        "attraction": (
            lambda f: released.released_attraction(f, labels, prototypes),
            lambda f: loops.released_attraction(f, labels, prototypes),
        ),
        "repulsion": (
            lambda f: released.released_repulsion(f, labels, classes),
            lambda f: loops.released_repulsion(f, labels),
        ),
        "sparsification": (
            lambda f: released.released_sparsification(f, labels, classes),
            lambda f: loops.released_sparsification(f, labels),
        ),
    }


FORMS = {"": pairs, ", released form": released_pairs}
"""What stands behind the name of a loss -> the losses of that form."""


def latent_rows(sizes: Sizes, device: torch.device, seconds: float) -> Iterator[dict[str, Any]]:
    """A row for each loss and all four, of both forms, and the prototypes: value and milliseconds.

    seconds: for each of the seventeen measurements.
    """
    batch, dim, side, classes = sizes
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(batch, dim, side, side, generator=generator).to(device)
    features = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    labels = torch.randint(0, classes, (batch, side, side), generator=generator).to(device)
    prototypes = torch.rand(classes, dim, generator=generator).to(device)

    def milliseconds(loss: Loss) -> float:
        def there_and_back() -> None:
            features.grad = None
            loss(features).backward()

        return 1000 * seconds_of(there_and_back, device, seconds)

    for form, losses_of in FORMS.items():
        both = [0.0, 0.0]
        for name, (ours, loop) in losses_of(labels, prototypes).items():
            taken = [milliseconds(ours), milliseconds(loop)]
            both = [a + b for a, b in zip(both, taken, strict=True)]
            values = {
                "value": float(ours(features).detach()),
                "value of the loop": float(loop(features).detach()),
            }
            yield _row(f"{name}{form}", sizes, *taken) | values
        yield _row(f"all four{form}", sizes, *both)
    bank = PrototypeBank(classes, dim).to(device)
    update = seconds_of(lambda: bank.update(features.detach(), labels), device, seconds)
    yield {"loss": "update of the prototypes", **sizes._asdict(), "ms": 1000 * update}


def _row(loss: str, sizes: Sizes, ours: float, loop: float) -> dict[str, Any]:
    return {"loss": loss, **sizes._asdict(), "ms": ours, "loop ms": loop, "times": loop / ours}
