"""A run on disk: whole files or none, and clear words for files that are not right."""

import io
import os
import pickle
import resource
import stat
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fabricated_runs import make_pictures, make_run
from states import make_state

from sparcl_lib.config import first_step_difference, parse_settings, resolve
from sparcl_lib.errors import UserError
from sparcl_lib.training import run_directory, runner
from sparcl_lib.training.checkpoint import write_checkpoint
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.writing import appearing_whole, write_atomically, write_text


def config(*settings: str, method: str = "FT"):
    return resolve("minivoc", method, [parse_settings(settings)], task="6-1")


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def files(folder) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


class Stopped(Exception):
    """Anything that ends a writer: Ctrl-C, a bug, a full disk."""


@pytest.mark.parametrize("stop", [Stopped, KeyboardInterrupt])
def test_a_failing_writer_leaves_the_old_file(tmp_path, stop):
    file = tmp_path / "metrics.json"
    write_atomically(file, lambda draft: draft.write_text("old", "utf-8"))

    def fail(draft):
        draft.write_text("half", "utf-8")
        raise stop

    with pytest.raises(stop):
        write_atomically(file, fail)
    assert file.read_text("utf-8") == "old" and files(tmp_path) == {"metrics.json"}


def test_write_makes_folders_and_replaces(tmp_path):
    file = tmp_path / "a" / "b" / "x.txt"
    for text in ("one", "two"):
        write_atomically(file, lambda draft, text=text: draft.write_text(text, "utf-8"))
        assert file.read_text("utf-8") == text
    assert files(tmp_path) == {"a/b/x.txt"}


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "x", lambda draft: draft.write_text("x", "utf-8"))
    finally:
        assert os.umask(before) == umask
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


def test_a_place_that_cannot_be_written(tmp_path):
    """A file where a folder should be: refused for root as well."""
    (tmp_path / "file").write_text("here", "utf-8")
    for run in (RunDirectory(tmp_path / "file"), RunDirectory(tmp_path / "file" / "run")):
        with pytest.raises(UserError, match="cannot write .*file.*; free space, permit"):
            run.open_for_writing(config())
    assert (tmp_path / "file").read_text("utf-8") == "here"


