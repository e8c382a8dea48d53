"""The pages about measurements say what the CSV files beside them hold; each study is whole."""

import ast
import json
import math
import re
import runpy
from collections.abc import Iterable
from pathlib import Path

import jupytext
import pandas as pd
import pytest
import yaml

from sparcl_lib.config import parse_settings, resolve
from sparcl_lib.course import minivoc_config
from sparcl_lib.course.runs import SHIPPED
from sparcl_lib.digests.statements import tree_digest
from sparcl_lib.methods import method_to_plain
from sparcl_lib.metrics import format_mean
from sparcl_lib.report.differences import gains_text, interval, paired_gains
from sparcl_lib.training import RunDirectory

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "benchmarks" / "studies"
INDEX = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
LATENT_TERMS = (ROOT / "docs" / "latent_terms.md").read_text("utf-8")
REAL = (ROOT / "docs" / "real_voc_subset.md").read_text("utf-8")
IN_QUESTION = ("FT", "MiB", "SDR", "SDR+MiB", "Joint")


def table(*names: str) -> pd.DataFrame:
    return pd.read_csv(STUDIES.joinpath(*names))


def page(study: str) -> str:
    return (STUDIES / study / "README.md").read_text("utf-8")


def cell(values: pd.Series) -> str:
    return format_mean(values.mean(), values.std())


def line(*cells: object) -> str:
    """A row of a table in a page."""
    return f"| {' | '.join(map(str, cells))} |"


def cells(rows: pd.DataFrame, measures: Iterable[str]) -> list[str]:
    return [cell(rows[name]) for name in measures]


def test_every_study_has_a_page_with_its_command_and_is_in_the_index():
    studies = sorted(folder.name for folder in STUDIES.iterdir() if folder.is_dir())
    assert studies == sorted(set(re.findall(r"\(studies/([\w-]+)/README.md\)", INDEX)))
    for study in studies:
        assert "```sh\n" in page(study)
    assert [file.name for file in STUDIES.parent.iterdir() if file.is_file()] == ["README.md"]


def test_the_paths_of_the_commands_exist():
    for readme in STUDIES.glob("*/README.md"):
        for path in re.findall(r"benchmarks/studies/[\w./-]+", readme.read_text("utf-8")):
            assert (ROOT / path).exists(), f"{readme}: {path}"


