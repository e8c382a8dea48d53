"""Colour-coded masks to masks of class ids, once, so that no later reading looks up a colour.

A lookup of three bytes a pixel costs more than decoding the mask, and would be paid at every
reading of every epoch.
"""

import csv
import os
from multiprocessing.pool import ThreadPool
from pathlib import Path

import yaml
from PIL import Image

from sparcl_lib.cores import cores
from sparcl_lib.data.masks import Colour, read_colours
from sparcl_lib.data.sources.custom import colour_source
from sparcl_lib.data.sources.files import MASK_SUFFIXES
from sparcl_lib.data.sources.pairs import COLUMNS
from sparcl_lib.data.sources.source import Source
from sparcl_lib.errors import UserError
from sparcl_lib.progress import tqdm
from sparcl_lib.writing import appearing_whole

DESCRIPTION = "dataset.yaml"


def convert(
    path: Path, out: Path, data_root: str | Path | None = None, progress: bool = True
) -> Path:
    """Write the masks of a data set as PNG files of class ids into a new folder.

    The folder appears whole or not at all, with a description of its own. Photographs stay where
    they are, and those that lie beside the folder may move with it. The masks keep their colours,
    as palette images.

    Args:
        path: YAML file with a palette, as in `colour_source`.
        out: folder to make.
        data_root: where relative paths in the file start; None: its folder.
        progress: show a bar on stderr.

    Returns:
        The description, to be used as a data set.

    Raises:
        UserError: as `colour_source` and `read_colours`; `out` exists; it cannot be written.
    """
    source, colours = colour_source(path, data_root)
    if out.exists():
        raise UserError(f"{out} is there already: remove it, or name another --out")
    with appearing_whole(out, "free some space or name another --out") as stage:
        for split in source.splits:
            _convert_split(source, split, colours, stage, out, progress)
        _describe(source, stage / DESCRIPTION)
    return out / DESCRIPTION


def _convert_split(
    source: Source, split: str, colours: dict[Colour, int], stage: Path, out: Path, progress: bool
) -> None:
    ids, palette = source.ids(split), _palette(colours)

    def one(image_id: str) -> tuple[str, str, str]:
        photo = _seen_from(out, source.photo(split, image_id))
        name = f"masks/{split}/{image_id}{MASK_SUFFIXES[0]}"
        mask = Image.fromarray(read_colours(source.mask(split, image_id), colours))
        mask.putpalette(palette)
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        mask.save(stage / name)
        return photo, name, image_id

    # Threads, not processes: as in presence.scan.
    with ThreadPool(cores()) as pool:
        jobs = pool.imap(one, ids, chunksize=4)
        rows = list(tqdm(jobs, f"converting {split}", len(ids), leave=False, disable=not progress))
    with (stage / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def _seen_from(out: Path, photo: str) -> str:
    """Its path from the new folder where it lies beside that, so that both may move; else whole."""
    path = Path(photo).resolve()
    if not path.is_relative_to(out.parent.resolve()):
        return str(path)
    return Path(os.path.relpath(path, out.resolve())).as_posix()


def _palette(colours: dict[Colour, int]) -> bytes:
    """256 x RGB: the first colour of each class."""
    first = {raw_id: colour for colour, raw_id in reversed(colours.items())}
    return bytes(part for raw_id in range(256) for part in first.get(raw_id, (0, 0, 0)))


def _describe(source: Source, path: Path) -> None:
    classes = {name: raw_id for raw_id, name in enumerate(source.classes)}
    splits = {split: {"pairs": f"{split}.csv"} for split in source.splits}
    content = {"name": source.name, "classes": classes, **splits}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
