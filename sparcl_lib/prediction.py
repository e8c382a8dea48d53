"""Photographs of any size, handed in in any usual way, to maps of class ids."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from sparcl_lib.data.loading.transforms import normalise
from sparcl_lib.data.pixels import check_pixels, read_photo, rgb_of
from sparcl_lib.errors import UserError, lacks_memory, number_of
from sparcl_lib.models import SegmenterOutput, label_map

Photograph: TypeAlias = str | Path | Image.Image | NDArray[np.uint8] | Tensor
"""A file, a PIL image, a uint8 array (H, W, 3), or a uint8 tensor (3, H, W); RGB."""
LabelMap: TypeAlias = NDArray[np.uint8]
"""(H, W) class ids, 0 the background."""

_WANTED = (
    "give a file, a PIL image, a uint8 array (height, width, 3), a uint8 tensor "
    "(3, height, width), or a list of these"
)


def read_photograph(photograph: Photograph) -> Tensor:
    """uint8 (3, H, W) RGB; files and PIL images are turned upright where their EXIF tag says so.

    Raises UserError for a file that cannot be read, and for what is no photograph.
    """
    if isinstance(photograph, (str, Path)):
        return torch.from_numpy(read_photo(str(photograph))).permute(2, 0, 1)
    if isinstance(photograph, Image.Image):
        return torch.from_numpy(rgb_of(photograph, "the PIL image")).permute(2, 0, 1)
    if isinstance(photograph, np.ndarray) and _is_rgb(photograph, channels=2):
        return torch.from_numpy(np.array(photograph, order="C")).permute(2, 0, 1)
    if isinstance(photograph, Tensor) and _is_rgb(photograph, channels=0):
        return photograph
    raise UserError(f"{_described(photograph)} is no photograph: {_WANTED}")


def _is_rgb(pixels: NDArray[np.uint8] | Tensor, channels: int) -> bool:
    """Bytes in three channels, which is the axis that `channels` names."""
    shape = tuple(pixels.shape)
    bytes_ = str(pixels.dtype) in ("uint8", "torch.uint8")
    return bytes_ and len(shape) == 3 and shape[channels] == 3 and 0 not in shape


def _described(thing: object) -> str:
    if isinstance(thing, (np.ndarray, Tensor)):
        return f"a {thing.dtype} {type(thing).__name__} of shape {tuple(thing.shape)}"
    return f"{thing!r}"


def predict_photographs(
    model: nn.Module, photographs: Iterable[Photograph], size: int | None, batch_size: int
) -> list[LabelMap]:
    """What a network sees in each, at its own size.

    model: a Segmenter in eval mode, on any device, or what answers as one. size: its shorter side
    becomes this for the network, in pixels (None: it stays as it is); nothing is cut off, and the
    logits are brought back to the photograph's size, bilinear. batch_size: neighbours of one size
    go through the network together, so many at a time at most. Raises UserError where the memory
    does not suffice.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    maps: list[LabelMap] = []
    for originals, batch in _batches(photographs, size, batch_size):
        try:
            maps += _label_maps(model, batch.to(device), originals, over_images=size is not None)
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            height, width = max(originals, key=math.prod)
            count = number_of(len(batch), "photograph")
            seen = " x ".join(map(str, batch.shape[2:]))
            raise UserError(
                f"the memory ({device.type}) does not suffice for {count} of up to {height} x "
                f"{width} pixels, seen at {seen}: scale down what is large"
            ) from error
    return maps


@torch.no_grad()
def _label_maps(
    model: nn.Module, batch: Tensor, originals: list[tuple[int, int]], over_images: bool
) -> list[LabelMap]:
    output: SegmenterOutput = model(normalise(batch))
    labelled = (label_map(output, n, s, over_images) for n, s in enumerate(originals))
    return [labels.cpu().numpy() for labels in labelled]


def _batches(
    photographs: Iterable[Photograph], size: int | None, batch_size: int
) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
    """Heights and widths of the photographs, and what the network sees of them, (B, 3, h, w)."""
    resize = v2.Identity() if size is None else v2.Resize(size, antialias=True)
    shapes: list[tuple[int, int]] = []
    shown: list[Tensor] = []
    for photograph in photographs:
        pixels = read_photograph(photograph)
        _check_seen(pixels, photograph, size)
        small = resize(pixels)
        if shown and (len(shown) == batch_size or small.shape != shown[0].shape):
            yield shapes, torch.stack(shown)
            shapes, shown = [], []
        shapes.append((pixels.shape[1], pixels.shape[2]))
        shown.append(small)
    if shown:
        yield shapes, torch.stack(shown)


def _check_seen(pixels: Tensor, photograph: Photograph, size: int | None) -> None:
    """Raise UserError where the network would see too many pixels, before they are made."""
    height, width = pixels.shape[1:]
    factor = 1.0 if size is None else size / min(height, width)
    name = f"photograph {photograph}" if isinstance(photograph, (str, Path)) else "a photograph"
    resized = "" if size is None else f" of {height} x {width} with a shorter side of {size}"
    check_pixels(f"{name}{resized}", (round(width * factor), round(height * factor)))
