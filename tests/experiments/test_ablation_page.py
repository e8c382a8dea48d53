"""What the page of an ablation says first: what each term adds, beyond the spread or not."""

import pandas as pd
import pytest
from fabricated_runs import scored_run

from sparcl_lib.experiments.ablation import (
    Ablation,
    ablation_text,
    ablation_verdict,
    variant_name,
    write_ablation,
)
from sparcl_lib.report.tables import MEASURES


def ablation(added: dict[str, list[float]], base: float = 30.0) -> Ablation:
    """Both terms on and off: each adds its numbers, one a seed; seeds lie ten points apart."""
    rows, runs = [], []
    for on in ({"matching": a, "kd": b} for a in (True, False) for b in (True, False)):
        for seed in range(len(added["kd"])):
            value = base + 10 * seed + sum(added[term][seed] for term in on if on[term])
            run = scored_run(variant_name(on), seed, value)
            last = {name: run.metrics["steps"][-1][name] for name in MEASURES}
            rows.append({"variant": variant_name(on), **on, "seed": seed, **last, "seconds": 1.0})
            runs.append(run)
    return Ablation("SDR", ("matching", "kd"), pd.DataFrame(rows), runs, [])


def test_a_gain_counts_a_seed_once():
    gains = ablation({"matching": [1.0, -1.0, 0.5], "kd": [25.0, 25.5, 24.5]}).gains()
    assert [gain.seeds for gain in gains.values()] == [3, 3]
    assert gains["kd"].mean == pytest.approx(25.0) and gains["kd"].beyond
    assert gains["matching"].mean == pytest.approx(0.5 / 3) and not gains["matching"].beyond


def test_the_page_says_what_each_term_adds(tmp_path):
    write_ablation(ablation({"matching": [1.0, -1.0, 0.5], "kd": [25.0, 25.5, 24.5]}), tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "with the 95 % interval over 3 seeds. Beyond the spread: kd 25.0 (23.8 to 26.2)." in page
    assert "Not beyond the spread: matching 0.2 (" in page
    assert page.index("Beyond the spread: kd") < page.index("<h2>Contents") < page.index("<table>")
    assert 'href="results.csv"' in page


def test_a_terminal_says_what_was_tested_where_it_is_not_as_published():
    squares = ablation({"matching": [1.0], "kd": [25.0]})
    assert ablation_text(squares).startswith(
        "mIoU in percent after the last step, old without background\n"
    )
    for run in squares.runs:
        run.metrics["test"] = {"images": "whole", "size": None}
    words = "background, tested on whole images at their own resolution\n"
    assert words in ablation_text(squares)


def test_one_seed_of_an_ablation_claims_nothing(tmp_path):
    single = ablation({"matching": [1.0], "kd": [25.0]})
    text = " ".join(ablation_verdict(single))
    assert "one seed: matching 1.0, kd 25.0." in text and "eyond the spread" not in text
    write_ablation(single, tmp_path)
    assert ">best<" not in (tmp_path / "report.html").read_text("utf-8")


def test_an_ablation_without_a_pair_is_written(tmp_path):
    """Every run with a term had failed: a traceback after all the trainings."""
    both = ablation({"matching": [1.0, 2.0], "kd": [25.0, 24.0]})
    neither = both.table[~both.table.matching & ~both.table.kd]
    rest = Ablation("SDR", both.terms, neither, both.runs[-2:], ["SDR + kd, seed 0: broken"])
    assert rest.effects().empty and rest.gains() == {}
    write_ablation(rest, tmp_path)
    assert (tmp_path / "results.csv").is_file() and (tmp_path / "ablation.png").is_file()
    assert "What a term adds" not in (tmp_path / "report.html").read_text("utf-8")
    assert "adds" not in ablation_text(rest)
