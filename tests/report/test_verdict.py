"""What a page says first: made from the numbers, beyond the spread or not."""

import math

import numpy as np
import pandas as pd
import pytest
from fabricated_runs import make_run, scored_run
from scipy import stats

from sparcl_lib.report.differences import interval, paired, ranking
from sparcl_lib.report.runs import ordered
from sparcl_lib.report.verdict import first_step_miou, lead_table, listed, verdict


def runs_of(values: dict) -> list:
    return [scored_run(m, seed, v) for m, vs in values.items() for seed, v in enumerate(vs)]


@pytest.mark.parametrize("number", [2, 3, 5, 12, 21])
def test_the_interval_is_that_of_students_t(number):
    values = np.random.default_rng(number).normal(2, 3, number)
    found = interval(values)
    expected = stats.t.interval(0.95, number - 1, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, abs=2e-3)
    assert (found.mean, found.seeds) == (pytest.approx(values.mean()), number)


def test_many_seeds_never_get_too_short_an_interval():
    values = np.random.default_rng(0).normal(0, 1, 60)
    found = interval(values)
    low, high = stats.t.interval(0.95, 59, values.mean(), stats.sem(values))
    assert found.low <= low and found.high >= high and found.high - found.low < 1.1 * (high - low)


def test_one_value_or_none_has_no_interval():
    assert math.isnan(interval([3.0]).low) and not interval([3.0]).beyond
    assert interval([]).seeds == 0 and not interval([]).beyond


def test_differences_are_paired_over_the_seeds_that_both_have():
    one, other = {0: 60.0, 1: 70.0, 2: 50.0, 9: 0.0}, {2: 49.0, 1: 69.5, 0: 59.0, 7: 99.0}
    found = paired(one, other)
    assert (found.mean, found.seeds) == (pytest.approx(2.5 / 3), 3)
    assert found.beyond  # though the seeds themselves are ten points apart


def test_best_is_ahead_of_every_other_one_and_joint_does_not_count():
    far = {
        "FT": (30, 31, 30),
        "MiB": (60, 61, 62),
        "SDR": (61.5, 62.6, 63.4),
        "Joint": (70, 71, 72),
    }
    found = ranking(runs_of(far))
    assert (found.first, found.best, found.level) == ("SDR", "SDR", [])
    assert list(found.ahead) == ["MiB", "FT"]
    near = ranking(runs_of({**far, "CIL": (60, 64, 62)}))
    assert (near.first, near.best, near.level) == ("SDR", None, ["CIL"])
    assert ranking(runs_of({"FT": (30, 31)})).best is None  # of one there is no best
    assert ranking(runs_of({"Joint": (70,)})) is None


def test_joint_training_under_another_name_does_not_count_either():
    """One was called the best method, ahead of every other one."""
    bound = "Joint, lr 0.1"
    runs = [scored_run(m, s, v) for m, v in (("FT", 20), ("MiB", 60), (bound, 70)) for s in (0, 1)]
    found = ranking(runs)
    assert found is not None and found.first == "MiB" and [*found.ahead] == ["FT"]
    assert "Joint training, which sees all classes at once, reaches 70.0." in verdict(runs)[-1]
    assert [run.method for run in ordered(reversed(runs))][-2:] == [bound, bound]


def test_the_verdict_names_what_was_lost_and_what_helped():
    runs = [make_run(m, seed) for m in ("FT", "SDR", "MiB", "Joint") for seed in (0, 1)]
    text = " ".join(verdict(runs))
    assert (
        "Most was lost by FT: the mIoU of the classes of step 0, without background, fell " in text
    )
    assert "from 70.5 to 0.2. Least was lost by MiB: it fell from 70.5 to 57.1." in text
    assert (
        "Best in all classes is MiB with 6" in text
        and "the nearest to it, seed by seed, SDR" in text
    )
    assert "2 seeds). Joint training, which sees all classes at once, reaches 73.3." in text


def test_a_lead_within_the_spread_is_said_to_be_so():
    text = " ".join(verdict(runs_of({"MiB": (64, 60, 66), "SDR": (63, 62, 65.5), "FT": (1, 2, 3)})))
    assert "MiB has the highest mean" not in text  # 63.3 and 63.5
    assert (
        "SDR has the highest mean in all classes, 63.5, but is not ahead of MiB beyond the spread "
        "of the seeds: seed by seed, MiB is 0.2 lower (95 % interval −3.8 to 4.2, 3 seeds)."
    ) in text
    values = {"MiB": (64, 60, 66), "SDR": (63, 62, 65.5), "FT": (1, 2, 3)}
    table = lead_table(ranking(runs_of(values)))
    assert list(table["beyond the spread"]) == ["no", "yes"]
    assert list(table["behind SDR"]) == ["0.2", "61.5"]


def test_single_seeds_are_never_called_best():
    runs = runs_of({"MiB": (64,), "SDR": (63,)})
    text = " ".join(verdict(runs))
    assert (
        "MiB has the highest mIoU of all classes, 64.0." in text
        and "no method is called best" in text
    )
    assert lead_table(ranking(runs)) is None


def test_a_method_with_too_few_shared_seeds_keeps_the_first_from_being_best():
    runs = runs_of({"MiB": (64, 65, 66), "SDR": (10,)})
    assert ranking(runs).best is None and ranking(runs).level == ["SDR"]
    assert lead_table(ranking(runs)) is None
    assert "no method is called best" in " ".join(verdict(runs))
    more = [*runs, *runs_of({"FT": (1, 2, 3)})]
    rows = lead_table(ranking(more)).set_index("method")
    assert rows.loc["SDR", "95 % interval"] == "–"
    assert rows["beyond the spread"].to_dict() == {"SDR": "no", "FT": "yes"}
    assert "not ahead of SDR" in " ".join(verdict(more)) and "FT is 63.0 lower" in " ".join(
        verdict(more)
    )