@pytest.mark.parametrize("kind", ["checkpoint", "predictions", "metrics"])
def test_a_full_disk(run, kind):
    """As simulated by a limit on the size of a file."""
    big = {
        "checkpoint": lambda: run.save_checkpoint(0, {"x": torch.zeros(100_000)}),
        "predictions": lambda: run.save_predictions(0, {"x": np.random.rand(100_000)}),
        "metrics": lambda: run.save_metrics({"x": [0] * 100_000}),
    }
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(
            UserError, match="cannot write .*; free space, permit writing there, or cho"
        ):
            big[kind]()
        with pytest.raises(UserError, match="File too large") as error:
            big[kind]()
        assert "cc:" not in str(error.value) and "\n" not in str(error.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(run.path) == set()


def test_config_is_kept(run):
    run.open_for_writing(config("optim.lr=[1e-3, 1e-5]"))
    assert run.config() == config("optim.lr=[1e-3, 1e-5]")
    before = run.config_file.read_bytes()
    run.open_for_writing(config("optim.lr=[1e-3, 1e-5]"))
    assert run.config_file.read_bytes() == before and files(run.path) == {"config.yaml"}


OTHERS = {
    "seed=1": "seed=0, not 1",
    "optim.lr=0.5": r"optim.lr=.*, not \[0.5\]",
    "data.scale=[0.5, 1]": "data.scale=None, not .0.5, 1.0",
    "method.terms.ce.unbiased=true": "method.terms.ce.unbiased=False, not True",
    "method.terms.kd.weight=3": "method.terms.kd.weight=None, not 3",
    "method.terms.repulsion={}": "method.terms.repulsion",
    "method.terms.repulsion=null": "method.terms.repulsion",
}


@pytest.mark.parametrize("setting, message", OTHERS.items(), ids=OTHERS)
def test_another_config_is_refused(run, setting, message):
    run.open_for_writing(config())
    run.save_checkpoint(0, {})
    run.metrics_file.write_text("{}", "utf-8")
    with pytest.raises(UserError, match=f"holds a run with {message}.*: choose another --out"):
        run.open_for_writing(config(setting))
    assert run.config() == config()


@pytest.mark.parametrize("setting", OTHERS)
def test_until_step_0_is_tested_what_acts_later_may_change(run, setting):
    run.open_for_writing(config())
    run.save_checkpoint(0, {})
    acts_later = first_step_difference(config(setting), config()) is None
    with nullcontext() if acts_later else pytest.raises(UserError, match="holds a run with"):
        run.open_for_writing(config(setting))
    assert run.config() == config(*[setting] * acts_later)


def test_a_run_without_a_finished_step_takes_the_new_config(run):
    run.open_for_writing(config())
    run.open_for_writing(config("seed=1"))
    assert run.config() == config("seed=1")


def test_another_method_is_refused(run):
    run.open_for_writing(config())
    run.save_checkpoint(0, {})
    with pytest.raises(UserError, match="method.name=FT, not Joint"):
        run.open_for_writing(config(method="Joint"))


def test_no_run_or_a_spoiled_config(run):
    with pytest.raises(UserError, match="it has no config.yaml; give the out of a training"):
        run.config()
    run.open_for_writing(config())
    spoiled = {
        "{": "cannot read .*config.yaml",
        "- 1": "config.yaml must hold",
        "x: 1": "cannot read .*config.yaml: unknown setting 'x'",
        "seed: -1": "cannot read .*config.yaml: .*(seed|incomplete)",
    }
    for text, message in spoiled.items():
        run.config_file.write_text(text, "utf-8")
        with pytest.raises(UserError, match=message):
            run.config()


def test_checkpoint_round_trip(run):
    assert run.steps_done() == []
    state = make_state(10, config={"setup": "disjoint", "x": [0.1, None]})
    for step in (10, 0, 2):
        run.save_checkpoint(step, state)
    assert run.steps_done() == [0, 2, 10]
    loaded = run.load_checkpoint(10)
    assert all(torch.equal(v, loaded["model"][name]) for name, v in state["model"].items())
    assert loaded["config"] == {"setup": "disjoint", "x": [0.1, None]}


def test_a_record_is_the_file_without_its_networks_and_read_once(run, monkeypatch):
    reads = []
    reader = run_directory.read_checkpoint
    monkeypatch.setattr(
        run_directory, "read_checkpoint", lambda *asked: reads.append(asked) or reader(*asked)
    )
    for seconds in (1.0, 2.0):
        state = make_state(seconds=seconds)
        write_atomically(run.checkpoint_file(0), partial(write_checkpoint, state))
        for _ in range(3):
            record = run.record(0)
            assert record["seconds"] == seconds and record.keys().isdisjoint({"model", "bank"})
    assert len(reads) == 2  # the file that was replaced is read again
    run.save_checkpoint(0, make_state(seconds=3.0))
    assert run.record(0)["seconds"] == 3.0 and len(reads) == 2
    record["seconds"] = 9.0
    assert run.record(0)["seconds"] == 3.0
    run.forget_record(0)
    assert run.record(0)["seconds"] == 3.0 and len(reads) == 3
    run.checkpoint_file(0).unlink()
    with pytest.raises(UserError, match="no checkpoint of step 0"):
        run.record(0)


def test_other_folders_are_no_steps(run):
    run.save_checkpoint(1, {})
    for name in ("step-x", "step-", "other", "step-²", "step--1", "step-01", "step-1 ", "Step-2"):
        (run.path / name).mkdir()
        (run.path / name / "checkpoint.pt").write_text("", "utf-8")
    (run.path / "step-3").mkdir()
    assert run.steps_done() == [1]


GARBAGE = {
    "empty": b"",
    "text": b"hello world",
    "yaml": b"a: 1\n",
    "zeros": bytes(1000),
    "random": bytes(range(7, 256, 3)),
    "pickle": pickle.dumps({"a": 1}),
    "object": pickle.dumps(Stopped("x"), protocol=2),
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_checkpoint_that_cannot_be_read(run, content):
    run.save_checkpoint(3, {})
    run.checkpoint_file(3).write_bytes(content)
    with pytest.raises(UserError, match="cannot read .*: delete it and train step 3 again"):
        run.load_checkpoint(3)


def test_missing_checkpoint(run):
    message = r"no checkpoint of step 2 in .*run: train step 2 first \(--steps 2\)"
    with pytest.raises(UserError, match=message):
        run.load_checkpoint(2)


def test_metrics(run):
    with pytest.raises(UserError, match="has no metrics.json: train it first"):
        run.metrics()
    metrics = make_run("FT").metrics
    run.save_metrics(metrics)
    assert run.metrics() == metrics
    for content in (b"", b"{", b"\xff\xfe", b"{}", b"[]", b"null"):
        run.metrics_file.write_bytes(content)
        with pytest.raises(
            UserError, match="cannot read .*metrics.json: .*: delete it, then run sparcl"
        ):
            run.metrics()


def test_predictions(run):
    assert run.predictions(0) is None
    arrays = make_pictures()
    run.save_predictions(0, arrays)
    loaded = run.predictions(0)
    assert loaded.keys() == arrays.keys()
    assert all(np.array_equal(loaded[k], arrays[k]) for k in arrays)
    assert files(run.path) == {"step-0/predictions.npz"}


def array_bytes() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


def write_predictions(file: Path, **arrays: object) -> None:
    np.savez(file, **{**make_pictures(), **arrays})


SPOILED = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("hello", "utf-8"),
    "no arrays": lambda file: np.savez(file),
    "pickled": lambda file: write_predictions(file, truth=np.array([{1: 2}], dtype=object)),
    "a pickle": lambda file: file.write_bytes(pickle.dumps({"truth": 1})),
    "one array": lambda file: file.write_bytes(array_bytes()),
    "floats": lambda file: write_predictions(file, truth=np.zeros((6, 64, 64))),
    "other sizes": lambda file: write_predictions(file, truth=np.zeros((6, 8, 8), np.uint8)),
    "flat": lambda file: write_predictions(file, truth=np.zeros(6, np.uint8)),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-400]),
    "flipped": lambda file: file.write_bytes(
        file.read_bytes()[:300] + bytes([file.read_bytes()[300] ^ 1]) + file.read_bytes()[301:]
    ),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_spoiled_predictions(run, spoil):
    run.save_predictions(0, make_pictures())
    spoil(run.predictions_file(0))
    message = "cannot read .*predictions.npz: .*: delete it, then run sparcl evaluate .*run$"
    with pytest.raises(UserError, match=message):
        run.predictions(0)


