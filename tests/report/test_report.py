"""Tables and files, from fabricated runs."""

import dataclasses
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from fabricated_runs import THREE_STEPS, make_run, voc_run

from sparcl_lib.config import OptimConfig, parse_settings, resolve
from sparcl_lib.errors import UserError
from sparcl_lib.methods import term
from sparcl_lib.methods.registry import TERMS
from sparcl_lib.published.tables import get_recipe
from sparcl_lib.report import (
    ReportRun,
    gains_over,
    load_runs,
    render,
    results_table,
    results_text,
    steps_text,
    write_results,
)
from sparcl_lib.report.names import other_first_steps, told_apart
from sparcl_lib.tasks import get_task
from sparcl_lib.training.content import MISSING, Content
from sparcl_lib.training.run_directory import RunDirectory


@pytest.fixture(scope="module")
def runs() -> list[ReportRun]:
    """Four methods, two seeds, three steps; the first FT run has a class that never occurs."""
    runs = [make_run(m, seed) for m in ("Joint", "SDR", "MiB", "FT") for seed in (0, 1)]
    for entry in runs[6].metrics["steps"]:
        entry["class_iou"]["ring"] = None
    return runs


def test_table_has_a_row_per_method_with_mean_and_deviation(runs):
    table = results_table(runs)
    assert table["method"].tolist() == ["FT", "SDR", "MiB", "Joint"]
    assert (table["seeds"] == 2).all()
    joint = table.iloc[-1][["miou_all_no_bg", "miou_all_no_bg_std"]].tolist()
    assert joint == pytest.approx([70.5, np.std([70, 71], ddof=1)])
    assert table["seconds"].tolist() == [30, 30, 30, 10]
    assert table["published_all"].isna().all()


def test_published_rows_stand_beside_the_same_task_setup_and_method():
    table = results_table([voc_run("MiB"), voc_run("SDR"), voc_run("Joint")]).set_index("method")
    assert table.loc["MiB", "published_all"] == 33.3
    assert "46.2 / 12.9 / 37.9 in MiB (CVPR 2020)" in table.loc["MiB", "published_source"]
    sdr = table.loc["SDR", ["published_old", "published_new", "published_all"]].tolist()
    assert sdr == [59.2, 12.9, 48.1]
    assert table.loc["Joint", "published_all"] == 77.4
    assert "without background" in table.loc["Joint", "published_source"]


@pytest.mark.parametrize("recipe, number", [("", 36.7), ("mib-", 29.7)])
def test_the_published_row_is_the_one_whose_recipe_is_nearer(recipe, number):
    """A run of MiB's own recipe was put beside the row of the other protocol."""
    row = get_recipe(f"{recipe}voc-15-1-overlapped-MiB")
    config = resolve("voc", "MiB", [row.settings], task=row.task, setup=row.setup)
    run = voc_run("MiB", setup="overlapped", images={"0": 3, "1": 2})
    table = results_table([run._replace(config=config)]).iloc[0]
    assert table["published_all"] == number
    assert table["published_unlike"].startswith("data: 3, 2 training images a step, published 9568")
    small = dataclasses.replace(config, data=dataclasses.replace(config.data, size=64))
    text = render([run._replace(config=small)], "md")
    note = (
        r"- Published, MiB: trained otherwise: data: 3, .*; setting: data.size=64 in place of 512"
    )
    assert re.search(note, text)
    many = dataclasses.replace(
        small, optim=OptimConfig(lr=(1.0,), momentum=0.1, weight_decay=0.1, power=1)
    )
    many = dataclasses.replace(many, data=dataclasses.replace(small.data, batch_size=2, cache=True))
    many = dataclasses.replace(many, precision="32-true", deterministic=True)
    all_named = results_table([run._replace(config=many)]).iloc[0]["published_unlike"].split("; ")
    assert len(all_named) > 6  # a CSV has them all, a note the images and what comes first
    text = render([run._replace(config=many)], "md")
    assert f"; and {len(all_named) - 6} more (sparcl report RUN --format csv has all)" in text


