"""What the order of the classes does: means, who is ahead, the page."""

import pandas as pd
import pytest
from fabricated_runs import make_run, voc_run

from sparcl_lib.report import render
from sparcl_lib.report.orders import by_family, miou_by_order, orders_table, orders_text
from sparcl_lib.report.page import page_html

ORDERS = {
    "mine": [["disc"], ["bar"]],
    "mine, order 2 1 ... (aaaa)": [["bar"], ["disc"]],
    "mine, order 1 3 ... (bbbb)": [["disc"], ["bar"]],
}


def runs_of(values: dict) -> list:
    """values: method -> mIoU in each of three orders; a tuple holds one for each seed."""
    found = []
    for method, scores in values.items():
        for (task, classes), score in zip(ORDERS.items(), scores):
            for seed, value in enumerate(score if isinstance(score, tuple) else (score,)):
                run = make_run(method, seed, classes, pictures=False, task=task)
                run.metrics["steps"][-1]["miou_all"] = value
                found.append(run)
    return found


FAR = {"MiB": (50.0, 60.0, 40.0), "SDR": (48.0, (57.0, 59.0), 38.5), "Joint": (70.0, 71.0, 72.0)}


def test_an_order_counts_once_however_many_seeds_it_has():
    table = orders_table(runs_of(FAR)).set_index("method")
    assert [*table.index] == ["MiB", "SDR", "Joint"] and (table.task == "mine").all()
    assert table.loc["SDR", "miou_all"] == pytest.approx((48 + 58 + 38.5) / 3)
    assert table.loc["SDR", "miou_all_std"] == pytest.approx(pd.Series([48, 58, 38.5]).std())
    assert (*table.loc["SDR", ["orders", "lowest", "highest"]],) == (3, 38.5, 58)


def test_methods_are_paired_order_by_order():
    """MiB moves by ten points between orders and is still ahead: by 2, 2 and 1.5 in each."""
    text = orders_text(runs_of(FAR))
    assert "minivoc mine disjoint, over 3 class orders" in text
    assert "order by order, SDR is 1.8 lower (95 % interval 1.1 to 2.6, 3 orders)" in text
    assert "Best in all classes is MiB with 50.0" in text and "reaches 71.0" in text
    assert "MiB is first in 3 of 3 orders." in text
    assert "From order to order MiB differs most, from 40.0 to 60.0." in text


def test_a_method_that_is_ahead_on_average_alone_is_not_called_best():
    text = orders_text(runs_of({"MiB": (50.0, 60.0, 40.0), "SDR": (52.0, 45.0, 41.0)}))
    assert "not ahead of SDR beyond the spread of the orders" in text
    assert "MiB is first in 1 of 3 orders." in text


def test_only_orders_of_the_same_classes_in_steps_of_the_same_sizes_are_one_family():
    other_sizes = make_run("FT", task="a", classes=[["disc", "bar"], ["moon"]])
    sizes = make_run("FT", task="b", classes=[["disc"], ["bar", "moon"]])
    other_class = make_run("FT", task="c", classes=[["disc", "bar"], ["star"]])
    assert by_family([other_sizes, sizes, other_class]) == {}
    assert orders_text([other_sizes, sizes]) == "" and orders_table([other_sizes]).empty
    held = {"test": {"images": "crop", "held_out": 0.2}}
    other_test = make_run("FT", task="d", classes=[["bar", "disc"], ["moon"]], **held)
    assert by_family([other_sizes, other_test]) == {}  # these would be two tests in one mean


def test_the_published_orders_are_one_family():
    runs = [
        voc_run("FT", task, seed=seed) for task in ("15-1", "15-1b", "15-1w") for seed in (0, 1)
    ]
    ((key, members),) = by_family(runs).items()
    assert key == ("voc", "15-1", "disjoint") and len(members) == 6
    assert [*miou_by_order(members).index] == ["15-1", "15-1b", "15-1w"]


def test_a_method_that_has_not_finished_is_left_out_of_the_means():
    runs = runs_of({"MiB": (50.0, 60.0, 40.0), "SDR": (52.0, 45.0)})
    part = make_run("SDR", classes=[["disc"], ["bar"]], last=0, task="mine, order 1 3 ... (bbbb)")
    table = orders_table([*runs, part]).set_index("method")
    assert table.loc["SDR", "orders"] == 2 and table.loc["MiB", "orders"] == 3
    assert by_family([part, make_run("SDR", classes=[["disc"], ["bar"]], last=0)]) == {}


def test_methods_are_compared_in_the_orders_that_all_of_them_have():
    """SDR, trained in the one order that is easy, was ahead of MiB's mean over all three."""
    runs = [*runs_of({"MiB": (40.0, 60.0, 41.0)}), *runs_of({"SDR": (38.0, 59.0)})[1:]]
    text = orders_text(runs)
    assert "All methods share 1 of the 3 orders, and are compared in these." in text
    assert "MiB has the highest mIoU of all classes, 60.0." in text and "differs most" not in text
    assert "With one order no method is called best" in text
    assert "MiB is first in 1 of 1 order." in text
    apart = [*runs_of({"MiB": (40.0,)}), *runs_of({"SDR": (38.0, 59.0)})[1:]]
    assert "The methods share no class order in which they could be compared." in orders_text(apart)
    alone = orders_text(runs_of({"Joint": (70.0, 71.0, 72.0)}))
    assert "No method that learns step by step is among these runs." in alone
    level = orders_text(runs_of({"MiB": (50.0, 50.0, 50.0), "SDR": (50.0, 50.0, 50.0)}))
    assert "MiB is first in 0 of 3 orders." in level and "All methods end with 50.0" in level


def test_a_table_for_github_and_one_for_latex():
    runs = runs_of({"MiB": (50.0, 60.0, 40.0), "a|b_c": (48.0, 58.0, 38.5)})
    table, over = render(runs, "md").split("\n\nminivoc mine disjoint, over 3 class orders")
    assert table == render(runs, "md").partition("\n\n")[0] and table.count("\n") == 1 + 3 * 2
    assert "| MiB | 3 |" in over and r"| a\|b\_c | 3 |" in over
    assert r"order by order, a\|b\_c is 1.8 lower (95 % interval 1.1 to 2.6, 3 orders)" in over
    text = render(runs, "latex")
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert (
        "% minivoc mine disjoint, over 3 class orders" in text and r"MiB & 3 & 76.5 $\pm$" in text
    )
    alone = [make_run("MiB", pictures=False)]
    assert render(alone, "latex").count("tabular") == 2 and "orders" not in render(alone, "md")


def test_the_page_begins_with_the_orders():
    page = page_html(runs_of(FAR), "Results")
    assert page.index("over class orders") < page.index("order 2 1 ...")
    assert "What the order does" in page and "paired over orders" in page
    assert "Marks of mIoU, a row per method: MiB 40.0 to 60.0, mean 50.0" in page
    assert "over class orders" not in page_html([make_run("FT")], "Results")
