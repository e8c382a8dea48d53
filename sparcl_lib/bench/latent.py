"""Each latent loss, forward and backward, against a loop over the classes."""

from collections.abc import Callable, Iterator
from functools import partial
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


FORMS: dict[str, dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]]] = {
    "": {
        "matching": (losses.prototypes_matching, loops.matching),
        "attraction": (losses.attraction, loops.attraction),
        "repulsion": (losses.repulsion, loops.repulsion),
        "sparsification": (losses.sparsification, loops.sparsification),
    },
    ", released form": {
        "matching": (released.released_matching, loops.released_matching),
        "attraction": (released.released_attraction, loops.released_attraction),
        "repulsion": (released.released_repulsion, loops.released_repulsion),
        "sparsification": (released.released_sparsification, loops.released_sparsification),
    },
}
"""What stands behind the name of a loss -> name -> SPARCL's form and the loop."""
_OF_PROTOTYPES = ("matching", "attraction")


def pairs(labels: Tensor, prototypes: Tensor, form: str = "") -> dict[str, tuple[Loss, Loss]]:
    """Name of a loss -> SPARCL's form and the loop, with labels (B, h, w), prototypes (K, D)."""
    found: dict[str, tuple[Loss, Loss]] = {}
    for name, (ours, loop) in FORMS[form].items():
        known: dict[str, Any] = {"prototypes": prototypes} if name in _OF_PROTOTYPES else {}
        bound: dict[str, Any] = known or {"num_classes": len(prototypes)}
        found[name] = partial(ours, labels=labels, **bound), partial(loop, labels=labels, **known)
    return found


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

    for form in FORMS:
        both = [0.0, 0.0]
        for name, (ours, loop) in pairs(labels, prototypes, form).items():
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