def test_the_formulas_beside_the_row_of_the_released_code_are_one_difference():
    """They were listed as the dozens of settings that a variant stands for."""
    row = get_recipe("voc-15-1-disjoint-SDR")
    paper = [row.settings, {"method.variant": "paper", "optim.momentum": 0.5}]
    config = resolve("voc", "SDR", paper, task=row.task, setup=row.setup)
    table = results_table([voc_run("SDR", setup="disjoint")._replace(config=config)])
    settings = re.findall("setting: (.*?)(?=; |$)", table.iloc[0]["published_unlike"])
    assert settings == [
        "method.variant=paper in place of released", "optim.momentum=0.5 in place of 0.9"
    ]  # fmt: skip


def test_latent_terms_on_a_method_without_any_are_named_one_by_one():
    row = get_recipe("mib-voc-19-1-disjoint-FT")
    added = [row.settings, {"method.terms.matching.weight": 0.1, "method.variant": "released"}]
    config = resolve("voc", "FT", added, task=row.task, setup=row.setup)
    run = voc_run("FT", task="19-1", setup="disjoint")
    (unlike,) = results_table([run._replace(config=config)])["published_unlike"]
    assert "setting: method.terms.released_matching.weight=0.1 in place of None" in unlike


def test_another_setup_task_or_class_order_has_no_published_row():
    backwards = voc_run("MiB").metrics["classes"][::-1]
    other_order = make_run("MiB", classes=backwards, dataset="voc", task="15-1")
    for run in (other_order, voc_run("MiB", setup="elsewhere"), make_run("MiB")):
        assert results_table([run])["published_all"].isna().all()


def test_markdown_parses_as_a_table():
    text = render([run := voc_run("MiB"), make_run("FT", setup="a|b")], "md")
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]
    assert len(rows) == 4 and {len(row) for row in rows} == {16}
    cells = dict(zip([c.strip() for c in rows[0]], [c.strip() for c in rows[2]]))
    assert cells["method"] == "MiB" and cells["published all"] == "33.3"
    assert cells["all"] == f"{run.metrics['steps'][-1]['miou_all']:.1f}"
    assert "SDR authors' CVPR 2021 slides" in text


def test_published_old_and_new_stand_beside_means_over_the_same_classes():
    """15-1's published 44.7 and 21.8 are of classes 0 to 15 and 16 to 20; beside them stood means
    of 0 to 19 and of class 20."""
    run = voc_run("SDR", setup="overlapped")
    last = run.metrics["steps"][-1]
    last["class_iou"] = {name: float(k) for k, name in enumerate(last["class_iou"])}  # 0 to 20
    table = results_table([run, two := voc_run("SDR", "15-5", setup="overlapped")])
    of_15_1 = table[table["task"] == "15-1"].iloc[0]
    assert of_15_1[["miou_first", "miou_later", "miou_first_no_bg"]].tolist() == [7.5, 18, 8]
    assert of_15_1[["published_old", "published_new"]].tolist() == [44.7, 21.8]
    text = render([run], "md")
    titles, _, cells = (re.split(r" ?\| ?", line)[1:-1] for line in text.splitlines()[:3])
    shown = dict(zip(titles, cells))
    assert shown["step 0"] == "7.5" and shown["published step 0"] == "44.7"
    assert shown["later steps"] == "18.0" and shown["published later steps"] == "21.8"
    assert "what the source calls old and new" in text and "published old" not in text
    of_two = render([two], "md")  # there it is the same, and nothing is to be said
    assert "published old" in of_two and "later steps" not in of_two


def test_a_row_has_mean_and_deviation_over_its_seeds():
    runs = [make_run("FT", seed, pictures=False) for seed in (0, 1, 2)]
    scores = [run.metrics["steps"][-1]["miou_all"] for run in runs]
    elsewhere = make_run("FT", setup="overlapped", pictures=False)
    three, one = (row for _, row in results_table([*runs, elsewhere]).iterrows())
    assert (three["seeds"], one["seeds"]) == (3, 1)
    assert three["miou_all"] == pytest.approx(np.mean(scores))
    assert three["miou_all_std"] == pytest.approx(np.std(scores, ddof=1)) and three["seconds"] == 30
    assert one["miou_all"] == scores[0] and np.isnan(one["miou_all_std"])


def test_csv_holds_the_numbers_of_the_table(runs):
    table, expected = pd.read_csv(io.StringIO(render(runs, "csv"))), results_table(runs)
    assert list(table) == list(expected)
    np.testing.assert_allclose(table["miou_old"], expected["miou_old"], atol=5e-5)


