"""The page about SDR's released form and its benchmark hold what the variant stands for."""

from pathlib import Path

import pandas as pd
import pytest

from sparcl_lib.config import known_keys, parse_settings, resolve, to_plain
from sparcl_lib.experiments.base import read_variants
from sparcl_lib.methods import TERMS
from sparcl_lib.methods.variants import DIFFERENCES, LATENT, SWITCHES
from sparcl_lib.metrics import format_mean
from sparcl_lib.plain import flatten
from sparcl_lib.report.differences import gains_text, paired_gains

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "benchmarks" / "studies" / "sdr_variants"
PAGE = (ROOT / "docs" / "paper_and_released.md").read_text("utf-8")
ROWS = {row.name: row for row in read_variants(STUDY / "variants.yaml")}
RELEASED = parse_settings(["method.variant=released"])


def settings(*layers: dict, dataset: str = "minivoc") -> dict[str, object]:
    """Every setting of a run of SDR by dotted key."""
    task = {"minivoc": "6-4", "voc": "19-1"}[dataset]
    return flatten(to_plain(resolve(dataset, "SDR", layers, task=task)))


def rows(prefix: str) -> dict[str, dict[str, object]]:
    """Difference -> its settings."""
    return {
        name.removeprefix(prefix): flatten(row.settings)
        for name, row in ROWS.items()
        if name.startswith(prefix)
    }


def test_the_differences_of_the_benchmark_are_the_variant():
    """But for those that MiniVOC's recipe has in both forms, and for void, which it has not."""
    assert ROWS["paper"].settings == {} and ROWS["released"].settings == RELEASED
    alone, undone = rows("paper + "), rows("released - ")
    assert alone.keys() == undone.keys()
    assert {*alone, "norm", "step 0", "void"} == set(DIFFERENCES)
    for name, chosen in alone.items():
        assert chosen == {"method.variant": [name]}
    everything = parse_settings([f"method.variant=[{', '.join(DIFFERENCES)}]"])
    assert settings(everything) == settings(RELEASED)


def test_the_variant_knows_the_released_terms_and_their_options_by_name():
    assert tuple(name for name in TERMS if f"released_{name}" in TERMS) == LATENT
    known = {(s.term, s.option): s.released for row in SWITCHES.values() for s in row}
    options = {(t, o): v for t in LATENT for o, v in TERMS[f"released_{t}"].options.items()}
    assert known.items() <= options.items()
    assert {option for _, option in options.keys() - known.keys()} <= {"distance"}


def test_what_a_row_undoes_is_the_other_side_of_its_switches():
    paper = settings()
    for name, chosen in rows("released - ").items():
        undone = {key: value for key, value in chosen.items() if key != "method.variant"}
        if name in SWITCHES:
            assert undone == {
                f"method.terms.released_{switch.term}.{switch.option}": switch.formula
                for switch in SWITCHES[name]
            }
        else:
            defaults = {"method.prototypes": "means", "method.terms.ce.fold_labels": False}
            assert undone == {key: paper.get(key, defaults.get(key)) for key in undone}


@pytest.mark.parametrize("name", SWITCHES)
def test_one_difference_alone_has_every_other_switch_at_the_formulas_side(name):
    found, paper = settings(parse_settings([f"method.variant=[{name}]"])), settings()
    for difference, switches in SWITCHES.items():
        for term, option, released, formula in switches:
            key = f"method.terms.released_{term}.{option}"
            assert found.get(key) in (released if difference == name else formula, None)
            assert (key in found) == any(term == switch.term for switch in SWITCHES[name])
    moved = {switch.term for switch in SWITCHES[name]}
    for term in LATENT:
        weight = paper[f"method.terms.{term}.weight"]
        there = found.get(f"method.terms.released_{term}.weight")
        expected = (0, weight) if term in moved else (weight, None)
        assert (found[f"method.terms.{term}.weight"], there) == expected


def test_every_row_of_the_benchmark_is_another_run():
    alone = [settings(row.settings) for row in ROWS.values()]
    assert all(a != b for i, a in enumerate(alone) for b in alone[:i])


def test_the_page_names_every_switch_and_row():
    changed = set()
    for dataset in ("minivoc", "voc"):
        paper = settings(dataset=dataset)
        for key, value in settings(RELEASED, dataset=dataset).items():
            formula = key.replace("released_", "")  # which has what no switch changes
            if value not in (paper.get(key), paper.get(formula)) and not key.endswith(".weight"):
                changed.add(formula if key.endswith((".distance", ".from_step")) else key)
    known = set(known_keys())
    table = [line for line in PAGE.splitlines() if line.startswith("|")]
    for key in changed:
        *_, term, option = key.split(".")
        named = [
            row for row in table if key in row or (f".{option}=" in row and f"`{term}`" in row)
        ]
        assert key in known and len(named) == 1, key
    for name in ROWS:
        difference = name.removeprefix("paper").removeprefix("released").lstrip(" ,+-")
        assert f"| {difference} | `m" in PAGE if difference else name in ("paper", "released")


def test_the_table_of_the_page_is_as_measured():
    runs = pd.read_csv(STUDY / "results.csv").query("step == 1")
    assert set(runs.method) <= set(ROWS)

    def cell(name: str) -> str:
        scores = runs[runs.method == name].miou_all
        few = "" if len(scores) == 3 else f" ({len(scores)} of 3 seeds)"
        return (format_mean(scores.mean(), scores.std()) if len(scores) else "ran off") + few

    assert f"| (none) | {cell('paper')} | {cell('released')} |" in PAGE
    for name in ROWS:
        head, _, row = name.partition(" + ")
        if head == "paper" and row:
            assert f"| {row} | {cell(name)} | {cell(f'released - {row}')} |" in PAGE
    for row in ("norm", "step 0"):
        cells = f"{cell(f'paper, {row}')} | {cell(f'released, {row}')}"
        assert f"| {row}, the formula's | {cells} |" in PAGE


@pytest.mark.parametrize(
    "one, other",
    [
        ("paper + batch norm", "paper"),
        ("released - batch norm", "released"),
        ("paper + head", "paper"),
        ("released - head", "released"),
        ("paper + division", "paper"),
        ("paper, norm", "paper"),
        ("released, norm", "released"),
    ],
)
def test_paired_differences_of_the_page_are_as_measured(one, other):
    runs = pd.read_csv(STUDY / "results.csv").query("step == 1")
    gain = gains_text(paired_gains(runs, {one: (one, other)}, {"all": "miou_all"}))
    assert gain.loc[one, "all"].removesuffix(" *") in PAGE


def test_above_norm_batch_norm_alone_leaves_zero_out_in_both_columns():
    runs = pd.read_csv(STUDY / "results.csv").query("step == 1")
    names = [name.removeprefix("paper + ") for name in ROWS if name.startswith("paper + ")]
    pairs = {("in", n): (f"paper + {n}", "paper") for n in names}
    pairs |= {("out", n): (f"released - {n}", "released") for n in names}
    gains = paired_gains(runs, pairs, {"all": "miou_all"})["all"]
    beyond = (gains["low"] > 0) | (gains["high"] < 0)
    assert [n for n in names if beyond["in", n] and beyond["out", n]] == ["batch norm"]
