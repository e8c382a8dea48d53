"""Class names of the known data sets, indexed by raw mask value; index 0 is the background."""

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

from sparcl_lib.errors import UserError

BACKGROUND_NAME = "background"
"""Name of the class with raw id and training index 0 (`labels.BACKGROUND`)."""

VOC_CLASSES: tuple[str, ...] = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
"""Names of VOC2012, by mask value."""

MINIVOC_CLASSES: tuple[str, ...] = (
    "background", "disc", "square", "triangle", "diamond", "cross", "ring", "star", "bar", "frame",
    "moon",
)  # fmt: skip
"""Names of MiniVOC, by mask value."""

MINIVOC20_CLASSES: tuple[str, ...] = (
    *MINIVOC_CLASSES, "target", "flower", "arrow", "arch", "dome", "oval", "trapezoid", "chevron",
    "kite", "tee",
)  # fmt: skip
"""Names of MiniVOC with twenty classes, by mask value."""

ADE_CLASSES: tuple[str, ...] = (
    "background", "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed",
    "windowpane", "grass", "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain",
    "plant", "curtain", "chair", "car", "water", "painting", "sofa", "shelf", "house", "sea",
    "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers",
    "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path",
    "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river",
    "bridge", "bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench",
    "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
    "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning",
    "streetlight", "booth", "television receiver", "airplane", "dirt track", "apparel", "pole",
    "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster", "stage", "van",
    "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool",
    "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food",
    "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher",
    "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan",
    "fan", "pier", "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator",
    "glass", "clock", "flag",
)  # fmt: skip
"""Names of ADE20K's 150 classes, by mask value: first synonyms of objectInfo150."""

DATASET_CLASSES: dict[str, tuple[str, ...]] = {
    "minivoc": MINIVOC_CLASSES,
    "minivoc20": MINIVOC20_CLASSES,
    "voc": VOC_CLASSES,
    "ade20k": ADE_CLASSES,
}
"""Data set -> the names of its classes, by mask value."""


def dataset_classes(dataset: str) -> tuple[str, ...]:
    """Class names of a known data set, background first.

    Raises:
        UserError: the data set is not one of ``DATASET_CLASSES``.
    """
    if not isinstance(dataset, str) or dataset not in DATASET_CLASSES:
        raise unknown_name("data set", dataset, DATASET_CLASSES)
    return DATASET_CLASSES[dataset]


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> UserError:
    """The error for a name that is not in ``valid``: nearest valid name, then all of them."""
    names = list(valid)
    near = get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    if composed(str(name)) in map(composed, names):
        hint = ", in another Unicode form (NFC or NFD) than there: copy it from there."
    return UserError(f"unknown {kind} {name!r}{hint} Valid: {', '.join(names)}")


def composed(name: str) -> str:
    """Letters with accents as one character each (NFC): names that look the same are the same."""
    return unicodedata.normalize("NFC", name)