def test_unknown_format_names_the_valid_ones(runs):
    with pytest.raises(UserError, match="html, md, latex, csv, classes"):
        render(runs, "pdf")


def test_terminal_tables_show_one_decimal(runs):
    assert re.search(r"Joint +2 .* 70.5 ± 0.7", results_text(runs))
    lines = steps_text(runs[2].metrics).splitlines()
    assert lines[0].startswith("minivoc mine disjoint SDR seed 0")
    assert "borders in training: background" in lines[1]
    assert len(lines) == 3 + 3 and "–" in lines[3]


def test_results_files_round_trip(runs, tmp_path):
    write_results(runs, tmp_path)
    stored = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert stored == {"runs": [run.metrics for run in runs]}
    table = pd.read_csv(tmp_path / "results.csv")
    measures = ["miou_old", "miou_new", "miou_all", "miou_old_no_bg", "miou_all_no_bg"]
    names = ["dataset", "task", "setup", "method", "seed", "test", "step"]
    assert list(table) == [*names, *measures]
    assert len(table) == 2 * (1 + 3 * 3)
    assert table["miou_old"].isna().sum() == 6
    assert table["miou_all"][0] == runs[0].metrics["steps"][0]["miou_all"]


def save(run: ReportRun, path) -> str:
    directory = RunDirectory(path)
    directory.save_metrics(run.metrics)
    if run.predictions:
        directory.save_predictions(len(run.metrics["steps"]) - 1, run.predictions)
    return str(path)


def test_runs_are_loaded_with_the_pictures_of_their_last_step(tmp_path):
    wanted = [make_run("FT"), make_run("Joint"), make_run("MiB", pictures=False)]
    loaded = load_runs(save(run, tmp_path / run.method) for run in wanted)
    assert [run.metrics for run in loaded] == [run.metrics for run in wanted]
    for run, expected in zip(loaded[:2], wanted[:2]):
        np.testing.assert_array_equal(run.predictions["truth"], expected.predictions["truth"])
    assert loaded[2].predictions is None


def test_what_is_no_run_is_refused(tmp_path):
    nowhere = tmp_path / "nowhere"
    for paths, words in (([nowhere], str(nowhere)), ([tmp_path], "metrics.json"), ([], "no run")):
        with pytest.raises(UserError, match=words):
            load_runs(paths)


def test_methods_stand_against_one_of_them_paired_over_seeds():
    """Whoever adds a loss asks what it adds to its base, and the page pairs with the best alone."""
    runs = [make_run(m, s, pictures=False) for m in ("FT", "MiB", "SDR") for s in (0, 1, 2)]
    for k, run in enumerate(runs):
        run.metrics["steps"][-1]["miou_all"] = 50 + [0, 0, 0, 9, 9, 9, 10, 12, 14][k]
    gains = gains_over(runs, "MiB")
    assert [name for *_, name in gains.index] == ["FT", "SDR"]
    sdr = gains.loc[("minivoc", "mine", "disjoint", "SDR"), "all"]
    assert sdr.tolist() == pytest.approx([3, 3 - 4.303 * 2 / 3**0.5, 3 + 4.303 * 2 / 3**0.5])
    text = render(runs, "md", "MiB")
    assert "| minivoc | mine | disjoint | FT | " in text and r"| -9.0 (-9.0 to -9.0) \* |" in text
    assert "Points above MiB, mean and 95 % interval" in text
    latex = render(runs, "latex", "MiB").splitlines()
    assert latex[1:3] == ["% dataset minivoc, task mine, setup disjoint", r"\begin{tabular}{lrrr}"]
    assert latex[6].startswith("FT & ")
    csv = pd.read_csv(io.StringIO(render(runs, "csv", "MiB")))
    assert csv["all, mean"].tolist() == [-9, 3]
    for asked, words in ((("md", "PLOP"), "'PLOP'. Valid: FT, MiB, SDR"), (("html", "MiB"), "csv")):
        with pytest.raises(UserError, match=words):
            render(runs, *asked)
    alone = [runs[3], make_run("SDR", last=0, pictures=False)]  # it called MiB unknown
    with pytest.raises(UserError, match="No run of another method has finished beside MiB"):
        render(alone, "md", "MiB")
    with pytest.raises(UserError, match=r"'SDR'. Valid: MiB$"):
        render(alone, "md", "SDR")


