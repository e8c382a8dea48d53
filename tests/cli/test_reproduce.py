"""`sparcl recipes`, `train --recipe` and `reproduce`, from names to our numbers beside theirs."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import make_voc_tree, sparcl

from sparcl_lib.published.tables import recipes, table_names, tables

TINY = [
    "model.backbone=mini", "model.output_stride=4", "model.head=conv", "model.weights=null",
    "data.size=32", "data.workers=0", "optim.iterations=1", "data.batch_size=2",
]  # fmt: skip
SET = [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    """Every class in an image of its own, and three test images that show some each."""
    masks = {f"train{c:02}": _mask({0, c}) for c in range(1, 21)}
    masks |= {f"val{n}": _mask(set(range(n, 21, 3))) for n in range(3)}
    root = tmp_path_factory.mktemp("voc")
    make_voc_tree(root, masks, val=["val0", "val1", "val2"])
    return root


def _mask(values: set[int]) -> np.ndarray:
    mask = np.zeros((32, 40), dtype=np.uint8)
    for i, value in enumerate(sorted(values)):
        mask[4 * i : 4 * i + 4] = value
    return mask


def test_recipes_lists_tables_rows_and_the_source_of_every_number(capsys):
    status, text, _ = sparcl(capsys, "recipes")
    assert status == 0 and all(f"{name}, " in text for name in table_names())
    assert all(len(line) <= 80 for line in text.splitlines())
    status, text, _ = sparcl(capsys, "recipes", "sdr-voc")
    rows = tables()["sdr-voc"].rows
    assert all(re.search(rf"^{re.escape(r.name)} +\S", text, re.MULTILINE) for r in rows)
    status, text, _ = sparcl(capsys, "recipes", "voc-15-1-disjoint-sdr")
    assert "59.2 / 12.9 / 48.1" in text and "* method.variant = " in text
    assert "method.terms.released_matching.weight = 0.01" in text
    assert "of the published row unknown" in " ".join(text.split())
    assert "seeds are unknown" in text and all(len(line) <= 80 for line in text.splitlines())
    status, _, error = sparcl(capsys, "recipes", "voc-15-1-disjoint-SRD")
    assert status == 2 and "did you mean voc-15-1-disjoint-SDR" in error


def test_train_with_a_recipe_is_the_row_and_settings_win(voc, tmp_path, capsys):
    out = tmp_path / "run"
    done = sparcl(capsys, "train", "--recipe", "voc-19-1-disjoint-sdr", "--data-root", voc,
                  "--out", out, "--accelerator", "cpu", *SET)  # fmt: skip
    assert (done[0], done[2]) == (0, "")
    config = yaml.safe_load((out / "config.yaml").read_text("utf-8"))
    assert (config["task"], config["setup"], config["method"]["name"]) == (
        "19-1",
        "disjoint",
        "SDR",
    )
    assert config["method"]["terms"]["released_attraction"]["from_step"] == 1
    assert config["method"]["prototypes"] == "released" and config["model"]["batch_norm"] == "slow"
    assert config["data"]["size"] == 32 and config["optim"]["lr"] == [1e-3, 1e-4]


def test_the_weights_of_the_backbone_are_an_option_of_all_that_trains(tmp_path, capsys):
    """`train` alone had it."""
    weights = ("--backbone-weights", tmp_path / "no.pth")
    data = ("--dataset", "minivoc", "--out", tmp_path)
    (tmp_path / "space.yaml").write_text("optim.lr: [0.1]\n", "utf-8")
    search = ("--space", tmp_path / "space.yaml", "--trials", "1", "--storage", tmp_path / "j")
    for command in (
        ("compare", *data, "--tasks", "6-4", "--methods", "FT"),
        ("ablate", *data, "--task", "6-4", "--method", "MiB", "--terms", "kd"),
        ("sweep", *data, "--task", "6-4", "--method", "FT", *search),
    ):
        status, _, error = sparcl(capsys, *command, *weights)
        assert status == 2 and "no.pth does not exist" in error, command
        status, _, error = sparcl(capsys, *command, *weights, "--set", "model.weights=imagenet")
        assert status == 2 and "--set model.weights differ: give one of them" in error
    rows = ("reproduce", "--table", "sdr-voc", "--rows", "voc-19-1-disjoint-FT", "--out", tmp_path)
    status, printed, _ = sparcl(capsys, *rows, *weights)
    assert status == 0 and f"--set model.weights={tmp_path / 'no.pth'}" in printed
    status, printed, _ = sparcl(capsys, *rows, "--backbone-weights", "none")
    assert status == 0 and "--set model.weights=" in printed


def test_what_train_with_a_recipe_refuses(tmp_path, capsys):
    out = ("--out", tmp_path / "run")
    name = ("--recipe", "voc-15-1-disjoint-SDR")
    cases = [
        (("--recipe", "voc-15-1-disjont-SDR"), "did you mean voc-15-1-disjoint-SDR"),
        ((*name, "--method", "FT", "--setup", "disjoint"), "says --setup, --method: leave one"),
        (("--dataset", "voc", "--method", "FT"), "nothing to train: give --task, or --recipe NAME"),
        ((*name, "--set", "optim.lrr=1"), "did you mean optim.lr?"),
        ((*name, "--data-root", tmp_path / "none"), "is not a folder"),
    ]
    for arguments, message in cases:
        status, printed, error = sparcl(capsys, "train", *out, *arguments)
        assert status == 2 and printed == "" and message in error and "\n" not in error, arguments
    assert not (tmp_path / "run").exists()


def test_the_plan_is_a_shell_script_that_shares_step_0_and_says_what_it_costs(capsys):
    asked = ["--rows", "voc-15-1-disjoint-*", "--seeds", "0,1", "--set", "optim.power=1",
             "--accelerator", "cpu"]  # fmt: skip
    status, text, _ = sparcl(capsys, "reproduce", "--table", "sdr-voc", *asked)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert status == 0 and len(lines) == 14
    words = [shlex.split(line) for line in lines]
    assert [w[3] for w in words[:7]] == [
        f"voc-15-1-disjoint-{m}" for m in ("FT", "LwF", "ILT", "CIL", "MiB", "SDR", "SDR+MiB")
    ]
    assert all(w[:2] == ["sparcl", "train"] and "optim.power=1" in w for w in words)
    assert all(w[-2:] == ["--accelerator", "cpu"] for w in words)
    shared = [w[w.index("--start-from") + 1] if "--start-from" in w else None for w in words]
    first = "reproduction/voc-15-1-disjoint-FT-seed-"
    assert shared[:5] == [None, *[f"{first}0"] * 4] and shared[8] == f"{first}1"
    assert shared[5] is None and shared[6] == "reproduction/voc-15-1-disjoint-SDR-seed-0"
    assert all(("seed=1" in w) == (n >= 7) for n, w in enumerate(words))
    assert "# Estimates for one H200" in text and "voc-15-1-disjoint-FT-seed-0: about 0.6" in text
    assert re.search(r"# 14 runs, 0 done; to go: about \d\.\d h\n", text)


def test_run_trains_what_is_missing_and_sets_ours_beside_theirs(voc, tmp_path, capsys):
    out = tmp_path / "runs"
    command = ["reproduce", "--table", "sdr-voc", "--rows", "voc-19-1-disjoint-[FM]*", "--out", out,
               "--data-root", voc, "--accelerator", "cpu", *SET]  # fmt: skip
    status, text, error = sparcl(capsys, *command, "--run")
    assert (status, error) == (0, "")
    ft, mib = (out / f"voc-19-1-disjoint-{m}-seed-0" for m in ("FT", "MiB"))
    steps = [(place / "step-0" / "checkpoint.pt").read_bytes() for place in (ft, mib)]
    assert steps[0] == steps[1] and not (mib / "logs" / "step-0").exists()
    shown = " ".join(text.split())
    assert "published all difference" in shown and re.search(r"disjoint-FT 1 .* 34\.2 -\d", shown)
    assert "- setting: data.size=32 in place of 512" in text
    assert "- setting: the backbone starts from random weights" in text
    assert "- data: 19, 1 training images a step, published 10034, 548" in text
    assert "- seeds: 0" in text and "- the weights of SDR's losses" in text
    table = pd.read_csv(out / "sdr-voc.csv")
    assert table["row"].tolist() == ["voc-19-1-disjoint-FT", "voc-19-1-disjoint-MiB"]
    last = json.loads((ft / "metrics.json").read_text("utf-8"))["steps"][-1]
    assert table["all"][0] == pytest.approx(last["miou_all"], abs=1e-3)
    assert table["difference"][0] == pytest.approx(last["miou_all"] - 34.2, abs=1e-3)

    before = {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint.pt")}
    status, text, _ = sparcl(capsys, *command)
    assert "2 runs, 2 done; to go: about 0.0 h" in text and "-seed-0: cost unknown; done" in text
    assert all(line.startswith(("#", "sparcl train")) for line in text.splitlines())
    assert "# - setting: data.size=32 in place of 512" in text
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint.pt")}
    other = [*command, "--set", "optim.iterations=9"]  # was taken for done
    status, _, error = sparcl(capsys, *other, "--run")
    assert (
        status == 1 and "holds a run with optim.iterations=" in error and "choose another" in error
    )
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint.pt")}


def test_no_published_number_stands_beside_another_test(voc, tmp_path, capsys):
    out = tmp_path / "runs"
    status, text, _ = sparcl(
        capsys, "reproduce", "--table", "sdr-voc", "--rows", "voc-19-1-disjoint-FT", "--out", out,
        "--data-root", voc, "--run", "--accelerator", "cpu", *SET, "--set", "data.test=whole",
    )  # fmt: skip
    table = pd.read_csv(out / "sdr-voc.csv")
    assert status == 0 and table["all"].notna().all() and "data.test=whole" in text
    assert table[["published_all", "published_source", "difference"]].isna().all(axis=None)


def test_a_row_that_fails_is_named_and_the_others_go_on(voc, tmp_path, capsys):
    out = tmp_path / "runs"
    taken = out / "mib-voc-19-1-disjoint-FT-seed-0"
    taken.parent.mkdir()
    taken.write_text("a file where a run should be", "utf-8")
    status, text, error = sparcl(
        capsys, "reproduce", "--table", "mib-voc", "--rows",
        "mib-voc-19-1-disjoint-FT,mib-voc-19-1-disjoint-LwF", "--out", out, "--data-root", voc,
        "--run", "--accelerator", "cpu", *SET,
    )  # fmt: skip
    assert status == 1 and error.startswith("sparcl: failed: mib-voc-19-1-disjoint-FT-seed-0: ")
    assert "means without background" in text and "disjoint-LwF" in text
    metrics = json.loads((out / "mib-voc-19-1-disjoint-LwF-seed-0/metrics.json").read_text("utf-8"))
    table = pd.read_csv(out / "mib-voc.csv")
    assert table["all"][0] == pytest.approx(metrics["steps"][-1]["miou_all_no_bg"], abs=1e-3)
    assert table["published_all"].tolist() == [50.8]


def test_what_reproduce_refuses(capsys):
    for arguments, message in [
        (("--table", "sdr-vok"), "did you mean 'sdr-voc'"),
        (("--table", "sdr-voc", "--rows", "voc-15-1-disjont-*"), "no row of sdr-voc is"),
        (("--table", "sdr-voc", "--seeds", "a"), "--seeds a: expected numbers"),
        (("--table", "sdr-voc", "--set", "seed=1"), "give it by the option --seeds"),
    ]:
        status, printed, error = sparcl(capsys, "reproduce", *arguments)
        assert status == 2 and printed == "" and message in error and "\n" not in error, arguments


def test_a_shell_completes_names():
    for words, known in [
        ("sparcl train --recipe voc-15-1-disjoint-S", "voc-15-1-disjoint-SDR"),
        ("sparcl reproduce --table sdr", "sdr-voc-10-1"),
        ("sparcl recipes mib-voc-19-1-o", "mib-voc-19-1-overlapped-EWC"),
    ]:
        asked = {"_SPARCL_COMPLETE": "complete_bash", "COMP_WORDS": words,
                 "COMP_CWORD": str(len(words.split()) - 1)}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "sparcl_lib"], env={**os.environ, **asked},
            capture_output=True, text=True,
        )  # fmt: skip
        last = words.split()[-1]
        offered = done.stdout.split()
        assert known in offered and all(name.startswith(last) for name in offered)
        assert set(offered) <= {*recipes(), *table_names()}
