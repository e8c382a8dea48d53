"""Photographs and labels of one step, as batches."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors

from sparcl_lib.data.sources import Source
from sparcl_lib.data.splits import remap_labels
from sparcl_lib.data.transforms import normalise
from sparcl_lib.errors import UserError


class StepBatch(NamedTuple):
    """One batch of a step."""

    images: Tensor
    """(B, 3, size, size) float32, normalised."""
    labels: Tensor
    """(B, size, size) int64 training indices, 255 ignored."""


class ImageReader:
    """Decodes the photographs and masks of a split, and remembers them if asked to."""

    def __init__(self, source: Source, split: str, cache: bool = False) -> None:
        self.source = source
        self.split = split
        self._cache: dict[str, tuple[Tensor, Tensor]] | None = {} if cache else None

    def __call__(self, image_id: str) -> tuple[Tensor, Tensor]:
        """uint8 image (3, H, W) and uint8 mask (H, W) of raw values.

        Raises UserError naming the file that cannot be read, or a pair of two sizes.
        """
        if self._cache is not None and image_id in self._cache:
            return self._cache[image_id]
        photo = self.source.photo(self.split, image_id)
        mask_file = self.source.mask(self.split, image_id)
        image, mask = _decode(_read_photo, photo), _decode(_read_mask, mask_file)
        if image.shape[1:] != mask.shape:
            raise UserError(
                f"photograph {photo} is {image.shape[2]}x{image.shape[1]} but its mask "
                f"{mask_file} is {mask.shape[1]}x{mask.shape[0]}: restore the pair"
            )
        if self._cache is not None:
            self._cache[image_id] = image, mask
        return image, mask


# Pillow decodes both: torchvision's own decoder is deprecated, and expands a palette to colours
# where the indices are what counts.
def _read_photo(path: str) -> Tensor:
    with Image.open(path) as photo:
        return torch.from_numpy(np.array(photo.convert("RGB"))).permute(2, 0, 1)


def _read_mask(path: str) -> Tensor:
    with Image.open(path) as mask:
        return torch.from_numpy(np.array(mask))


def _decode(read: Callable[[str], Tensor], path: object) -> Tensor:
    try:
        return read(str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot decode {path} ({error}): restore the file") from None


class SegmentationDataset(Dataset):
    """Images of some ids, transformed, with labels looked up in a 256-entry table."""

    def __init__(
        self, reader: ImageReader, ids: Sequence[str], table: np.ndarray, transform: Callable
    ) -> None:
        self.reader = reader
        self.ids = list(ids)
        self.table = table
        self.transform = transform

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """uint8 image (3, size, size) and mask (size, size) of raw values."""
        image, mask = self.reader(self.ids[index])
        return self.transform(tv_tensors.Image(image), tv_tensors.Mask(mask))

    def collate(self, samples: list[tuple[Tensor, Tensor]]) -> StepBatch:
        """What is the same for every pixel is done once a batch, after the crops: fewer, larger."""
        images, masks = (torch.stack([x.as_subclass(Tensor) for x in xs]) for xs in zip(*samples))
        images = normalise(images).contiguous(memory_format=torch.channels_last)
        return StepBatch(images, remap_labels(masks, self.table))


def training_batches(
    dataset: SegmentationDataset,
    batch_size: int,
    iterations: int,
    workers: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[StepBatch]:
    """Exactly `iterations` full batches (batch norm needs full ones), epoch after epoch shuffled.

    Each of `world` processes gets its own share; together they see every image once an epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    total = iterations * batch_size * world
    epochs = range(-(-total // len(dataset)))
    order = torch.cat([torch.randperm(len(dataset), generator=generator) for _ in epochs])
    share = order[:total][rank::world].tolist()
    return _loader(dataset, batch_size, workers, sampler=share)


def evaluation_batches(
    dataset: SegmentationDataset, batch_size: int, workers: int
) -> DataLoader[StepBatch]:
    """Every image once, in order."""
    return _loader(dataset, batch_size, workers, shuffle=False)


def _loader(
    dataset: SegmentationDataset, batch_size: int, workers: int, **options: object
) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        collate_fn=dataset.collate,
        **options,
    )


def worker_count(workers: int | None, cache: bool) -> int:
    """Loader processes for a setting; empty: none when cached, else one per core, at most 16."""
    if workers is not None:
        return workers
    return 0 if cache else min(os.cpu_count() or 1, 16)
