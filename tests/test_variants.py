"""The page about SDR's released form and its benchmark hold what the variant stands for."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from sparcl_lib.config import known_keys, parse_settings, resolve, to_plain
from sparcl_lib.plain import flatten

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "paper_and_released.md").read_text()


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("b", ROOT / "benchmarks" / "sdr_variants.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings(*chosen: str, dataset: str = "minivoc") -> dict[str, object]:
    """Every setting of a run by dotted key."""
    task = {"minivoc": "6-4", "voc": "19-1"}[dataset]
    return flatten(to_plain(resolve(dataset, "SDR", [parse_settings(chosen)], task=task)))


def test_the_differences_of_the_benchmark_are_the_variant(bench):
    sides = bench.DIFFERENCES.values()
    released = settings("method.variant=released")
    assert settings(*(s for side in sides for s in side.released)) == released
    undone = settings("method.variant=released", *(s for side in sides for s in side.paper))
    paper = settings()
    assert {key: undone[key] for key in paper} == paper
    shared = [s for side in bench.SHARED.values() for s in side.released]
    assert settings(*shared) == paper and settings("method.variant=released", *shared) == released


def test_every_row_of_the_benchmark_is_another_run(bench):
    configs = [c for block in bench.blocks([0, 1], "disjoint") for c in block.configs()]
    rows = bench.variants()
    assert [c.method["name"] for c in configs] == [name for name in rows for _ in (0, 1)]
    alone = [settings(*chosen) for chosen in rows.values()]
    assert all(a != b for i, a in enumerate(alone) for b in alone[:i])


def test_the_page_names_every_switch_and_row(bench):
    changed = {
        key
        for dataset in ("minivoc", "voc")
        for key, value in settings("method.variant=released", dataset=dataset).items()
        if settings(dataset=dataset).get(key) != value
    }
    known = set(known_keys())
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    for key in changed:
        *_, term, option = key.split(".")
        named = [row for row in rows if key in row or (f".{option}=" in row and f"`{term}`" in row)]
        assert key in known and len(named) == 1, key
    for name in (*bench.DIFFERENCES, *bench.SHARED):
        assert f"\n| {name} | `m" in PAGE
