"""Several processes of one training, forked from one that has imported all that they need.

    python tests/watched_run.py DATA OUT BATCH

trains OUT/one in one process with 2 BATCH images an iteration, and OUT/two in two with BATCH each,
and writes down which images each process saw, and PLOP's thresholds. A test reads what is left.

torch's SyncBatchNorm takes GPUs alone. In its place stand the same sums over all processes on the
CPU, so that what else must be equal can be compared.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, distributed, nn

from sparcl_lib.config import parse_settings, resolve
from sparcl_lib.data.loading.dataset import SegmentationDataset
from sparcl_lib.methods.pseudo_labels import PseudoLabels
from sparcl_lib.training import devices, runner, train

SETTINGS = (
    "method.regulariser.name=ewc",
    "model.sync_batch_norm=true",
    "optim.iterations=null",
    "optim.epochs=[0.5,1.5]",
    "optim.lr=1e-3",
    "data.size=32",
    "data.scale=[0.5,1.0]",
    "data.workers=0",
    "data.cache=false",
)


class _Sum(torch.autograd.Function):
    """Over all processes, of values and of gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(context: Any, gradients: Tensor) -> Tensor:
        return _summed(gradients)


def _summed(values: Tensor) -> Tensor:
    values = values.clone()
    if distributed.is_initialized():
        distributed.all_reduce(values)
    return values


class Synchronised(nn.BatchNorm2d):
    """What SyncBatchNorm computes, by its definition."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        ones = torch.ones_like(x[:, 0]).sum().expand(x.shape[1])
        sums = torch.stack([ones, x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
        count, total, squares = _Sum.apply(sums)
        mean = total / count
        variance = squares / count - mean.square()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


def synchronise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = Synchronised


def watched(data: Path, out: Path, processes: int, batch: int) -> None:
    """Train PLOP with EWC; OUT/watched-RANK.pt: `images`, (id, seed) as they were loaded, and
    `thresholds` of the later step. This process is changed: it trains nothing else."""
    seen: dict[str, Any] = {"images": [], "thresholds": None}
    load, measure = SegmentationDataset.__getitem__, PseudoLabels.before_step

    def load_and_note(self: SegmentationDataset, draw: Any) -> Any:
        if not isinstance(draw, int):
            seen["images"].append((self.ids[draw.position], draw.seed))
        return load(self, draw)

    def measure_and_note(self: PseudoLabels, *arguments: Any) -> None:
        measure(self, *arguments)
        seen["thresholds"] = self.thresholds

    runner.check_synchronises = lambda fabric: None
    nn.SyncBatchNorm.convert_sync_batchnorm = synchronise
    SegmentationDataset.__getitem__ = load_and_note
    PseudoLabels.before_step = measure_and_note
    settings = parse_settings([*SETTINGS, f"data.batch_size={batch}"])
    config = resolve("minivoc", "PLOP", [settings], task="6-4", data_root=str(data))
    train(config, out, devices=processes, accelerator="cpu")
    torch.save(seen, out / f"watched-{rank_zero_only.rank}.pt")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def together(work: Callable[[], None], processes: int, said: Path | None = None) -> list[int]:
    """The status of each process that does this work, started as by torchrun.

    said: file whose name gets the rank at its end, for what each writes to standard error.
    """
    context, port = multiprocessing.get_context("fork"), free_port()
    started = [
        context.Process(target=_as_rank, args=(work, rank, processes, port, said))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return [process.exitcode or 0 for process in started]


def _as_rank(
    work: Callable[[], None], rank: int, processes: int, port: str, said: Path | None
) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"})
    rank_zero_only.rank, devices._PARENT = rank, os.getppid()  # known when they were imported
    if said is not None:
        os.dup2(os.open(f"{said}-{rank}", os.O_WRONLY | os.O_CREAT), 2)
    work()


def main(data: str, out: str, batch: str) -> int:
    torch.set_num_threads(1)
    alone = together(lambda: watched(Path(data), Path(out, "one"), 1, 2 * int(batch)), 1)
    return max(alone + together(lambda: watched(Path(data), Path(out, "two"), 2, int(batch)), 2))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
