"""The README keeps its word: code runs, paths exist, numbers are those that were measured."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sparcl_lib.cli import app
from sparcl_lib.config import parse_settings
from sparcl_lib.course import minivoc_config
from sparcl_lib.report.tables import number
from sparcl_lib.tasks import task_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
IN_QUESTION = ("FT", "MiB", "SDR", "SDR+MiB", "Joint")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_examples_run():
    examples = blocks("python")
    assert examples
    for example in examples:
        scope: dict = {}
        exec(example, scope)
        assert scope["loss"].item() > 0 and scope["features"].grad.abs().sum() > 0


def test_paths_of_the_map_and_of_links_exist():
    rows = re.findall(r"^\| (`.+?) \|", README, flags=re.MULTILINE)
    paths = [path for row in rows for path in re.findall(r"`([\w./]+)`", row)]
    assert len(paths) >= 10
    for path in paths:
        near = [ROOT / path, ROOT / "sparcl_lib" / path]
        assert any(p.exists() for p in near), path
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_commands_and_tasks_exist():
    known = {command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    used = re.findall(r"^sparcl (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE)
    assert set(used) and set(used) <= known
    for task in ("19-1", "15-5", "15-1", "10-10", "10-1", "10-5", "5-3", "2-1", "2-2", "19-1b"):
        assert task in README and task in task_names("voc")


def test_the_table_is_the_one_that_was_measured():
    runs = pd.read_csv(ROOT / "benchmarks" / "minivoc_seeds" / "results.csv")
    last = runs[runs.step == runs.step.max()]
    lines = README.splitlines()
    for method, rows in last.groupby("method"):
        (line,) = (text for text in lines if re.match(rf" *{re.escape(method)} +3 ", text))
        for measure in ("miou_old", "miou_new", "miou_all"):
            assert number(rows[measure].mean(), rows[measure].std()) in line


def test_the_phenomena_are_in_the_measured_table():
    """Joint at least 65, fine-tuning below 5 on old classes, MiB 20 above it: means of 3 seeds."""
    runs = pd.read_csv(ROOT / "benchmarks" / "minivoc_seeds" / "results.csv")
    assert sorted(runs.seed.unique()) == [0, 1, 2]
    mean = runs[runs.step == runs.step.max()].groupby("method").mean(numeric_only=True)
    assert mean.miou_all["Joint"] >= 65
    assert mean.miou_old_no_bg["FT"] < 5
    assert mean.miou_all["MiB"] - mean.miou_all["FT"] >= 20


def test_the_parts_of_mib_are_as_measured():
    runs = pd.read_csv(ROOT / "benchmarks" / "mib_parts" / "results.csv").query("step == 1")
    told = (ROOT / "benchmarks" / "README.md").read_text()
    for variant, rows in runs.groupby("method"):
        measures = (rows[f"miou_{name}"] for name in ("old_no_bg", "new", "all"))
        cells = [number(values.mean(), values.std()) for values in measures]
        assert f"| {variant} | {' | '.join(cells)} |" in told
    alone = runs[runs.method == "random start"]["miou_all"]
    assert f"reaches {number(alone.mean(), alone.std())} as well" in README


def test_the_table_of_the_search_is_the_best_trial_of_each_method():
    trials = pd.read_csv(ROOT / "benchmarks" / "minivoc_search" / "trials.csv")
    told = (ROOT / "benchmarks" / "README.md").read_text()
    assert (trials.groupby("method").size() == 14).all() and len(set(trials.method)) == 15
    for method, rows in trials.groupby("method"):
        best = rows.loc[rows.miou_all.idxmax()]
        settings = " ".join(f"`{setting}`" for setting in best.settings.split(" "))
        scores = (best.miou_old_no_bg, best.miou_new, best.miou_all)
        row = [method, best.trial, settings, *(f"{score:.1f}" for score in scores)]
        assert f"| {' | '.join(map(str, row))} |" in told


def test_recipes_follow_the_trials_that_hold_in_all_setups():
    trials = pd.read_csv(ROOT / "benchmarks" / "minivoc_search" / "trials.csv")
    best = trials.loc[trials.groupby("method").miou_all.idxmax()].set_index("method")
    gain = best.miou_all - trials[trials.trial == 0].set_index("method").miou_all
    runs = pd.read_csv(ROOT / "benchmarks" / "minivoc_challengers" / "results.csv")
    table = runs[runs.step == 1].pivot(index="method", columns="setup", values="miou_all")
    table = table[["sequential", "disjoint", "overlapped"]]
    told = (ROOT / "benchmarks" / "README.md").read_text()
    challengers = {
        method: f"{method}, trial {best.trial[method]}" for method in gain[gain > 1].index
    }
    assert set(table.index) == {*challengers, *challengers.values()}
    for name, values in table.iterrows():
        cells = [f"{value:.1f}" if value > 0 else "ran off" for value in values]
        mean = "–" if values.isna().any() else f"{values.mean():.1f}"
        assert f"| {name} | {' | '.join(cells)} | {mean} |" in told
    means = table.mean(axis=1, skipna=False)
    better = [method for method, name in challengers.items() if means[name] > means[method] + 1]
    assert better == ["CIL"]
    config = minivoc_config("CIL")
    weights = parse_settings(best.settings["CIL"].split(" "))
    assert config.optim.lr == pytest.approx(weights["optim"]["lr"], rel=0.01)


def test_the_table_of_the_comparison_is_as_measured():
    runs = pd.read_csv(ROOT / "benchmarks" / "minivoc_comparison.csv")
    told = (ROOT / "benchmarks" / "README.md").read_text()
    last = runs.groupby("run", sort=False).tail(1)
    columns = list(last.groupby(["task", "setup"], sort=False).groups)
    permuted = ("6-1 permuted", "overlapped")
    assert len(columns) == 5 and columns[-1] == permuted
    assert last.method.nunique() == 15
    for method in last.method.unique():
        cells = []
        for task, setup in columns:
            rows = last.query("method == @method and task == @task and setup == @setup")
            few = 0 if (task, setup) == permuted else 3
            more = 3 if (task, setup) == permuted else 5
            assert len(rows) == (more if method in IN_QUESTION else few)
            cells.append(number(rows.miou_all.mean(), rows.miou_all.std()))
        assert f"| {method} | {' | '.join(cells)} |" in told


def test_the_table_of_the_higher_rate_is_as_measured():
    folder = ROOT / "benchmarks"
    names = ("minivoc_higher_rate", "minivoc_higher_rate_6-1")
    higher = pd.concat(pd.read_csv(folder / name / "results.csv") for name in names)
    recipes = pd.read_csv(folder / "minivoc_comparison.csv").query("seed < 3")
    told = (folder / "README.md").read_text()
    columns = [("6-4", setup) for setup in ("sequential", "disjoint", "overlapped")]
    columns.append(("6-1", "overlapped"))
    for method in ("MiB", "SDR", "SDR+MiB"):
        for runs, name in ((recipes, method), (higher, f"{method}, higher rate")):
            last = runs[runs.method == method].groupby("run").tail(1).groupby(["task", "setup"])
            scores = [last.get_group(column).miou_all for column in columns]
            cells = [number(s.mean(), s.std()) if len(s) == 3 else "ran off" for s in scores]
            assert f"| {name} | {' | '.join(cells)} |" in told


def test_the_released_treatment_of_old_labels_is_as_measured():
    runs = pd.read_csv(ROOT / "benchmarks" / "folded_labels" / "results.csv").query("step == 1")
    told = (ROOT / "benchmarks" / "README.md").read_text()
    cells = {m: number(s.mean(), s.std()) for m, s in runs.groupby("method").miou_all}
    assert ", ".join(f"{m} {cells[m]}" for m in ("MiB", "SDR", "SDR+MiB")) in told


def test_the_table_of_latent_terms_is_as_measured():
    runs = pd.read_csv(ROOT / "benchmarks" / "latent_terms" / "results.csv")
    told = (ROOT / "docs" / "latent_terms.md").read_text()
    measures = ["miou_old_no_bg", "miou_new", "miou_all", "forgetting"]
    for method, rows in runs.groupby("method"):
        first, last = rows[rows.step == 1], rows[rows.step == runs.step.max()]
        assert sorted(last.seed) == [0, 1, 2]
        shown = [first.miou_all, *(last[name] for name in measures)]
        cells = [number(values.mean(), values.std()) for values in shown]
        assert f"| {method} | {' | '.join(cells)} |" in told


def test_the_table_of_the_latent_space_is_as_measured():
    runs = pd.read_csv(ROOT / "benchmarks" / "latent_terms" / "space.csv")
    told = (ROOT / "docs" / "latent_terms.md").read_text()
    measures = ["answers", "head", "features", "drift", "precision", "recall"]
    for method, rows in runs[runs.step == runs.step.max()].groupby("method"):
        assert sorted(rows.seed) == [0, 1, 2]
        cells = [number(rows[name].mean(), rows[name].std()) for name in measures]
        assert f"| {method} | {' | '.join(cells)} |" in told
    first = runs[(runs.step == 0) & (runs.method == "MiB")]
    shares = [f"{name} {number(first[name].mean(), first[name].std())}" for name in measures[:3]]
    assert f"After step 0: {', '.join(shares)}" in told


def test_the_search_on_real_photographs_is_the_best_trial_of_each_method():
    trials = pd.read_csv(ROOT / "benchmarks" / "real_search" / "trials.csv")
    told = (ROOT / "docs" / "real_voc_subset.md").read_text()
    used = yaml.safe_load((ROOT / "benchmarks" / "real_methods.yaml").read_text())
    assert (trials.groupby("method").size() == 7).all() and len(set(trials.method)) == 7
    for method, rows in trials.groupby("method"):
        best = rows.loc[rows.miou_all.idxmax()]
        settings = best.settings.split(" ")
        assert {*settings, "optim.epochs=[6,4]"} == set(used[method]["set"])
        shown = " ".join(f"`{setting}`" for setting in settings if "from_step" not in setting)
        scores = (best.miou_old_no_bg, best.miou_new, best.miou_all)
        row = [method, best.trial, shown, *(f"{score:.1f}" for score in scores)]
        assert f"| {' | '.join(map(str, row))} |" in told


def test_the_tables_on_real_photographs_are_as_measured():
    folder = ROOT / "benchmarks" / "real_one_by_one"
    told = (ROOT / "docs" / "real_voc_subset.md").read_text()
    runs, classes = pd.read_csv(folder / "results.csv"), pd.read_csv(folder / "classes.csv")
    measures = ["old_no_bg", "new", "all"]
    for method, rows in runs[runs.step == 3].groupby("method"):
        assert sorted(rows.seed) == [0, 1]
        names = [*(f"miou_{name}" for name in measures), "average", "forgetting", "intransigence"]
        cells = [number(rows[name].mean(), rows[name].std()) for name in names]
        assert f"| {method} | {' | '.join(cells)} |" in told
        last = classes[(classes.step == 3) & (classes.method == method)].set_index("seed")
        iou = last[["background", "cat", "dog", "horse", "sheep", "cow"]].mean()
        assert f"| {method} | {' | '.join(f'{value:.1f}' for value in iou)} |" in told


def test_what_the_animals_are_called_is_as_measured():
    shares = pd.read_csv(ROOT / "benchmarks" / "real_one_by_one" / "confusion.csv")
    told = " ".join((ROOT / "docs" / "real_voc_subset.md").read_text().split())
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
    runs = pd.read_csv(ROOT / "benchmarks" / "real_terms" / "results.csv").query("step == 3")
    told = (ROOT / "docs" / "real_voc_subset.md").read_text()
    for method, rows in runs.groupby("method"):
        assert sorted(rows.seed) == [0, 1]
        measures = ("miou_old_no_bg", "miou_new", "miou_all", "average", "forgetting")
        cells = [number(rows[name].mean(), rows[name].std()) for name in measures]
        assert f"| {method} | {' | '.join(cells)} |" in told


def test_the_search_on_6_1_is_as_measured():
    told = (ROOT / "docs" / "latent_terms.md").read_text()
    folder = ROOT / "benchmarks"
    trials = pd.read_csv(folder / "minivoc_6-1_search" / "trials.csv")
    used = yaml.safe_load((folder / "minivoc_6-1_best.yaml").read_text())
    assert (trials.groupby("method").size() == 12).all()
    for method, rows in trials.groupby("method"):
        best = rows.loc[rows.miou_all.idxmax()]
        assert best.settings.split(" ") == used[f"{method}, searched on 6-1"]["set"]
    runs = pd.read_csv(folder / "minivoc_6-1_best" / "results.csv").query("step == 4")
    for method, rows in runs.groupby("method"):
        assert sorted(rows.seed) == [0, 1, 2]
        measures = ("miou_old_no_bg", "miou_new", "miou_all", "forgetting")
        cells = [number(rows[name].mean(), rows[name].std()) for name in measures]
        assert f"| {method} | {' | '.join(cells)} |" in told


def test_runs_side_by_side_are_as_measured():
    told = (ROOT / "benchmarks" / "README.md").read_text()
    table = pd.read_csv(ROOT / "benchmarks" / "lanes.csv")
    for lanes, threads, seconds, per_hour in table.iloc[:, :4].itertuples(index=False):
        assert f"| {lanes} | {threads} | {seconds} | {per_hour:.0f} |" in told
    rates = table.set_index(["runs side by side", "threads a run"])["runs per hour"]
    assert f"by {rates[2, 1] / rates[1, 2]:.1f}, so" in told