def test_a_folder_is_written_by_one_process_at_a_time(run):
    with run.written_by_one():
        script = (
            "import sys; from sparcl_lib.training.run_directory import RunDirectory\n"
            "with RunDirectory(sys.argv[1]).written_by_one(): pass"
        )
        other = [sys.executable, "-c", script, str(run.path)]
        done = subprocess.run(other, capture_output=True, text=True)
        assert done.returncode == 1 and "another process writes into" in done.stderr
        with (
            pytest.raises(UserError, match="another process writes into .*run: wait until"),
            run.written_by_one(),
        ):
            pass
    assert subprocess.run(other, capture_output=True, text=True).returncode == 0


def test_drafts_of_killed_writers_are_removed(run):
    (run.path / "step-0").mkdir(parents=True)
    left = [".config.yaml.ab12.yaml", ".metrics.json.x.json", "step-0/.checkpoint.pt.q.pt"]
    for name in [*left, "step-0/.predictions.npz._7.npz", ".mine.pt", "step-0/.checkpoint.pt"]:
        (run.path / name).write_text("half", "utf-8")
    with run.written_by_one():
        assert files(run.path) == {".lock", ".mine.pt", "step-0/.checkpoint.pt"}


def test_a_place_that_cannot_be_locked(tmp_path):
    (tmp_path / "file").write_text("here", "utf-8")
    with (
        pytest.raises(UserError, match="cannot write .*file.*; permit writing there, or choose"),
        RunDirectory(tmp_path / "file" / "run").written_by_one(),
    ):
        pass


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_draft_of_a_killed_writer_is_removed_after_a_day(tmp_path, kind):
    """MiniVOC killed half-way left its folder beside the whole one for ever, a page its draft."""
    suffix = ".html" if kind == "file" else ""
    old, new = (tmp_path / f".out{suffix}.draft-{name}{suffix}" for name in ("old", "new"))
    others = [tmp_path / f".out{suffix}.mine{suffix}", tmp_path / f".other.draft-old{suffix}"]
    for path in (old, new, *others):
        path.mkdir() if kind == "folder" else path.write_text("x", "utf-8")
    if kind == "folder":
        (old / "inner").write_text("x", "utf-8")
    for path in (old, *others):
        os.utime(path, (time.time() - 90_000,) * 2)
    if kind == "file":
        write_text(tmp_path / "out.html", "whole")
    else:
        with appearing_whole(tmp_path / "out", "") as draft:
            (draft / "a").write_text("whole", "utf-8")
    assert {p.name for p in tmp_path.iterdir()} == {
        f"out{suffix}", new.name, *(path.name for path in others)
    }  # fmt: skip


