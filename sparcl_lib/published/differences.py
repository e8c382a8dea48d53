"""In what a run is not the one of a published row."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sparcl_lib.config import RunConfig, resolve
from sparcl_lib.config.first_step import all_settings
from sparcl_lib.data.remarks import PUBLISHED
from sparcl_lib.errors import first_few
from sparcl_lib.methods.variants import LATENT, RELEASED, VARIANT, variant_of
from sparcl_lib.metrics import untested_classes
from sparcl_lib.plain import as_plain
from sparcl_lib.published.images import images_per_step
from sparcl_lib.published.tables import RowRecipe

_VOC_TESTS = PUBLISHED["voc"]["val.txt"]
_NO_DIFFERENCE = ("seed", "data_root", "model.weights", "data.splits")
"""Settings of which the value is a place, or that are named on their own."""


def row_differences(row: RowRecipe, config: RunConfig, metrics: Mapping[str, Any]) -> Iterator[str]:
    """What a run has not as the recipe of a row has it, a line each: images, then settings.

    metrics: of its metrics.json.
    """
    wanted = _as_recipe(row)
    found, expected = list(metrics["images"].values()), images_per_step(wanted)
    if row.dataset == "voc" and found != expected:
        yield f"data: {_commas(found)} training images a step, published {_commas(expected)}"
    tested = list(metrics.get("test_images", {}).values())[-1:]  # version 0.3 did not count them
    if row.dataset == "voc" and tested not in ([], [_VOC_TESTS]):
        yield f"data: {tested[0]} test images, published {_VOC_TESTS}"
    if untested := untested_classes(metrics["steps"]):
        yield f"data: no pixel that was tested shows {first_few(untested)}"
    mine, theirs = (_variant(each) for each in (config, wanted))
    if mine != theirs and _has_latent(wanted):  # dozens of settings, which have one name
        yield f"setting: {VARIANT}={mine} in place of {theirs}"
        wanted = _as_recipe(row, {VARIANT: mine})
    yield from setting_differences(config, wanted)


def _as_recipe(row: RowRecipe, *more: Mapping[str, Any]) -> RunConfig:
    fixed = {"task": row.task, "setup": row.setup, "data_root": None}
    return resolve(row.dataset, row.method, [row.settings, *more], **fixed)


def _has_latent(config: RunConfig) -> bool:
    return any(term.name.removeprefix(RELEASED) in LATENT for term in config.method.terms)


def _variant(config: RunConfig) -> str:
    return variant_of(term.name for term in config.method.terms)


def setting_differences(here: RunConfig, wanted: RunConfig) -> Iterator[str]:
    """The settings that a run does not have as its recipe has them."""
    mine, theirs = all_settings(here), all_settings(wanted)
    for key in dict.fromkeys([*theirs, *mine]):
        setting = theirs.get(key) or mine[key]
        if setting.acts == "never" or key in _NO_DIFFERENCE:
            continue
        values = [as_plain(s[key].value) if key in s else None for s in (mine, theirs)]
        if values[0] != values[1]:
            yield f"setting: {key}={values[0]} in place of {values[1]}"
    if here.model.weights != wanted.model.weights:
        yield f"setting: the backbone starts from {here.model.weights or 'random weights'}"
    if here.data.splits is not None:
        yield f"data: the lists of {here.data.splits}"


def _commas(values: Iterable[object] | None) -> str:
    return ", ".join(map(str, values or ()))