def test_first_steps_of_a_store_are_no_rows(tmp_path, capsys):
    """`sparcl report runs/*` gave the step 0 that four methods shared the name of one of them."""
    store = tmp_path / "compared" / "runs"
    store.mkdir(parents=True)
    run = save(make_run("FT", pictures=False), store / "FT-0123456789ab")
    first = save(make_run("SDR", last=0, pictures=False), store / "first-0123456789ab")
    assert [r.method for r in load_runs([run, first])] == ["FT"]
    said = f"sparcl: left out 1 first step, kept for several runs: {first}\n"
    assert capsys.readouterr().err == said
    assert [r.method for r in load_runs([first])] == ["SDR (until step 0)"]
    for folder, inside in ((store, "*"), (store.parent, "runs/*")):
        with pytest.raises(UserError) as refused:
            load_runs([folder])
        assert str(refused.value) == f"{folder} is no run and holds some: give {folder}/{inside}"


def test_what_value_0_is_is_told_where_it_is_not_background(tmp_path):
    old = make_run("FT", pictures=False)  # from before there was such a rule
    policy = {**old.metrics["label_policy"], "zero": "background"}
    same = make_run("MiB", pictures=False, label_policy=policy)
    load_runs([save(old, tmp_path / "a"), save(same, tmp_path / "b")])
    assert steps_text(old.metrics) == steps_text({**old.metrics, "label_policy": policy})
    assert "value 0" not in steps_text(old.metrics) + render([old], "html")
    for zero, words in (("ignore", "in training and at"), ("ignore_at_test", "left out at test")):
        other = make_run("SDR", pictures=False, label_policy={**policy, "zero": zero})
        assert f"value 0: {zero})" in steps_text(other.metrics)
        assert re.search(f"mask value 0 .*{words}", render([other], "html"))
        with pytest.raises(UserError, match="label policy differ"):
            load_runs([save(same, tmp_path / "b"), save(other, tmp_path / zero)])


def mini(method: str, seed: int = 0, *settings: str, sha: str = "a") -> ReportRun:
    config = resolve("minivoc", method, [parse_settings(settings)], task="6-4", seed=seed)
    run = make_run(method, seed, pictures=False, images_sha256=sha)
    return run._replace(config=config)


def test_runs_of_one_method_that_are_no_seeds_of_one_experiment_are_told_apart():
    """They were one row, `MiB | 4 | 16.1 ± 2.1`, whatever they had been trained with."""
    runs = [
        mini("MiB"), mini("MiB", 1), mini("MiB", 2, "optim.lr=0.2", "data.workers=1"),
        mini("MiB", 3, "optim.lr=0.2"), mini("MiB", 4, sha="b"),
        mini("MiB", 5, "optim.momentum=0", "data.size=32", "method.terms.kd.weight=5", sha="b"),
        mini("FT"), make_run("MiB", 6, pictures=False),
    ]  # fmt: skip
    table = results_table(told_apart(runs)).set_index("method")
    assert table["seeds"].to_dict() == {
        "FT": 1, "MiB": 3, "MiB (optim.lr=[0.2])": 2, "MiB (other images)": 1,
        "MiB (kd.weight=5.0, data.size=32 and 3 more)": 1,
    }  # fmt: skip


KD, SMALL = "method.terms.kd.weight=3", "data.batch_size=8"
APART = {
    "beyond the first two": (
        [(), (KD, SMALL, "optim.lr=0.1"), (KD, SMALL, "optim.lr=0.01")],
        ["MiB", "MiB (kd.weight=3.0, data.batch_size=8, optim.lr=[0.1])",
         "MiB (kd.weight=3.0, data.batch_size=8, optim.lr=[0.01])"],
    ),
    "what does nothing": (
        [(), ("method.terms.matching.weight=0", "data.test_size=64", "save_minutes=1")],
        ["MiB", "MiB"],
    ),
    "values that repeat": ([("optim.iterations=5",), ("optim.iterations=[5,5]", "optim.epochs=9")],
                           ["MiB", "MiB"]),
    "precision": ([(), ("precision=bf16-mixed",)],
                  ["MiB", "MiB (precision=bf16-mixed)"]),
}  # fmt: skip


