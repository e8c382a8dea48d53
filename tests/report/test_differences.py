"""Tables of differences that are paired over seeds."""

import numpy as np
import pandas as pd
import pytest

from sparcl_lib.errors import UserError
from sparcl_lib.report.differences import gains_text, paired, paired_gains

MEASURES = {"old": "miou_old", "all": "miou_all"}


def study() -> pd.DataFrame:
    """Three methods on three seeds; the third lacks a seed, and a number on another one."""
    values = {
        "MiB": {0: (60.0, 50.0), 1: (70.0, 52.0), 2: (50.0, 48.0)},
        "MiB + matching": {2: (51.0, 48.0), 1: (71.5, 52.2), 0: (60.5, 49.8)},
        "MiB + repulsion": {0: (59.0, 49.0), 1: (68.0, float("nan"))},
    }
    rows = [(m, seed, *two) for m, by_seed in values.items() for seed, two in by_seed.items()]
    return pd.DataFrame(rows, columns=["method", "seed", *MEASURES.values()])


def pair(term: str) -> tuple[str, str]:
    return f"MiB + {term}", "MiB"


def test_each_row_is_the_interval_of_the_seeds_that_both_have():
    found = paired_gains(study(), {t: pair(t) for t in ("matching", "repulsion")}, MEASURES)
    by_hand = paired({0: 60.5, 1: 71.5, 2: 51.0}, {0: 60.0, 1: 70.0, 2: 50.0})
    assert tuple(found.loc["matching", "old"]) == pytest.approx(by_hand[:3])
    assert list(found.columns) == [(t, p) for t in MEASURES for p in ("mean", "low", "high")]
    assert found.loc["repulsion", ("old", "mean")] == -1.5  # of two seeds
    alone = found.loc["repulsion", "all"]  # of one: the other number is missing
    assert alone["mean"] == -1 and np.isnan(alone[["low", "high"]]).all()


def test_the_rows_of_a_table_to_read_say_whether_zero_is_outside():
    table = study().assign(fisher=lambda t: t["miou_old"] / 100)
    measures = {**MEASURES, "Fisher ratio": "fisher"}
    rows = {("MiB", t): pair(t) for t in ("matching", "repulsion")}
    found = gains_text(paired_gains(table, rows, measures), {"Fisher ratio": 3})
    assert found.loc[("MiB", "matching"), "old"] == "+1.0 (-0.2 to +2.2)"
    assert found.loc[("MiB", "repulsion"), "all"] == "-1.0"
    assert found.loc[("MiB", "matching"), "Fisher ratio"] == "+0.010 (-0.002 to +0.022)"
    surer = table.assign(miou_old=table["miou_old"] + 3 * (table["method"] == "MiB + matching"))
    shown = gains_text(paired_gains(surer, {"matching": pair("matching")}, {"old": "miou_old"}))
    assert shown.loc["matching", "old"] == "+4.0 (+2.8 to +5.2) *"


def test_a_measure_without_a_value_is_a_dash():
    """`+nan` stood in the column of old classes of a task of one step."""
    table = study().assign(miou_old=np.nan)
    shown = gains_text(paired_gains(table, {"matching": pair("matching")}, {"old": "miou_old"}))
    assert shown.loc["matching", "old"] == "–"


def test_a_sign_says_on_which_side_of_zero_a_rounded_end_lies():
    table = study().assign(miou_old=[0, 0, 0, -0.3, -0.3, -0.12, 0, 0])
    shown = gains_text(paired_gains(table, {"matching": pair("matching")}, {"old": "miou_old"}))
    assert shown.loc["matching", "old"] == "-0.2 (-0.5 to +0.0)"
    table = table.assign(miou_old=[0, 0, 0, -0.3, -0.3, -0.14, 0, 0])
    shown = gains_text(paired_gains(table, {"matching": pair("matching")}, {"old": "miou_old"}))
    assert shown.loc["matching", "old"] == "-0.2 (-0.5 to -0.0) *"


def test_what_cannot_be_compared_is_one_line():
    with pytest.raises(UserError, match="unknown method 'MiB \\+ matchin'; did you mean"):
        paired_gains(study(), {"matching": pair("matchin")}, MEASURES)
    twice = pd.concat([study(), study()])
    with pytest.raises(UserError, match="'MiB \\+ matching' has several rows of one seed"):
        paired_gains(twice, {"matching": pair("matching")}, MEASURES)
