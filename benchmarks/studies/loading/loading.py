"""Images per second: our loader beside a plain Pillow and numpy one, in one run.

    python benchmarks/studies/loading/loading.py --data-root DIR [--images 128] [--repeats 5]

Both decode, crop at random, resize to 512, flip, normalise and look labels up. Photographs of
`--data-root` (layout of VOC) are first written anew with VOC's long side of 500 pixels. Rounds of
the two loaders alternate; the table shows the median. Writes loading.csv beside this file.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

from sparcl_lib.cores import cores
from sparcl_lib.data import ImageReader, SegmentationDataset, training_transform, voc_source
from sparcl_lib.data.loading.dataset import training_batches
from sparcl_lib.data.loading.transforms import IMAGENET_MEAN, IMAGENET_STD

SIZE, LONG_SIDE, BATCH, PASSES = 512, 500, 8, 4
SCALE, RATIO = (0.5, 2.0), (3 / 4, 4 / 3)
TABLE = Path(__file__).with_suffix(".csv")
LABELS = np.arange(256, dtype=np.uint8)


class PlainDataset(Dataset):
    """What one writes first: Pillow for the pixels, numpy for the rest."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        photo, mask = self.pairs[index]
        image, labels = Image.open(photo).convert("RGB"), Image.open(mask)
        box = plain_box(*image.size)
        image = image.crop(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        labels = labels.crop(box).resize((SIZE, SIZE), Image.Resampling.NEAREST)
        if np.random.rand() < 0.5:
            image, labels = (x.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for x in (image, labels))
        pixels = np.asarray(image, np.float32) / 255
        pixels = (pixels - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
        channels_first = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        return channels_first, LABELS[np.asarray(labels)].astype(np.int64)


def plain_box(width: int, height: int) -> tuple[int, int, int, int]:
    """A random crop by the rule of RandomResizedCrop: ten tries, else the middle."""
    for _ in range(10):
        area = width * height * np.random.uniform(*SCALE)
        ratio = np.exp(np.random.uniform(*np.log(RATIO)))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            x, y = np.random.randint(width - w + 1), np.random.randint(height - h + 1)
            return x, y, x + w, y + h
    side = min(width, height)
    x, y = (width - side) // 2, (height - side) // 2
    return x, y, x + side, y + side


def resized_tree(data_root: Path, out: Path, images: int) -> None:
    """The first images of a VOC tree in VOC's own size, as a tree of its own."""
    source = voc_source(data_root)
    ids = source.ids("train")[:images]
    folders = [out / "JPEGImages", out / "SegmentationClassAug", out / "ImageSets" / "Segmentation"]
    for folder in folders:
        folder.mkdir(parents=True)
    for name in ("train_aug.txt", "val.txt"):
        (folders[2] / name).write_text("\n".join(ids), "utf-8")
    for i in ids:
        photo, mask = Image.open(source.photo("train", i)), Image.open(source.mask("train", i))
        factor = LONG_SIDE / max(photo.size)
        size = tuple(round(side * factor) for side in photo.size)
        photo.resize(size, Image.Resampling.BICUBIC).save(folders[0] / f"{i}.jpg", quality=90)
        mask.resize(size, Image.Resampling.NEAREST).save(folders[1] / f"{i}.png")


def seconds(batches: Callable[[], Iterable], count: int) -> float:
    began = time.perf_counter()
    assert sum(len(batch[0]) for batch in batches()) == count
    return time.perf_counter() - began


def measure(tree: Path, workers: int, repeats: int) -> dict:
    """One row: images per second of both over some passes, workers starting included."""
    source = voc_source(tree)
    ids = source.ids("train")
    count = PASSES * len(ids) // BATCH * BATCH
    ours = SegmentationDataset(
        ImageReader(source, "train"), ids, LABELS, training_transform(SIZE, SCALE)
    )
    plain = PlainDataset([(source.photo("train", i), source.mask("train", i)) for i in ids])
    loaders = {
        "plain": lambda: DataLoader(
            plain,
            BATCH,
            sampler=RandomSampler(plain, replacement=True, num_samples=count),
            num_workers=workers,
        ),
        "ours": lambda: training_batches(ours, BATCH, count // BATCH, workers, seed=0),
    }
    rounds = [
        {name: seconds(make, count) for name, make in loaders.items()} for _ in range(repeats)
    ]
    rates = {n: round(count / statistics.median(r[n] for r in rounds), 1) for n in loaders}
    return {"workers": workers, **rates, "times": round(rates["ours"] / rates["plain"], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        resized_tree(arguments.data_root, Path(folder, "voc"), arguments.images)
        rows = [
            measure(Path(folder, "voc"), workers, arguments.repeats)
            for workers in sorted({0, 1, cores()})
        ]
    table = pd.DataFrame(rows).assign(
        machine=f"{platform.machine()}, {cores()} cores", torch=torch.__version__
    )
    table.to_csv(TABLE, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