@pytest.mark.parametrize("script", sorted(STUDIES.glob("*/*.py")), ids=lambda path: path.stem)
def test_a_script_of_a_study_finds_what_it_imports_and_says_how_to_call_it(script, capsys):
    module = runpy.run_path(str(script))
    for call in ("--help", "--unheard-of"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
            patch.setattr("sys.argv", [str(script), call])
            module["main"]()
        assert stop.value.code == (0 if call == "--help" else 2)
    assert module["__doc__"].splitlines()[0] in " ".join(capsys.readouterr().out.split())


def test_links_between_the_measurements_exist():
    pages = [*STUDIES.parent.rglob("*.md"), *(ROOT / "docs").glob("*.md")]
    assert len(pages) > 15
    for file in pages:
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", file.read_text("utf-8")):
            assert (file.parent / link).exists(), f"{file}: {link}"


def test_the_orders_are_as_measured():
    text, last = page("class_orders"), table("class_orders", "results.csv").query("step == 4")
    each = last.pivot(index="task", columns="method", values="miou_all")
    assert each.shape == (8, 6) and (last.seed == 0).all()
    own = table("minivoc_comparison", "results.csv").query(
        "task == '6-1' and step == 4 and setup == 'overlapped'"
    )
    for method, scores in each.items():
        over_seeds = own[own.method == method].miou_all.std()
        ends = f"{scores.min():.1f} to {scores.max():.1f}"
        row = (method, f"{scores['6-1']:.1f}", cell(scores), ends, f"{over_seeds:.1f}")
        assert line(*row) in text and f"{method} {ends}" in text  # in the picture's words, too
    rows = re.findall(r"^\| ([\w+-]+) over ([\w+-]+) \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 5
    for one, other, said in rows:
        gaps = each[one] - each[other]
        found, ahead = interval(gaps), (gaps > 0).sum()
        low = f"{found.low:.1f}".replace("-", "\N{MINUS SIGN}")
        over = f"{found.mean:.1f} ({low} to {found.high:.1f})"
        assert said == f"{gaps['6-1']:.1f} | {over} | {ahead} of 8"
    places = each.rank(axis=1, ascending=False)[["SSUL-like", "CIL", "MiB"]]
    assert (places == [1, 2, 3]).all(axis=None)


def test_the_parts_of_mib_are_as_measured():
    runs = table("mib_parts", "results.csv").query("step == 1")
    for variant, rows in runs.groupby("method"):
        assert line(variant, *cells(rows, ("miou_old_no_bg", "miou_new", "miou_all"))) in page(
            "mib_parts"
        )


def best_line(method: str, best: pd.Series) -> str:
    """The row of a search: its best trial."""
    shown = " ".join(f"`{s}`" for s in best.settings.split(" ") if "from_step" not in s)
    scores = (f"{best[name]:.1f}" for name in ("miou_old_no_bg", "miou_new", "miou_all"))
    return line(method, best.trial, shown, *scores)


def test_the_table_of_the_search_is_the_best_trial_of_each_method():
    trials = table("minivoc_search", "trials.csv")
    assert (trials.groupby("method").size() == 14).all() and len(set(trials.method)) == 15
    for method, rows in trials.groupby("method"):
        assert best_line(method, rows.loc[rows.miou_all.idxmax()]) in page("minivoc_search")


def test_the_recipe_of_minivoc20_is_the_best_trial_of_each_method():
    trials = table("minivoc20", "trials.csv")
    assert (trials.groupby("method").size() == 6).all() and len(set(trials.method)) == 5
    for method, rows in trials.groupby("method"):
        best = rows.loc[rows.miou_all.idxmax()]
        assert best_line(method, best) in page("minivoc20")
        config = resolve("minivoc20", method, task="15-1", setup="disjoint")
        found = parse_settings(best.settings.split(" "))
        assert config.optim.lr == pytest.approx(found["optim"]["lr"], rel=0.02)
        weights = {term.name: term.weight for term in config.method.terms}
        for name, term in found.get("method", {}).get("terms", {}).items():
            if "weight" in term:
                assert weights[name] == pytest.approx(term["weight"], rel=0.02), (method, name)


def test_the_scale_model_of_vocs_table_is_as_measured():
    runs = table("minivoc20", "results.csv").sort_values("step")
    runs = runs.groupby(["task", "setup", "method", "seed"]).last().reset_index()
    places = [(t, s) for t in ("15-5", "15-1") for s in ("sequential", "disjoint", "overlapped")]
    ends = {(t, s): runs[(runs.task == t) & (runs.setup == s)] for t, s in places}
    voc = pd.read_csv(ROOT / "sparcl_lib" / "published" / "results.csv").query("dataset == 'voc'")
    voc = voc.set_index(["task", "setup", "method"]).miou_all
    for method in runs.method.unique():
        mine = {place: rows[rows.method == method] for place, rows in ends.items()}
        assert all(len(rows) == 3 for rows in mine.values())
        known = {place: voc.get((*place, method)) for place in places}
        published = {place: f" (**{x:.1f}**)" if x else "" for place, x in known.items()}
        beside = (cell(rows.miou_all) + published[place] for place, rows in mine.items())
        assert line(method, *beside) in page("minivoc20")
        assert line(method, *(cell(rows.miou_new) for rows in mine.values())) in page("minivoc20")
    for method in ("SDR", "SDR+MiB"):
        gaps = (
            f"{gap_text(ends[place], method, 'MiB')} "
            f"(**{voc[*place, method] - voc[*place, 'MiB']:+.1f}**)"
            for place in places
        )
        assert line(method, *gaps) in page("minivoc20")


def gap_text(rows: pd.DataFrame, method: str, other: str, measure: str = "miou_all") -> str:
    return gains_text(paired_gains(rows, {"": (method, other)}, {"": measure})).iloc[0, 0]


def test_what_is_start_and_what_is_losses_on_minivoc20_is_as_measured():
    runs = table("minivoc20", "start", "results.csv").query("step == 1")
    for method, rows in runs.groupby("method"):
        measures = ("miou_old_no_bg", "miou_new", "miou_all")
        assert line(method, *cells(rows, measures)) in page("minivoc20")
    parts = {
        "the start, without the losses": ("MiB, random start", "MiB"),
        "the start, with the losses": ("SDR", "SDR, MiB's start"),
        "the losses, with MiB's start": ("SDR, MiB's start", "MiB"),
        "the losses, with a random start": ("SDR", "MiB, random start"),
    }
    for part, pair in parts.items():
        gaps = (gap_text(runs, *pair, measure) for measure in ("miou_new", "miou_all"))
        assert line(part, *gaps) in page("minivoc20")


def test_which_loud_loss_costs_on_minivoc20_is_as_measured():
    runs = table("minivoc20", "loud", "results.csv").query("step == 5").set_index("method")
    measures = ["miou_old_no_bg", "miou_new", "miou_all"]
    for method, row in runs[measures].iterrows():
        assert line(method, *(f"{value:.1f}" for value in row)) in page("minivoc20")
    lost = runs["miou_all"]["MiB"] - runs["miou_all"]
    assert (
        f"costs {lost['sparsification']:.1f} points and the matching {lost['matching']:.1f};"
        in page("minivoc20")
    )
    assert abs(lost["both"] - lost["sparsification"]) < 0.1


def test_recipes_follow_the_trials_that_hold_in_all_setups():
    trials = table("minivoc_search", "trials.csv")
    best = trials.loc[trials.groupby("method").miou_all.idxmax()].set_index("method")
    gain = best.miou_all - trials[trials.trial == 0].set_index("method").miou_all
    runs = table("minivoc_search", "results.csv").query("step == 1")
    scores = runs.pivot(index="method", columns="setup", values="miou_all")
    scores = scores[["sequential", "disjoint", "overlapped"]]
    challengers = {
        method: f"{method}, trial {best.trial[method]}" for method in gain[gain > 1].index
    }
    assert set(scores.index) == {*challengers, *challengers.values()}
    for name, values in scores.iterrows():
        shown = [f"{value:.1f}" if value > 0 else "ran off" for value in values]
        mean = "–" if values.isna().any() else f"{values.mean():.1f}"
        assert line(name, *shown, mean) in page("minivoc_search")
    means = scores.mean(axis=1, skipna=False)
    better = [method for method, name in challengers.items() if means[name] > means[method] + 1]
    assert better == ["CIL"]
    config = minivoc_config("CIL")
    weights = parse_settings(best.settings["CIL"].split(" "))
    assert config.optim.lr == pytest.approx(weights["optim"]["lr"], rel=0.01)


def test_the_table_of_the_comparison_is_as_measured():
    last = table("minivoc_comparison", "results.csv").groupby("run", sort=False).tail(1)
    columns = list(last.groupby(["task", "setup"], sort=False).groups)
    permuted = ("6-1 permuted", "overlapped")
    assert len(columns) == 5 and columns[-1] == permuted
    assert last.method.nunique() == 15
    for method in last.method.unique():
        shown = []
        for task, setup in columns:
            rows = last.query("method == @method and task == @task and setup == @setup")
            few = 0 if (task, setup) == permuted else 3
            more = 3 if (task, setup) == permuted else 5
            assert len(rows) == (more if method in IN_QUESTION else few)
            shown.append(cell(rows.miou_all))
        assert line(method, *shown) in INDEX


def test_the_table_of_the_higher_rate_is_as_measured():
    files = (("higher_rate", "results.csv"), ("higher_rate", "6-1", "results.csv"))
    higher = pd.concat(table(*file) for file in files)
    recipes = table("minivoc_comparison", "results.csv").query("seed < 3")
    columns = [("6-4", setup) for setup in ("sequential", "disjoint", "overlapped")]
    columns.append(("6-1", "overlapped"))
    for method in ("MiB", "SDR", "SDR+MiB"):
        for runs, name in ((recipes, method), (higher, f"{method}, higher rate")):
            last = runs[runs.method == method].groupby("run").tail(1).groupby(["task", "setup"])
            scores = [last.get_group(column).miou_all for column in columns]
            assert line(name, *(cell(s) if len(s) == 3 else "ran off" for s in scores)) in page(
                "higher_rate"
            )


def test_the_levels_of_the_reader_project_are_as_measured():
    runs = table("reader_project", "results.csv").query("step == 2")
    assert set(runs.seed) == {2026} and len(runs) == 5
    for row in runs.itertuples():
        scores = (f"{x:.1f}" for x in (row.miou_old_no_bg, row.miou_new, row.miou_all))
        assert line(row.method, *scores) in page("reader_project")


def test_the_released_treatment_of_old_labels_is_as_measured():
    runs = table("folded_labels", "results.csv").query("step == 1")
    shown = {method: cell(scores) for method, scores in runs.groupby("method").miou_all}
    assert ", ".join(f"{m} {shown[m]}" for m in ("MiB", "SDR", "SDR+MiB")) in page("folded_labels")


def test_the_table_of_latent_terms_is_as_measured():
    runs = table("latent_terms", "results.csv")
    measures = ["miou_old_no_bg", "miou_new", "miou_all", "forgetting"]
    for method, rows in runs.groupby("method"):
        first, last = rows[rows.step == 1], rows[rows.step == runs.step.max()]
        assert sorted(last.seed) == [0, 1, 2]
        assert line(method, cell(first.miou_all), *cells(last, measures)) in LATENT_TERMS


def test_the_table_of_the_latent_space_is_as_measured():
    runs = table("latent_terms", "latent_space.csv")
    measures = ["predicted", "head", "features", "drift", "precision", "recall"]
    for method, rows in runs[runs.step == runs.step.max()].groupby("method"):
        assert sorted(rows.seed) == [0, 1, 2]
        assert line(method, *cells(rows, measures)) in LATENT_TERMS
    first = runs[(runs.step == 0) & (runs.method == "MiB")]
    shares = [f"{name} {cell(first[name])}" for name in measures[:3]]
    assert f"After step 0: {', '.join(shares)}" in LATENT_TERMS


def test_the_table_of_the_latent_chapters_is_as_measured():
    results, features = (
        table("latent_chapters", f"{name}.csv").query("step == 1")
        for name in ("results", "features")
    )
    for method, rows in results.groupby("method"):
        seen = features[features.method == method]
        assert sorted(rows.seed) == sorted(seen.seed) == [0, 1, 2]
        scores = cells(rows, ("miou_old_no_bg", "miou_new", "miou_all"))
        assert line(
            method, *scores, *cells(seen, ("drift", "probe_old", "active", "room"))
        ) in page("latent_chapters")


def test_what_a_loss_in_step_0_adds_is_as_measured():
    results = table("sparse_start", "results.csv")
    results, stars = results[results.step == 1], 0
    measures = {name: f"miou_{name}" for name in ("old_no_bg", "new", "all")}
    for base in ("MiB", "UCE"):
        for dim in (64, 8):
            alone = f"{base}, D = {dim}"
            rows = results[results.method == alone]
            assert sorted(rows.seed) == [0, 1, 2]
            assert line(base, dim, "none", *cells(rows, measures.values())) in page("sparse_start")
            for method in results.method[results.method.str.startswith(f"{alone} +")].unique():
                pairs = {"loss": (method, alone)}
                gains = gains_text(paired_gains(results, pairs, measures)).loc["loss"]
                stars += gains.str.endswith("*").sum()
                loss = method.partition(" + ")[2]
                assert line(base, dim, loss, *gains) in page("sparse_start")
    assert results.method.nunique() == 28 and stars == 9
    features = table("sparse_start", "features.csv")
    features = features[features.step == 0].set_index(["method", "seed"])
    few, sparse = (features.loc[f"MiB, D = 8{loss}"] for loss in ("", " + hoyer in step 0"))
    assert (few.active.mean().round(1), sparse.active.mean().round(1)) == (4.3, 1.3)
    assert (few.room.mean().round(1), sparse.room.mean().round(1)) == (2.3, 4.0)
    lost = interval(few.probe_new - sparse.probe_new)
    assert [round(x, 1) for x in lost[:3]] == [7.8, 7.6, 8.1]


def test_what_was_lost_among_old_names_is_as_measured():
    """Compared with eleven names before and after, and with seven before and eleven after, the same
    runs said that what MiB loses is lost behind the head."""
    found = table("old_names", "old_names.csv")
    for (task, setup, method), rows in found.groupby(["task", "setup", "method"]):
        seeds = rows.set_index(["step", "seed"])
        change = seeds.loc[rows.step.max()].drop(columns=["task", "setup", "method"])
        change = change - seeds.loc[0][change.columns]
        change["new"] = change["network"] - change["network_old"]
        intervals = (
            interval(change[place])[:3]
            for place in ("network", "new", "network_old", "head_old", "features_old")
        )
        texts = [
            "{:.1f} ({:.1f} to {:.1f})".format(*(round(x, 1) + 0.0 for x in ends))
            for ends in intervals
        ]
        assert line(f"{task} {setup}", method, *texts) in page("old_names")
    of_mib = found[(found.task == "6-1") & (found.method == "MiB")]
    mib = of_mib.groupby("step").mean(numeric_only=True)
    to_new = mib.network_old - mib.network
    assert to_new[0] == 0 and to_new[4] > 0.6 * (mib.network[0] - mib.network[4])


def test_what_the_readers_find_is_as_measured():
    found = table("old_names", "readers.csv")
    known = table("old_names", "old_names.csv")
    for (task, setup, method), rows in found.groupby(["task", "setup", "method"]):
        seeds = rows.set_index("seed")
        minus = (("network", "before"), ("encoder", "before"), ("reader", "before"),
                 ("network", "encoder"))  # fmt: skip
        texts = [
            "{:.1f} ({:.1f} to {:.1f})".format(
                *(round(x, 1) + 0.0 for x in interval(seeds[one] - seeds[other])[:3])
            )
            for one, other in minus
        ]
        assert line(f"{task} {setup}", method, *texts) in page("old_names")
        of_method = known.query("task == @task and setup == @setup and method == @method")
        for column, step in (("before", 0), ("network", of_method.step.max())):
            same = of_method[of_method.step == step].set_index("seed").network_old
            assert (same - seeds[column]).abs().max() < 0.01


def test_what_matching_does_on_fine_tuning_is_as_measured():
    runs = table("latent_chapters", "fine_tuning", "results.csv").query("step == 1")
    for method, rows in runs.groupby("method"):
        assert sorted(rows.seed) == [0, 1, 2]
        scores = cells(rows, ("miou_old_no_bg", "miou_new", "miou_all"))
        assert line(method, *scores) in page("latent_chapters")


def test_what_the_first_teacher_guesses_is_as_measured():
    found = table("latent_terms", "first_guesses.csv")
    assert sorted(found.seed.unique()) == [0, 1, 2]
    shares = found.groupby("step")["precision"].mean()
    assert ", ".join(f"{share:.0f}" for share in shares) in page("latent_terms")


def functions_of(text: str) -> dict[str, str]:
    """Name -> digest of what a function says, annotations and docstrings aside."""
    nodes = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    return {node.name: tree_digest(node) for node in nodes}


def test_the_losses_of_the_study_are_those_of_chapter_07():
    cells = jupytext.read(ROOT / "notebooks" / "sources" / "07_sparsification.py").cells
    chapter = functions_of("\n".join(c.source for c in cells if c.cell_type == "code"))
    plugin = STUDIES / "latent_chapters" / "terms" / "sparser.py"
    study = functions_of(plugin.read_text("utf-8"))
    for name in ("active_rows", "hoyer", "l1_share"):
        assert study[name] == chapter[name]


def test_the_search_on_real_photographs_is_the_best_trial_of_each_method():
    trials = table("real_one_by_one", "trials.csv")
    used = yaml.safe_load((STUDIES / "real_one_by_one" / "variants.yaml").read_text("utf-8"))
    assert (trials.groupby("method").size() == 7).all() and len(set(trials.method)) == 7
    for method, rows in trials.groupby("method"):
        best = rows.loc[rows.miou_all.idxmax()]
        assert {*best.settings.split(" "), "optim.epochs=[6,4]"} == set(used[method]["set"])
        assert best_line(method, best) in REAL


def test_the_tables_on_real_photographs_are_as_measured():
    runs = table("real_one_by_one", "results.csv").query("step == 3")
    classes = table("real_one_by_one", "classes.csv").query("step == 3")
    scores = ("miou_old_no_bg", "miou_new", "miou_all", "average", "forgetting", "intransigence")
    for method, rows in runs.groupby("method"):
        assert sorted(rows.seed) == [0, 1]
        assert line(method, *cells(rows, scores)) in REAL
        last = classes[classes.method == method]
        iou = last[["background", "cat", "dog", "horse", "sheep", "cow"]].mean()
        assert line(method, *(f"{value:.1f}" for value in iou)) in REAL


def test_what_the_animals_are_called_is_as_measured():
    shares = table("real_one_by_one", "confusion.csv")
    told = " ".join(REAL.split())
    means = shares.drop(columns="seed").groupby(["method", "truth"]).mean()
    assert means.sum(axis=1).between(99.9, 100.1).all() and len(means) == 9 * 6
    cow, dog = means.cow.unstack(), means.dog.unstack()
    forgetful, others = ["FT", "LwF", "ILT"], ["MiB", "MiB, random start", "PLOP", "SDR", "SDR+MiB"]
    for values, words in (
        (cow.loc[forgetful, ["dog", "horse", "sheep", "cow"]], "they call {} % cow"),
        (cow.loc[forgetful, "cat"], "of cat {} %"),
        (dog.loc[others, ["sheep", "cow"]], "they call {} % dog"),
        (100 - means.background.unstack().loc[["MiB", "PLOP", "SDR+MiB"], "background"],
         "take {} % of the background"),
    ):  # fmt: skip
        low, high = values.to_numpy().min(), values.to_numpy().max()
        assert words.format(f"{low:.0f} to {high:.0f}") in told


def test_single_terms_on_real_photographs_are_as_measured():
    runs = table("real_terms", "results.csv").query("step == 3")
    measures = ("miou_old_no_bg", "miou_new", "miou_all", "average", "forgetting")
    for method, rows in runs.groupby("method"):
        assert sorted(rows.seed) == [0, 1]
        assert line(method, *cells(rows, measures)) in REAL


def test_the_search_on_6_1_is_as_measured():
    trials = table("latent_search", "trials.csv")
    used = yaml.safe_load((STUDIES / "latent_search" / "variants.yaml").read_text("utf-8"))
    assert (trials.groupby("method").size() == 12).all()
    for method, rows in trials.groupby("method"):
        best = rows.loc[rows.miou_all.idxmax()]
        assert best.settings.split(" ") == used[f"{method}, searched on 6-1"]["set"]
    runs = table("latent_search", "results.csv").query("step == 4")
    for method, rows in runs.groupby("method"):
        assert sorted(rows.seed) == [0, 1, 2]
        measures = ("miou_old_no_bg", "miou_new", "miou_all", "forgetting")
        assert line(method, *cells(rows, measures)) in LATENT_TERMS


def test_seconds_of_the_pool_and_of_dask_are_as_measured():
    found = table("pool_or_dask", "results.csv")
    names = {"pool": "the pool, `--jobs 2`",
             "dask": "`distributed.LocalCluster`, two workers of one thread"}  # fmt: skip
    for way, rows in found.groupby("way"):
        shown = [f"{x:.1f}" for x in (*rows.seconds, rows.seconds.mean())]
        assert line(names[way], *shown) in page("pool_or_dask")


def test_runs_side_by_side_are_as_measured():
    lanes = table("lanes", "lanes.csv")
    for runs, threads, seconds, per_hour in lanes.iloc[:, :4].itertuples(index=False):
        assert line(runs, threads, seconds, f"{per_hour:.0f}") in page("lanes")
    rates = lanes.set_index(["runs side by side", "threads a run"])["runs per hour"]
    assert f"by {rates[2, 1] / rates[1, 2]:.1f}, so" in page("lanes")


def test_every_shipped_run_trained_anew_is_the_one_that_ships():
    found = table("kept_runs_again", "runs.csv")
    assert set(found.key) == {folder.name for folder in SHIPPED.iterdir()}
    ships = {folder.name: RunDirectory(folder).metrics()["steps"] for folder in SHIPPED.iterdir()}
    whole = found[found.measure == "miou_all"]
    for key, step, mean in whole[["key", "step", "shipped"]].itertuples(index=False):
        assert mean in [row["miou_all"] for row in ships[key] if row["step"] == step]
    assert (found.again == found.shipped).all()
    assert f"{len(found)} numbers" in page("kept_runs_again")
    chapters = table("kept_runs_again", "chapters.csv")
    assert len(chapters) == 12 and chapters.failed.isna().all()


def test_shipped_runs_trained_again_are_as_told():
    found = table("kept_runs_again", "results.csv").set_index(["run", "step", "measure"])
    for run, (kind, step) in {"step 0": ("first", 0), "FT": ("FT", 1), "MiB": ("MiB", 1)}.items():
        row = found.loc[(kind, step, "miou_all")]
        assert line(run, *(f"{value:.2f}" for value in row)) in page("kept_runs_again")
        spread = (row[["AVX2", "SSE4.1"]] - row["own"]).abs().max()
        assert abs(row["own"] - row["shipped"]) < spread


def test_the_hours_of_voc_are_iterations_times_measured_seconds_in_the_readme_too():
    script = runpy.run_path(str(STUDIES / "voc_cost" / "voc_cost.py"))
    found = table("voc_cost", "hours.csv")
    pd.testing.assert_frame_equal(script["hours"](8, 30), found)
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    for name, first, later, hours, peak in found.itertuples(index=False):
        assert line(name, first, later, f"{hours:.2f}", peak) in page("voc_cost")
        seconds = 35_880 * first / 1000 + 8_721 * later / 1000
        assert hours == pytest.approx(seconds / 3600, abs=0.006)
    default, mixed = found.set_index("precision").loc[["32-true", "bf16-mixed"]].itertuples(False)
    assert (
        f"took {default[0]} ms in step 0 and {default[1]} ms in the later ones on an H200" in readme
    )
    assert f"which makes {default[2]} hours" in readme
    speed = table("gpu", "speed.csv").query("batch == 8 and layout == 'channels last'")
    reserved = speed.query("method == 'SDR'").set_index("arithmetic")["reserved GiB"]
    assert f"and PyTorch held {reserved['tf32']:.1f} for them" in readme
    assert max(reserved[["tf32", "bf16"]]) * 1.074 < 12 < reserved["fp32"] * 1.074  # GiB, GB
    text = " ".join(page("voc_cost").split())
    assert (
        f"{reserved['tf32']:.1f} GiB in the first two rows, {reserved['bf16'] * 1.0737:.1f} GB"
        in text
    )
    assert f"in the last one {reserved['fp32']:.1f} GiB, {reserved['fp32'] * 1.0737:.1f} GB" in text
    once, each = 35_880 * default[0] / 3.6e6, 8_718.75 * default[1] / 3.6e6
    assert f"that is {once:.2f} hours once, then {each:.2f} for each" in text
    ms = 1000 * speed.set_index(["method", "arithmetic"])["seconds"]
    more = (ms["SDR"] - ms["MiB"])[["tf32", "bf16"]]
    assert (
        "cost {:.0f} ms at batch 8 in tf32 (SDR beside MiB), and {:.0f} in bf16".format(*more)
        in text
    )
    for row in (default, mixed):
        assert f"{row[2]} hours and {row[3]} GiB" in readme


def test_what_voc_costs_is_as_counted():
    counted = table("voc_cost", "voc_cost.csv").set_index("step")
    for step, (_, operations, held, saved) in counted.iterrows():
        assert line(step, f"{operations:.2f}", f"{held:.2f}", f"{saved:.1f}") in page("voc_cost")
    alone, taught = counted["10^12 operations an image"]
    later_steps = 487, 299, 491, 500, 548  # of 15-1 overlapped: tests/data/test_splits.py
    first, later = 9568, sum(later_steps)
    total = 30 * (first * alone + later * taught) / 1e5  # 10^17
    hours = total * 1e17 / 1e13 / 3600
    text, readme = " ".join(page("voc_cost").split()), (ROOT / "README.md").read_text("utf-8")
    assert f"{total:.1f} x 10^17" in text and f"{hours:.1f} hours" in text
    assert f"{counted.iloc[1, 2:].sum():.1f} GiB" in text
    rate = taught * 8 / table("voc_cost", "hours.csv").iloc[0]["ms later"] * 1000
    assert f"sustained {rate:.0f} x 10^12 a second" in text
    iterations = sum(math.ceil(30 * images / 8) for images in later_steps)
    assert f"{30 * first / 8:,.0f} iterations" in readme and f"{iterations:,} for" in readme


def test_runs_of_a_gpu_are_on_a_cpu_what_is_told():
    found = json.loads((STUDIES / "gpu" / "home.json").read_text("utf-8"))
    names = {"kept-run": "SDR on MiniVOC, tf32 off",
             "run-128-fp32": "SDR on photographs, 128 pixels, `32-true`"}  # fmt: skip
    assert found.keys() == names.keys()
    for run, steps in found.items():
        again = steps.pop("trained on by the CPU", None)
        for step, row in steps.items():
            apart, equal = row["largest difference of an IoU"], 100 * row["equal pixels"]
            shown = f"{apart:.4f}", f"{equal:.2f} %"
            assert line(names[run], step.split()[-1], *shown) in page("gpu")
        if again:
            assert "{miou_all:.2f} mIoU of all classes for {on the GPU:.2f}".format(
                **again
            ) in page("gpu")


GPU_COLUMNS = ("bf16", "tf32", "fp32")


@pytest.mark.parametrize("card", [(), ("h100",)], ids=["H200", "H100"])
def test_the_speed_of_a_gpu_is_as_measured(card):
    speed = table("gpu", *card, "speed.csv").query("item not in ['cudnn-benchmark', 'fused']")
    speed["ms"] = 1000 * speed.seconds
    for (method, batch, layout), rows in speed.groupby(["method", "batch", "layout"]):
        row = rows.set_index("arithmetic").loc[list(GPU_COLUMNS)]
        contiguous = layout == "contiguous"
        over = ["–"] * 3 if contiguous else [f"{x:.2f}" for x in row["over the floor"]]
        shown = [f"{x:.1f}" for x in row.ms], over, [f"{x:.1f}" for x in row["peak GiB"]]
        name = f"{method}ˣ" if contiguous else method
        assert line(name, batch, *(x for part in shown for x in part)) in page("gpu")
        if batch == 24 and not contiguous:
            surplus = (f"{x:.1f}" for x in row.ms - 1000 * row.floor)
            assert line(method, *surplus) in page("gpu")
    sdr = speed.query("method == 'SDR' and layout == 'channels last'")
    ms = sdr.set_index(["batch", "arithmetic"]).ms
    text = " ".join(page("gpu").split())
    assert f"{ms[24, 'fp32'] / ms[24, 'bf16']:.1f} times as fast for SDR" in text
    assert f"{ms[8, 'fp32'] / ms[8, 'bf16']:.1f} at batch 8" in text
    for classes, rows in table("gpu", *card, "latent.csv").groupby("classes"):
        row = rows.set_index("loss").loc["all four" if card else "all"]
        assert f"{row.ms:.1f} against {row['loop ms']:.1f} ms at {classes} classes" in text


def test_images_per_second_that_come_to_a_gpu_are_as_measured():
    for _, row in table("gpu", "loader.csv").iterrows():
        assert line(int(row.workers), f"{row['images per second']:.0f}") in page("gpu")


@pytest.mark.parametrize("card", [(), ("h100",)], ids=["H200", "H100"])
def test_a_gpu_is_as_right_as_told(card):
    found = table("gpu", *card, "correct.csv")
    assert len(found) == 93 and found.repeats.all() and found["counts equal"].all()
    for step, rows in found.groupby("step"):
        names = ("losses", "weights", "prototypes", "losses in bf16", "losses in fp16")
        assert line(step, *(f"{rows[name].max():.1e}" for name in names)) in page("gpu")
    worst = found[found["worst tensor"] > 0.01]
    assert list(worst.method) == ["SSUL-like"] and worst["worst tensor"].max() < 0.0185


def test_real_runs_of_a_gpu_stand_beside_those_of_a_cpu():
    gpu = table("gpu", "real.csv").set_index(["stage", "method", "seed", "step"]).miou_all
    cpu = table("real_one_by_one", "results.csv").set_index(["method", "seed", "step"]).miou_all
    for (method, seed), rows in gpu["128-fp32"].groupby(["method", "seed"]):
        pairs = [(rows.get((method, seed, s)), cpu.get((method, seed, s))) for s in (0, 3)]
        shown = [f"{x:.1f}" if x is not None else "–" for pair in pairs for x in pair]
        assert line(method, seed, *shown, f"{pairs[1][0] - pairs[1][1]:+.1f}") in page("gpu")
    for (method, seed), _ in gpu.groupby(["method", "seed"]):
        both = [gpu.get((stage, method, seed, 3)) for stage in ("256-bf16", "256-fp32")]
        if both != [None, None]:
            shown = ("–" if x is None else f"{x:.1f}" for x in both)
            assert line(method, seed, *shown) in page("gpu")


def test_the_table_of_whole_images_is_as_measured():
    results = table("whole_images", "results.csv")
    for name, rows in results.groupby("test"):
        ious = [f"{iou:.1f}" for iou in rows.iou]
        assert line(name, f"{rows.iou.mean():.1f}", *ious) in page("whole_images")


def test_latent_terms_on_top_of_a_method_leave_the_rest_of_it_as_it_is():
    study = runpy.run_path(str(STUDIES / "on_top_of_others" / "on_top_of_others.py"))
    for setup in study["SETUPS"]:
        configs = {c.method.name: c for c in study["block"](setup, [0]).configs()}
        assert len(configs) == 28
        for name, config in configs.items():
            base, plain = configs[name.split(" + ")[0]], method_to_plain(config.method)
            added = [t for t in study["LATENT"] if t in plain["terms"]]
            assert len(added) == (0 if config is base else 1 if name.endswith("+ matching") else 4)
            weights = {t: plain["terms"].pop(t) for t in added}
            assert plain | {"name": base.method.name} == method_to_plain(base.method)
            assert (config.optim, config.data, config.model) == (base.optim, base.data, base.model)
            if name.endswith("sparsification"):
                assert weights["repulsion"] == {"weight": 0.5, "from_step": 1}


def test_the_arithmetic_moves_step_0_as_its_page_says():
    found = table("arithmetic", "results.csv").pivot(
        index="arithmetic", columns="seed", values="miou_all"
    )
    text = " ".join(page("arithmetic").split())
    for name, values in found.iterrows():
        cells = [f"{value:.1f}" if value == value else "–" for value in values]
        assert line(name, *cells) in page("arithmetic")
    plain = found.loc["as it is"]
    changed = found.drop(index=["as it is", "noise-1@0"])
    moved = (changed - plain).stack().dropna()
    first, later = ([s for s in moved.loc["noise-1"].index if (s < 6) == early] for early in (1, 0))
    assert (moved[moved.index.get_level_values("seed") < 6] < 0).all(), "no changed run was above"
    above = (moved.loc["noise-1"][later] > 0).sum()
    assert f"there it is above on {['none', 'one', 'two', 'three', 'four'][above]}, by" in text
    values = changed.stack().dropna()
    assert f"the {len(values)} whose arithmetic" in text
    assert f"{values.min():.1f} to {values.max():.1f}, mean {values.mean():.1f}" in text
    least = moved.loc[["noise-1", "noise-2"]].abs()
    tenth = moved.loc["noise-1@1e-7"].abs()
    assert (
        f"by {tenth[0]:.1f} and {tenth[1]:.1f} points, a millionth by {least.min():.1f} to" in text
    )
    assert f"to {least.max():.1f}, {least.mean():.1f} on average.**" in text
    assert f"deviation of {plain.std():.1f} points" in text
    before, after, both = (
        interval(moved.loc["noise-1"][seeds]) for seeds in (first, later, [*first, *later])
    )
    spans = [f"{x.low:.1f} to {x.high:.1f}" for x in (before, after, both)]
    assert f"was {-before.mean:.1f} lower (95 % interval {spans[0]})" in text
    assert f"by {after.mean:.1f} on average ({spans[1]})" in text
    assert f"Over all twelve it is {-both.mean:.1f} lower ({spans[2]})" in text
    assert found.loc["noise-1@0", 0] == plain[0]
    old = table("real_one_by_one", "results.csv").query("method == 'FT' and step == 0")
    assert old.miou_all.tolist() == plain[[0, 1]].tolist()
    gpu = table("gpu", "real.csv").query("stage == '128-fp32' and method == 'FT' and step == 0")
    assert "lie among" in text and gpu.miou_all.between(values.min(), values.max()).all()
    assert line("on a GPU, tf32", *(f"{v:.1f}" for v in gpu.miou_all), *"–" * 10) in page(
        "arithmetic"
    )
