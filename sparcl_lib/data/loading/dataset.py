"""Photographs and labels of one step, as batches."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors

from sparcl_lib.cores import cores, processes_here
from sparcl_lib.data.loading.transforms import normalise
from sparcl_lib.data.masks import lookup, read_values
from sparcl_lib.data.pixels import Size, check_sizes, read_photo
from sparcl_lib.data.sources.source import Source
from sparcl_lib.data.splits import remap_labels
from sparcl_lib.errors import UserError
from sparcl_lib.stops import TERMINATING

Pair = tuple[Tensor, Tensor]
"""uint8 image (3, H, W) and uint8 mask (H, W) of raw ids."""


class StepBatch(NamedTuple):
    """One batch of a step."""

    images: Tensor
    """(B, 3, H, W) float32, normalised, channels last in memory; H = W but for whole images."""
    labels: Tensor
    """(B, H, W) int64 training indices, 255 ignored."""


class ImageReader:
    """Decodes the photographs and masks of a split, and remembers them if asked to."""

    def __init__(self, source: Source, split: str, cache: bool = False) -> None:
        self.source = source
        self.split = split
        self._table = None if source.values is None else lookup(source.values)
        self._cache: dict[str, Pair] | None = {} if cache else None

    def __call__(self, image_id: str) -> Pair:
        """uint8 image (3, H, W) and uint8 mask (H, W) of raw ids.

        Raises UserError naming the file that cannot be read, or a pair of two sizes.
        """
        if self._cache is not None and image_id in self._cache:
            return self._cache[image_id]
        photo = self.source.photo(self.split, image_id)
        mask_file = self.source.mask(self.split, image_id)
        # Pillow decodes both: torchvision's own decoder is deprecated, and expands a palette to
        # colours where the indices are what counts.
        pixels, values = read_photo(photo), read_values(mask_file, self._table)
        check_sizes(photo, pixels.shape[1::-1], mask_file, values.shape[::-1])
        image, mask = torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(values)
        if self._cache is not None:
            self._cache[image_id] = image, mask
        return image, mask


class Draw(NamedTuple):
    """An image to load and the seed of its random crop and flip."""

    position: int
    """Of the image in the data set."""
    seed: int


@dataclass(frozen=True)
class Draws:
    """What one of `world` processes loads, the same each time; an epoch at a time is in memory."""

    images: int
    total: int
    """Of all processes together."""
    seed: int
    rank: int = 0
    world: int = 1
    skipped: int = 0
    """Of this process, at the beginning: what a training that was stopped has seen."""

    @property
    def first(self) -> int:
        """The first one of this process, among those of all."""
        return self.rank + self.skipped * self.world

    def __len__(self) -> int:
        return len(range(self.first, self.total, self.world))

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(self.seed)
        base = int(torch.randint(2**62, (), generator=generator))
        epochs = range(-(-self.total // self.images))
        orders = (torch.randperm(self.images, generator=generator).tolist() for _ in epochs)
        draws = enumerate(chain.from_iterable(orders))
        for n, position in islice(draws, self.first, self.total, self.world):
            yield Draw(position, base + n)


class SegmentationDataset(Dataset[Pair]):
    """Images of some ids, transformed; what their mask values mean is in a 256-entry table.

    Args:
        reader: decodes the pairs of a split.
        ids: image ids of that split.
        table: uint8 (256,) from ``training_table`` or ``evaluation_table``, for the loader.
        transform: takes a pair as tv_tensors, returns one of equal sizes.
    """

    def __init__(
        self,
        reader: ImageReader,
        ids: Sequence[str],
        table: np.ndarray,
        transform: Callable[[Tensor, Tensor], Pair],
    ) -> None:
        self.reader = reader
        self.ids = list(ids)
        self.table = table
        self.transform = transform

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int | Draw) -> Pair:
        """uint8 image (3, H, W) and mask (H, W) of raw ids, as large as the transform makes them.

        A Draw is transformed as its seed says, in whatever process and order it is loaded.
        """
        position, seed = index if isinstance(index, Draw) else (index, None)
        image, mask = self.reader(self.ids[position])
        pair = tv_tensors.Image(image), tv_tensors.Mask(mask)
        if seed is None:
            return self.transform(*pair)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's alone: dropout goes on as it was
            return self.transform(*pair)


class StepLoader:
    """The batches of a step. Workers hand over bytes; normalised images and labels are made on the
    device: a fifth of the traffic, and a GPU does in no time what keeps a core busy.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        batch_size: int,
        workers: int,
        device: torch.device | str = "cpu",
        draws: Draws | None = None,
        batches: Sequence[list[int]] | None = None,
    ) -> None:
        """draws: what to load, in this order; None: every image once. batches: which images to
        load together, in place of a batch size and draws.
        """
        self.device = torch.device(device)
        self.table = torch.from_numpy(dataset.table).to(self.device)
        self.loader = DataLoader(
            dataset,
            batch_size if batches is None else 1,
            sampler=draws,
            batch_sampler=batches,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            collate_fn=_stack,
            worker_init_fn=_end_with_the_training,
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[StepBatch]:
        for pixels in _in_its_words(self.loader):
            images, masks = (x.to(self.device, non_blocking=True) for x in pixels)
            yield StepBatch(normalise(images), remap_labels(masks, self.table))


def _in_its_words(loader: Iterable[Pair]) -> Iterator[Pair]:
    """The batches; a mistake of the user's that a loader process found is the line that says it,
    which torch wraps in a traceback."""
    try:
        yield from loader
    except UserError as error:
        raise UserError(str(error).strip().rpartition(f"{UserError.__name__}: ")[2]) from error


def _end_with_the_training(_: int) -> None:
    """In a loader process: SIGTERM counts if it comes from the process that trains, its like never.

    SLURM sends one to every process of a job, and a terminal an interrupt. A loader that ended at
    once would tear down the training, which has an iteration to finish and a file to write.
    """
    for number in {signal.SIGINT, *TERMINATING} - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "linux":  # who sent a signal is known there alone
        return
    parent = multiprocessing.parent_process()
    if parent is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_end, args=(parent.pid,), daemon=True).start()


