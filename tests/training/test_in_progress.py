"""A step that is stopped inside goes on to the same end, bit for bit."""

import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PATIENCE, Terminal

from sparcl_lib import term
from sparcl_lib.config import RunConfig, parse_settings, resolve
from sparcl_lib.data.minivoc import generate
from sparcl_lib.errors import LossDiverged, UserError
from sparcl_lib.experiments.pool import one_thread
from sparcl_lib.methods import METHODS, TERMS
from sparcl_lib.seeding import random_state, seed_everything, set_random_state
from sparcl_lib.training import RunDirectory, StepTrainer, checkpoint, stopping, train
from sparcl_lib.training import step as training_step
from sparcl_lib.training.checkpoint import read_progress
from sparcl_lib.training.stopping import stops_put_off

ITERATIONS = (5, 4)
QUICK = (
    "optim.iterations=[5,4]",
    "optim.lr=1e-3",
    "data.size=32",
    "data.batch_size=4",
    "data.scale=[0.5,1.0]",
    "data.workers=0",
)
KILLED = ("FT", "MiB", "PLOP", "EWC", "SDR", "SSUL-like", "MiB+EWF")


class Stopped(BaseException):
    """What SIGTERM and SIGINT raise in these tests."""


@pytest.fixture(scope="module")
def mini(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("in progress") / "minivoc"
    generate(root, train=40, val=8, size=32, progress=False)
    return root


@pytest.fixture(scope="module", autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def every_iteration_logged(monkeypatch):
    monkeypatch.setattr(training_step, "LOG_EVERY", 1)


@pytest.fixture(autouse=True)
def raising_at_signals() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def config(mini: Path, method: str, *settings: str, setup: str = "disjoint") -> RunConfig:
    layers = [parse_settings([*QUICK, *settings])]
    return resolve("minivoc", method, layers, task="6-4", setup=setup, data_root=str(mini))


@contextmanager
def signal_at(
    monkeypatch, step: int, iteration: int, number: int = signal.SIGTERM
) -> Iterator[None]:
    """SIGTERM, or another signal, in the middle of an iteration."""
    update = StepTrainer._update

    def updating(self: StepTrainer, context: Any, done: int) -> Any:
        if (self.plan.step, done) == (step, iteration):
            signal.raise_signal(number)
        return update(self, context, done)

    with monkeypatch.context() as patch:
        patch.setattr(StepTrainer, "_update", updating)
        yield


def stopped(monkeypatch, run: RunConfig, out: Path, step: int, iteration: int, **options) -> None:
    with signal_at(monkeypatch, step, iteration), pytest.raises(Stopped):
        train(run, out, accelerator="cpu", **options)


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Bit for bit; NaN is itself."""
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), place
        for n, (a, b) in enumerate(zip(one, other)):
            assert_same(a, b, f"{place}[{n}]")
    else:
        both_nan = isinstance(one, float) and math.isnan(one) and math.isnan(other)
        assert one == other or both_nan, place


def assert_same_run(one: Path, other: Path) -> None:
    """Checkpoints with optimiser and random state, logs, pictures and numbers; but for the time."""
    steps = RunDirectory(one).steps_done()
    assert steps and steps == RunDirectory(other).steps_done()
    for step in steps:
        a, b = (RunDirectory(run).load_checkpoint(step) for run in (one, other))
        del a["seconds"], b["seconds"]
        assert_same(a, b, f"step {step}")
        a, b = (RunDirectory(run).predictions(step) for run in (one, other))
        assert all(np.array_equal(a[key], b[key]) for key in a)
        log = Path("logs", f"step-{step}", "metrics.csv")
        assert (one / log).read_bytes() == (other / log).read_bytes()
    a, b = (json.loads((run / "metrics.json").read_text("utf-8")) for run in (one, other))
    for metrics in (a, b):
        del metrics["seconds"], metrics["sha256"]  # of the seconds, too
    assert a == b
    assert not list(one.glob("step-*/in_progress*")) + list(other.glob("step-*/in_progress*"))


@pytest.fixture(scope="module")
def undisturbed(mini, tmp_path_factory) -> Callable[[RunConfig], Path]:
    """The run of a configuration, trained once in this file."""
    trained: dict[str, Path] = {}

    def of(run: RunConfig) -> Path:
        if repr(run) not in trained:
            out = tmp_path_factory.mktemp("undisturbed") / "run"
            train(run, out, accelerator="cpu")
            trained[repr(run)] = out
        return trained[repr(run)]

    return of


def cases() -> list[Any]:
    """Every method, the released forms, PLOP where it has no thresholds, dropout."""
    more = {
        "SDR released": ("SDR", "disjoint", ["method.variant=released"]),
        "PLOP sequential": ("PLOP", "sequential", []),
        "RW in intervals": ("RW", "disjoint", ["method.regulariser.interval=2"]),
        "dropout in ASPP": ("MiB", "disjoint", ["model.head=aspp"]),
        "slow batch norm": ("MiB", "disjoint", ["model.batch_norm=slow"]),
    }
    every = {name: (name, "disjoint", []) for name in METHODS}
    return [pytest.param(*case, id=name) for name, case in {**every, **more}.items()]


@pytest.mark.parametrize(("method", "setup", "settings"), cases())
def test_stopped_in_every_step_it_ends_the_same(
    mini, undisturbed, tmp_path, monkeypatch, method, setup, settings
):
    """By SIGTERM in the middle of an iteration: also in the last one, and twice in one step."""
    run, out = config(mini, method, *settings, setup=setup), tmp_path / "run"
    steps = [0] if run.method.joint else [0, 1]
    moments = [(step, n) for step in steps for n in (1, ITERATIONS[step] - 1)]
    for step, iteration in moments:
        stopped(monkeypatch, run, out, step, iteration, resume=True)
        state = read_progress(out / f"step-{step}" / "in_progress.pt", step)
        assert state["iteration"] == iteration + 1 == len(state["log"])
    train(run, out, resume=True, accelerator="cpu")
    assert_same_run(out, undisturbed(run))


def test_it_does_matter(mini, undisturbed, tmp_path, monkeypatch):
    """The comparison sees one number of the random state: nothing else here draws dropout."""
    run, out = config(mini, "MiB", "model.head=aspp"), tmp_path / "run"
    stopped(monkeypatch, run, out, 0, 1)
    monkeypatch.setattr(training_step, "set_random_state", lambda state, device: None)
    train(run, out, resume=True, accelerator="cpu")
    with pytest.raises(AssertionError, match=r"step 0\.model"):
        assert_same_run(out, undisturbed(run))


def test_loader_processes_draw_the_same(mini, undisturbed, tmp_path, monkeypatch):
    """Undisturbed, the training process reads the images itself."""
    run, out = config(mini, "MiB"), tmp_path / "run"
    with_workers = config(mini, "MiB", "data.workers=2", "data.cache=false")
    stopped(monkeypatch, with_workers, out, 0, 1)
    stopped(monkeypatch, with_workers, out, 1, 2, resume=True)
    train(run, out, resume=True, accelerator="cpu")
    for step in (0, 1):
        a, b = (RunDirectory(place).load_checkpoint(step) for place in (out, undisturbed(run)))
        for key in ("model", "bank", "optimizer", "confusion"):
            assert_same(a[key], b[key], key)


# When it is saved
def iterations_saved(out: Path, step: int = 0) -> list[int]:
    """Of the last save and the one before it."""
    files = RunDirectory(out).progress_files(step)
    return [read_progress(file, step)["iteration"] for file in files if file.exists()]


def test_the_last_two_are_kept_and_a_damaged_one_gives_way(
    mini, undisturbed, tmp_path, monkeypatch, capsys
):
    run, out = config(mini, "SDR", "save_minutes=0"), tmp_path / "run"
    last, before = RunDirectory(out).progress_files(1)
    stopped(monkeypatch, run, out, 1, 2)
    assert iterations_saved(out, 1) == [3, 2] and not (out / "step-0" / "in_progress.pt").exists()
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    last.write_bytes(bytes(damaged))
    capsys.readouterr()
    stopped(monkeypatch, run, out, 1, 3, resume=True)
    lines = capsys.readouterr().err
    assert f"{last}: it is damaged, its checksum is another one; it was removed" in lines
    assert f"{out}: step 1 goes on, 2 of 4 iterations are done" in lines
    assert iterations_saved(out, 1) == [4, 3]
    before.write_bytes(b"")  # nobody asks for it
    train(run, out, resume=True, accelerator="cpu")
    assert_same_run(out, undisturbed(run))


def test_where_both_are_damaged_the_step_begins_anew(mini, undisturbed, tmp_path, monkeypatch):
    run, out = config(mini, "SDR", "save_minutes=0"), tmp_path / "run"
    stopped(monkeypatch, run, out, 1, 2)
    for file in RunDirectory(out).progress_files(1):
        file.write_bytes(file.read_bytes()[:-1000])
    train(run, out, resume=True, accelerator="cpu")
    assert_same_run(out, undisturbed(run))


def test_a_killed_save_leaves_the_one_before(mini, undisturbed, tmp_path, monkeypatch):
    """Between the two moves of a save there is no last one."""
    run, out = config(mini, "FT", "save_minutes=0"), tmp_path / "run"
    replace, calls = os.replace, []

    def killed(source: Any, target: Any) -> None:
        calls.append(Path(target).name)
        if calls.count("in_progress.pt") == 3:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        train(run, out, accelerator="cpu")
    assert [file.exists() for file in RunDirectory(out).progress_files(0)] == [False, True]
    assert iterations_saved(out) == [2]
    train(run, out, resume=True, accelerator="cpu")
    assert_same_run(out, undisturbed(run))


def test_a_disk_that_fails_when_it_is_read_costs_no_save(mini, tmp_path, monkeypatch):
    run, out = config(mini, "FT"), tmp_path / "run"
    stopped(monkeypatch, run, out, 0, 1)

    def failing(file: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_verify_bytes", failing)
        with pytest.raises(UserError, match="cannot read .*in_progress.pt: Input/output error; t"):
            train(run, out, resume=True, accelerator="cpu")
    assert iterations_saved(out) == [2]


def test_a_full_disk_does_not_end_the_training(mini, undisturbed, tmp_path, monkeypatch, capsys):
    run, out = config(mini, "FT", "save_minutes=0"), tmp_path / "run"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunDirectory, "save_progress", full)
    train(run, out, accelerator="cpu")
    file = out / "step-0" / "in_progress.pt"
    line = f"cannot write {file}: No space left on device; step 0 is not saved"
    assert line in capsys.readouterr().err
    assert_same_run(out, undisturbed(run))


def test_without_a_kill_nothing_is_saved_before_its_time(mini, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(RunDirectory, "save_progress", lambda *more: saved.append(more))
    train(config(mini, "FT"), tmp_path / "ten minutes", accelerator="cpu")
    assert saved == []
    train(config(mini, "FT", "save_minutes=0"), tmp_path / "always", accelerator="cpu")
    assert len(saved) == sum(ITERATIONS)


# What it goes on under
def test_without_resume_it_begins_anew(mini, undisturbed, tmp_path, monkeypatch, capsys):
    """Also with other settings; what was saved is lost with the first save of its own, but not by
    a stop before that: whoever forgot --resume is told so."""
    run, out = config(mini, "MiB"), tmp_path / "run"
    stopped(monkeypatch, config(mini, "MiB", "optim.lr=0.01", "save_minutes=0"), out, 0, 3)
    assert iterations_saved(out) == [4, 3]
    stopped(monkeypatch, run, out, 0, 1)
    assert "step 0 begins anew, although it was begun before; to go on" in capsys.readouterr().err
    assert iterations_saved(out) == [4, 3]
    stopped(monkeypatch, config(mini, "MiB", "save_minutes=0"), out, 0, 1)
    assert iterations_saved(out) == [2, 1]
    train(run, out, accelerator="cpu")
    assert_same_run(out, undisturbed(run))


def refused(run: RunConfig, out: Path, message: str, **options: Any) -> None:
    with pytest.raises(UserError, match=message) as error:
        train(run, out, **{"resume": True, "accelerator": "cpu", **options})
    assert "\n" not in str(error.value)
    assert f"or delete {out / 'step-1' / 'in_progress*.pt'} and it begins" in str(error.value)


def test_what_was_begun_as_something_else_is_refused(mini, undisturbed, tmp_path, monkeypatch):
    run, out = config(mini, "MiB"), tmp_path / "run"
    stopped(monkeypatch, run, out, 1, 1)
    before = iterations_saved(out, 1)
    other = config(mini, "MiB", "optim.lr=[1e-3,1e-4]")  # step 0 does not mind
    settings = r"with other settings \(optim.lr=\[0.001\], not \[0.0001\]\): restore them"
    refused(other, out, f"run: step 1 was begun {settings}")
    file = RunDirectory(out).progress_files(1)[0]
    state = read_progress(file, 1)
    images = dict(reversed(state["images"].items()))
    content = {**state["content"], "classes": {**state["content"]["classes"], "disc": 77}}
    for edited, message in (
        ({"devices": 2}, "was begun on 2 devices, not 1: give 2"),
        ({"images": images}, r"on something else \(its images are others now\): restore that"),
        ({"content": content}, "mask value 77 is no class now and was class 'disc'"),
        ({"terms": {"mine": {"source": "x"}}}, "when the term mine said something else: restore"),
        ({"model": {}}, "by another version: go back to that"),
    ):
        RunDirectory(out).save_progress(1, state | edited, anew=True)
        refused(run, out, message)
    RunDirectory(out).save_progress(1, state, anew=True)
    assert iterations_saved(out, 1) == before
    train(run, out, resume=True, accelerator="cpu")
    assert_same_run(out, undisturbed(run))


def test_the_save_of_another_step_is_none(mini, undisturbed, tmp_path, monkeypatch, capsys):
    run, out = config(mini, "MiB"), tmp_path / "run"
    stopped(monkeypatch, run, out, 0, 1)
    (out / "step-1").mkdir()
    shutil.copy(out / "step-0" / "in_progress.pt", out / "step-1" / "in_progress.pt")
    train(run, out, steps=[0], resume=True, accelerator="cpu")
    assert not (out / "step-1" / "in_progress.pt").exists(), "it grew from another step 0"
    stopped(monkeypatch, run, out, 1, 1, resume=True)
    shutil.copy(out / "step-0" / "checkpoint.pt", out / "step-1" / "in_progress.pt")
    train(run, out, resume=True, accelerator="cpu")
    assert "in_progress.pt: it is no begun step 1; it was removed" in capsys.readouterr().err
    assert_same_run(out, undisturbed(run))


def test_other_versions_are_named(mini, undisturbed, tmp_path, monkeypatch, capsys):
    run, out = config(mini, "MiB"), tmp_path / "run"
    stopped(monkeypatch, run, out, 0, 1)
    file = RunDirectory(out).progress_files(0)[0]
    state = read_progress(file, 0)
    state["versions"] |= {"torch": "1.0", "accelerator": "cuda"}
    RunDirectory(out).save_progress(0, state, anew=True)
    train(run, out, resume=True, accelerator="cpu")
    lines = capsys.readouterr().err
    assert f"torch is {torch.__version__} and was 1.0, accelerator is cpu and was cuda" in lines
    assert_same_run(out, undisturbed(run))


def test_a_term_that_was_edited_in_the_middle_is_refused(mini, tmp_path, monkeypatch):
    @term
    def mine(context):
        return context.output.logits.square().mean()

    run, out = config(mini, "FT", "method.terms.mine.weight=0.1"), tmp_path / "run"
    stopped(monkeypatch, run, out, 0, 1)
    del TERMS["mine"]

    @term
    def mine(context):  # noqa: F811
        return context.output.logits.abs().mean()

    with pytest.raises(UserError, match="step 0 was begun when the term mine said something else"):
        train(run, out, resume=True, accelerator="cpu")


def test_a_step_0_that_another_method_began_goes_on(mini, undisturbed, tmp_path, monkeypatch):
    """As the store asks for it: the methods share it."""
    out, shared = tmp_path / "run", config(mini, "MiB", "method.terms.kd.weight=7")
    stopped(monkeypatch, shared, out, 0, 2)
    run = config(mini, "MiB")
    train(run, out, resume=True, accelerator="cpu")
    mine, other = (RunDirectory(place).load_checkpoint(0) for place in (out, undisturbed(run)))
    for state in (mine, other):
        del state["seconds"]
    assert_same(mine, other)


def test_a_loss_that_ran_off_leaves_nothing_to_go_on_from(mini, tmp_path, monkeypatch):
    """What the message says, a lower rate, would be refused."""
    out = tmp_path / "run"
    wild = config(mini, "FT", "optim.lr=[1e-3,1e30]", "save_minutes=0")
    with pytest.raises(LossDiverged):
        train(wild, out, accelerator="cpu")
    assert RunDirectory(out).steps_done() == [0] and iterations_saved(out, 1) == []
    train(config(mini, "FT"), out, resume=True, accelerator="cpu")
    assert RunDirectory(out).steps_done() == [0, 1]


# Its parts
def test_random_states_come_back():
    cpu = torch.device("cpu")

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything(3)
    draw()
    state = random_state(cpu)
    drawn = draw()
    assert draw() != drawn
    set_random_state(state, cpu)
    assert draw() == drawn


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_of_one_who_insists_has_its_effect_at_once(monkeypatch, number):
    with pytest.raises(Stopped), stops_put_off() as put_off:
        signal.raise_signal(number)
        monkeypatch.setitem(stopping._INSISTS, number, math.inf)
        signal.raise_signal(number)  # the same, by another way
        assert put_off.came == number
        monkeypatch.setitem(stopping._INSISTS, number, -1)
        signal.raise_signal(number)
        pytest.fail("somebody insists")
    with pytest.raises(Stopped):
        signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_is_ignored_stays_so(number):
    signal.signal(number, signal.SIG_IGN)
    with stops_put_off() as put_off:
        signal.raise_signal(number)
        assert not put_off.came


class RealTerminal(Terminal):
    def fileno(self) -> int:
        return 2


def test_after_an_interrupt_a_step_goes_on_and_a_terminal_is_told(
    mini, undisturbed, tmp_path, monkeypatch, capfd
):
    run, out = config(mini, "SDR"), tmp_path / "run"
    line = "sparcl: stops when this iteration is done and saved; Ctrl-C again stops at once"
    for iteration, shown in ((1, 0), (2, 1)):
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            if shown:
                patch.setattr("sys.__stderr__", RealTerminal())
            with signal_at(monkeypatch, 1, iteration, signal.SIGINT):
                train(run, out, accelerator="cpu", resume=True)
        assert capfd.readouterr().err.count(line) == shown
        assert iterations_saved(out, 1)[0] == iteration + 1
    train(run, out, accelerator="cpu", resume=True)
    assert_same_run(out, undisturbed(run))


@pytest.mark.parametrize("wanted, mode", [(True, 1), (False, 0)])
def test_algorithms_are_deterministic_while_it_trains_and_as_before_after_it(
    mini, tmp_path, monkeypatch, wanted, mode
):
    """A GPU's are not, by themselves; on a CPU the bits are the same either way."""
    modes, fit = set(), StepTrainer.fit

    def seen(self: StepTrainer, *arguments: Any, **options: Any) -> Any:
        modes.add(torch.get_deterministic_debug_mode())
        return fit(self, *arguments, **options)

    monkeypatch.setattr(StepTrainer, "fit", seen)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    train(config(mini, "SDR", f"deterministic={wanted}"), tmp_path / "run", accelerator="cpu")
    assert modes == {mode} and torch.get_deterministic_debug_mode() == 0
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if wanted else None)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)


