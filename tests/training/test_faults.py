"""Runs that were killed, damaged or edited: refused in one line, or gone on with as if nothing was.

Each is tried in every way that reads a run.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PATIENCE

from sparcl_lib import load_run
from sparcl_lib.config import RunConfig, parse_settings, resolve
from sparcl_lib.data.minivoc import generate
from sparcl_lib.errors import LossDiverged, UserError
from sparcl_lib.report import load_runs
from sparcl_lib.training import RunDirectory, evaluate, runner, train

QUICK = ["optim.iterations=2", "data.batch_size=4", "data.workers=0"]
LONE = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")}


@pytest.fixture(scope="module")
def mini(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("faults") / "minivoc"
    generate(root, train=40, val=8, progress=False)
    return root


def config(mini: Path, *settings: str, method: str = "MiB") -> RunConfig:
    layers = [parse_settings([*QUICK, *settings])]
    return resolve("minivoc", method, layers, task="6-4", data_root=str(mini))


@pytest.fixture(scope="module")
def undisturbed(mini, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(config(mini), out, accelerator="cpu")
    return out


@pytest.fixture
def run(undisturbed, tmp_path) -> Path:
    shutil.copytree(undisturbed, tmp_path / "run")
    return tmp_path / "run"


def results(run: Path) -> dict[str, Any]:
    """Metrics without times."""
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    del metrics["seconds"], metrics["sha256"]
    return metrics


def same_networks(one: Path, other: Path) -> bool:
    """And the same tests of them, prototypes and pictures."""
    for step in (0, 1):
        a, b = (RunDirectory(run).load_checkpoint(step) for run in (one, other))
        tensors = [(a[k][n], b[k][n]) for k in ("model", "bank") for n in a[k]]
        if not all(torch.equal(x, y) for x, y in [*tensors, (a["confusion"], b["confusion"])]):
            return False
        x, y = (RunDirectory(run).predictions(step) for run in (one, other))
        if x is None or y is None or not all(np.array_equal(x[k], y[k]) for k in x):
            return False
    return True


def ways(mini: Path, run: Path) -> dict[str, Callable[[], object]]:
    return {
        "evaluate": lambda: evaluate(run, accelerator="cpu"),
        "resume": lambda: train(config(mini), run, resume=True, accelerator="cpu"),
        "start from": lambda: train(config(mini), run.parent / "new", start_from=run,
                                    accelerator="cpu"),
        "network": lambda: load_run(run).model(0),
    }  # fmt: skip


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# A damaged checkpoint
def test_twenty_flipped_bits_of_step_0_are_refused_by_every_way(mini, run):
    file, draw = run / "step-0" / "checkpoint.pt", random.Random(20)
    whole, before = file.read_bytes(), results(run)
    for n in range(20):
        place = draw.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        file.write_bytes(bytes(damaged))
        known = ways(mini, run)
        for way in known if n == 0 else [list(known)[n % len(known)]]:
            refused(known[way], "cannot read .*step-0.checkpoint.pt: it is damaged.*train step 0")
    assert results(run) == before and not (run.parent / "new" / "step-0").exists()
    file.write_bytes(whole)
    assert evaluate(run, accelerator="cpu")["steps"] == before["steps"]


def test_another_step_stray_folders_and_weights_alone(mini, run):
    kept = (run / "step-0" / "checkpoint.pt").read_bytes()
    for name in ("step-²", "step-x", "step-", "step-007"):
        shutil.copytree(run / "step-0", run / name)
    before = results(run)
    assert evaluate(run, accelerator="cpu")["steps"] == before["steps"], "they are nobody's"
    shutil.copytree(run / "step-0", run / "step-7")
    for way in ("evaluate", "resume"):
        refused(ways(mini, run)[way], "step-7.checkpoint.pt: it is the checkpoint of step 0: del")
    shutil.rmtree(run / "step-7")
    shutil.copy(run / "step-1" / "checkpoint.pt", run / "step-0" / "checkpoint.pt")
    for call in ways(mini, run).values():
        refused(call, "step-0.checkpoint.pt: it is the checkpoint of step 1: delete it and train")
    (run / "step-0" / "checkpoint.pt").write_bytes(kept)
    weights = RunDirectory(run).load_checkpoint(0)["model"]
    torch.save(weights, run / "step-0" / "checkpoint.pt")
    for call in ways(mini, run).values():
        refused(call, "step-0.checkpoint.pt: it holds weights alone, not the state of a step")


def test_weights_that_became_nan_in_training_are_never_saved(mini, tmp_path, monkeypatch):
    fit = runner.StepTrainer.fit

    def spoiling(self, *arguments):
        fit(self, *arguments)
        self.student.head[0].weight.data[0] = float("nan")

    monkeypatch.setattr(runner.StepTrainer, "fit", spoiling)
    with pytest.raises(
        LossDiverged, match="is not a number after MiB step 0, in head.0.weight: not saved; lower"
    ):
        train(config(mini), tmp_path / "run", accelerator="cpu")
    assert RunDirectory(tmp_path / "run").steps_done() == []


# Files that were edited
EDITED = {
    "{": "it is no JSON",
    "[]": "it holds no group of names",
    '{"classes": 3, "steps": [], "seconds": []}': "task is None",
}


@pytest.mark.parametrize(("text", "message"), EDITED.items(), ids=["cut", "list", "names"])
def test_metrics_that_are_none_are_refused_by_readers_and_mended_by_evaluate(run, text, message):
    before = results(run)
    (run / "metrics.json").write_text(text, "utf-8")
    told = f"cannot read .*metrics.json: {message}.*: delete it, then run sparcl evaluate .*run"
    for call in (lambda: load_run(run), lambda: load_runs([run])):
        refused(call, told)
    (run / "metrics.json").unlink()  # as it is said
    evaluate(run, accelerator="cpu")
    assert results(run) == before


def test_an_miou_of_900_is_refused(run):
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    metrics["steps"][-1]["miou_all"] = 900.0
    (run / "metrics.json").write_text(json.dumps(metrics), "utf-8")
    for call in (lambda: load_run(run), lambda: load_runs([run])):
        refused(call, "miou_all of step 1 is 900.0, its classes make ")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text"])
def test_spoiled_predictions_are_refused_and_mended_by_evaluate(mini, run, undisturbed, content):
    file = run / "step-1" / "predictions.npz"
    file.write_bytes(content)
    told = "cannot read .*predictions.npz: it is damaged.*: delete it, then run sparcl evaluate"
    refused(lambda: load_runs([run]), told)
    refused(lambda: load_run(run).plot_predictions(), told)
    evaluate(run, accelerator="cpu")
    assert same_networks(run, undisturbed)


def test_settings_that_were_edited_are_not_predicted_with(run):
    """Another data.size in config.yaml gave other maps, silently; evaluate and resume saw it."""
    image = np.full((48, 64, 3), 128, dtype=np.uint8)
    assert load_run(run).predict(image, device="cpu").shape == (48, 64)
    text = (run / "config.yaml").read_text("utf-8")
    (run / "config.yaml").write_text(text.replace("  size: 64", "  size: 65"), "utf-8")
    assert "  size: 65" in (run / "config.yaml").read_text("utf-8")
    loaded = load_run(run)
    for call in (loaded.model, loaded.confusion, lambda: loaded.predict(image)):
        refused(
            call, r"step-1.checkpoint.pt was trained with other settings \(data.size=64, not 65"
        )
    refused(lambda: loaded.model(0), r"step-0.checkpoint.pt .*data.size \(64 there, 65 here\)")


def test_a_spoiled_log_is_named(run):
    (run / "logs" / "step-1" / "metrics.csv").write_bytes(b"\xff\x00")
    refused(lambda: load_run(run).log(1), "cannot read .*logs.step-1.metrics.csv")


# Stopped at another moment than between two steps
@pytest.mark.parametrize("step", [0, 1])
def test_a_step_that_was_stopped_in_its_test_is_not_trained_again(
    mini, undisturbed, tmp_path, monkeypatch, step
):
    """The trained step was lost."""
    out, test = tmp_path / "run", runner.confusion_matrix

    def stop(fabric, model, batches, num_classes, label="", *more, **others):
        if label.endswith(str(step)):
            raise KeyboardInterrupt
        return test(fabric, model, batches, num_classes, label, *more, **others)

    monkeypatch.setattr(runner, "confusion_matrix", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config(mini), out, accelerator="cpu")
    assert RunDirectory(out).steps_done() == list(range(step + 1))
    assert "confusion" not in RunDirectory(out).load_checkpoint(step)
    monkeypatch.setattr(runner, "confusion_matrix", test)
    before = RunDirectory(out).load_checkpoint(step)["model"]
    train(config(mini), out, resume=True, accelerator="cpu")
    after = RunDirectory(out).load_checkpoint(step)["model"]
    assert all(torch.equal(v, after[name]) for name, v in before.items())
    assert same_networks(out, undisturbed) and results(out) == results(undisturbed)


def test_another_run_starts_from_a_step_0_that_was_not_tested(mini, run, undisturbed, tmp_path):
    state = RunDirectory(run).load_checkpoint(0)
    for key in ("confusion", "evaluated", "evaluation_sha256"):
        del state[key]
    RunDirectory(run).save_checkpoint(0, state)
    train(config(mini), tmp_path / "other", start_from=run, accelerator="cpu")
    assert same_networks(tmp_path / "other", undisturbed)


def command(mini: Path, out: Path, *more: str) -> list[str]:
    settings = [part for setting in QUICK for part in ("--set", setting)]
    return [
        sys.executable, "-m", "sparcl_lib", "train", "--dataset", "minivoc", "--task", "6-4",
        "--data-root", str(mini), "--method", "MiB", "--accelerator", "cpu", "--out", str(out),
        *settings, *more,
    ]  # fmt: skip


LONG = ("--set", "optim.iterations=100000")


def begun(mini: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    """A training that would go on for an hour, once it trains."""
    process = subprocess.Popen(
        command(mini, out, *LONG, *more), env=LONE, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not list(out.glob("logs/step-0/*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    return process


def ours(text: str) -> list[str]:
    """Lines that are no progress bars and no warnings of Lightning about this machine."""
    return [line for line in re.split(r"[\r\n]+", text) if line.startswith("sparcl:")]


def test_two_trainings_into_one_folder_and_a_sigterm(mini, tmp_path):
    """Logs of one stood in the folder of the other; the end was silent."""
    out = tmp_path / "run"
    first = begun(mini, out)
    try:
        second = subprocess.run(command(mini, out), env=LONE, capture_output=True, text=True)
        assert second.returncode == 2
        assert second.stderr.strip() == (
            f"sparcl: another process writes into {out}: wait until it has ended, or choose "
            "another --out"
        )
        first.send_signal(signal.SIGTERM)
        _, errors = first.communicate(timeout=PATIENCE)
    finally:
        first.kill()
    assert first.returncode == 128 + signal.SIGTERM and "Traceback" not in errors
    assert ours(errors) == ["sparcl: terminated; the same command with --resume goes on from here"]
    third = subprocess.run(command(mini, out), env=LONE, capture_output=True, text=True)
    assert third.returncode == 0, third.stderr


@pytest.mark.slow
def test_a_sigterm_to_several_runs_is_one_line(mini, tmp_path):
    """Python went on: of two leaked semaphores, which were tqdm's locks in the ended processes."""
    store = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-m", "sparcl_lib", "compare", "--dataset", "minivoc", "--data-root",
         str(mini), "--tasks", "6-4", "--methods", "FT", "--seeds", "0,1", "--jobs", "2", "--out",
         str(tmp_path / "out"), "--store", str(store), "--accelerator", "cpu", "--set",
         "data.size=32", "--set", "optim.iterations=100000"],
        env=LONE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while len([*store.rglob("logs/step-0")]) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert re.split(r"[\r\n]+", errors.strip())[-1] == (
        "sparcl: terminated; the same command goes on from here"
    )


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["first", "all"])
def test_a_sigterm_on_two_devices_is_one_line(mini, tmp_path, whom):
    process = begun(mini, tmp_path / "run", "--devices", "2")
    try:
        time.sleep(1)
        children = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
        ).stdout.split()
        for pid in [process.pid, *(map(int, children) if whom == "all" else ())]:
            os.kill(pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors and len(ours(errors)) == 1, errors
    for pid in map(int, children):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.slow
def test_a_failing_loss_is_told_once_by_two_devices(mini, tmp_path):
    failing = command(mini, tmp_path / "run", "--devices", "2", "--set", "optim.lr=1e30",
                      "--set", "optim.iterations=50")  # fmt: skip
    done = subprocess.run(failing, env=LONE, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    (line,) = ours(done.stderr)
    assert "not a number" in line


def test_what_a_killed_writer_left_is_removed_by_the_next_run(mini, run):
    """They stayed for ever."""
    left = run / "step-1" / ".checkpoint.pt.k2j4h5.pt"
    left.write_bytes(b"half")
    train(config(mini), run, resume=True, accelerator="cpu")
    assert not left.exists()


def test_a_step_that_is_gone_stays_in_metrics_json(run):
    """`evaluate` wrote metrics.json anew without it: its numbers were lost, nothing was said."""
    before = (run / "metrics.json").read_bytes()
    shutil.move(run / "step-0", run.parent / "elsewhere")
    files = sorted(run.rglob("*"))
    with pytest.raises(UserError, match="no checkpoint of step 0 any more, .*: restore .*step-0"):
        evaluate(run, accelerator="cpu")
    assert (run / "metrics.json").read_bytes() == before and sorted(run.rglob("*")) == files
    shutil.move(run.parent / "elsewhere", run / "step-0")
    (run / "step-1" / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match="no checkpoint of step 1 any more, .*sparcl train --res"):
        evaluate(run, accelerator="cpu")
    assert (run / "metrics.json").read_bytes() == before


def test_training_one_step_does_not_lose_another(mini, run):
    before = (run / "metrics.json").read_bytes()
    (run / "step-1" / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match="no checkpoint of step 1 any more"):
        train(config(mini), run, steps=[0], resume=True, accelerator="cpu")
    assert (run / "metrics.json").read_bytes() == before
    train(config(mini), run, resume=True, accelerator="cpu")
    assert json.loads(before)["steps"] == results(run)["steps"]


def of_the_allocator() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    return caught.value


NO_MEMORY = {
    "of a GPU": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "of Python": MemoryError,
    "of torch on a CPU": of_the_allocator,
    "of a loader": lambda: RuntimeError(f"Caught RuntimeError in worker 0.\n{of_the_allocator()}"),
}


@pytest.mark.parametrize("name", NO_MEMORY)
@pytest.mark.parametrize("place", ["_fit", "_evaluate"])
def test_lack_of_memory_is_told_in_one_line(mini, run, monkeypatch, name, place):
    """data.size=2048 with data.batch_size=32 ended in a traceback of thirty lines."""

    def fail(*_: object) -> None:
        raise NO_MEMORY[name]()

    shutil.rmtree(run / "step-1")
    monkeypatch.setattr(runner, place, fail)
    expected = (
        r"^this run does not fit into the memory \(cpu\): lower data.batch_size or data.size; "
        "finished steps are kept$"
    )
    with pytest.raises(UserError, match=expected):
        train(config(mini), run, resume=True, accelerator="cpu")
    assert RunDirectory(run).steps_done()[0] == 0
    if place == "_evaluate":
        with pytest.raises(UserError, match=expected):
            evaluate(run, accelerator="cpu")


def test_other_errors_of_torch_are_not_taken_for_lack_of_memory(mini, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

    monkeypatch.setattr(runner, "_fit", fail)
    with pytest.raises(RuntimeError, match="^The size of tensor a") as caught:
        train(config(mini), tmp_path / "run", accelerator="cpu")
    assert not isinstance(caught.value, UserError)


def test_values_of_steps_that_the_task_does_not_have_are_told(mini, tmp_path, capsys):
    asked = "optim.lr=[0.01,0.01,0.02]", "method.terms.kd.weight=1", "method.terms.kd.from_step=2"
    train(config(mini, *asked), tmp_path / "run", steps=[0], accelerator="cpu")
    told = [line for line in capsys.readouterr().err.splitlines() if "has 2 steps" in line]
    assert told == [
        f"{tmp_path / 'run'}: optim.lr has 3 values, and task 6-4 has 2 steps: the first 2 act, "
        "the others wait for steps that are appended",
        f"{tmp_path / 'run'}: method.terms.kd.from_step=2, and task 6-4 has 2 steps: it acts in "
        "none",
    ]
    train(config(mini), tmp_path / "other", steps=[0], accelerator="cpu")
    assert "has 3 values" not in capsys.readouterr().err
