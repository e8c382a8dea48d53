"""metrics.json as others leave it: an edited number was printed, a missing name a traceback."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from fabricated_runs import make_run

from sparcl_lib.course.runs import SHIPPED
from sparcl_lib.training.metrics_file import MetricsProblem, metrics_text, parse_metrics

METRICS = make_run("SDR").metrics


def test_what_training_writes_is_read():
    assert parse_metrics(json.dumps(METRICS)) == METRICS
    joint = make_run("Joint").metrics
    assert parse_metrics(json.dumps(joint)) == joint
    unfinished = make_run("FT", last=0).metrics
    assert parse_metrics(json.dumps(unfinished)) == unfinished
    files = list(SHIPPED.glob("*/metrics.json"))
    assert len(files) > 20 and all(parse_metrics(file.read_text("utf-8")) for file in files)


def test_a_number_that_nothing_else_tells_is_held_by_the_checksum():
    """Seconds, counts of images and forgetting could be edited, or damaged, and were printed."""
    text = metrics_text({**METRICS, "forgetting": {"disc": 12.5}})
    assert parse_metrics(text) == {**METRICS, "forgetting": {"disc": 12.5}}
    assert parse_metrics(json.dumps(json.loads(text))), "another layout is no other content"
    for was, now in (
        ("12.5", "52.5"),
        ("10.0", "90.0"),
        ("100", "900"),
        ('"seed": 0', '"seed": 1'),
    ):
        assert was in text
        with pytest.raises(MetricsProblem, match="its checksum is another one"):
            parse_metrics(text.replace(was, now, 1))


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    metrics = copy.deepcopy(METRICS)
    change(metrics)
    return json.dumps(metrics)


WRONG = {
    "cut": ("{", "it is no JSON"),
    "nothing": ("", "it is no JSON"),
    "nested": ("[" * 100_000, "it is no JSON"),
    "a list": ("[]", "it holds no group of names"),
    "null": ("null", "it holds no group of names"),
    "empty": ("{}", "task is None"),
    "a mean of 900": (changed(lambda m: m["steps"][-1].update(miou_all=900)),
                      r"miou_all of step 2 is 900, its classes make \d+"),
    "another mean": (changed(lambda m: m["steps"][0].update(miou_new=50.0)),
                     r"miou_new of step 0 is 50.0, its classes make 70"),
    "no mean": (changed(lambda m: m["steps"][1].pop("miou_old")), "miou_old of step 1 is None"),
    "no mean of nothing": (changed(lambda m: m["steps"][0].pop("miou_old")),
                           "miou_old of step 0 is None"),
    "an IoU of 900": (changed(lambda m: m["steps"][0]["class_iou"].update(disc=900)),
                      "the IoU of disc is 900"),
    "text for an IoU": (changed(lambda m: m["steps"][0]["class_iou"].update(disc="x")),
                        "the IoU of disc is 'x'"),
    "NaN": (changed(lambda m: m["steps"][0]["class_iou"].update(disc=float("nan"))),
            "the IoU of disc is nan"),
    "a class too few": (changed(lambda m: m["steps"][0]["class_iou"].pop("disc")),
                        "class_iou of step 0 is"),
    "steps turned round": (changed(lambda m: m["steps"].reverse()), "step 1 stands after step 2"),
    "a step too many": (changed(lambda m: m["steps"][-1].update(step=9)), "step 9 stands after"),
    "a step of text": (changed(lambda m: m["steps"].append("x")), "a step is 'x'"),
    "no steps": (changed(lambda m: m.update(steps=3)), "steps is 3"),
    "a class twice": (changed(lambda m: m["classes"][1].append("disc")), "stands twice in classes"),
    "a class of numbers": (changed(lambda m: m["classes"].append([3])), r"classes has \[3\]"),
    "no classes": (changed(lambda m: m.update(classes="disc")), "classes is 'disc'"),
    "a name of two lines": (changed(lambda m: m.update(method="a\nb")), r"method is 'a\\nb'"),
    "an escape": (changed(lambda m: m.update(task="\x1b[31m")), r"task is '\\x1b\[31m'"),
    "a seed of text": (changed(lambda m: m.update(seed="0")), "seed is '0'"),
    "seconds": (changed(lambda m: m.update(seconds=[1.0])), r"seconds is \[1.0\]"),
    "devices": (changed(lambda m: m.update(accelerators=["cpu"])), r"accelerators is \['cpu'\]"),
    "a device of no text": (
        changed(lambda m: m.update(accelerators=[0, "cpu", "cpu"])), r"accelerators is \[0, 'cpu'"
    ),
    "images": (changed(lambda m: m.update(images={"0": "many"})), "images is"),
    "labels": (changed(lambda m: m.update(label_policy=None)), "label_policy is None"),
    "a test": (changed(lambda m: m.update(test="whole")), "test is 'whole'"),
    "an unknown test": (changed(lambda m: m.update(test={"images": "half"})), "test is"),
    "a size": (changed(lambda m: m.update(test={"images": "crop", "size": "8"})), "test is"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_what_training_does_not_write_is_refused(text, message):
    with pytest.raises(MetricsProblem, match=message) as problem:
        parse_metrics(text)
    assert "\n" not in str(problem.value)
