"""What a run on VOC costs: hours from measured seconds; operations and memory, counted.

    python benchmarks/studies/voc_cost/voc_cost.py

Seconds of an iteration are those that the study of a GPU measured (speed.csv there); hours.csv is
iterations times seconds. For voc_cost.csv, operations and memory of an iteration are counted
without computing: tensors live on PyTorch's device `meta`, they have shapes and no values, so this
takes seconds on any machine. The losses are cross-entropy and, with a teacher, plain distillation.
A row for a step without a teacher, and one for a step with one.
"""

import argparse
import math
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sparcl_lib.config import at_step, resolve
from sparcl_lib.models import NetworkSpec, build_segmenter, freeze

TABLE = Path(__file__).with_suffix(".csv")
HOURS = Path(__file__).with_name("hours.csv")
MEASURED = Path(__file__).parents[1] / "gpu" / "speed.csv"
IMAGES = 9568, 487, 299, 491, 500, 548  # of the steps of 15-1 overlapped
ARITHMETIC = {"32-true": "tf32", "bf16-mixed": "bf16", "32-true, tf32 off": "fp32"}
SIZE, OLD, NEW = 512, 16, 1  # pixels; channels of task 15-1 before and after step 1
GIB = 2**30


class SavedBytes:
    """The memory of all tensors that the backward pass needs, each counted once."""

    def __init__(self, model: nn.Module) -> None:
        self._storages = {p.untyped_storage()._cdata: p for p in model.parameters()}
        self.total = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            self._storages[storage._cdata] = tensor  # held, so that its number is not given again
            self.total += storage.nbytes()
        return tensor


def measure(batch: int, with_teacher: bool) -> tuple[float, float, float]:
    """10^12 operations an image; GiB of weights, gradients and momentum; GiB of what is saved."""
    with torch.device("meta"):
        spec = NetworkSpec("resnet101", (OLD,))
        student = build_segmenter(spec.grown(NEW) if with_teacher else spec)
        teacher = freeze(build_segmenter(spec)) if with_teacher else None
        images = torch.empty(batch, 3, SIZE, SIZE)
        target = torch.empty(batch, SIZE, SIZE, dtype=torch.int64)
    student.train()
    saved = SavedBytes(student)
    with FlopCounterMode(display=False) as counter:
        if teacher is not None:
            with torch.no_grad():
                soft = teacher(images).logits
        with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
            logits = student(images).logits
            loss = nn.functional.cross_entropy(logits, target)
            if teacher is not None:
                loss = loss - (soft.softmax(1) * logits[:, :OLD].log_softmax(1)).mean()
        loss.backward()
    weights = sum(p.numel() * p.element_size() for p in student.parameters())
    teachers = sum(p.numel() * p.element_size() for p in teacher.parameters()) if teacher else 0
    held = 3 * weights + teachers  # weights, gradients and momentum of the student
    return counter.get_total_flops() / batch / 1e12, held / GIB, saved.total / GIB


def hours(batch: int, epochs: float) -> pd.DataFrame:
    """Of SDR on 15-1, tests not counted: step 0 as FT's iteration, the later steps as SDR's."""
    speed = pd.read_csv(MEASURED)
    speed = speed[(speed.batch == batch) & (speed.layout == "channels last")]
    speed = speed.set_index(["method", "arithmetic"])
    counts = [math.ceil(epochs * images / batch) for images in IMAGES]
    first, later = counts[0], sum(counts[1:])
    rows = []
    for precision, arithmetic in ARITHMETIC.items():
        plain, taught = speed.loc["FT", arithmetic], speed.loc["SDR", arithmetic]
        seconds = first * plain.seconds + later * taught.seconds
        peak = max(plain["peak GiB"], taught["peak GiB"])
        rows.append(
            {"precision": precision, "ms in step 0": round(1000 * plain.seconds, 1),
             "ms later": round(1000 * taught.seconds, 1), "hours": round(seconds / 3600, 2),
             "peak GiB": round(peak, 1)}
        )  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    config = resolve("voc", "FT", task="15-1", setup="overlapped")
    batch, epochs = config.data.batch_size, at_step(config.optim.epochs, 0)
    table = hours(batch, epochs)
    table.to_csv(HOURS, index=False)
    print(table.to_string(index=False))
    rows = []
    for name, with_teacher in (("without a teacher", False), ("with a teacher", True)):
        operations, held, saved = measure(batch, with_teacher)
        rows.append((name, batch, round(operations, 2), round(held, 2), round(saved, 1)))
        print(*rows[-1])
    titles = ["step", "batch", "10^12 operations an image", "GiB held", "GiB saved for backward"]
    pd.DataFrame(rows, columns=titles).to_csv(TABLE, index=False)


if __name__ == "__main__":
    main()