@pytest.mark.parametrize("case", APART)
def test_names_say_what_differs_and_only_that(case):
    asked, names = APART[case]
    runs = [mini("MiB", seed, *settings) for seed, settings in enumerate(asked)]
    assert [run.method for run in told_apart(runs)] == names


def test_other_images_data_and_weights_are_told_apart_from_each_other():
    """Two lists that were both "other images" were averaged, and other photographs not seen."""
    runs = [mini("MiB", seed, sha=sha) for seed, sha in enumerate("abc")]
    assert [run.method for run in told_apart(runs)] == [
        "MiB", "MiB (other images)", "MiB (other images, 2)"
    ]  # fmt: skip
    content = Content(
        dataset="minivoc", task="6-4", classes={}, void=(), steps=(), unused="", weights=None,
        data="1",
    )  # fmt: skip
    contents = [content, dataclasses.replace(content, data="2"),
                dataclasses.replace(content, weights="abc"),
                dataclasses.replace(content, weights=MISSING), None]  # fmt: skip
    runs = [mini("MiB", seed)._replace(content=known) for seed, known in enumerate(contents)]
    assert [run.method for run in told_apart(runs)] == [
        "MiB", "MiB (other data)", "MiB (other weights)", "MiB", "MiB"
    ]  # fmt: skip


def test_runs_without_a_configuration_join_the_first_and_hide_no_difference():
    unknown = make_run("MiB", 9, pictures=False)
    runs = told_apart([unknown, mini("MiB"), mini("MiB", 1, "optim.lr=0.2"), mini("MiB", 2)])
    assert [run.method for run in runs] == ["MiB", "MiB", "MiB (optim.lr=[0.2])", "MiB"]
    assert [run.method for run in told_apart([unknown])] == ["MiB"]


def test_every_experiment_of_a_method_has_its_published_row():
    """The row went to the run that was named first."""
    recipe = get_recipe("voc-15-1-overlapped-MiB")
    right, wrong = (
        resolve("voc", "MiB", [recipe.settings, {"optim": {"lr": lr}}], task="15-1",
                setup="overlapped", seed=seed)
        for seed, lr in ((0, [0.001, 0.0001]), (1, [0.5]))
    )  # fmt: skip
    runs = [voc_run("MiB", setup="overlapped", seed=c.seed)._replace(config=c)
            for c in (wrong, right)]  # fmt: skip
    table = results_table(told_apart(runs))
    assert table["published_all"].tolist() == [36.7, 36.7] and table["method"].nunique() == 2
    assert ["optim.lr=" in text for text in table["published_unlike"]] == [True, False]
    mine = resolve("voc", "MiB", [recipe.settings, parse_settings([
        "method.terms.feature_kd.weight=1"])], task="15-1", setup="overlapped")  # fmt: skip
    (own,) = told_apart([voc_run("MiB", setup="overlapped")._replace(config=mine)])
    assert results_table([own])["published_all"].isna().all()


def test_a_released_variant_beside_the_formulas_is_named_as_one():
    runs = told_apart([mini("SDR"), mini("SDR", 1, "method.variant=released")])
    assert [run.method for run in runs] == ["SDR", "SDR (method.variant=released)"]


def test_joint_training_that_is_called_otherwise_is_no_method_of_the_library():
    joint = mini("FT", 0, "method.joint=true")
    assert [run.method for run in told_apart([joint, mini("FT")])] == ["FT (joint)", "FT"]


def test_a_run_that_has_the_images_of_one_step_is_not_joint_training():
    """The lists of the others may be gone where it is evaluated."""
    run = make_run("FT", last=0, pictures=False)
    assert not run._replace(metrics={**run.metrics, "images": {"0": 100}}).joint
    assert make_run("Joint", pictures=False).joint
    later = run.metrics["steps"][-1] | {"step": 2}  # its first steps were deleted
    assert not run._replace(metrics={**run.metrics, "steps": [later]}).joint


def test_rows_whose_setup_is_not_stated_stand_beside_the_overlapped_ones():
    recipe = get_recipe("ade20k-100-50-overlapped-MiB")
    task = get_task("ade20k", "100-50")
    classes = [[task.classes[c] for c in step] for step in task.steps]
    config = resolve("ade20k", "MiB", [recipe.settings], task="100-50", setup="overlapped")
    run = make_run("MiB", classes=classes, pictures=False, dataset="ade20k", task="100-50",
                   setup="overlapped")  # fmt: skip
    row = results_table([run._replace(config=config)]).iloc[0]
    assert row["published_all"] == recipe.published.all and pd.isna(row["published_unlike"])
    assert "setup is not stated" in row["published_source"]


