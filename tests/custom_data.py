"""Small custom data sets on disk, in other layouts than VOC's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

SMALL = ["optim.iterations=2", "model.backbone=mini", "model.output_stride=4", "model.head=conv",
         "data.size=32", "data.batch_size=4", "data.workers=0"]  # fmt: skip
QUICK = [part for setting in SMALL for part in ("--set", setting)] + ["--backbone-weights", "none"]


def street_mask(seed: int, values: Sequence[int], shape: tuple[int, int] = (36, 48)) -> np.ndarray:
    """uint8 (H, W): blocks of these values, each of them somewhere."""
    rng = np.random.default_rng(seed)
    blocks = np.resize(rng.permutation(values), (shape[0] // 6, shape[1] // 6))
    return np.kron(blocks, np.ones((6, 6))).astype(np.uint8)


def save_pair(image: Path, mask_file: Path, mask: np.ndarray) -> None:
    """A photograph that shows the mask in greys, and the mask as it is."""
    for path in (image, mask_file):
        path.parent.mkdir(parents=True, exist_ok=True)
    grey = mask if mask.ndim == 2 else (mask @ [1, 2, 3] // 6).astype(np.uint8)
    Image.fromarray(np.repeat(21 * grey[..., None], 3, axis=2)).save(image)  # odd: all differ
    Image.fromarray(mask).save(mask_file)


def camvid_tree(root: Path, values: Sequence[int] = range(12), train: int = 6) -> Path:
    """Folders train, trainannot, val, valannot; every value in every image."""
    for split, count, seed in (("train", train, 0), ("val", 4, 100)):
        for n in range(count):
            name = f"0001TP_{n:06d}.png"
            mask = street_mask(seed + n, values)
            save_pair(root / split / name, root / f"{split}annot" / name, mask)
    return root


FOLDERS = {split: {"photos": split, "masks": f"{split}annot"} for split in ("train", "val")}


def describe(root: Path, file: str = "data.yaml", /, **content: object) -> Path:
    """Write a description; the folders of `camvid_tree` unless told otherwise."""
    content = {key: value for key, value in {**FOLDERS, **content}.items() if value is not None}
    (root / file).write_text(yaml.safe_dump(content), "utf-8")
    return root / file
