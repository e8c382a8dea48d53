"""What a network sees in photographs, as files: class ids, overlays with legends, areas.

Colours are those of all figures: `viz.class_palette`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from sparcl_lib.errors import UserError
from sparcl_lib.labels import BACKGROUND
from sparcl_lib.prediction import LabelMap, read_photograph
from sparcl_lib.progress import tqdm
from sparcl_lib.viz.palette import class_palette
from sparcl_lib.writing import read_csv, write_atomically, write_csv

AREAS = "areas.csv"
_COLUMNS = ["image", "class_id", "class", "colour", "pixels", "percent"]
_OPACITY = 0.55
"""Of a class on its photograph; the background is left as it is."""
_SMALLEST_TEXT = 11
"""In pixels, of a legend; on a large photograph a thirtieth of its height."""


def write_label_maps(
    predict: Callable[[Path], LabelMap],
    classes: Sequence[str],
    images: Sequence[Path],
    out: Path,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Write NAME.png and NAME-overlay.png for each image, and areas.csv; return its rows of these.

    predict: what the network sees in an image file. classes: those that it knows, background first.

    NAME.png holds class ids (indices of `classes`), shown in the colours of figures. The overlay
    has a legend below the photograph, of the objects found. areas.csv has a row per image and
    class: image, class_id, class, colour, pixels, percent. It keeps those of earlier calls whose
    files are still there, also where this call is stopped.

    Raises UserError before anything is written: for no image, one that cannot be read, two of one
    name, a file that is there already (unless `overwrite`, and the areas.csv there lists it), or
    one of the images themselves.
    """
    images = list(dict.fromkeys(images))
    if not images:
        raise UserError("no image to look at: name some")
    places = _places(images, out, overwrite)
    for image in images:
        read_photograph(image)
    tables, written = [], []
    try:
        for image, (map_file, overlay_file) in tqdm(places.items(), "images", leave=False):
            labels = predict(image)
            drawn, blended = _palette_image(labels), _overlay(image, labels, classes)
            tables.append(_areas(image, labels, classes))
            written.append(map_file)
            write_atomically(map_file, drawn.save)
            write_atomically(overlay_file, blended.save)
    finally:
        if tables:
            kept = _kept(out, written)
            write_csv(out / AREAS, pd.concat([*kept, *tables], ignore_index=True))
    return pd.concat(tables, ignore_index=True)


def _places(images: Iterable[Path], out: Path, overwrite: bool) -> dict[Path, tuple[Path, Path]]:
    """Image -> where its map and its overlay go."""
    places: dict[Path, tuple[Path, Path]] = {}
    origin: dict[str, Path] = {}
    inputs = {image.resolve() for image in images}
    for image in images:
        try:
            str(image).encode()
        except UnicodeEncodeError:
            raise UserError(f"{str(image)!a}: its name is not UTF-8; rename it") from None
        files = out / f"{image.stem}.png", out / f"{image.stem}-overlay.png"
        for file in files:
            other = origin.setdefault(file.name.casefold(), image)
            if other is not image:
                raise UserError(
                    f"{other} and {image} would both be written as {file}: give them in two "
                    f"calls, each with its own --out"
                )
            if file.resolve() in inputs:
                raise UserError(f"{file} is one of the images: choose another --out")
        places[image] = files
    taken = [file for files in places.values() for file in files] + [out / AREAS]
    there = next((file for file in taken if file.exists()), None)
    if there is not None and not overwrite:
        raise UserError(f"{there} is there already: choose another --out, or add --overwrite")
    ours = _written_before(out)
    foreign = next((file for file in taken if file.exists() and file.name not in ours), None)
    if foreign is not None:
        raise UserError(
            f"{foreign} is not listed in an {AREAS} of an earlier call: choose another --out"
        )
    return places


def _written_before(out: Path) -> set[str]:
    """Names of the files that an earlier call wrote into a folder, as its areas.csv lists them."""
    try:
        images = read_csv(out / AREAS)["image"]
    except (OSError, ValueError, KeyError):  # none, or a table of something else
        return set()
    stems = [Path(image).stem for image in images.unique()]
    return {AREAS, *(f"{stem}{end}" for stem in stems for end in (".png", "-overlay.png"))}


def _kept(out: Path, written: Iterable[Path]) -> list[pd.DataFrame]:
    """What areas.csv says of other maps than those written now, if they are still there."""
    try:
        before = read_csv(out / AREAS)
    except (OSError, ValueError):  # none, or a table of something else
        return []
    if list(before) != _COLUMNS:
        return []
    new = {map_file.name.casefold() for map_file in written}
    names = {image: f"{Path(image).stem}.png" for image in before["image"].unique()}
    found = [
        image for image, name in names.items()
        if name.casefold() not in new and (out / name).exists()
    ]  # fmt: skip
    return [before[before["image"].isin(found)]] if found else []


def _palette_image(labels: LabelMap) -> Image.Image:
    image = Image.fromarray(labels)
    image.putpalette(class_palette(256).tobytes())
    return image


def _overlay(photograph: Path, labels: LabelMap, classes: Sequence[str]) -> Image.Image:
    pixels = read_photograph(photograph).permute(1, 2, 0).numpy()
    colours = np.asarray(_palette_image(labels).convert("RGB"))
    opacity = np.where(labels == BACKGROUND, 0, _OPACITY)[..., None]
    blended = (pixels + opacity * (colours - pixels.astype(float))).astype(np.uint8)
    found = [index for index in np.unique(labels).tolist() if index != BACKGROUND]
    return _with_legend(Image.fromarray(blended), {i: classes[i] for i in found})


def _with_legend(picture: Image.Image, names: Mapping[int, str]) -> Image.Image:
    """The picture at the top left, and below it a line for each class in its colour."""
    size = max(_SMALLEST_TEXT, picture.height // 30)
    font = ImageFont.load_default(size)
    # Pillow's font knows no other letters; the id is beside them, as in areas.csv.
    latin = {i: name.encode("latin-1", "replace").decode("latin-1") for i, name in names.items()}
    lines = {i: f"{i} {name}" for i, name in latin.items()} or {BACKGROUND: "background alone"}
    line, gap = round(1.5 * size), size // 2
    width = max(round(font.getlength(text)) for text in lines.values()) + line + 2 * gap
    canvas = Image.new(
        "RGB", (max(picture.width, width), picture.height + line * len(lines) + gap), "white"
    )
    canvas.paste(picture)
    draw, palette = ImageDraw.Draw(canvas), class_palette(256).tolist()
    for place, (index, text) in enumerate(lines.items()):
        top = picture.height + gap + place * line
        draw.rectangle((gap, top, gap + size, top + size), fill=tuple(palette[index]))
        draw.text((gap + line, top + size / 2), text, fill="black", font=font, anchor="lm")
    return canvas


def _areas(image: Path, labels: LabelMap, classes: Sequence[str]) -> pd.DataFrame:
    pixels = np.bincount(labels.ravel(), minlength=len(classes))
    ids = range(len(classes))
    colours = [f"#{bytes(colour).hex()}" for colour in class_palette(len(classes)).tolist()]
    percent = (100 * pixels / labels.size).round(4)
    values = (str(image), ids, classes, colours, pixels, percent)
    return pd.DataFrame(dict(zip(_COLUMNS, values, strict=True)))