def test_a_draft_is_named_as_one(tmp_path):
    """By the name by which a later writer knows it."""
    seen = []
    write_atomically(tmp_path / "a.txt", lambda draft: seen.append(draft.name))
    with appearing_whole(tmp_path / "b", "") as draft:
        seen.append(draft.parent.name)
    assert seen[0].startswith(".a.txt.draft-") and seen[0].endswith(".txt")
    assert seen[1].startswith(".b.draft-")


@pytest.mark.parametrize("tensorboard", [True, False])
def test_the_log_is_written_for_tensorboard_unless_it_is_not_wanted(run, tensorboard):
    fabric = SimpleNamespace(is_global_zero=True)
    with runner._logging(fabric, run, 0, tensorboard) as log:
        log({"ce": 0.5}, 0)
    folder = run.path / "logs" / "step-0"
    assert "0.5" in (folder / "metrics.csv").read_text("utf-8")
    assert bool(list(folder.glob("events.out*"))) == tensorboard


def test_many_threads_may_write_and_the_umask_stays(tmp_path, monkeypatch):
    """It was read by setting it, which two threads at a time could leave at 0, for good."""
    monkeypatch.setattr(os, "umask", None)
    write_atomically(tmp_path / "x", lambda draft: draft.write_text("x", "utf-8"))
    assert files(tmp_path) == {"x"}


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "logs/step-0/notes.txt"])
def test_files_of_somebody_else_are_not_written_over(run, name):
    """A run was written over the user's own settings file, and their logs were removed."""
    mine = run.path / name
    mine.parent.mkdir(parents=True)
    mine.write_text("optim: {lr: 0.1}", "utf-8")
    with pytest.raises(UserError, match=r"is there and of no run, and a training would write over"):
        run.open_for_writing(config())
    assert mine.read_text("utf-8") == "optim: {lr: 0.1}"


def test_what_a_job_writes_into_the_folder_of_its_run_is_in_nobody_s_way(run):
    run.path.mkdir(parents=True)
    (run.path / "slurm-17.out").write_text("begun", "utf-8")
    run.open_for_writing(config())
    assert run.config_file.is_file()