def test_one_method_or_none_still_has_a_verdict():
    alone = " ".join(verdict([make_run("MiB")]))
    assert alone.startswith("MiB: the mIoU of the classes of step 0") and "MiB reaches 6" in alone
    assert verdict([make_run("MiB", last=0)]) == [
        "No run of a continual method has finished the last step."
    ]
    (bound,) = verdict([make_run("Joint"), make_run("Joint", 1)])
    assert bound.startswith("Joint training, which sees all classes at once, reaches 7")
    assert bound.endswith("; no method that learns step by step is beside it.")
    single = verdict([make_run("FT", classes=[["disc", "bar"]])])
    assert single == ["FT reaches 76.7 in all classes after the last step."]


def test_the_first_classes_are_known_from_means_for_two_steps_and_from_classes_later():
    run = make_run("MiB")
    found = first_step_miou(run)
    expected = [run.matrix().to_frame()[["disc", "square", "ring"]].mean(axis=1)]
    assert list(found.values()) == pytest.approx(list(expected[0]))
    for entry in run.metrics["steps"]:
        entry["class_iou"] = {}
    without = first_step_miou(run)
    assert list(without.values())[:2] == list(found.values())[:2] and math.isnan(without[2])


def test_long_lists_are_cut():
    assert listed(["A"]) == "A" and listed(["A", "B"]) == "A and B"
    assert listed([*"ABCD"]) == "A, B, C and D" and listed([*"ABCDEF"]) == "A, B, C and 3 more"


def test_ties_at_the_bottom_are_all_named():
    runs = [make_run(name, seed) for name in ("FT", "EWC", "MiB") for seed in (0, 1)]
    for run in runs:
        if run.metrics["method"] != "MiB":
            run.metrics["steps"][2]["class_iou"] |= dict.fromkeys(["disc", "square", "ring"], 0.0)
    assert any("Most was lost by FT and EWC: " in sentence for sentence in verdict(runs))
    assert isinstance(lead_table(ranking(runs)), pd.DataFrame)


def test_means_of_old_classes_serve_where_no_class_is_known_by_itself():
    """As in a table of results: after three steps nothing says what became of step 0's classes."""
    runs = [make_run(m, seed) for m in ("FT", "MiB", "Joint") for seed in (0, 1)]
    for run in runs:
        for entry in run.metrics["steps"]:
            entry["class_iou"] = {}
    old = {m: np.mean([r.metrics["steps"][-1]["miou_old_no_bg"] for r in runs
                       if r.metrics["method"] == m]) for m in ("FT", "MiB")}  # fmt: skip
    text = " ".join(verdict(runs))
    assert "Most was lost by FT: the mIoU of the classes of earlier steps" in text
    assert (
        f"is {old['FT']:.1f} after the last one. Least was lost by MiB: it is {old['MiB']:.1f}."
        in text
    )


def test_the_lead_that_is_told_is_the_one_within_the_spread():
    values = {"FT": (60, 61, 62), "SDR": (59, 60, 61.1), "MiB": (58, 62, 56), "LwF": (30, 31, 32)}
    text = " ".join(verdict(runs_of(values)))
    assert "FT has the highest mean in all classes, 61.0, but is not ahead of MiB beyond" in text
    assert "seed by seed, MiB is 2.3 lower" in text


def test_where_nothing_was_learned_nothing_was_lost_and_nobody_is_first():
    """It said "rose from 0.0 to 0.0", most was lost by FT and least by FT, and FT the highest."""
    runs = [make_run(name, 0) for name in ("FT", "MiB", "SDR")]
    for run in runs:
        for entry in run.metrics["steps"]:
            entry["class_iou"] = {n: 71.0 * (n == "background") for n in entry["class_iou"]}
            entry |= {"miou_all": 7.2, "miou_all_no_bg": 0.0, "miou_old_no_bg": 0.0}
    assert verdict(runs) == [
        "Nothing could be lost: after step 0 the mIoU of its classes, without background, is 0.0.",
        "All methods end with 7.2 in all classes.",
    ]


def test_what_neither_fell_nor_rose_stayed():
    runs = [make_run("FT", 0), make_run("MiB", 0)]
    for entry in runs[1].metrics["steps"]:
        entry["class_iou"] |= dict.fromkeys(runs[1].metrics["classes"][0], 50.0)
        entry |= {"miou_all_no_bg": 50.0, "miou_old_no_bg": 50.0}
    assert any(
        "Least was lost by MiB: it stayed at 50.0." in sentence for sentence in verdict(runs)
    )


def test_methods_that_end_alike_lost_alike():
    """It said "Most was lost by FT and MiB ... Least was lost by FT", of the same numbers."""
    runs = [make_run("FT", 0), make_run("FT", 0).named("MiB")]
    (said,) = [sentence for sentence in verdict(runs) if "lost" in sentence]
    assert (
        said.startswith("FT and MiB lost alike: the mIoU of the classes of step 0") and "70" in said
    )
    for run in runs:
        for entry in run.metrics["steps"]:
            entry["class_iou"] = {}
    (said,) = [sentence for sentence in verdict(runs) if "lost" in sentence]
    assert said.startswith("Most was lost by FT and MiB: ")
