"""How many images a second come to the GPU, by loader processes."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from parts.items import Job, wait
from sparcl_lib.cores import cores
from sparcl_lib.data import ImageReader, SegmentationDataset, training_transform, voc_source
from sparcl_lib.data.loading.dataset import training_batches

WORKERS = (14, 0, 4, 8)
LONG_SIDE, IMAGES, SECONDS = 500, 256, 3.0


def measure(job: Job) -> None:
    """Photographs at VOC's size of 500 pixels, random crops of 512, batches of 24."""
    torch.set_num_threads(1)
    tree = job.work / "photographs-500"
    for workers in WORKERS if not job.tiny else (0,):
        job.item(f"loader-{workers}", 6, partial(rate, job, tree, workers))


def rate(job: Job, tree: Path, workers: int) -> dict[str, Any]:
    """Images per second after the first batches, which wait for the processes to start."""
    assert job.data_root is not None
    if not (tree / "ImageSets").exists():
        enlarge(job.data_root, tree, 4 if job.tiny else IMAGES)
    source = voc_source(tree)
    ids = source.ids("train")
    size, batch = (32, 2) if job.tiny else (512, 24)
    transform = training_transform(size, (0.5, 2.0))
    table = np.arange(256, dtype=np.uint8)
    dataset = SegmentationDataset(ImageReader(source, "train"), ids, table, transform)
    first, count = 0.0, 0
    skipped = 2 * max(workers, 1)
    loader = training_batches(dataset, batch, 2000, workers, seed=0, device=job.device)
    for n, _ in enumerate(loader):
        now = time.perf_counter()
        if n == skipped:
            wait(job.device)
            first = time.perf_counter()
        elif n > skipped:
            count += batch
            if now - first > (0.2 if job.tiny else SECONDS) and n > skipped + 2:
                break
    wait(job.device)
    seconds = time.perf_counter() - first
    return {"workers": workers, "batch": batch, "size": size, "cores": cores(),
            "images per second": count / seconds}  # fmt: skip


def enlarge(data_root: Path, out: Path, images: int) -> None:
    """The first photographs at the size that VOC has them in, as a tree of its own."""
    source = voc_source(data_root)
    ids = source.ids("train")[:images]
    photos, masks = out / "JPEGImages", out / "SegmentationClassAug"
    for folder in (photos, masks):
        folder.mkdir(parents=True, exist_ok=True)

    def write(i: str) -> None:
        photo, mask = Image.open(source.photo("train", i)), Image.open(source.mask("train", i))
        factor = LONG_SIDE / max(photo.size)
        size = (round(photo.width * factor), round(photo.height * factor))
        photo.resize(size, Image.Resampling.BICUBIC).save(photos / f"{i}.jpg", quality=90)
        mask.resize(size, Image.Resampling.NEAREST).save(masks / f"{i}.png")

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(write, ids))
    lists = out / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name in ("train_aug.txt", "val.txt"):
        (lists / name).write_text("\n".join(ids), "utf-8")
