"""What each loss term of a method adds: the terms switched on and off, over seeds."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sparcl_lib.errors import UserError
from sparcl_lib.experiments.base import RunBase, unique
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.experiments.store import RunStore
from sparcl_lib.metrics import format_mean, mean_columns
from sparcl_lib.report import ReportRun
from sparcl_lib.report.differences import Interval, interval
from sparcl_lib.report.page import write_page
from sparcl_lib.report.sections import figure_block, picture, section
from sparcl_lib.report.tables import MEASURES, other_tests
from sparcl_lib.report.verdict import points, range_text, verdict
from sparcl_lib.run import Run
from sparcl_lib.viz import switch_heat_map, to_png
from sparcl_lib.writing import write_atomically, write_csv

SHOWN = {name: MEASURES[name] for name in ("miou_old_no_bg", "miou_new", "miou_all")}
NONE = "none of them"
_COUNTS = ("seeds", "pairs")
_MANY_TERMS = 8


@dataclass(frozen=True)
class Ablation:
    """The runs of an ablation that finished, as a table."""

    method: str
    terms: tuple[str, ...]
    table: pd.DataFrame
    """A row per variant and seed: variant, a truth value per term, seed, mIoUs of the last step in
    percent, seconds, run (its folder's name)."""
    runs: list[ReportRun]
    """In the order of the table; the method is the variant's name."""
    errors: list[str]

    def summary(self) -> pd.DataFrame:
        """Index variant: seeds, then mean and deviation (`_std`) of each measure."""
        groups = self.table.groupby("variant", sort=False)
        means, deviations = groups[list(SHOWN)].mean(), groups[list(SHOWN)].std()
        return pd.concat(
            [groups["seed"].count().rename("seeds"), means, deviations.add_suffix("_std")], axis=1
        )

    def effects(self) -> pd.DataFrame:
        """Index term: what switching it on adds to each measure, mean and deviation over pairs.

        A pair are two runs of one seed that differ in this term alone.
        """
        rows = {
            term: {
                "pairs": gains["miou_all"].count(),
                **gains.mean(),
                **gains.std().add_suffix("_std"),
            }
            for term, gains in self._pairs().items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def gains(self) -> dict[str, Interval]:
        """Term -> what switching it on adds to mIoU of all classes, over seeds.

        The pairs of a seed share its images and step 0, so their mean counts once.
        """
        return {
            term: interval(gains["miou_all"].dropna().groupby("seed").mean())
            for term, gains in self._pairs().items()
        }

    def _pairs(self) -> dict[str, pd.DataFrame]:
        """Term -> what it adds in each pair; without a term that no run has, or that all have."""
        found = {}
        for term in self.terms:
            index = [*(t for t in self.terms if t != term), "seed"]
            wide = self.table.pivot(index=index, columns=term, values=list(SHOWN))
            if {True, False} <= set(self.table[term]):
                found[term] = pd.DataFrame({m: wide[m][True] - wide[m][False] for m in SHOWN})
        return found


def switches(terms: Sequence[str], leave_one_out: bool = False) -> list[dict[str, bool]]:
    """Which terms are on in each variant: all 2 ** n subsets, or all and all but one."""
    if leave_one_out:
        return [{t: t != out for t in terms} for out in (None, *terms)]
    states = itertools.product((True, False), repeat=len(terms))
    return sorted((dict(zip(terms, s)) for s in states), key=lambda on: -sum(on.values()))


def variant_name(on: dict[str, bool]) -> str:
    """Such as `matching + kd`: the terms that are on."""
    return " + ".join(term for term, is_on in on.items() if is_on) or NONE


def ablate(
    base: RunBase,
    method: str,
    terms: Sequence[str],
    seeds: Iterable[int],
    store: RunStore,
    leave_one_out: bool = False,
    jobs: int | None = None,
) -> Ablation:
    """Run the on/off grid of `terms` (or all and all but one) for every seed.

    Runs that the store holds are not trained again. Raises UserError for a term that the method
    does not have, and when no run finished.
    """
    seeds, terms = unique(seeds), tuple(unique(terms))
    _check_terms(base, method, terms, leave_one_out)
    variants = switches(terms, leave_one_out)
    grid = [(on, seed) for on in variants for seed in seeds]
    configs = [base.config(method, seed, _off(on)) for on, seed in grid]
    runs, errors = run_all(configs, store, jobs)
    finished = [(on, run) for (on, _), run in zip(grid, runs) if run is not None]
    if not finished:
        raise UserError(f"no run finished; the first: {errors[0]}")
    table = pd.DataFrame([_row(on, run) for on, run in finished])
    table = table.astype(dict.fromkeys(MEASURES, float))  # null, where nothing is old, is NaN
    reported = [ReportRun({**run.metrics, "method": variant_name(on)}) for on, run in finished]
    return Ablation(configs[0].method.name, terms, table, reported, errors)


def _check_terms(base: RunBase, method: str, terms: Sequence[str], leave_one_out: bool) -> None:
    config = base.config(method, 0)
    weights = {term.name: term.weight for term in config.method.terms}
    active = [name for name, weight in weights.items() if weight > 0]
    for term in terms:
        if term not in active:
            raise UserError(
                f"method {config.method.name} has no term {term!r} to switch off: it has "
                f"{', '.join(active)}; add one with --set method.terms.{term}.weight=0.1"
            )
    if len(terms) > _MANY_TERMS and not leave_one_out:
        raise UserError(
            f"{len(terms)} terms make {2 ** len(terms)} variants: give at most {_MANY_TERMS}, or "
            f"--leave-one-out"
        )


def _off(on: dict[str, bool]) -> dict[str, Any]:
    """Settings that switch off what is off; the weights of the others stay."""
    return {"method": {"terms": {t: {"weight": 0.0} for t, is_on in on.items() if not is_on}}}


def _row(on: dict[str, bool], run: Run) -> dict[str, Any]:
    metrics = run.metrics
    last = {name: metrics["steps"][-1][name] for name in MEASURES}
    seconds = {"seconds": round(sum(metrics["seconds"]), 1), "run": run.directory.path.name}
    return {"variant": variant_name(on), **on, "seed": metrics["seed"], **last, **seconds}


def ablation_text(ablation: Ablation) -> str:
    """Both tables for a terminal."""
    tables = {
        f"{ablation.method} with": ablation.summary(),
        "a term adds": ablation.effects(),
    }
    texts = [_readable(t, name).to_string(index=False) for name, t in tables.items() if len(t)]
    tests = "".join(f", {test}" for test in other_tests(ablation.runs).values())
    heading = f"mIoU in percent after the last step, old without background{tests}"
    return "\n\n".join([heading, *texts])


def _readable(table: pd.DataFrame, title: str) -> pd.DataFrame:
    """Index and counts as they are, measures as `mean ± deviation`."""
    counts = {c: list(table[c]) for c in table if c in _COUNTS}
    return pd.DataFrame({title: list(table.index), **counts, **mean_columns(table, SHOWN)})


def ablation_verdict(ablation: Ablation) -> list[str]:
    """What the terms add to mIoU of all classes, beyond the spread or not, in plain sentences."""
    gains = ablation.gains()
    if not gains:
        return verdict(ablation.runs)
    if all(gain.seeds < 2 for gain in gains.values()):
        means = ", ".join(f"{term} {points(gain.mean)}" for term, gain in gains.items())
        return [
            f"Points that a term adds to the mIoU of all classes, one seed: {means}. Another seed "
            "may turn a difference of a few points round."
        ]
    added = {term: f"{term} {points(g.mean)} ({range_text(g)})" for term, g in gains.items()}
    beyond = [added[term] for term, gain in gains.items() if gain.beyond]
    rest = [added[term] for term, gain in gains.items() if not gain.beyond]
    sentences = [
        "Points that a term adds to the mIoU of all classes, with the 95 % interval over "
        f"{max(gain.seeds for gain in gains.values())} seeds."
    ]
    sentences += [f"Beyond the spread: {'; '.join(beyond)}."] if beyond else []
    sentences += [f"Not beyond the spread: {'; '.join(rest)}."] if rest else []
    return sentences


def write_ablation(ablation: Ablation, out: Path, commands: Sequence[str] = ()) -> None:
    """results.csv, ablation.png and report.html (self-contained) in the folder `out`.

    commands: what to type to get the same runs. Raises UserError when it cannot be written.
    """
    summary = ablation.summary()
    states = ablation.table.groupby("variant", sort=False)[list(ablation.terms)].first()
    figure = switch_heat_map(
        states, summary[list(SHOWN)].set_axis(list(SHOWN.values()), axis=1),
        summary[[f"{m}_std" for m in SHOWN]].set_axis(list(SHOWN.values()), axis=1),
    )  # fmt: skip
    png = to_png(figure)
    highest = summary["miou_all"].idxmax()
    drawn = picture(
        figure,
        f"Grid of variants and their mIoU; the highest mean of all classes: {highest}, "
        f"{format_mean(summary['miou_all'][highest])}.",
    )
    shown = figure_block(
        f"{ablation.method} with and without its terms",
        "A filled square: the term is on. Numbers: mIoU in percent after the last step, mean"
        f"{' ± standard deviation over seeds' if summary['seeds'].max() > 1 else ''}; "
        "bright is high, each column by itself.",
        [drawn],
    )
    tables = {}
    if len(effects := ablation.effects()):  # else no two runs are a pair, for some have failed
        shown_effects = _readable(effects, "a term adds")
        ranges = [range_text(gain) for gain in ablation.gains().values()]
        tables["What a term adds (points)"] = shown_effects.assign(
            **{"all, 95 % interval over seeds": ranges}
        )
    subject = f"{ablation.method} with and without {', '.join(ablation.terms)}"
    says = ablation_verdict(ablation)
    shown_section = section(ablation.runs, [shown], tables, subject, says)
    write_csv(out / "results.csv", ablation.table)
    write_atomically(out / "ablation.png", lambda d: d.write_bytes(png))
    write_page(out / "report.html", f"Ablation of {ablation.method}", [shown_section], commands)
