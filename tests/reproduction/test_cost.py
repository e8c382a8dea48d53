"""Expected hours and memory: what was measured, and the formula around it."""

from pathlib import Path

import pandas as pd
import pytest

from sparcl_lib.config import parse_settings, resolve
from sparcl_lib.published.images import images_per_step
from sparcl_lib.published.tables import get_recipe, get_table, recipes
from sparcl_lib.reproduction.cost import FORMULA, MEASURED_AS, expected_cost
from sparcl_lib.reproduction.planning import plan_runs, plan_text

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "benchmarks" / "studies"


def cost_of(name: str, *settings: str):
    row = get_recipe(name)
    config = resolve(
        row.dataset, row.method, [row.settings, parse_settings(settings)],
        task=row.task, setup=row.setup,
    )  # fmt: skip
    return expected_cost(config)


def test_what_is_called_measured_was():
    ours = pd.read_csv(ROOT / "sparcl_lib" / "reproduction" / "measured.csv")
    study = pd.read_csv(STUDIES / "gpu" / "speed.csv")
    study = study[(study.layout == "channels last") & (study["size"] == 512)]
    found = ours.merge(study, on=list(ours), how="left", indicator=True)
    assert len(ours) == 14 and (found["_merge"] == "both").all()


def test_sdr_on_15_1_costs_what_the_study_of_costs_says():
    hours = pd.read_csv(STUDIES / "voc_cost" / "hours.csv").set_index("precision")
    for precision in ("32-true", "bf16-mixed"):
        cost = cost_of("voc-15-1-overlapped-SDR", f"precision={precision}")
        assert cost.first_hours + cost.later_hours == pytest.approx(
            hours.hours[precision], abs=0.006
        )
        assert cost.gib == pytest.approx(hours["peak GiB"][precision], abs=0.06)


def test_images_are_those_that_were_published_and_joint_training_sees_all():
    def images(name: str):
        row = get_recipe(name)
        return images_per_step(resolve(row.dataset, row.method, task=row.task, setup=row.setup))

    assert images("voc-15-1-disjoint-SDR") == [8437, 378, 299, 420, 500, 548]
    assert images("voc-19-1-overlapped-FT") == [10410, 548]
    assert images("voc-15-1-overlapped-Joint") == images("mib-voc-19-1-disjoint-Joint") == [10582]
    assert images("ade20k-100-50-overlapped-SDR") == [20210, 20210]


def test_images_follow_the_order_of_the_classes():
    config = resolve(
        "voc", "FT", [{"class_order": list(range(20, 0, -1))}], task="15-1", setup="disjoint"
    )
    assert images_per_step(config) == [7746, 620, 448, 696, 486, 586]


def test_a_seed_that_is_given_twice_is_planned_once():
    rows = get_table("sdr-voc").rows[:1]
    assert len(plan_runs(rows, [0, 0, 1], Path("out"))) == 2


def test_few_pixels_leave_what_is_held_whatever_they_are():
    """Weights, gradients and momentum of ResNet-101: at 32 pixels it said 0.0 GiB."""
    name = "voc-19-1-disjoint-FT"
    eight, many = (cost_of(name, f"data.batch_size={batch}").gib for batch in (8, 24))
    held = eight - 8 * (many - eight) / 16
    assert 0.3 < held < cost_of(name, "data.size=32").gib < held + 0.05
    assert cost_of(name, "data.size=256").gib == pytest.approx(held + 2 * (many - eight) / 16)


def test_a_batch_between_and_another_size_follow_the_formula():
    name = "voc-19-1-disjoint-FT"
    eight, sixteen, many = (cost_of(name, f"data.batch_size={batch}").gib for batch in (8, 16, 24))
    assert sixteen == pytest.approx((eight + many) / 2)
    assert cost_of(name, "data.size=256").first_hours == pytest.approx(
        cost_of(name).first_hours / 4
    )
    fixed = cost_of(name, "optim.iterations=100")
    assert fixed.first_hours * 3600 == pytest.approx(100 * 0.0588141)
    plop, half = (cost_of("voc-15-5-overlapped-PLOP", f"data.batch_size={b}").gib for b in (24, 48))
    assert half == pytest.approx(2 * plop)


def test_every_row_has_a_cost_and_another_network_has_none():
    for row in recipes().values():
        cost = cost_of(row.name)
        assert cost.first_hours > 0 and 2 < cost.gib < 40, row.name
        assert (cost.later_hours == 0) == (row.method == "Joint"), row.name
    assert cost_of("voc-19-1-disjoint-FT", "model.backbone=mobilenet_v2") is None
    minivoc = resolve("minivoc", "FT", task="6-4")
    assert expected_cost(minivoc) is None


def test_a_plan_for_ade20k_says_that_time_and_memory_of_its_classes_were_not_measured():
    """Batch 4 of its 151 classes stood there with 4.2 GiB, and the note was of time alone."""

    def note(name: str) -> str:
        table = get_table(name)
        text = plan_text(table, plan_runs(table.rows[:1], [0], Path("out")))
        return " ".join(line.removeprefix("# ") for line in text.splitlines())

    assert "were not measured on a GPU, neither seconds nor memory" in note("sdr-ade")
    assert "were not measured on a GPU" not in note("sdr-voc")


def test_the_formula_names_each_batch_and_each_method_that_stands_for_another():
    measured = pd.read_csv(ROOT / "sparcl_lib" / "reproduction" / "measured.csv")
    batches = measured.groupby("method")["batch"].agg(lambda each: sorted(set(each)))
    assert batches.to_dict() == {"FT": [8, 24], "MiB": [8, 24], "SDR": [8, 24], "PLOP": [24]}
    assert "FT, MiB and SDR at batch 8 and 24" in FORMULA and "PLOP was measured at 24" in FORMULA
    assert all(method in FORMULA for method in MEASURED_AS)
