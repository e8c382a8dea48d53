"""Small archives in the layouts of VOC2012, SBD, SegmentationClassAug.zip and ADE20K."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from sparcl_lib.data.acquiring.archives import Archive

TRAIN, VAL = ["2007_01", "2007_02"], ["2007_03", "2007_04"]
SBD_TRAIN, SBD_VAL = ["2007_02", "2007_03", "2008_01"], ["2008_02", "2008_03"]
REST = ["2008_01", "2008_02", "2008_03"]
TRAIN_AUG = [*TRAIN, *REST]
COUNTS = {"train.txt": 2, "val.txt": 2, "train_aug.txt": 5}
SIZE = (12, 9)


def jpeg(size: tuple[int, int] = SIZE) -> bytes:
    return _saved(Image.new("RGB", size, (200, 30, 90)), "JPEG")


def png(mask: np.ndarray) -> bytes:
    return _saved(Image.fromarray(mask), "PNG")


def _saved(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def voc_mask(image_id: str) -> np.ndarray:
    """uint8 (9, 12) with a border, as VOC's own annotations have."""
    mask = sbd_mask(image_id)
    mask[0] = 255
    return mask


def sbd_mask(image_id: str) -> np.ndarray:
    """uint8 (9, 12) without a border; the class tells the image."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[3:6, 2:7] = 1 + int(image_id.replace("_", "")) % 20
    return mask


def lines(ids: list[str]) -> bytes:
    return "".join(f"{image_id}\n" for image_id in ids).encode()


def voc_files() -> dict[str, bytes]:
    """Contents of the devkit's archive; it has photographs beyond the segmentation lists."""
    root = "VOCdevkit/VOC2012"
    files = {f"{root}/JPEGImages/{i}.jpg": jpeg() for i in [*TRAIN_AUG, *VAL, "2009_01"]}
    files |= {f"{root}/SegmentationClass/{i}.png": png(voc_mask(i)) for i in TRAIN + VAL}
    files |= {f"{root}/SegmentationObject/{i}.png": png(voc_mask(i)) for i in TRAIN + VAL}
    files |= {f"{root}/Annotations/{i}.xml": b"<annotation/>" for i in TRAIN}
    lists = {"train": TRAIN, "val": VAL, "trainval": TRAIN + VAL}
    for name, ids in lists.items():
        files[f"{root}/ImageSets/Segmentation/{name}.txt"] = lines(ids)
        files[f"{root}/ImageSets/Main/{name}.txt"] = lines(["not", "these"])
    return files


def sbd_files() -> dict[str, bytes]:
    root = "benchmark_RELEASE/dataset"
    files = {f"{root}/cls/{i}.mat": mat(sbd_mask(i)) for i in [*SBD_TRAIN, *SBD_VAL]}
    files |= {f"{root}/img/{i}.jpg": jpeg() for i in [*SBD_TRAIN, *SBD_VAL]}
    files |= {f"{root}/train.txt": lines(SBD_TRAIN), f"{root}/val.txt": lines(SBD_VAL)}
    return files | {"benchmark_RELEASE/README": b"how to run the benchmark"}


def mat(mask: np.ndarray) -> bytes:
    """A MATLAB file with the fields of SBD's."""
    file = io.BytesIO()
    shown = np.array([[v] for v in np.unique(mask) if 0 < v < 255], np.uint8)
    content = {"Boundaries": np.zeros((20, 1)), "Segmentation": mask, "CategoriesPresent": shown}
    savemat(file, {"GTcls": content})
    return file.getvalue()


def augmented_files() -> dict[str, bytes]:
    """Contents of a SegmentationClassAug.zip, packed on a Mac as the one in circulation."""
    masks = {i: voc_mask(i) for i in TRAIN + VAL} | {i: sbd_mask(i) for i in REST}
    files = {f"SegmentationClassAug/{i}.png": png(mask) for i, mask in masks.items()}
    return files | {f"__MACOSX/SegmentationClassAug/._{i}.png": b"Mac" for i in TRAIN}


def ade_files() -> dict[str, bytes]:
    root, files = "ADEChallengeData2016", {}
    for folder, name, count in (("training", "train", 3), ("validation", "val", 2)):
        for n in range(1, count + 1):
            image_id = f"ADE_{name}_{n:08d}"
            mask = np.full(SIZE[::-1], 150 - n, np.uint8)
            files[f"{root}/images/{folder}/{image_id}.jpg"] = jpeg()
            files[f"{root}/annotations/{folder}/{image_id}.png"] = png(mask)
    return files | {f"{root}/objectInfo150.txt": b"Idx", f"{root}/sceneCategories.txt": b"a b"}


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    """A tar, tgz or zip, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, content in files.items():
                file.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def spread(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The files unpacked."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def described(path: Path, *urls: str) -> Archive:
    content = path.read_bytes()
    checksum = f"md5:{hashlib.md5(content).hexdigest()}"
    return Archive(path.name, urls, checksum, len(content), 10**7)