def _await_end(parent: int | None) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _stack(samples: list[Pair]) -> Pair:
    """uint8 images (B, 3, H, W), channels last in memory, and masks (B, H, W)."""
    images, masks = ([x.as_subclass(Tensor) for x in xs] for xs in zip(*samples, strict=True))
    pixels = torch.stack([x.permute(1, 2, 0).contiguous() for x in images])
    return pixels.permute(0, 3, 1, 2), torch.stack(masks)


def training_batches(
    dataset: SegmentationDataset,
    batch_size: int,
    iterations: int,
    workers: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str = "cpu",
    done: int = 0,
) -> StepLoader:
    """Exactly `iterations` full batches (batch norm needs full ones), epoch after epoch shuffled.

    Each of `world` processes gets its own share; together they see every image once an epoch.
    The seed alone decides the batches: more workers or more iterations leave the first ones alone.

    Args:
        dataset: its transform may be random.
        batch_size: images per iteration and process.
        iterations: number of batches.
        workers: loader processes; 0: images are decoded here.
        seed: of the order of images and of their crops and flips.
        rank, world: number of this process, and of all.
        device: where the batches are to be.
        done: how many batches to leave out at the beginning; those that follow stay what they are.
    """
    total = iterations * batch_size * world
    draws = Draws(len(dataset), total, seed, rank, world, done * batch_size)
    return StepLoader(dataset, batch_size, workers, device, draws)


def evaluation_batches(
    dataset: SegmentationDataset,
    batch_size: int,
    workers: int,
    device: torch.device | str = "cpu",
) -> StepLoader:
    """Every image once, in order; the last batch may be smaller.

    Arguments as of `training_batches`.
    """
    return StepLoader(dataset, batch_size, workers, device)


def whole_image_batches(
    dataset: SegmentationDataset,
    sizes: Sequence[Size],
    pixels: int,
    workers: int,
    device: torch.device | str = "cpu",
) -> StepLoader:
    """Every image once at its own size, those of one size together.

    Args:
        dataset: its transform keeps the sizes.
        sizes: width and height of each image of the dataset.
        pixels: of a batch at most, unless one image has more.
        workers, device: as of `training_batches`.
    """
    of_size: dict[Size, list[int]] = {}
    for position, size in enumerate(sizes):
        of_size.setdefault(size, []).append(position)
    batches = []
    for (width, height), positions in of_size.items():
        count = max(1, pixels // (width * height))
        batches += [positions[n : n + count] for n in range(0, len(positions), count)]
    return StepLoader(dataset, 1, workers, device, batches=batches)


def worker_count(workers: int | None, cache: bool, world: int = 1) -> int:
    """Loader processes of one of `world` that train, for a setting; empty: none when cached, else
    one per core that it has for itself, at most 16."""
    if workers is not None:
        return workers
    return 0 if cache else max(1, min(cores() // processes_here(world), 16))
