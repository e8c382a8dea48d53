"""The main job end to end, with so few iterations that only its shape can be judged."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sparcl_lib import load_run
from sparcl_lib.config import parse_settings
from sparcl_lib.data.minivoc import default_root, generate
from sparcl_lib.demo import METHODS, OVER_SEEDS, run_demo
from sparcl_lib.errors import UserError
from sparcl_lib.experiments.base import RunBase, open_store
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.report.differences import paired
from sparcl_lib.report.verdict import range_text
from sparcl_lib.training.run_directory import RunDirectory

MIOUS = ["miou_old", "miou_new", "miou_all", "miou_old_no_bg", "miou_all_no_bg"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Output folder and printed table of a demo on two seeds of a small MiniVOC."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
    generate(default_root(), train=80, val=16, progress=False)
    out = tmp_path_factory.mktemp("demo")
    settings = ["optim.iterations=3", "data.batch_size=4"]
    table = run_demo(out, "6-4", "disjoint", [0, 1], settings)
    yield out, table
    patch.undo()


def test_results_json_has_every_run_and_step(demo):
    out, _ = demo
    runs = json.loads((out / "results.json").read_text("utf-8"))["runs"]
    assert [(r["method"], r["seed"]) for r in runs] == [(m, s) for s in (0, 1) for m in METHODS]
    for run in runs:
        assert (run["dataset"], run["task"], run["setup"]) == ("minivoc", "6-4", "disjoint")
        steps = [step["step"] for step in run["steps"]]
        assert steps == ([1] if run["method"] == "Joint" else [0, 1])
        last = run["steps"][-1]
        assert len(last["class_iou"]) == 11
        known = [v for v in last["class_iou"].values() if v is not None]
        assert last["miou_all"] == pytest.approx(np.mean(known), abs=1e-3)
        assert all(0 <= v <= 100 for v in known)


def test_results_csv_says_the_same(demo):
    out, _ = demo
    runs = json.loads((out / "results.json").read_text("utf-8"))["runs"]
    table = pd.read_csv(out / "results.csv")
    assert len(table) == sum(len(run["steps"]) for run in runs)
    row = table[(table.method == "SDR") & (table.seed == 1) & (table.step == 1)].iloc[0]
    (sdr,) = (run for run in runs if (run["method"], run["seed"]) == ("SDR", 1))
    assert row[MIOUS].tolist() == pytest.approx([sdr["steps"][1][name] for name in MIOUS])


def test_methods_share_one_step_0_per_seed(demo):
    out, _ = demo
    for seed in (0, 1):
        files = [
            out / "runs" / f"{m}-seed{seed}/step-0/checkpoint.pt" for m in ("FT", "MiB", "SDR")
        ]
        assert len({file.read_bytes() for file in files}) == 1


def test_its_numbers_are_those_of_a_comparison(demo, tmp_path):
    """The README's table over seeds is one; on two threads a run ends in other numbers."""
    settings = parse_settings(["optim.iterations=3", "data.batch_size=4"])
    base = RunBase(dataset="minivoc", task="6-4", overrides=(settings,))
    ((run,), _) = run_all([base.config("SDR", 1)], open_store(tmp_path))
    mine = load_run(demo[0] / "runs" / "SDR-seed1")
    assert run.metrics["steps"] == mine.metrics["steps"] and run.metrics["steps"]


def test_page_is_self_contained_and_has_pictures_of_every_method(demo):
    out, _ = demo
    page = (out / "report.html").read_text("utf-8")
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?https?:", page)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 2 + 1 + len(METHODS)  # curves, strips, a heat map for each
    for picture in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
        assert pixels.std() > 5
    alts = re.findall(r'alt="([^"]*)"', page)
    assert any(all(method in alt for method in METHODS) for alt in alts)
    assert "sparcl demo" in page


def test_table_names_every_method_with_deviation(demo):
    _, table = demo
    for method in METHODS:
        (line,) = (line for line in table.splitlines() if method in line.split())
        assert "±" in line


