"""The study of a GPU at its smallest, on the CPU: every part measures, and goes on where it was."""

import json
import os
import runpy
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_voc_tree

from sparcl_lib.experiments.pool import one_thread

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "studies" / "gpu" / "gpu.py"
SHOWN = ([8], [12], [8, 12], [13], [17], [10], [13, 8], [10, 12])


@pytest.fixture
def study(monkeypatch):
    """The names of the script, whose own modules can be imported."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    yield runpy.run_path(str(SCRIPT))
    for name in [n for n in sys.modules if n.partition(".")[0] == "parts"]:
        del sys.modules[name]


def call(study, monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *map(str, arguments)])
    study["main"]()


def job_of(folder: Path, **more: object):
    from parts.items import Job

    (folder / "work").mkdir(exist_ok=True)
    return Job(folder, folder / "work", "cpu", time.time() + 600, True, **more)


def photographs(root: Path) -> Path:
    """Cat, dog, horse, sheep and cow, each in images to train on and to test on."""
    masks = {}
    for n, values in enumerate(SHOWN * 2):
        mask = np.zeros((40, 48), np.uint8)
        for place, value in enumerate(values):
            mask[10:20, 10 * place : 10 * place + 9] = value
        masks[f"image{n:02d}"] = mask
    return make_voc_tree(root, masks, val=list(masks)[len(SHOWN) :])


def test_an_item_that_fails_is_kept_with_its_traceback_and_stops_nothing(study, tmp_path):
    job = job_of(tmp_path)
    job.item("broken", 1, lambda: 1 / 0)
    job.item("whole", 1, lambda: {"value": 3})
    broken, whole = (json.loads(job.file(n).read_text("utf-8")) for n in ("broken", "whole"))
    assert "ZeroDivisionError" in broken["error"] and "1 / 0" in broken["trace"]
    assert whole["result"] == {"value": 3}
    job.item("whole", 1, lambda: pytest.fail("measured twice"))


def test_nothing_begins_that_would_not_end_in_time(study, tmp_path):
    from dataclasses import replace

    job = replace(job_of(tmp_path), tiny=False, until=time.time() + 5)
    job.item("long", 6, lambda: pytest.fail("begun"))
    assert not job.file("long").exists()


def test_what_a_part_leaves_running_ends_with_it(study, tmp_path, monkeypatch):
    """Loader processes of a run that was killed held the output open, for half a minute."""
    lines, writes = os.pipe()
    os.set_inheritable(writes, True)
    script = f"(sleep 600; echo left) >&{writes} & echo begun"
    inside = study["side_by_side"].__globals__
    monkeypatch.setitem(inside, "command_of", lambda *_: ["sh", "-c", script])
    monkeypatch.setattr(subprocess, "Popen", partial(subprocess.Popen, close_fds=False))
    arguments = SimpleNamespace(out=tmp_path, work=tmp_path, tiny=False)
    study["side_by_side"](arguments, [("real", "")], time.time() + 600)
    os.close(writes)
    assert os.read(lines, 4) == b""  # no writer is left
    os.close(lines)


def test_speed_and_losses_are_measured_and_packed(study, tmp_path, monkeypatch):
    from parts import speed

    job = job_of(tmp_path)
    with one_thread():
        speed.measure(job)
    (tmp_path / "device.json").write_text(json.dumps({"result": {"device": "CPU"}}), "utf-8")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")}
    call(study, monkeypatch, "--out", tmp_path, "--device", "cpu", "--tiny", "--parts", "none")
    assert before.items() <= {f: f.stat().st_mtime_ns for f in tmp_path.glob("*.json")}.items()
    found = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert not [item["error"] for item in found.values() if "error" in item]
    rows = [item["result"] for name, item in found.items() if name.startswith("speed-")]
    assert len(rows) == 7 and all(row["seconds"] > 0 and row["floor"] > 0 for row in rows)
    many = [found[f"speed-SDR-bf16-151-classes-{f}"]["result"] for f in ("strips", "plain")]
    losses = [pytest.approx(row["losses"], rel=0.02) for row in many]  # logits are of 16 bits
    assert many[0]["losses"] == losses[1] and many[0]["form"] == "strips"
    for name in ("latent-21", "latent-101"):
        for loss in ("matching", "attraction", "repulsion", "sparsification"):
            row = found[name]["result"][loss]
            assert row["value"] == pytest.approx(row["value of the loop"], rel=1e-4)
    study["write_tables"](found, tmp_path)
    assert (tmp_path / "speed.csv").read_text("utf-8").count("\n") == 8


@pytest.mark.filterwarnings(  # of torch 2.11's own compiler, as it is imported
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)
def test_networks_are_compiled_and_the_update_fused_where_that_is_measured(study, tmp_path):
    from parts import speed

    trainer, _ = speed.make_trainer(job_of(tmp_path), "SDR", "fp32", "channels last", 2, 32)
    speed.compiled(trainer)
    speed.fused(trainer)
    assert trainer.student._compiled_call_impl and trainer.teacher._compiled_call_impl
    assert all(group["fused"] for group in trainer.optimizer.param_groups)


def test_the_loader_is_measured(study, tmp_path):
    from parts import loader

    job = job_of(tmp_path, data_root=photographs(tmp_path / "voc"))
    loader.measure(job)
    assert json.loads(job.file("loader-0").read_text("utf-8"))["result"]["images per second"] > 0


@pytest.mark.slow
def test_a_run_is_killed_and_resumed_and_compared_with_one_that_was_not(
    study, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    call(study, monkeypatch, "--out", tmp_path, "--device", "cpu", "--tiny", "--parts", "resume")
    found = json.loads((tmp_path / "results.json").read_text("utf-8"))
    result = found["resume-deterministic-SDR"]["result"]
    assert [moment.partition(" of ")[2] for moment in result["killed after"]] == [
        "step 0",
        "step 1",
    ]
    for pair in ("a second time", "killed and resumed"):
        apart = result[pair]
        assert apart["the same bits"] and apart["largest difference of a weight"] == 0
        assert apart["largest weight"] > 0 and apart["mIoU"][0] == apart["mIoU"][1]
    study["write_tables"](found, tmp_path)
    assert (tmp_path / "resume.csv").read_text("utf-8").count("\n") == 3


@pytest.mark.slow
def test_steps_are_compared_and_real_runs_trained(study, tmp_path, monkeypatch):
    call(
        study, monkeypatch, "--out", tmp_path, "--device", "cpu", "--tiny", "--parts",
        "correct,real", "--data-root", photographs(tmp_path / "voc"), "--budget", 600,
    )  # fmt: skip
    found = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert not [item["error"] for item in found.values() if "error" in item]
    for method in ("FT", "SDR"):
        for row in found[f"correct-disjoint-{method}"]["result"].values():
            assert max(row["losses, relative difference"].values()) < 1e-5
            assert row["largest change of a weight"] > 0 and row["counts are equal"]
        assert len(found[f"real-256-fp32-{method}-0"]["result"]["steps"]) == 4
    with tarfile.open(tmp_path / "run-256-fp32.tar.gz") as packed:
        assert "run-256-fp32/step-3/checkpoint.pt" in packed.getnames()
