"""The Semantic Boundaries Dataset as VOC's augmented training set.

SBD annotates 11,355 photographs of VOC in MATLAB files. Its segmentations have no border, VOC's
own have; where an image has both, the field uses VOC's, and so do the masks in circulation as
SegmentationClassAug.zip (checked on them: border in all 2,913 of VOC, in none of the other 9,118).
"""

import shutil
from collections.abc import Iterable
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image

from sparcl_lib.cores import cores
from sparcl_lib.data.masks import voc_palette
from sparcl_lib.errors import UserError
from sparcl_lib.progress import tqdm


def train_aug(sbd: Iterable[str], train: Iterable[str], val: Iterable[str]) -> list[str]:
    """Ids of the augmented training set, sorted: all of SBD and VOC's train, without VOC's val.

    Args:
        sbd: ids of SBD's own train and val lists.
        train: ids of VOC2012's segmentation list train.txt.
        val: ids of val.txt. SBD's lists ignore that VOC tests on these.
    """
    return sorted((set(sbd) | set(train)) - set(val))


def read_mat(path: Path) -> np.ndarray:
    """Classes of the pixels of one SBD annotation, uint8 (H, W), 0 to 20.

    Raises:
        UserError: the file cannot be read, or is no such annotation.
    """
    from scipy.io import loadmat  # here because it is slow to import

    try:
        content = loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
        mask = np.asarray(content)
        if mask.dtype == np.uint8 and mask.ndim == 2:
            return mask
        reason = f"Segmentation is {mask.dtype} {mask.shape}"
    except Exception as error:  # a damaged file can make scipy raise anything
        reason = f"{type(error).__name__}: {error}"
    raise UserError(f"{path.name} is no annotation of SBD ({reason}): get the archive again")


def convert(mats: Path, masks: Path, ids: Iterable[str], progress: bool = True) -> None:
    """Write ID.mat of one folder as palette ID.png into another, in threads.

    Raises:
        UserError: an annotation is missing or broken.
    """
    palette = voc_palette()

    def one(image_id: str) -> None:
        mask = Image.fromarray(read_mat(mats / f"{image_id}.mat"))
        mask.putpalette(palette)
        mask.save(masks / f"{image_id}.png")

    ids = list(ids)
    masks.mkdir(parents=True, exist_ok=True)
    with ThreadPool(cores()) as pool:
        jobs = pool.imap_unordered(one, ids, chunksize=16)
        for _ in tqdm(jobs, "converting SBD", len(ids), leave=False, disable=not progress):
            pass


def take_over(source: Path, masks: Path, ids: Iterable[str]) -> None:
    """Copy VOC's own masks of these ids.

    Raises:
        UserError: one is missing.
    """
    masks.mkdir(parents=True, exist_ok=True)
    for image_id in ids:
        try:
            shutil.copyfile(source / f"{image_id}.png", masks / f"{image_id}.png")
        except FileNotFoundError as error:
            raise UserError(f"VOC's mask {error.filename} is missing: get VOC2012 first") from None
