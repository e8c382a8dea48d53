"""Class IoU against scikit-learn, the step matrix by hand, and what results.json holds."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score

from sparcl_lib.labels import VOID
from sparcl_lib.metrics import (
    StepMatrix,
    class_iou,
    dump_json,
    format_mean,
    mean_iou,
)
from sparcl_lib.training.evaluation import pixel_counts

STEPS = [["cat", "dog"], ["cow"], ["sheep"]]
NAN = float("nan")


def example() -> StepMatrix:
    matrix = StepMatrix(STEPS)
    matrix.add(0, {"background": 90, "cat": 60, "dog": 40})
    matrix.add(1, {"background": 80, "cat": 70, "dog": 20, "cow": 30})
    matrix.add(2, {"background": 70, "cat": 50, "dog": 10, "cow": 20, "sheep": 5.5})
    return matrix


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("present", [range(6), [0, 2, 5], [3]])
def test_class_iou_equals_sklearn(seed, present):
    rng = np.random.default_rng(seed)
    truth, guess = rng.choice(list(present), (2, 400))
    ious = class_iou(confusion_matrix(truth, guess, labels=range(6)))
    seen = sorted({*truth, *guess})
    expected = 100 * jaccard_score(truth, guess, labels=seen, average=None)
    np.testing.assert_allclose(ious[seen], expected)
    assert np.isnan(np.delete(ious, seen)).all()
    assert mean_iou(ious) == pytest.approx(expected.mean())


@pytest.mark.parametrize("void", [0, 0.3, 1])
def test_pixel_counts_equal_sklearn(void):
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(5, size=(2, 3, 8, 8))
    truth[rng.random(truth.shape) < void] = VOID
    counts = pixel_counts(torch.from_numpy(truth), torch.from_numpy(prediction), 6)
    known = truth != VOID
    expected = np.zeros((6, 6), int)
    if known.any():
        expected = confusion_matrix(truth[known], prediction[known], labels=range(6))
    assert counts.dtype == torch.int64 and (counts.numpy() == expected).all()


def test_class_iou_by_hand():
    ious = class_iou(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    assert ious[:2].tolist() == pytest.approx([75, 200 / 3]) and np.isnan(ious[2])
    assert class_iou(np.array([[0, 5], [0, 2]])).tolist() == pytest.approx([0, 200 / 7])
    assert math.isnan(mean_iou([])) and math.isnan(mean_iou([NAN])) and mean_iou([NAN, 4]) == 4


def test_a_class_without_truth_has_no_iou_whatever_is_predicted():
    """It was 0 in the runs that saw it somewhere and left out in the others: seeds were means over
    different classes, and ten points apart for it."""
    saw, did_not = np.array([[6, 1], [0, 0]]), np.array([[7, 0], [0, 0]])
    for confusion in (saw, did_not):
        assert np.isnan(class_iou(confusion)[1])
    assert class_iou(saw)[0] == pytest.approx(600 / 7)  # what was called it is a miss


def test_a_background_without_truth_has_no_iou_and_its_pixels_are_misses():
    """Where every pixel of the truth is a class: 2 of 6 pixels of class 1 are called background."""
    ious = class_iou(np.array([[0, 0, 0], [2, 4, 0], [0, 0, 0]]))
    assert np.isnan(ious[[0, 2]]).all() and ious[1] == pytest.approx(100 * 4 / 6)
    matrix = StepMatrix([["cat"], ["dog"]])
    matrix.add(1, {"background": NAN, "cat": 60, "dog": 40})
    assert matrix.miou_all(1) == matrix.miou_all_no_bg(1) == 50
    assert matrix.miou_old(1) == matrix.miou_old_no_bg(1) == 60


def test_large_counts_are_exact():
    big = 2**40
    assert class_iou(np.array([[big, 1], [0, big]], dtype=np.int64))[0] == 100 * big / (big + 1)


MEANS = {
    "miou_old": [NAN, (80 + 70 + 20) / 3, (70 + 50 + 10 + 20) / 4],
    "miou_old_no_bg": [NAN, 45, 80 / 3],
    "miou_new": [50, 30, 5.5],
    "miou_all": [190 / 3, 50, 155.5 / 5],
    "miou_all_no_bg": [50, 40, 85.5 / 4],
}


@pytest.mark.parametrize("name, expected", MEANS.items(), ids=MEANS)
def test_means_by_hand(name, expected):
    values = [getattr(example(), name)(step) for step in range(3)]
    assert values == pytest.approx(expected, nan_ok=True)


def test_average_over_steps():
    assert example().average_miou() == pytest.approx((190 / 3 + 50 + 31.1) / 3)


def test_old_and_seen():
    matrix = StepMatrix(STEPS)
    assert matrix.old(0) == [] and matrix.old(2) == ["cat", "dog", "cow"]
    assert matrix.seen(0) == ["cat", "dog"]


def test_forgetting_by_hand():
    assert example().forgetting() == {"cat": 20, "dog": 30, "cow": 10}
    assert StepMatrix(STEPS).forgetting() == {}
    first = StepMatrix(STEPS)
    first.add(0, {"background": 1, "cat": 2, "dog": 3})
    assert first.forgetting() == {}
    first.add(1, {"background": 9, "cat": 5, "dog": NAN, "cow": 1})
    assert first.forgetting() == pytest.approx({"cat": -3, "dog": NAN}, nan_ok=True)


def test_forgetting_skips_steps_without_a_value():
    matrix = StepMatrix(STEPS)
    matrix.add(0, {"background": 1, "cat": NAN, "dog": 3})
    matrix.add(1, {"background": 1, "cat": 2, "dog": 1, "cow": 1})
    assert matrix.forgetting() == {"dog": 2}


def test_results_round_trip():
    matrix = example()
    matrix.rows[1]["dog"] = NAN
    results = json.loads(dump_json(matrix.to_results()))
    assert results[0]["miou_old"] is None and results[0]["miou_new"] == 50
    assert results[1]["class_iou"]["dog"] is None and results[1]["miou_old_no_bg"] == 70
    assert [entry["step"] for entry in results] == [0, 1, 2]
    again = StepMatrix.from_results(STEPS, results)
    assert again.to_results() == matrix.to_results()
    assert math.isnan(again.rows[1]["dog"]) and again.rows[2] == matrix.rows[2]


def test_frame():
    frame = example().to_frame()
    assert list(frame.columns) == ["background", "cat", "dog", "cow", "sheep"]
    assert list(frame.index) == [0, 1, 2] and frame.loc[2, "sheep"] == 5.5
    assert frame.loc[0].isna().tolist() == [False, False, False, True, True]
    empty = StepMatrix(STEPS).to_frame()
    assert empty.empty and list(empty.columns) == ["background", "cat", "dog"]


@pytest.mark.parametrize(
    "step, names",
    [(0, ["background", "cat"]), (0, ["cat", "dog"]), (1, ["background", "cow", "cat", "dog"])],
)
def test_other_classes_are_refused(step, names):
    with pytest.raises(ValueError, match=f"step {step} has the classes .'background', 'cat'"):
        StepMatrix(STEPS).add(step, dict.fromkeys(names, 1.0))


def test_json_has_no_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json({"a": NAN})


def test_a_mean_that_rounds_to_nothing_has_no_sign():
    assert [format_mean(x) for x in (-0.04, 0.04, -0.06)] == ["0.0", "0.0", "-0.1"]
    assert format_mean(-0.01, 0.2) == "0.0 ± 0.2" and format_mean(None) == "–"
