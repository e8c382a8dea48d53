"""What metrics.json must hold: whoever reads it may take every number for what training wrote."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from sparcl_lib.errors import shown
from sparcl_lib.metrics import StepMatrix, dump_json
from sparcl_lib.tasks.classes import BACKGROUND_NAME

_NAMES = ("task", "setup", "method", "dataset")
_ROUNDED = 1e-3
"""Percent: how far a mean may be from that of the IoUs beside it, all rounded to four digits."""

_CHECKSUM = "sha256"


class MetricsProblem(ValueError):
    """What is wrong with the contents of metrics.json."""


def metrics_text(metrics: Mapping[str, Any]) -> str:
    """A metrics.json: the contents, and their checksum last."""
    return dump_json({**metrics, _CHECKSUM: _checksum(metrics)})


def _checksum(metrics: Mapping[str, Any]) -> str:
    """sha256 of the contents, however they are laid out."""
    return hashlib.sha256(json.dumps(metrics, sort_keys=True).encode()).hexdigest()


def parse_metrics(text: str) -> dict[str, Any]:
    """The contents of a metrics.json. Raises MetricsProblem for what `training` does not write.

    Files of version 0.3 and before have no checksum.
    """
    try:
        metrics = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MetricsProblem(f"it is no JSON ({error})") from error
    if not isinstance(metrics, dict):
        raise MetricsProblem("it holds no group of names")
    _check_names(metrics)
    steps = metrics.get("steps")
    if not isinstance(steps, list):
        raise MetricsProblem(f"steps is {shown(steps)}")
    last = -1
    for entry in steps:
        _require(isinstance(entry, dict), f"a step is {shown(entry)}")
        step = entry.get("step")
        _require(
            _is_whole(step) and last < step < len(metrics["classes"]),
            f"step {shown(step)} stands after step {last}",
        )
        last = step
        _check_step(metrics["classes"], entry)
    seconds = metrics.get("seconds")
    as_many = isinstance(seconds, list) and len(seconds) == len(steps)
    fine = as_many and all(_is_number(s, 0, math.inf) for s in seconds or ())
    _require(fine, f"seconds is {shown(seconds)}")
    devices = metrics.get("accelerators", [None] * len(steps))  # older files do not have them
    as_many = isinstance(devices, list) and len(devices) == len(steps)
    fine = as_many and all(device is None or _is_name(device) for device in devices)
    _require(fine, f"accelerators is {shown(devices)}")
    written = metrics.pop(_CHECKSUM, None)
    same = written is None or written == _checksum(metrics)
    _require(same, "it is damaged or was edited, its checksum is another one")
    checked: dict[str, Any] = metrics
    return checked


def _check_names(metrics: Mapping[str, Any]) -> None:
    for name in _NAMES:
        value = metrics.get(name)
        _require(isinstance(value, str) and value.isprintable(), f"{name} is {shown(value)}")
    seed = metrics.get("seed")
    _require(_is_whole(seed), f"seed is {shown(seed)}")
    classes = metrics.get("classes")
    _require(isinstance(classes, list) and bool(classes), f"classes is {shown(classes)}")
    for names in classes or ():
        fine = isinstance(names, list) and bool(names) and all(map(_is_name, names))
        _require(fine, f"classes has {shown(names)}")
    seen = [name for names in classes or () for name in names]
    _require(len({*seen, BACKGROUND_NAME}) == len(seen) + 1, "a class stands twice in classes")
    images, policy = metrics.get("images"), metrics.get("label_policy")
    if not isinstance(images, dict) or not all(map(_is_whole, images.values())):
        raise MetricsProblem(f"images is {shown(images)}")
    known = isinstance(policy, dict) and {"border", "future"} <= policy.keys()
    if not isinstance(policy, dict) or not known or not all(map(_is_name, policy.values())):
        raise MetricsProblem(f"label_policy is {shown(policy)}")
    test = metrics.get("test", {"images": "crop", "size": None})  # older files do not have it
    if not isinstance(test, dict) or test.get("images") not in ("crop", "whole"):
        raise MetricsProblem(f"test is {shown(test)}")
    _require(test.get("size") is None or _is_whole(test["size"]), f"test is {shown(test)}")
    _require(_is_number(test.get("held_out", 0), 0, 1), f"test is {shown(test)}")


def _check_step(classes: list[list[str]], entry: Mapping[str, Any]) -> None:
    """Raise MetricsProblem unless the means of a step are those of its IoUs, all in percent."""
    step, ious = entry["step"], entry.get("class_iou")
    known = [BACKGROUND_NAME, *(name for names in classes[: step + 1] for name in names)]
    if not isinstance(ious, dict) or list(ious) != known:
        raise MetricsProblem(f"class_iou of step {step} is {shown(ious)}")
    for name, iou in ious.items():
        _require(iou is None or _is_number(iou, 0, 100), f"the IoU of {name} is {shown(iou)}")
    (means,) = StepMatrix.from_results(classes, [entry]).to_results()
    for name in (name for name in means if name.startswith("miou_")):
        value, mean = entry.get(name), means[name]
        same = value == mean if mean is None or value is None else _is_near(value, mean)
        _require(
            same and name in entry,
            f"{name} of step {step} is {shown(value)}, its classes make {mean}",
        )


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise MetricsProblem(problem)


def _is_near(value: object, mean: float) -> bool:
    return _is_number(value, mean - _ROUNDED, mean + _ROUNDED)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and bool(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
