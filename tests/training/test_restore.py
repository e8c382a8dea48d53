"""Networks from checkpoints: by what the checkpoint says of them, never by names of weights."""

import dataclasses

import torch

from sparcl_lib.config import resolve, to_plain
from sparcl_lib.models import NetworkSpec, build_segmenter, grow
from sparcl_lib.training.checkpoint import network_spec
from sparcl_lib.training.restore import restore_model

SPEC = NetworkSpec(
    "mini", (7,), output_stride=4, head="conv", head_channels=8, unknown=True, head_per_step=True
)


def test_a_checkpoint_says_what_its_network_is():
    model = grow(build_segmenter(SPEC), 4)
    checkpoint = {"network": dataclasses.asdict(model.spec), "model": model.state_dict()}
    again = restore_model(checkpoint)
    assert again.spec == model.spec == SPEC.grown(4)
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in model.state_dict().items())


def test_checkpoints_of_the_first_edition_are_read():
    """Their configuration says it."""
    config = to_plain(resolve("minivoc", "SSUL-like", task="6-4"))
    config["method"]["own_heads"] = config["method"].pop("head_per_step")
    found = network_spec({"config": config, "num_classes": [7, 4]})
    assert found == dataclasses.replace(SPEC, classes=(7, 4), head_channels=64)
    plain = to_plain(resolve("minivoc", "FT", task="6-4"))
    found = network_spec({"config": plain, "num_classes": [7]})
    assert not found.unknown and not found.head_per_step
