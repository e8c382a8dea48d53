"""Custom data sets, as a YAML file describes them: docs/own_data.md."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparcl_lib.data.masks import Colour
from sparcl_lib.data.sources.pairs import PairList, read_pairs
from sparcl_lib.data.sources.source import Source, Split
from sparcl_lib.errors import UserError
from sparcl_lib.labels import VOID
from sparcl_lib.plain import read_yaml
from sparcl_lib.tasks.classes import BACKGROUND_NAME, DATASET_CLASSES, unknown_name

_KEYS = ("name", "classes", "void", "palette", "train", "val")
_SPLIT_KEYS = ("photos", "masks", "list", "pairs")
_MOST_CLASSES = 254
_VOID_NAME = "void"
_A_COLOUR = "three numbers of 0 to 255, as in [128, 64, 128]"


@dataclass(frozen=True)
class _File:
    """The YAML file and where its relative paths start."""

    path: Path
    base: Path

    def wrong(self, key: str, text: str) -> UserError:
        return UserError(f"{self.path}: {key}: {text}")

    def check_keys(self, content: Mapping[str, Any], valid: tuple[str, ...], group: str) -> None:
        for key in content:
            if key not in valid:
                raise unknown_name(f"key in {self.path}:{group}", key, valid)


def custom_source(path: Path, data_root: str | Path | None = None) -> Source:
    """The data set that a YAML file describes.

    Raw ids: 0 is the class called ``background``, wherever it stands; the others count from 1 in
    the order of the file. Without a class of that name no pixel is background until a step makes
    one so.

    Args:
        path: the file. Keys: ``classes`` (a list: its places, from 0, are the mask values; or a
            mapping to a value or a list of values); ``train`` and ``val`` (the folders ``photos``
            and ``masks``, and perhaps ``list``, a file of ids; or ``pairs``, a CSV); perhaps
            ``name`` (the file's if not; kept runs are found by it) and ``void`` (mask values that
            are left out; 255 always is).
        data_root: where relative paths start; None: the folder of the file.

    Raises:
        UserError: naming the file and the key or the line, as for colour-coded masks.
    """
    source, colours = _read(path, data_root)
    if colours:
        raise UserError(
            f"{path}: palette: its masks are in colours; run sparcl data convert --dataset {path} "
            "--out DIR once and use DIR/dataset.yaml"
        )
    return source


def colour_source(
    path: Path, data_root: str | Path | None = None
) -> tuple[Source, dict[Colour, int]]:
    """A data set with colour-coded masks, and the raw id (or 255) of each colour.

    Its key ``palette`` maps each class, and perhaps ``void``, to a colour or a list of colours.

    Raises:
        UserError: as `custom_source`, or if there is no palette.
    """
    source, colours = _read(path, data_root)
    if not colours:
        raise UserError(f"{path}: palette: missing, and masks of class ids need no conversion")
    return source, colours


def _read(path: Path, data_root: str | Path | None) -> tuple[Source, dict[Colour, int]]:
    content = read_yaml(path, "docs/own_data.md")
    base = path.parent if data_root is None else os.path.expanduser(data_root)
    file = _File(path, Path(base).absolute())
    file.check_keys(content, _KEYS, "")
    values = _class_values(file, content.get("classes"), "palette" in content)
    ids = _raw_ids(values)
    colours = _colours(file, content["palette"], ids) if "palette" in content else {}
    if colours and "void" in content:
        raise file.wrong("void", "with a palette, give void its colours there")
    splits = {split: _split(file, split, content.get(split)) for split in ("train", "val")}
    source = Source(
        name=_name(file, content.get("name", path.stem)),
        root=file.base,
        classes=tuple(ids),
        splits=splits,
        values=_by_value(file, values, ids, content.get("void", [])),
        files=(path, *(where.listing for where in splits.values() if where.listing)),
    )
    return source, colours


def _name(file: _File, name: Any) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise file.wrong("name", f"{name!r} is no name; write a word, in quotes if need be")
    if name in DATASET_CLASSES:
        raise file.wrong("name", f"{name!r} is a data set that SPARCL knows; choose another name")
    return name


def _class_values(file: _File, entry: Any, coloured: bool) -> dict[str, list[Any]]:
    """Class -> its values in the masks."""
    if isinstance(entry, Mapping) and not coloured:
        pairs = [(name, v if isinstance(v, list) else [v]) for name, v in entry.items()]
    elif isinstance(entry, list):
        pairs = [(name, [place]) for place, name in enumerate(entry)]
    else:
        what = "a list of names" + ("" if coloured else ", or a mapping from names to mask values")
        raise file.wrong("classes", f"must be {what}")
    seen: set[str] = set()
    for name, _ in pairs:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise file.wrong("classes", f"{name!r} is no name; write it in quotes")
        if name == _VOID_NAME:
            raise file.wrong("classes", "void is no class; leave it out and list its value in void")
        if name != BACKGROUND_NAME and name.strip(" _-.").casefold() == BACKGROUND_NAME:
            raise file.wrong(
                "classes", f"{name!r}: write {BACKGROUND_NAME}, as it is known by that"
            )
        if name != name.strip():
            raise file.wrong("classes", f"{name!r} has a space at an end; take it off")
        if name in seen:
            raise file.wrong("classes", f"{name!r} stands there twice; make names unique")
        seen.add(name)
    count = sum(name != BACKGROUND_NAME for name, _ in pairs)
    if not 1 <= count <= _MOST_CLASSES:
        raise file.wrong(
            "classes", f"{count} beside background; masks have room for 1 to {_MOST_CLASSES}: "
            "name some, or merge some by a mapping to lists of values"
        )  # fmt: skip
    return dict(pairs)


def _raw_ids(classes: Iterable[str]) -> dict[str, int]:
    """Class -> raw id: background 0, the others as they come."""
    return {name: k for k, name in enumerate(dict.fromkeys([BACKGROUND_NAME, *classes]))}


def _by_value(
    file: _File, classes: Mapping[str, list[Any]], ids: Mapping[str, int], void: Any
) -> dict[int, int]:
    """Mask value -> raw id, 255 for what is left out."""
    if not isinstance(void, list):
        void = [void]
    found: dict[int, int] = {}
    keys: dict[int, str] = {}
    named = [
        (f"classes.{name}", value, ids[name])
        for name, listed in classes.items()
        for value in listed
    ]
    for key, value, raw_id in [*named, *(("void", value, VOID) for value in void)]:
        if type(value) is not int or not 0 <= value <= VOID:
            raise file.wrong(key, f"{value!r} is no mask value; write numbers of 0 to {VOID - 1}")
        if value == VOID and raw_id != VOID:
            raise file.wrong(key, f"{VOID} is always left out; save the masks with another value")
        if value in found:
            listed = " (a list of classes counts from 0)" if key == "void" else ""
            text = f"mask value {value} is that of {keys[value]} already{listed}; keep it once"
            raise file.wrong(key, text)
        found[value], keys[value] = raw_id, key
    return {**found, VOID: VOID}


def _colours(file: _File, entry: Any, ids: Mapping[str, int]) -> dict[Colour, int]:
    if not isinstance(entry, Mapping) or not entry:
        raise file.wrong("palette", "must map each class, and perhaps void, to its colour")
    found: dict[Colour, int] = {}
    for name, given in entry.items():
        if name not in ids and name != _VOID_NAME:
            raise unknown_name(f"class in {file.path}: palette:", name, [*ids, _VOID_NAME])
        several = isinstance(given, list) and given and all(isinstance(c, list) for c in given)
        for colour in given if several else [given]:
            if not _is_colour(colour):
                raise file.wrong(f"palette.{name}", f"{colour!r} is no colour; write {_A_COLOUR}")
            if tuple(colour) in found:
                raise file.wrong(f"palette.{name}", f"{colour} is named twice; keep it once")
            found[tuple(colour)] = ids.get(name, VOID)
    for name in ids:
        if name not in entry and name != BACKGROUND_NAME:
            raise file.wrong("palette", f"class {name!r} has no colour; give it {_A_COLOUR}")
    return found


def _is_colour(entry: Any) -> bool:
    whole = isinstance(entry, list) and all(type(part) is int for part in entry)
    return whole and len(entry) == 3 and all(0 <= part <= 255 for part in entry)


def _split(file: _File, split: str, entry: Any) -> Split | PairList:
    ways = "photos and masks (folders), or pairs (a CSV)"
    if not isinstance(entry, Mapping):
        raise file.wrong(split, f"{'missing' if entry is None else 'must hold keys'}: give {ways}")
    file.check_keys(entry, _SPLIT_KEYS, f" {split}:")
    for key, value in entry.items():
        if not isinstance(value, str) or not value:
            raise file.wrong(f"{split}.{key}", f"{value!r} is no path; write it in quotes")
    paths = {key: file.base / os.path.expanduser(value) for key, value in entry.items()}
    if set(paths) == {"pairs"}:
        return read_pairs(paths["pairs"], file.base)
    if set(paths) - {"list"} != {"photos", "masks"}:
        raise file.wrong(split, f"has {', '.join(paths) or 'no key'}; give {ways}")
    if not paths["masks"].is_dir():
        raise file.wrong(f"{split}.masks", f"{paths['masks']} is no folder; correct the path")
    return Split(paths["photos"], paths["masks"], paths.get("list"))