def test_a_second_demo_uses_the_runs_that_are_there(demo, capsys):
    out, table = demo
    trained = {p: p.stat().st_mtime_ns for p in out.rglob("checkpoint.pt")}
    settings = ["optim.iterations=3", "data.batch_size=4"]
    assert run_demo(out, "6-4", "disjoint", [0, 1], settings) == table
    assert {p: p.stat().st_mtime_ns for p in out.rglob("checkpoint.pt")} == trained
    shown = capsys.readouterr().err
    assert (
        "delete" in shown
        and f"FT, MiB, SDR, Joint: minutes on two cores, then a page in {out}" in shown
    )


def test_a_demo_of_other_settings_is_not_mixed_in(demo):
    with pytest.raises(UserError, match="optim.iterations=.*choose another --out"):
        run_demo(demo[0], "6-4", "disjoint", [0], ["optim.iterations=4", "data.batch_size=4"])


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"task": "7-7"}, "unknown task of minivoc '7-7'. Valid: offline, 6-4"),
        ({"settings": ["method.name=MiB"]}, "method.name='MiB' would name every method alike"),
        ({"out": "file"}, "cannot write .*file: Not a directory|File exists"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(demo, tmp_path, capsys, mistake, message):
    (tmp_path / "file").write_text("", "utf-8")
    given = {"task": "6-4", "settings": [], "out": "new"} | mistake
    with pytest.raises(UserError, match=message):
        run_demo(tmp_path / given["out"], given["task"], "disjoint", [0], given["settings"])
    assert capsys.readouterr().err == "" and not (tmp_path / "new" / "runs").exists()


def test_two_demos_at_once_are_one_line(tmp_path):
    with RunDirectory(tmp_path).written_by_one():
        with pytest.raises(UserError, match="another process writes into .*: wait until it has"):
            run_demo(tmp_path, "6-4", "disjoint", [0])


def test_what_did_not_finish_is_named_and_its_reason_stands_above(demo, tmp_path, capsys):
    settings = ["optim.iterations=3", "data.batch_size=4", "optim.lr=1e9"]
    with pytest.raises(
        UserError, match="^FT-seed0, MiB-seed0, SDR-seed0, Joint-seed0 did not fini"
    ):
        run_demo(tmp_path, "6-4", "disjoint", [0], settings, jobs=1)
    shown = capsys.readouterr().err
    assert "failed: step 0 of FT-seed0: the loss is not a number at FT step 0" in shown
    assert "failed: Joint-seed0: the loss is not a number at Joint step 0" in shown
    assert shown.count("failed: ") == 2 and "earlier steps" not in shown


def test_what_one_seed_cannot_show_is_as_measured_and_in_the_readme():
    """The page of one seed and the README, which has three, say the same about SDR and MiB."""
    studies = Path(__file__).parents[1] / "benchmarks" / "studies"
    seeds, parts = (
        pd.read_csv(studies / name / "results.csv").query("step == 1").set_index(["method", "seed"])
        for name in ("minivoc_seeds", "mib_parts")
    )
    sdr, mib = (seeds.miou_all[name].to_dict() for name in ("SDR", "MiB"))
    start = parts.miou_all["random start"].to_dict()
    lead, other = paired(sdr, mib), paired(start, sdr)
    measured = f"{lead.mean:.2f} points above MiB (95 % interval {range_text(lead)})"
    assert len(sdr) == 3 and lead.beyond and not other.beyond
    assert f"SDR ends {measured}" in OVER_SEEDS
    ends = (np.mean([*values.values()]) for values in (start, sdr))
    assert "reaches {:.1f}, where SDR reaches {:.1f}.".format(*ends) in OVER_SEEDS
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    assert OVER_SEEDS in " ".join(readme.split())


def test_only_the_plain_demo_of_one_seed_says_what_more_seeds_showed(demo):
    page = (demo[0] / "report.html").read_text("utf-8")
    assert OVER_SEEDS not in page and 'href="results.csv"' in page and 'href="results.json"' in page
