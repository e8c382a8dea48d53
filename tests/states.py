"""Checkpoints that nobody trained: small, and right in themselves."""

import dataclasses
from typing import Any

import torch

from sparcl_lib.models import NetworkSpec, build_segmenter
from sparcl_lib.prototypes import PrototypeBank

SPEC = NetworkSpec("mini", (3,), output_stride=4, head="conv", head_channels=8)


def make_state(step: int = 0, **others: Any) -> dict[str, Any]:
    """What a step leaves, with others in place of what it has; those that are None are left out."""
    spec = dataclasses.replace(SPEC, classes=(3, *[1] * step))
    network = build_segmenter(spec)
    channels = sum(spec.classes)
    state = {
        "config": {"setup": "disjoint"},
        "step": step,
        "network": dataclasses.asdict(spec),
        "model": network.state_dict(),
        "bank": PrototypeBank(channels, network.backbone.dim).state_dict(),
        "confusion": torch.eye(channels, dtype=torch.int64),
        "seconds": 1.0,
    }
    return {key: value for key, value in {**state, **others}.items() if value is not None}