def test_a_run_with_deterministic_algorithms_is_that_without_on_a_cpu(
    mini, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    run = tmp_path / "run"
    train(config(mini, "PLOP", "deterministic=true"), run, accelerator="cpu")
    one, other = (
        RunDirectory(r).load_checkpoint(1) for r in (run, undisturbed(config(mini, "PLOP")))
    )
    assert_same(one["model"], other["model"])


def test_what_was_set_comes_back_after_a_failure_too(mini, tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    wild = config(mini, "FT", "optim.lr=[1e-3,1e30]", "deterministic=true")
    with pytest.raises(LossDiverged):
        train(wild, tmp_path / "run", accelerator="cpu")
    assert torch.get_deterministic_debug_mode() == 0


# Processes that are killed
def train_here(run: RunConfig, out: Path) -> None:
    """In a process of its own, which says nothing."""
    torch.set_num_threads(1)
    training_step.LOG_EVERY = 1
    with open(os.devnull, "w", encoding="utf-8") as sys.stderr:
        train(run, out, resume=True, accelerator="cpu")


def stamp(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@pytest.mark.slow
@pytest.mark.parametrize("method", KILLED)
def test_killed_at_random_moments_it_ends_the_same(mini, undisturbed, tmp_path, method):
    """Three times: at whatever line, in a save too, which is half the time of these iterations."""
    draw, context = random.Random(method), multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sparcl_lib.training"])
    run = config(mini, method, "optim.iterations=80", "save_minutes=0")
    out = tmp_path / "run"
    for step in (0, 1, 1):
        last, _ = RunDirectory(out).progress_files(step)
        before = stamp(last)
        process = context.Process(target=train_here, args=(run, out))
        process.start()
        while process.exitcode is None and stamp(last) == before:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it ended before"
        process.close()
    assert iterations_saved(out, 1), "it was killed inside a step"
    train(run, out, resume=True, accelerator="cpu")
    assert_same_run(out, undisturbed(run))


LONE = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")}


def command(mini: Path, out: Path, *settings: str, more: tuple[str, ...] = ()) -> list[str]:
    set_ = [part for setting in (*QUICK, *settings) for part in ("--set", setting)]
    return [
        sys.executable, "-m", "sparcl_lib", "train", "--dataset", "minivoc", "--task", "6-4",
        "--data-root", str(mini), "--method", "MiB", "--accelerator", "cpu", "--out", str(out),
        *set_, *more,
    ]  # fmt: skip


def heard() -> None:
    """Whoever runs these tests in the background has signals ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def begun(arguments: list[str], out: Path, step: int = 0) -> "subprocess.Popen[str]":
    """A command, once it has saved a step."""
    last, _ = RunDirectory(out).progress_files(step)
    before = stamp(last)
    process = subprocess.Popen(
        arguments, env=LONE, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=heard,
    )  # fmt: skip
    while stamp(last) == before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


def assert_same_step(one: Path, other: Path, step: int) -> None:
    a, b = (RunDirectory(run).load_checkpoint(step) for run in (one, other))
    for state in (a, b):
        del state["seconds"], state["config"]
    assert_same(a, b, f"step {step}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, end",
    [
        (signal.SIGTERM, "terminated"),
        (signal.SIGINT, "interrupted"),
        (signal.SIGUSR1, "terminated"),
        (signal.SIGHUP, "terminated"),
    ],
)
def test_a_signal_to_every_process_of_a_job_is_one_line_and_a_save(mini, tmp_path, number, end):
    """As SLURM and a terminal send it: loader processes that ended at once took the training with
    them."""
    out = tmp_path / "run"
    settings = ("data.workers=2", "data.cache=false", "optim.iterations=[120,2]")
    process = begun(command(mini, out, *settings, "save_minutes=0.001"), out)
    try:
        time.sleep(0.3)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 128 + number and "Traceback" not in errors, errors
    assert errors.rstrip().endswith(
        f"sparcl: {end}; the same command with --resume goes on from here"
    )
    (iteration, _), whole = iterations_saved(out), tmp_path / "whole"
    assert 0 < iteration < 120
    again = command(mini, out, *settings, more=("--resume",))
    for arguments in (again, command(mini, whole, *settings)):
        done = subprocess.run(arguments, env=LONE, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for step in (0, 1):
        assert_same_step(out, whole, step)


UNEVEN = """
import os
import torch
import sparcl_lib
from sparcl_lib.methods import Mechanism

@sparcl_lib.mechanism
class Memory(Mechanism):
    "A tenth of each image is one that this process has seen before."
    name, last = "memory", None

    def batch(self, batch):
        mixed = batch.images if self.last is None else 0.9 * batch.images + 0.1 * self.last
        self.last = batch.images
        return batch._replace(images=mixed)

    def progress(self):
        return {"last": self.last}

    def go_on(self, trainer, progress):
        self.last = progress["last"]

@sparcl_lib.term
def noise(context):
    "Draws more in the second process, so that the two have states of their own."
    if os.environ.get("LOCAL_RANK") == "1":
        torch.rand(1)
    return torch.rand(()) * context.output.logits.square().mean()
"""


@pytest.mark.slow
def test_two_processes_go_on_together_each_with_what_is_its_own(mini, tmp_path):
    plugin, out, whole = tmp_path / "noise.py", tmp_path / "run", tmp_path / "whole"
    plugin.write_text(UNEVEN, "utf-8")
    settings = (
        "method.terms.noise.weight=0.01", "method.mechanisms.memory.enabled=true",
        "optim.iterations=[60,40]", "save_minutes=0",
    )  # fmt: skip
    more = ("--devices", "2", "--plugin", str(plugin), "--resume")
    ends = []
    kills = (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    for step, kill in zip((0, 0, 1, 1), kills, strict=True):
        process = begun(command(mini, out, *settings, more=more), out, step)
        try:
            children = subprocess.run(
                ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
            ).stdout.split()
            if kill != signal.SIGTERM:
                os.killpg(process.pid, kill)
            else:  # one of them alone, the second process first
                os.kill(int(children[0]) if step == 0 else process.pid, kill)
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        ends.append(process.returncode)
        assert "Traceback" not in errors, errors
        files = RunDirectory(out).progress_files(step)  # killed between two saves: the one before
        state = read_progress(next(file for file in files if file.is_file()), step)
        first, second = (of["torch"] for of in state["random"])
        assert state["devices"] == 2 and not torch.equal(first, second)
        first, second = (of["memory"]["last"] for of in state["added"])
        assert not torch.equal(first, second)
    assert ends == [128 + signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM, 130]
    for folder in (out, whole):
        arguments = command(mini, folder, *settings, more=more)
        done = subprocess.run(arguments, env=LONE, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for step in (0, 1):
        assert_same_step(out, whole, step)
    assert not list(out.glob("step-*/in_progress*"))
