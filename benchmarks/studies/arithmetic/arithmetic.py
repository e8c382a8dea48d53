"""How far does arithmetic alone move step 0 on photographs?

    python arithmetic.py --data-root DATA --weights WEIGHTS --seeds 0,1

Step 0 of real_one_by_one on a CPU with one thread, as it is and with two changes that leave all
else alone: `tf32` rounds what goes into a convolution as a GPU does, `noise-N` moves each weight
that training begins with by a millionth of itself, `noise-N@1e-7` by another share. A line of
results.csv a run, written at once; a run that has one is not trained again.
"""

import argparse
import csv
import itertools
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparcl_lib.experiments.base import RunBase, read_variants
from sparcl_lib.plain import read_yaml
from sparcl_lib.training import runner

STUDY = Path(__file__).parent.with_name("real_one_by_one")
RESULTS = Path(__file__).with_name("results.csv")
FIELDS = ("arithmetic", "seed", "miou_all", "background", "cat", "dog", "seconds", "torch")
NOISE = 1e-6
# The 32-bit float keeps 23 bits of the fraction, tf32 10 of them.
DROPPED = 13


def to_tf32(values: Tensor) -> Tensor:
    """The nearest number with 10 bits of fraction, halves away from zero."""
    bits = values.view(torch.int32)
    rounded = (bits + (1 << (DROPPED - 1))) >> DROPPED << DROPPED
    return rounded.view(torch.float32)


class _RoundedConvolution(torch.autograd.Function):
    """A convolution whose operands are rounded, forwards and backwards; sums are of 32 bits."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, *settings: Any) -> Tensor:
        images, weight = to_tf32(images), to_tf32(weight)
        ctx.save_for_backward(images, weight)
        ctx.settings = settings
        stride, padding, dilation, groups = settings
        return torch.ops.aten.convolution(
            images, weight, None, stride, padding, dilation, False, [0, 0], groups
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        to_images, to_weight, _ = torch.ops.aten.convolution_backward(
            to_tf32(gradient), images, weight, None, stride, padding, dilation, False, [0, 0],
            groups, [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False],
        )  # fmt: skip
        return to_images, to_weight, None, None, None, None


def _rounded_forward(layer: torch.nn.Conv2d, images: Tensor) -> Tensor:
    assert layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    out: Tensor = _RoundedConvolution.apply(
        images, layer.weight, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    return out if layer.bias is None else out + layer.bias[:, None, None]


@contextmanager
def computed(arithmetic: str) -> Iterator[None]:
    """PyTorch and the start of a training so changed, in here."""
    forward, start_step = torch.nn.Conv2d.forward, runner.start_step

    def start_moved(*arguments: Any) -> Any:
        start = start_step(*arguments)
        number, _, share = arithmetic.removeprefix("noise-").partition("@")
        generator = torch.Generator().manual_seed(int(number))
        with torch.no_grad():
            for weight in start.student.parameters():
                weight *= 1 + float(share or NOISE) * torch.randn(weight.shape, generator=generator)
        return start

    if arithmetic == "tf32":
        torch.nn.Conv2d.forward = _rounded_forward  # type: ignore[method-assign]
    elif arithmetic.startswith("noise-"):
        runner.start_step = start_moved
    try:
        yield
    finally:
        torch.nn.Conv2d.forward = forward  # type: ignore[method-assign]
        runner.start_step = start_step


def measure(arithmetic: str, seed: int, data_root: str, weights: str) -> dict[str, Any]:
    base = RunBase(
        dataset="voc", task=str(STUDY / "task.yaml"), setup="overlapped", data_root=data_root,
        overrides=(read_yaml(STUDY / "settings.yaml"),),
    )  # fmt: skip
    variants = {v.name: v for v in read_variants(STUDY / "variants.yaml")}
    config = base.config(variants["FT"], seed, {}, {"model.weights": weights})
    config = replace(config, data=replace(config.data, workers=0))
    with tempfile.TemporaryDirectory() as folder, computed(arithmetic):
        metrics = runner.train(config, Path(folder) / "run", steps=[0], accelerator="cpu")
    step = metrics["steps"][0]
    return {
        "arithmetic": arithmetic, "seed": seed, "miou_all": step["miou_all"], **step["class_iou"],
        "seconds": metrics["seconds"][0], "torch": torch.__version__,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--arithmetics", default="as it is,tf32,noise-1,noise-2,noise-3")
    options = parser.parse_args()
    for name in options.arithmetics.split(","):
        if not re.fullmatch(r"as it is|tf32|noise-\d+(@\d+(\.\d+)?(e-?\d+)?)?", name):
            parser.error(f"{name!r} is none: as it is, tf32, noise-1 or noise-1@1e-7")
    torch.set_num_threads(1)
    rows = list(csv.DictReader(RESULTS.open(encoding="utf-8"))) if RESULTS.exists() else []
    done = {(row["arithmetic"], row["seed"]) for row in rows}
    for arithmetic, seed in itertools.product(
        options.arithmetics.split(","), options.seeds.split(",")
    ):
        if (arithmetic, seed) in done:
            continue
        row = measure(arithmetic, int(seed), options.data_root, options.weights)
        new = not RESULTS.exists()
        with RESULTS.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(row)


if __name__ == "__main__":
    main()