@pytest.mark.parametrize(
    "settings, name",
    [
        (["method.terms.feature_kd.weight=2"], "MiB + feature_kd"),
        (["method.terms.kd.weight=0"], "MiB without kd"),
        (["method.terms.kd.weight=3"], "MiB"),
        (["method.name=mine", "method.terms.feature_kd.weight=2"], "mine"),
    ],
)
def test_a_method_with_other_terms_does_not_pass_for_the_librarys(settings, name):
    """A loss of one's own on MiB was called MiB, and the published MiB stood beside it."""
    run = mini("MiB", 0, *settings)
    (found,) = told_apart([run.named(run.config.method.name)])
    assert found.method == name


def test_a_released_variant_is_the_same_method():
    assert [r.method for r in told_apart([mini("SDR", 0, "method.variant=released")])] == ["SDR"]


def test_runs_that_a_table_would_mix_up_are_refused(tmp_path):
    first = save(make_run("FT", pictures=False), tmp_path / "a")
    again = save(make_run("FT", pictures=False), tmp_path / "b")
    with pytest.raises(UserError, match="both FT with seed 0"):
        load_runs([first, again])
    assert len(load_runs([first, tmp_path / "b" / ".." / "a"])) == 1  # one run, given twice
    policy = {"border": "ignore", "future": "background"}
    other = save(make_run("MiB", pictures=False, label_policy=policy), tmp_path / "c")
    with pytest.raises(UserError, match="label policy differ"):
        load_runs([first, other])


def test_another_step_0_is_told(tmp_path):
    """SDR's losses on PLOP began from a step 0 of their own, and nothing said so."""
    own = mini("PLOP", 0, "method.terms.attraction.weight=0.1", "method.name=mine")
    runs = told_apart([mini("FT"), mini("MiB"), mini("SDR"), own.named("mine"), mini("Joint")])
    said = "step 0 of mine is not that of FT: method.terms.attraction.weight=0.1 in place of None"
    assert other_first_steps(runs) == [said]
    assert results_text(runs).endswith(f"\n({said})")
    assert f"- {said}\n" in render(runs, "md").replace("\\", "")
    assert f"% {said}\n" in render(runs, "latex").replace("\\", "")
    assert f"Note: {said}." in render(runs, "html")
    assert other_first_steps(runs[:3]) == other_first_steps([make_run("FT"), own]) == []
    assert other_first_steps([mini("FT"), mini("MiB", 1)]) == []  # seeds are no difference
    faster = told_apart([mini("MiB"), mini("MiB", 1, "optim.lr=0.2")])
    assert ["optim.lr=0.2 in place of" in line for line in other_first_steps(faster)] == [True]


@pytest.fixture
def own_run(monkeypatch):
    """FT with a term that nobody defines here, as its checkpoints tell of it."""

    def run(seed: int, code: str):
        @term(needs_teacher=True)
        def gone_since(context):
            return context.output.logits.mean()

        made = mini("FT", seed, "method.terms.gone_since.weight=10")
        monkeypatch.delitem(TERMS, "gone_since")
        return made._replace(other_terms={0: {}, 1: {"gone_since": {"source": code}}})

    return run


def test_another_code_of_a_loss_is_another_experiment(own_run):
    """Three losses of one name were reported as three seeds of one."""
    apart = told_apart([own_run(0, "one"), own_run(1, "one"), own_run(2, "other")])
    name = "FT + gone_since"
    assert [r.method for r in apart] == [name, name, f"{name} (other code of a term)"]


def test_a_term_that_began_with_step_1_does_not_part_the_first_steps(own_run):
    assert other_first_steps(told_apart([mini("FT"), own_run(0, "one")])) == []
    began = own_run(0, "one")._replace(other_terms={0: {"gone_since": {"source": "one"}}})
    assert len(other_first_steps(told_apart([mini("FT"), began]))) == 1


