"""What the order of the classes does: means, who is ahead, the page."""

from functools import partial

import pandas as pd
import pytest
from fabricated_runs import make_run, voc_run

from sparcl_lib.experiments.base import RunBase
from sparcl_lib.report import render
from sparcl_lib.report.names import task_without_order, told_apart
from sparcl_lib.report.orders import by_family, miou_by_order, orders_table, orders_text
from sparcl_lib.report.page import page_html
from sparcl_lib.tasks import get_task

ORDERS = {
    "mine": [["disc"], ["bar", "moon"]],
    "mine, order 2 1 ... (aaaa)": [["bar"], ["disc", "moon"]],
    "mine, order 3 1 ... (bbbb)": [["moon"], ["disc", "bar"]],
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


FAST = "MiB (optim.iterations=[9])"
FAR = {"MiB": (50.0, 60.0, 40.0), "SDR": (48.0, (58.0, 60.0), 38.5), "Joint": (70.0, 71.0, 72.0)}


def test_an_order_counts_once_however_many_seeds_it_has():
    table = orders_table(runs_of(FAR)).set_index("method")
    assert [*table.index] == ["MiB", "SDR", "Joint"] and (table.task == "mine").all()
    assert table.loc["SDR", "miou_all"] == pytest.approx((48 + 59 + 38.5) / 3)
    assert table.loc["SDR", "miou_all_std"] == pytest.approx(pd.Series([48, 59, 38.5]).std())
    assert (*table.loc["SDR", ["orders", "lowest", "highest"]],) == (3, 38.5, 59)


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
    assert by_family([other_sizes, sizes, other_class]) == []
    assert orders_text([other_sizes, sizes]) == "" and orders_table([other_sizes]).empty
    held = {"test": {"images": "crop", "held_out": 0.2}}
    other_test = make_run("FT", task="d", classes=[["bar", "disc"], ["moon"]], **held)
    assert by_family([other_sizes, other_test]) == []  # these would be two tests in one mean


def test_the_published_orders_are_one_family():
    runs = [
        voc_run("FT", task, seed=seed) for task in ("15-1", "15-1b", "15-1w") for seed in (0, 1)
    ]
    (found,) = by_family(runs[::-1])
    assert (found.dataset, found.task, found.setup) == ("voc", "15-1", "disjoint")
    assert sorted(miou_by_order(found.runs).index) == ["15-1", "15-1b", "15-1w"]


def test_a_method_that_has_not_finished_is_left_out_of_the_means():
    runs = runs_of({"MiB": (50.0, 60.0, 40.0), "SDR": (52.0, 45.0)})
    part = make_run("SDR", classes=[["moon"], ["disc", "bar"]], last=0, task=[*ORDERS][2])
    table = orders_table([*runs, part]).set_index("method")
    assert table.loc["SDR", "orders"] == 2 and table.loc["MiB", "orders"] == 3
    assert by_family([part, make_run("SDR", classes=ORDERS["mine"], last=0)]) == []


def test_methods_are_compared_in_the_orders_that_all_of_them_have():
    """SDR, trained in the one order that is easy, was ahead of MiB's mean over all three."""
    runs = [*runs_of({"MiB": (40.0, 60.0, 41.0)}), *runs_of({"SDR": (38.0, 59.0)})[1:]]
    text = orders_text(runs)
    assert "All methods share 1 of the 3 orders, and are compared in these." in text
    assert "MiB has the highest mIoU of all classes, 60.0." in text and "differs most" not in text
    assert "With one order no method is called best" in text
    assert "is first in" not in text  # of one
    apart = [*runs_of({"MiB": (40.0,)}), *runs_of({"SDR": (38.0, 59.0)})[1:]]
    assert "No class order and seed are there for every method" in orders_text(apart)
    alone = orders_text(runs_of({"Joint": (70.0, 71.0, 72.0)}))
    assert "No method that learns step by step is among these runs." in alone
    level = orders_text(runs_of({"MiB": (50.0, 50.0, 50.0), "SDR": (50.0, 50.0, 50.0)}))
    assert "MiB is first in 0 of 3 orders." in level and "All methods end with 50.0" in level


def test_the_mean_of_methods_that_differ_in_every_order_is_not_their_end():
    text = orders_text(runs_of({"MiB": (50.0, 70.0, 60.0), "SDR": (70.0, 50.0, 60.0)}))
    assert "All methods end with" not in text and "not ahead of SDR beyond the spread" in text


def test_methods_are_compared_over_the_seeds_that_they_share_in_an_order():
    """Seed 1 is ten points better than seed 0; MiB has both, SDR the worse one."""
    values = {"MiB": ((50.0, 60.0), (50.0, 60.0), 50.0), "SDR": (51.0, 51.0, 51.0)}
    assert "SDR has the highest mean" in orders_text(runs_of(values)) or (
        "Best in all classes is SDR with 51.0" in orders_text(runs_of(values))
    )
    other_seeds = runs_of({"MiB": (50.0, 50.0, 50.0)})
    others = [run._replace(metrics={**run.metrics, "seed": 1, "method": "SDR"})
              for run in other_seeds]  # fmt: skip
    assert "No class order and seed are there" in orders_text([*other_seeds, *others])


def test_joint_training_is_named_where_it_has_all_the_orders_that_are_compared():
    runs = runs_of({"MiB": (50.0, 60.0, 40.0), "Joint": (70.0,)})
    assert "Joint training" not in orders_text(runs)


def test_an_order_within_a_step_is_no_other_order_and_two_names_are_one():
    steps = [["disc", "bar"], ["moon"]]
    within = [make_run("MiB", classes=c, task=t, pictures=False)
              for t, c in (("a", steps), ("b", [["bar", "disc"], ["moon"]]))]  # fmt: skip
    assert by_family(within) == []
    other = make_run("MiB", classes=[["bar", "moon"], ["disc"]], task="c", pictures=False)
    assert orders_table([*within, other])["orders"].tolist() == [2]


def test_two_tests_of_one_task_are_two_families():
    """The one of the held-out images took the place of the other."""
    held = {"test": {"images": "crop", "held_out": 0.2}}
    runs = runs_of({"MiB": (50.0, 60.0, 40.0)})
    runs += [run._replace(metrics={**run.metrics, **held, "task": f"{run.metrics['task']}*"})
             for run in runs]  # fmt: skip
    assert orders_table(runs)["test"].tolist() == ["crop", "crop, held out 0.2"]
    text = orders_text(runs)
    assert text.count("over 3 class orders") == 2 and "held out (20 %)" in text
    assert "held out (20 %)" in page_html(runs, "Results").partition("how-to-read")[0]


def configured(method, task_order, iterations=4, seed=0):
    base = RunBase(dataset="minivoc", task="6-1", overrides=(
        {"class_order": task_order, "optim": {"iterations": iterations}},))  # fmt: skip
    config = base.config(method, seed)
    task = get_task("minivoc", "6-1", order=task_order)
    classes = [[task.classes[c] for c in step] for step in task.steps]
    run = make_run(method, seed, classes, pictures=False, task="6-1")
    return run._replace(config=config)


def test_experiments_are_told_apart_over_all_orders():
    """The faster one, first in the second order, took the slower one's name there."""
    own, other = None, [*range(10, 0, -1)]
    slow, fast = partial(configured, "MiB", iterations=4), partial(configured, "MiB", iterations=9)
    runs = told_apart([slow(own), fast(own), fast(other), slow(other)])
    assert [run.method for run in runs] == ["MiB", FAST, FAST, "MiB"]
    table = orders_table(runs)
    assert table["method"].tolist() == ["MiB", FAST] and table["orders"].tolist() == [2, 2]
    apart = told_apart([slow(own), fast(other)])
    assert [run.method for run in apart] == ["MiB", FAST]


def test_a_name_of_the_users_own_stays_whole():
    assert task_without_order("animals, order of size") == "animals, order of size"
    assert task_without_order("animals, order 20 19 18 17 ... (0a1f)") == "animals"


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
