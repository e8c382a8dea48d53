"""The page about SDR's released form and its benchmark hold what the variant stands for."""

from pathlib import Path

import pandas as pd

from sparcl_lib.config import known_keys, parse_settings, resolve, to_plain
from sparcl_lib.experiments.base import read_variants
from sparcl_lib.metrics import format_mean
from sparcl_lib.plain import flatten

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "benchmarks" / "studies" / "sdr_variants"
PAGE = (ROOT / "docs" / "paper_and_released.md").read_text("utf-8")
ROWS = {row.name: row for row in read_variants(STUDY / "variants.yaml")}
RELEASED = parse_settings(["method.variant=released"])


def settings(*layers: dict, dataset: str = "minivoc") -> dict[str, object]:
    """Every setting of a run of SDR by dotted key."""
    task = {"minivoc": "6-4", "voc": "19-1"}[dataset]
    return flatten(to_plain(resolve(dataset, "SDR", layers, task=task)))


def rows(prefix: str) -> list[dict]:
    return [row.settings for name, row in ROWS.items() if name.startswith(prefix)]


def test_the_differences_of_the_benchmark_are_the_variant():
    paper, released = settings(), settings(RELEASED)
    assert settings(*rows("paper")[:1]) == paper and settings(*rows("released")[:1]) == released
    assert settings(*rows("paper + ")) == released
    undone = settings(*rows("released - "))
    assert {key: undone[key] for key in paper} == paper
    for name, row in ROWS.items():
        if name.startswith("paper + "):
            back = ROWS[name.replace("paper +", "released -")].settings
            assert settings(row.settings, back) == settings(back)


def test_every_row_of_the_benchmark_is_another_run():
    alone = [settings(row.settings) for row in ROWS.values()]
    assert all(a != b for i, a in enumerate(alone) for b in alone[:i])


def test_the_page_names_every_switch_and_row():
    changed = {
        key
        for dataset in ("minivoc", "voc")
        for key, value in settings(RELEASED, dataset=dataset).items()
        if settings(dataset=dataset).get(key) != value
    }
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