def test_a_latex_table_has_a_row_per_method_and_no_character_that_means_something():
    runs = [make_run(m, seed, setup="a_b & 5%") for m in ("FT", "MiB\\") for seed in (0, 1)]
    text = render(runs, "latex")
    said, *lines = text.splitlines()
    assert said == "% dataset minivoc, task mine, setup a_b & 5%, seeds 2"
    assert lines[0] == r"\begin{tabular}{lrrrrr}" and lines[-1] == r"\end{tabular}"
    assert [line.count(" & ") for line in lines if line.endswith(r"\\")] == [5, 5, 5]
    assert "\nMiB\\textbackslash{} & " in text
    assert r" $\pm$ " in text and "±" not in text


def test_a_latex_table_has_the_columns_in_which_its_rows_differ():
    runs = [make_run("FT", setup="a_b & 5%"), make_run("FT"), make_run("FT", 1)]
    said, first, _, titles, _, *rows = render(runs, "latex").splitlines()
    assert said == "% dataset minivoc, task mine" and first == r"\begin{tabular}{llrrrrrr}"
    assert titles.startswith("setup & method & seeds & old & ")
    assert rows[0].startswith(r"a\_b \& 5\% & FT & 1 & ")
    assert rows[1].startswith("disjoint & FT & 2 & ")


def test_every_class_after_every_step_is_a_row():
    run = make_run("MiB")
    run.metrics["steps"][1]["class_iou"]["disc"] = None
    found = pd.read_csv(io.StringIO(render([run, make_run("Joint")], "classes")))
    assert found.groupby(["method", "step"])["class"].size().to_dict() == {
        ("Joint", 2): 7, ("MiB", 0): 4, ("MiB", 1): 5, ("MiB", 2): 7,
    }  # fmt: skip
    bar = found.query("method == 'MiB' and step == 2")
    assert bar.set_index("class").loc["bar", "iou"] == run.metrics["steps"][2]["class_iou"]["bar"]
    assert found["iou"].isna().sum() == 1


def test_another_class_order_is_another_task():
    """It was "15-5" like the published one, and stood in no table with it."""
    orders = [
        resolve("minivoc", "MiB", [{"class_order": order}], task="6-4")
        for order in ([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], [2, 1, 3, 4, 5, 6, 7, 8, 9, 10])
    ]
    runs = [mini("MiB"), *(mini("MiB")._replace(config=config) for config in orders)]
    runs[2] = make_run("MiB", classes=THREE_STEPS[::-1])._replace(config=orders[1])
    tasks = results_table(told_apart(runs))["task"].tolist()
    assert re.fullmatch(
        r"mine mine, order 10 9 8 7 \.\.\. \(\w{4}\) mine, order 2 1 3 4 .*", " ".join(tasks)
    )
    order = [*range(1, 21)]
    standard = resolve("voc", "MiB", [{"class_order": order}], task="15-5", setup="disjoint")
    (same,) = told_apart([voc_run("MiB", "15-5")._replace(config=standard)])
    assert same.metrics["task"] == "15-5"


def test_a_class_that_no_tested_pixel_shows_is_named(runs):
    said = "no pixel that was tested shows ring: no IoU, and not in any mean"
    assert said in results_text(runs) and f"- {said}" in render(runs, "md")
    assert f"Note: {said}." in render(runs, "html") and f"% {said}" in render(runs, "latex")
    assert "no pixel" not in results_text(runs[:6])
    run = voc_run("MiB", setup="overlapped")
    run.metrics["steps"][-1]["class_iou"] |= {"sofa": None, "background": None}
    row = get_recipe("voc-15-1-overlapped-MiB")
    config = resolve("voc", "MiB", [row.settings], task=row.task, setup=row.setup)
    unlike = results_table([run._replace(config=config)]).iloc[0]["published_unlike"]
    assert "data: no pixel that was tested shows sofa" in unlike


def test_sections_of_a_page_have_names_of_their_own():
    """Tasks in other letters had one anchor, and links to the second led to the first."""
    tasks = ("課題一", "課題二", "15.1", "15-1")
    text = render([make_run("FT", task=task, pictures=False) for task in tasks], "html")
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids)) and any("課題二" in each for each in ids)


def test_a_row_of_latex_may_begin_with_what_a_row_s_end_takes():
    runs = [make_run(method, pictures=False) for method in ("FT", "[x]", "*star")]
    lines = render(runs, "latex").splitlines()
    assert [line.partition(" &")[0] for line in lines if r" \\" in line][1:] == [
        "FT",
        "{}[x]",
        "{}*star",
    ]
