"""MiniVOC: a generated data set in VOC's folder layout, the same to the bit on every machine.

What an image shows is drawn in `scene`; here it is written, checksummed and found again.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from PIL import Image

from sparcl_lib.data.masks import read_values, voc_palette
from sparcl_lib.data.minivoc.editions import MINIVOC, VERSION, Edition
from sparcl_lib.data.minivoc.scene import sample
from sparcl_lib.errors import UserError
from sparcl_lib.progress import tqdm
from sparcl_lib.writing import appearing_whole

PHOTOS, MASKS, LISTS = "JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"
SPLITS = {"train_aug": "train", "val": "val"}  # name of the id list -> setting that sizes it

Settings = dict[str, int]
"""version, seed, train, val and size, as in minivoc.json."""


def default_root(edition: Edition = MINIVOC) -> Path:
    """The folder of this user's MiniVOC."""
    data = Path(platformdirs.user_data_dir("sparcl", appauthor=False))
    return data / f"{edition.name}-v{VERSION}"


def ensure_minivoc(
    root: str | Path | None = None, progress: bool = True, edition: Edition = MINIVOC
) -> Path:
    """Return the folder of MiniVOC, generated with the default settings if it is not there yet.

    A MiniVOC of other settings (a smaller one, say) in `root` is used as it is.
    Raises `UserError` if `root` holds something else or cannot be written.
    """
    root = default_root(edition) if root is None else Path(root).expanduser()
    if not _of_edition(edition).items() <= _read_info(root).items():
        generate(root, progress=progress, edition=edition)
    return root


def generate(
    root: str | Path,
    seed: int = 0,
    train: int | None = None,
    val: int | None = None,
    size: int = 64,
    progress: bool = True,
    edition: Edition = MINIVOC,
) -> Settings:
    """Write `train` + `val` images of `size` pixels into the folder `root`, in VOC's layout.

    How many images there are is the edition's to say if it is not given: what was decided is
    returned, as it stands in minivoc.json.

    The folder appears only when it is complete; if it is there already, nothing is done.
    Raises `UserError` if `root` holds something else, cannot be written, or a number is no good.
    """
    settings = _settings(seed, train, val, size, edition)
    root = Path(root).expanduser().resolve()
    asked = {**settings, **_of_edition(edition)}
    if _is_present(root, asked):
        return settings
    try:
        with appearing_whole(root, "name another folder") as draft:
            _write(draft, settings, edition, progress)
    except UserError:
        if not _is_present(root, asked):  # another process may have been first
            raise
    return settings


def checksum(root: str | Path) -> str:
    """The sha256 of all ids, masks and photos (before JPEG), as recorded when `root` was made.

    Raises `UserError` if `root` holds no MiniVOC.
    """
    info = _read_info(Path(root))
    if "checksum" not in info:
        raise UserError(f"{root} holds no MiniVOC; make one: sparcl data minivoc --root {root}")
    return str(info["checksum"])


def verify(root: str | Path) -> None:
    """Raise `UserError` unless the id lists and masks on disk are those that were generated."""
    checksum(root)
    root, digest = Path(root), hashlib.sha256()
    try:
        for split in SPLITS:
            for name in (root / LISTS / f"{split}.txt").read_text("utf-8").split():
                _feed(digest, split, name, read_values(str(root / MASKS / f"{name}.png")))
        broken = digest.hexdigest() != _read_info(root)["masks_checksum"]
    except (OSError, UserError):
        broken = True
    if broken:
        raise UserError(f"MiniVOC in {root} is damaged; delete the folder and make it again")


def _of_edition(edition: Edition) -> dict[str, Any]:
    """By what minivoc.json tells one edition from another."""
    return {"version": VERSION, "classes": list(edition.classes)}


def _settings(
    seed: int, train: int | None, val: int | None, size: int, edition: Edition
) -> Settings:
    train = edition.train if train is None else train
    val = edition.val if val is None else val
    limits = {
        "seed": (seed, 0, 2**32 - 1),
        "train": (train, 1, 400_000),
        "val": (val, 1, 400_000),
        "size": (size, 32, 1024),
    }
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise UserError(f"MiniVOC {name} is {value}; give a number from {low} to {high}")
    return {"version": VERSION, "seed": seed, "train": train, "val": val, "size": size}


def _read_info(root: Path) -> dict[str, Any]:
    """The contents of minivoc.json, or {} where there is none."""
    try:
        info = json.loads((root / "minivoc.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def _is_present(root: Path, asked: dict[str, Any]) -> bool:
    """Whether the MiniVOC asked for is in `root`; a `UserError` if anything else is."""
    if asked.items() <= _read_info(root).items():
        return True
    try:
        is_free = not root.exists() or (root.is_dir() and not any(root.iterdir()))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot read {root}: {reason}; name another folder") from error
    if not is_free:
        raise UserError(
            f"{root} is in use and holds no MiniVOC of these settings; "
            "name another folder, a new or an empty one"
        )
    return False


def _feed(digest: "hashlib._Hash", split: str, name: str, *arrays: np.ndarray) -> None:
    digest.update(f"{split} {name}\n".encode())
    for array in arrays:
        digest.update(array.tobytes())


def _write(root: Path, settings: Settings, edition: Edition, progress: bool) -> None:
    """Write photos, masks, id lists and, last, minivoc.json."""
    for folder in (PHOTOS, MASKS, LISTS):
        (root / folder).mkdir(parents=True)
    everything, masks, palette = hashlib.sha256(), hashlib.sha256(), voc_palette()
    splits = [split for split in SPLITS for _ in range(settings[SPLITS[split]])]
    ids: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number, split in enumerate(tqdm(splits, edition.name, disable=not progress), 1):
        name = f"mini_{number:06d}"
        rng = np.random.RandomState([settings["seed"], number])
        photo, mask = sample(rng, settings["size"], edition)
        _feed(everything, split, name, mask, photo)
        _feed(masks, split, name, mask)
        Image.fromarray(photo).save(root / PHOTOS / f"{name}.jpg", quality=95, subsampling=0)
        picture = Image.fromarray(mask)
        picture.putpalette(palette)
        picture.save(root / MASKS / f"{name}.png")
        ids[split].append(name)
    for split, names in ids.items():
        (root / LISTS / f"{split}.txt").write_text("\n".join(names) + "\n", "utf-8")
    sums = {"checksum": everything.hexdigest(), "masks_checksum": masks.hexdigest()}
    default = settings == _settings(0, None, None, 64, edition)
    if default and sums["checksum"] != edition.checksum:
        raise RuntimeError(
            f"{edition.name} came out as {sums['checksum']}, not as {edition.checksum}: a bug"
        )
    info = json.dumps({**settings, "classes": edition.classes, **sums}, indent=1)
    (root / "minivoc.json").write_text(info + "\n", "utf-8")
