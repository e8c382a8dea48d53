"""Kept runs by key, the pool that trains them, and ablation, sweep and comparison over both."""

import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import Terminal, make_voc_tree
from fabricated_runs import make_run

from sparcl_lib.cli import main
from sparcl_lib.config import first_step_difference, parse_settings
from sparcl_lib.data import minivoc, write_lists
from sparcl_lib.errors import LossDiverged, UserError, printable
from sparcl_lib.experiments import pool
from sparcl_lib.experiments.ablation import Ablation, ablate, switches, variant_name
from sparcl_lib.experiments.base import RunBase, Variant, open_store
from sparcl_lib.experiments.cluster import open_cluster
from sparcl_lib.experiments.comparison import (
    Block,
    Comparison,
    compare,
    comparison_text,
    in_orders,
)
from sparcl_lib.experiments.pool import DIED, run_all, run_calls, tell_of_data
from sparcl_lib.experiments.space import (
    Range,
    extremes,
    read_space,
    recipe_values,
    settings_of,
    suggest,
)
from sparcl_lib.experiments.store import RunKeys, RunStore, run_keys
from sparcl_lib.experiments.sweep import (
    SCORES,
    Sweep,
    _claim,
    _study,
    run_one,
    sweep,
    sweep_text,
    trials_table,
)
from sparcl_lib.method_table import NO_BREAK
from sparcl_lib.methods import TERMS
from sparcl_lib.plugins import load_plugins
from sparcl_lib.progress import one_line, tell
from sparcl_lib.report import load_runs
from sparcl_lib.tasks import get_task, shuffled_order
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.training.workspace import open_workspace

STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"
QUICK = ("optim.iterations=2", "data.size=32", "data.batch_size=4")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("data") / "minivoc"
    minivoc.generate(root, train=60, val=12, size=32, progress=False)
    return str(root)


@pytest.fixture
def base(tiny) -> RunBase:
    return RunBase(
        dataset="minivoc", task="6-4", data_root=tiny, overrides=(parse_settings(QUICK),)
    )


class Recorder:
    """A store's trainer that notes which folders it was asked for; fails where told."""

    def __init__(self, folder, fails: str = "never", error: Exception | None = None) -> None:
        self.store = RunStore((folder,), self)
        self.asked, self.fails, self.fit = [], fails, open_store(folder).fit
        self.seeds: list[int] = []
        self.error = error or LossDiverged("the loss is not a number")

    def __call__(self, config, out, **options):
        self.asked.append(out.name.partition("-")[0])
        self.seeds.append(config.seed)
        if self.fails in out.name:
            raise self.error
        return self.fit(config, out, **options)


@pytest.fixture
def recorder(tmp_path) -> Recorder:
    return Recorder(tmp_path / "runs")


# Keys
def test_keys_of_other_data_follow_masks_lists_and_files(tmp_path):
    root = make_voc_tree(tmp_path / "voc", {"a": {0, 1}, "b": {0, 2}}, val=["b"])
    (tmp_path / "t.yaml").write_text("steps: [[1], [2]]", "utf-8")
    here = RunBase(dataset="voc", task=str(tmp_path / "t.yaml"), data_root=str(root))
    keys = [run_keys(here.config("FT", 0))]
    assert run_keys(here.config("FT", 0)) == keys[0]
    (tmp_path / "t.yaml").write_text("steps: [[2], [1]]", "utf-8")
    keys.append(run_keys(here.config("FT", 0)))
    for file in (root / "SegmentationClassAug" / "a.png", root / "JPEGImages" / "a.jpg"):
        file.write_bytes(file.read_bytes() + b"\0")
        keys.append(run_keys(here.config("FT", 0)))
    (root / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("b\n", "utf-8")
    keys.append(run_keys(here.config("FT", 0)))
    assert len({name for pair in keys for name in pair}) == 10


def test_keys_do_not_follow_place_and_time_of_the_data(tmp_path):
    make_voc_tree(tmp_path / "here", {"a": {0, 1}, "b": {0, 2}}, val=["b"])
    shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=shutil.copyfile)
    os.utime(tmp_path / "there" / "SegmentationClassAug" / "a.png", ns=(1, 1))
    (tmp_path / "t.yaml").write_text("steps: [[1], [2]]", "utf-8")

    def keys(place: str, task: str = "t.yaml") -> RunKeys:
        data = {"dataset": "voc", "data_root": str(tmp_path / place)}
        return run_keys(RunBase(**data, task=str(tmp_path / task)).config("FT", 0))

    assert keys("here") == keys("there")
    shutil.copyfile(tmp_path / "t.yaml", tmp_path / "there" / "t.yaml")
    assert keys("here", "there/t.yaml") == keys("here")
    (tmp_path / "there" / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("b\n", "utf-8")
    assert not set(keys("here")) & set(keys("there"))


def test_step_0_is_shared_only_where_its_prototypes_are_the_same(base):
    reshaped = {"method": {"prototypes": "released"}}
    plain, later = base.config("SDR", 0), base.config("SDR", 0, {"method": {"terms": {"kd": {}}}})
    mixed = base.config("SDR", 0, reshaped)
    assert run_keys(plain).first == run_keys(later).first != run_keys(mixed).first
    assert first_step_difference(plain, later) is None
    for here, there in ((plain, mixed), (mixed, plain)):
        assert "method.prototypes" in first_step_difference(here, there)


def test_loader_processes_do_not_depend_on_the_machine(base):
    assert base.config("FT", 0).data.workers is None  # images in memory: none anyway
    photos = RunBase(dataset="voc", task="15-1", data_root="nowhere")
    assert photos.config("FT", 0).data.workers == 0
    assert photos.config("FT", 0, {"data": {"workers": 3}}).data.workers == 3
    fast = base.config("FT", 0, {"data": {"workers": 3, "cache": False}})
    assert run_keys(fast) == run_keys(base.config("FT", 0)), "they change no number"


# The pool
def test_step_0_is_trained_once_per_seed_and_nothing_twice(base, recorder, capsys):
    configs = [base.config(method, seed) for seed in (0, 1) for method in ("FT", "MiB")]
    runs, errors = run_all([*configs, configs[0]], recorder.store, jobs=1)
    assert errors == [] and [run.config for run in runs] == [*configs, configs[0]]
    assert recorder.seeds[:2] == [0, 1]  # of step 0: an interrupted study has its first seeds
    assert Counter(recorder.asked) == {"first": 2, "FT": 2, "MiB": 2}
    assert runs[0].first.path == runs[1].first.path != runs[2].first.path
    told = capsys.readouterr().err
    assert "first steps and runs: 100%" in told and "6/6" in told
    again, _ = run_all(configs, recorder.store, jobs=1)
    assert len(recorder.asked) == 6 and [r.metrics for r in again] == [r.metrics for r in runs[:4]]


def test_a_failed_run_is_one_line_and_stops_no_other(base, tmp_path, capsys):
    recorder = Recorder(tmp_path / "runs", fails="MiB")
    runs, errors = run_all([base.config(m, 0) for m in ("MiB", "FT")], recorder.store, jobs=1)
    assert runs[0] is None and runs[1].complete()
    assert errors == ["MiB, 6-4 disjoint, seed 0: the loss is not a number"]
    assert f"failed: {errors[0]}\n" in capsys.readouterr().err
    recorder.fails = "never"  # the same call again trains what is missing
    runs, errors = run_all([base.config(m, 0) for m in ("MiB", "FT")], recorder.store, jobs=1)
    assert errors == [] and Counter(recorder.asked) == {"first": 1, "MiB": 2, "FT": 1}


def test_a_step_0_that_stopped_in_its_test_serves_the_methods_that_come_next(
    base, tmp_path, monkeypatch
):
    """It bore the name of the method that had trained it, and refused all others."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    recorder = Recorder(tmp_path / "runs")
    config = base.config("FT", 0)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("sparcl_lib.training.runner.confusion_matrix", stopped)
        recorder.store.train_first(config, run_keys(config))
    (first,) = (tmp_path / "runs").glob("first-*")
    trained = RunDirectory(first).load_checkpoint(0)
    runs, errors = run_all([base.config(m, 0) for m in ("LwF", "MiB")], recorder.store, jobs=1)
    assert errors == [] and all(run.complete(checkpoints=True) for run in runs)
    assert RunDirectory(first).load_checkpoint(0)["seconds"] == trained["seconds"]  # not again
    runs, errors = run_all([config], recorder.store, jobs=1)
    assert errors == [] and recorder.asked.count("first") == 2  # the second one tested it


def test_a_run_finds_its_step_0_in_another_folder_of_the_store(base, tmp_path):
    """It was found without: its networks were there once, and not when asked for again."""
    config = base.config("FT", 0)
    keys = run_keys(config)
    with_first = open_store(tmp_path / "course")
    with_first.train_first(config, keys)
    store = dataclasses.replace(with_first, roots=(tmp_path / "course", tmp_path / "mine"))
    run = store.fetch(config, keys)
    again = store.find(config, keys, checkpoints=True)
    assert again is not None and again.first.path == run.first.path
    assert again.directory.path == tmp_path / "mine" / keys.run and again.first.path.is_dir()
    shutil.rmtree(run.first.path)  # the run has a copy
    again = store.find(config, keys, checkpoints=True)
    assert again is not None and again.model(0).spec.classes == (7,)


def test_a_method_that_is_called_first_is_not_taken_for_a_step_0(base, recorder):
    config = base.config("FT", 0, {"method": {"name": "first"}})
    (run,), _ = run_all([config], recorder.store, jobs=1)
    assert [r.method for r in load_runs(recorder.store.roots[0].glob("first-*"))] == ["first"]
    assert run.directory.path.name.startswith("first-run-")


def test_what_is_odd_about_lists_is_said_whichever_method_comes_last(base, tmp_path, capsys):
    """Joint training, which takes the images of all steps at once, has nothing odd to tell, and
    EWC does not open with gradients that are scaled."""
    config = base.config("FT", 0)
    steps = open_workspace(config, progress=False).train_ids
    write_lists({**steps, 1: steps[1][1:]}, [], tmp_path / "lists")
    listed = {"data": {"splits": str(tmp_path / "lists")}}
    for methods in (("FT", "Joint"), ("Joint", "FT"), ("FT", "EWC"), ("EWC", "FT")):
        scaled = {"precision": "16-mixed"} if "EWC" in methods else {}
        tell_of_data([base.config(method, 0, listed, scaled) for method in methods])
        assert "lacks 1 that it has" in capsys.readouterr().err


def test_a_long_name_has_a_folder(base, recorder):
    """90 letters of three bytes ended in the system's own "File name too long"."""
    config = base.config("FT", 0, {"method.name": "\u7db2" * 90})
    (run,), errors = run_all([config], recorder.store, jobs=1)
    assert errors == [] and run.complete() and run.metrics["method"] == "\u7db2" * 90


def test_a_damaged_run_is_one_line_and_stops_no_other(base, recorder):
    """It was read before anything was trained, and ended the whole comparison."""
    configs = [base.config(method, 0) for method in ("FT", "MiB")]
    (kept,), _ = run_all(configs[:1], recorder.store, jobs=1)
    metrics = kept.directory.metrics_file
    metrics.write_bytes(metrics.read_bytes()[:20])
    runs, (error,) = run_all(configs, recorder.store, jobs=1)
    assert runs[0] is None and runs[1].complete()
    assert error.startswith("FT, 6-4 disjoint, seed 0: ") and str(metrics) in error


def test_a_run_that_another_process_trains_is_waited_for_and_said_so(base, recorder, monkeypatch):
    config = base.config("FT", 0)
    keys, said = run_keys(config), SimpleQueue()
    monkeypatch.setattr("sparcl_lib.experiments.store.tell", said.put)
    place = recorder.store.roots[0] / keys.first
    with ThreadPoolExecutor(1) as threads:
        with recorder.store._lock(keys.first):
            waiting = threads.submit(recorder.store.train_first, config, keys)
            line = said.get(timeout=60)
            assert line == f"{place}: another process trains it; waiting for its end"
            assert not waiting.done()
        assert waiting.result() == place


def test_a_line_is_seen_where_a_bar_stands_for_stderr(capfd):
    """A job that waited for another one wrote nothing into its log."""
    with one_line():
        print("not seen", file=sys.stderr)
        tell("seen")
    assert capfd.readouterr().err == "seen\n"


def test_a_failed_step_0_fails_its_runs_alone(base, tmp_path):
    recorder = Recorder(tmp_path / "runs", fails="first")
    runs, errors = run_all([base.config(m, 0) for m in ("MiB", "FT")], recorder.store, jobs=1)
    assert runs == [None, None] and len(errors) == 2 and recorder.asked == ["first"]


def test_an_interrupted_call_goes_on_where_it_stopped(base, recorder):
    configs = [base.config("MiB", 0)]
    keys = run_keys(configs[0])
    recorder.store.train_first(configs[0], keys)
    first = recorder.store.roots[0] / keys.first
    recorder.fit(configs[0], recorder.store.roots[0] / keys.run, steps=[0], start_from=first)
    (run,), _ = run_all(configs, recorder.store, jobs=1)
    assert recorder.asked == ["first", "MiB"] and sorted(run.matrix.rows) == [0, 1]


def work(task: str) -> int:
    """What a process of the pool does in the next test."""
    if task == "die":
        os._exit(3)
    if task == "bug":
        raise KeyError("x\ny")
    return torch.get_num_threads()


@pytest.mark.slow
def test_processes_have_one_thread_and_a_death_costs_what_ran(base, tmp_path):
    waiting = deque((name, partial(work, name)) for name in ("one", "bug", "die", "two"))
    answers = dict(pool._side_by_side(waiting, 1, {}))
    assert answers["one"].value == answers["two"].value == 1
    assert answers["bug"].error == r"KeyError: 'x\ny'" and answers["die"].error == DIED
    stores = [open_store(tmp_path / name) for name in ("processes", "here")]
    configs = [base.config(method, 0) for method in ("FT", "MiB")]
    pairs = zip(*(run_all(configs, store, jobs).runs for store, jobs in zip(stores, (2, 1))))
    for one, other in pairs:
        assert one.metrics["steps"] == other.metrics["steps"]
    assert len(list(stores[0].roots[0].glob("first-*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("guard", [False, True])
def test_a_script_without_a_guard_is_told_of_it(tmp_path, guard):
    """It was told of memory and of --jobs, which Python does not have."""
    script = tmp_path / "mine.py"
    call = "print(run_calls({1: int, 2: int}, 2, 'calls')[1])"
    text = f"if __name__ == '__main__':\n    {call}\n" if guard else f"{call}\n"
    script.write_text("from sparcl_lib.experiments.pool import run_calls\n" + text, "utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    said = f'{DIED}; in a script this is called under if __name__ == "__main__":'
    assert (said in done.stdout) == (not guard)
    assert ("CallResult(value=0, error='')" in done.stdout) == guard


def test_calls_after_others_begin_once_these_are_back_and_fail_with_them(capsys):
    asked = []

    def note(name: str) -> str:
        asked.append(name)
        return work(name) and name

    calls = {name: partial(note, name) for name in ("bug", "first")}
    after = {
        "bug": {"never": partial(note, "never")},
        "first": {"run": partial(note, "run")},
    }
    done = run_calls(calls, 1, "calls", after=after, titles={"bug": "this one"})
    assert asked == ["bug", "first", "run"] and done["run"].value == "run"
    said = f"this one: {done['bug'].error}"
    assert done["never"].error == f"not begun: {said}"
    shown = capsys.readouterr().err
    assert shown.count("failed: ") == 1 and f"failed: {printable(said)}\n" in shown
    assert "2/4" in shown.split("\r")[-1]  # what failed is not called done


def test_ctrl_c_that_a_call_broke_on_ends_them_all():
    """The journal of a search lacked its lock, closing: one failed trial, and the next began."""
    asked = []

    def interrupted() -> None:
        asked.append(1)
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise FileNotFoundError("journal.lock")

    with pytest.raises(KeyboardInterrupt):
        run_calls({1: interrupted, 2: interrupted}, 1, "trials")
    assert asked == [1]


@pytest.mark.parametrize("setting", ["data.held_out=0.3", "data.test=whole", "data.zero=ignore"])
def test_two_tests_share_no_table(base, recorder, setting):
    """One table had both, under the heading of the last."""
    others = Variant(name="other", method="FT", settings=parse_settings([setting]))
    plain = Variant(name="plain", method="FT", settings={})
    message = rf"plain has {setting.split('=')[0]}=\w+.* and other .*: compare them one by one"
    with pytest.raises(UserError, match=message):
        compare([Block(base, [plain, others], [0])], recorder.store, jobs=1)
    assert recorder.asked == []


@pytest.mark.slow
def test_in_a_terminal_the_bars_of_the_processes_are_seen(monkeypatch, tmp_path):
    """A pool of two stood at 0/5 for minutes, without a sign of what it did."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    calls = {n: partial(minivoc.generate, tmp_path / str(n), train=900, val=8) for n in (1, 2)}
    done = run_calls(calls, 2, "data sets")
    assert not any(result.error for result in done.values())
    shown = sys.stderr.getvalue()
    assert shown.count("data sets") > 3 and re.search(r"minivoc: .* [1-9]\d*/908", shown)
    assert "2/2" in shown.split("\r")[-1]


@pytest.mark.slow
def test_calls_after_others_are_made_by_the_same_processes():
    """They take seconds to start."""
    done = run_calls({0: os.getpid}, 2, "calls", after={0: {1: os.getpid}})
    assert done[0] == done[1] and done[0].value != os.getpid()


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no masks")
def test_an_interrupt_never_reaches_the_processes():
    """Where it does, while they still import, each prints a traceback of its own."""
    calls = dict.fromkeys((1, 2), partial(signal.pthread_sigmask, signal.SIG_BLOCK, ()))
    masks = run_calls(calls, 2, "masks")
    assert all(signal.SIGINT in masks[number].value for number in calls)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_no_more_processes_than_cores_or_calls(monkeypatch):
    asked = []
    monkeypatch.setattr(pool, "cores", lambda: 3)
    monkeypatch.setattr(
        pool, "_side_by_side", lambda waiting, jobs, files: (asked.append(jobs), iter(()))[1]
    )
    monkeypatch.setattr(pool, "closing", lambda found: nullcontext())
    for count in (2, 9):
        run_calls(dict.fromkeys(range(count), partial(work, "x")), None, "calls")
    assert asked == [2, 3] and run_calls({}, None, "calls") == {}


@pytest.mark.parametrize("visible, first, third", [(None, "0", "0"), ("4,GPU-x,7", "4", "7")])
def test_processes_take_the_gpus_in_turn(monkeypatch, visible, first, third):
    """All of them trained on the first GPU of the machine, one process for every core."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for number, mine in ((0, first), (2, third)):
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        pool._take_gpu(number)
        assert os.environ.pop("CUDA_VISIBLE_DEVICES") == mine


def test_runs_on_gpus_are_as_many_side_by_side_as_there_are_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr("sparcl_lib.experiments.base.check_devices", lambda options: None)
    assert open_store(tmp_path, "cpu").usual_jobs is None  # one per core
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert open_store(tmp_path, "gpu").usual_jobs == open_store(tmp_path, "auto").usual_jobs == 2
    assert open_store(tmp_path, "cpu").usual_jobs is None
    asked = []
    monkeypatch.setattr(pool, "cores", lambda: 9)
    monkeypatch.setattr(
        pool, "_side_by_side", lambda waiting, jobs, files: (asked.append(jobs), iter(()))[1]
    )
    monkeypatch.setattr(pool, "closing", lambda found: nullcontext())
    run_calls(dict.fromkeys(range(9), partial(work, "x")), None, "calls", usual_jobs=2)
    assert asked == [2]


def test_without_dask_a_cluster_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"^--cluster needs dask: .*'sparcl-lib\[cluster\]'$"):
        with open_cluster("tcp://127.0.0.1:1"):
            pass


# Ablation
def test_grid_and_leave_one_out():
    grid = [variant_name(on) for on in switches(["a", "b"])]
    assert grid == ["a + b", "a", "b", "none of them"]
    assert len(switches("abcd")) == 16
    left = [variant_name(on) for on in switches(["a", "b", "c"], leave_one_out=True)]
    assert left == ["a + b + c", "b + c", "a + c", "a + b"]


def test_effect_of_a_term_is_the_mean_over_pairs_that_differ_in_it_alone():
    scores = {(True, True): 70, (True, False): 60, (False, True): 55, (False, False): 40}
    rows = [
        {"variant": f"{a}{b}", "a": a, "b": b, "seed": seed, "miou_old_no_bg": 0.0,
         "miou_new": 1.0, "miou_all": score + seed * a}
        for (a, b), score in scores.items() for seed in (0, 2)
    ]  # fmt: skip
    ablation = Ablation("SDR", ("a", "b"), pd.DataFrame(rows), [], [])
    effects = ablation.effects()
    assert effects.loc["a", "miou_all"] == np.mean([15, 17, 20, 22]) and effects.pairs["a"] == 4
    assert effects.loc["b", "miou_all"] == 12.5 and effects.loc["b", "miou_old_no_bg"] == 0
    summary = ablation.summary()
    assert summary.loc["TrueTrue", "miou_all"] == 71 and summary.loc["FalseTrue", "seeds"] == 2
    assert summary.loc["TrueTrue", "miou_all_std"] == pytest.approx(2**0.5)


def test_effects_where_nothing_is_old():
    rows = [
        {"variant": str(on), "a": on, "seed": 0, "miou_old_no_bg": None, "miou_new": 50.0 + on,
         "miou_all": 60.0 + on} for on in (True, False)
    ]  # fmt: skip
    effects = Ablation("SDR", ("a",), pd.DataFrame(rows), [], []).effects()
    assert effects.pairs["a"] == 1 and effects.loc["a", "miou_all"] == 1
    assert np.isnan(effects.loc["a", "miou_old_no_bg"])


def test_adding_a_seed_runs_only_the_new_ones(base, recorder):
    one = ablate(base, "SDR", ["matching", "kd"], [0], recorder.store, jobs=1)
    assert Counter(recorder.asked) == {"first": 1, "SDR": 4}
    off = {row.variant: row.run for row in one.table.itertuples()}
    config = (recorder.store.roots[0] / off["kd"] / "config.yaml").read_text("utf-8")
    assert re.search(r"matching:\n +weight: 0.0\n +distance: mse", config)
    two = ablate(base, "SDR", ["matching", "kd"], [0, 1], recorder.store, jobs=1)
    assert Counter(recorder.asked) == {"first": 2, "SDR": 8} and len(two.table) == 8
    assert sorted(two.table.seed.unique()) == [0, 1] and two.summary()["seeds"].tolist() == [2] * 4


def test_terms_that_are_not_there_are_refused_before_anything_is_trained(base, recorder):
    with pytest.raises(UserError, match="MiB has no term 'matching' to switch off: it has ce, kd"):
        ablate(base, "MiB", ["kd", "matching"], [0], recorder.store)
    with pytest.raises(UserError, match="no loss term at step 0"):
        ablate(base, "MiB", ["ce"], [0], recorder.store)
    assert recorder.asked == []


def sparcl(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return stop.value.code or 0


def quick(tiny) -> list[str]:
    settings = [part for setting in QUICK for part in ("--set", setting)]
    return ["--dataset", "minivoc", "--data-root", tiny, "--jobs", "1", *settings]


def test_ablate_command_writes_table_heat_map_and_page(tiny, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["sparcl", "ablate", "--task", "6-4"])
    asked = ["--task", "6-4", "--method", "SDR", "--terms", "matching,kd", "--seeds", "0,1"]
    assert sparcl("ablate", *quick(tiny), *asked, "--leave-one-out", "--out", out) == 0
    table = pd.read_csv(out / "results.csv")
    assert table.variant.tolist() == [v for v in ("matching + kd", "kd", "matching") for _ in "01"]
    assert table.matching.tolist() == [True, True, False, False, True, True]
    assert (out / "ablation.png").read_bytes()[:4] == b"\x89PNG"
    page = (out / "report.html").read_text("utf-8")
    assert "What a term adds" in page and "sparcl ablate --task 6-4" in page
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?https?:", page)
    assert len(re.findall("data:image/png;base64", page)) == 1
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines() if "±" in line]
    assert len(lines) == 5 and lines[-1][:2] == ["kd", "2"]  # three variants, two effects


# Sweep
SPACE = """
optim.lr[1]: {low: 0.01, high: 0.1, log: true}
methods:
  MiB:
    method.terms.kd.weight: {low: 1e-1, high: 3}
    method.classifier_init: [random, mib]
"""


@pytest.fixture
def space(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE, "utf-8")
    return tmp_path / "space.yaml"


def test_space_of_a_method_and_its_settings(space, base):
    rows = read_space(space, "mib")
    assert list(rows) == ["optim.lr[1]", "method.terms.kd.weight", "method.classifier_init"]
    assert rows["method.terms.kd.weight"] == Range(low=0.1, high=3) and rows["optim.lr[1]"].log
    assert list(read_space(space, "FT")) == ["optim.lr[1]"]
    config = base.config("MiB", 0)
    values = {"optim.lr[1]": 0.0123456, "method.classifier_init": "random"}
    told = settings_of(values, config)
    assert told == ["optim.lr=[0.05,0.01235]", 'method.classifier_init="random"']
    assert base.config("MiB", 0, parse_settings(told)).optim.lr == (0.05, 0.01235)
    known = recipe_values(rows, config)
    assert known == {
        "optim.lr[1]": 0.058, "method.terms.kd.weight": 1.5, "method.classifier_init": "mib"
    }  # fmt: skip
    assert recipe_values({"optim.lr[1]": Range(low=0.1, high=1)}, config) == {}
    same = base.config("Joint", 0)  # the same at all steps, which is a list of one
    assert recipe_values({"optim.lr": Range(low=0.005, high=0.1)}, same) == {"optim.lr": 0.07}
    assert recipe_values({"optim.lr": Range(low=0.005, high=0.1)}, config) == {}


def test_a_single_choice_is_a_value_for_one_method(space, base):
    space.write_text(f"{SPACE}    method.terms.kd.unbiased: [false]\n", "utf-8")
    rows = read_space(space, "MiB")
    study = pytest.importorskip("optuna").create_study()
    assert suggest(study.ask(), rows)["method.terms.kd.unbiased"] is False
    assert "method.terms.kd.unbiased" not in recipe_values(rows, base.config("MiB", 0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.lrr: [1, 2]", "optim.lrr: unknown setting.*did you mean optim.lr"),
        ("optim.lr: 3", "optim.lr: expected {low: ..., high: ...} or a list of choices, got 3"),
        ("optim.lr: []", "optim.lr: expected .* or a list of choices, got "),
        ("optim.lr: {low: 2, high: 1}", "low < high"),
        ("optim.lr: {low: 0, high: 1, log: true}", "above 0 with log"),
        ("optim.lr: {low: 1, hihg: 2}", "unknown setting 'hihg'"),
        ("optim.lr: {low: 1, high: .inf}", "a range must be finite"),
        ("optim.lr: {low: -1e+308, high: 1e+308}", "a range must be finite"),
        ("data.size: {low: 0.2, high: 40, whole: true}", "begins and ends with one: got 0.2"),
        ("data.size: {low: 1, high: 1e+30, whole: true}", "begins and ends with one: got 1.0"),
        ("optim.lr[99999999999]: [1]", "no task has so many steps"),
        ("optim.lr: [[1, 2]]", r"optim.lr: \[1, 2\] is no choice.* write optim.lr\[0\]"),
        ("optim.lr: [{}]", "optim.lr: {} is no choice"),
        ("optim.lr[1]: [1]\noptim.lr: [2]", r"optim.lr and optim.lr\[1\] both vary"),
        ("methods: {SDR: {optim.lr: [1, 2]}}", "gives method FT nothing to vary"),
        ("methods: {SRD: {optim.lr: [1, 2]}}", "unknown method 'SRD'"),
        ("FT: {optim.lr: [1, 2]}", "space.yaml: FT is a method; put it below methods:"),
        ("methods: 3", "methods: expected a group of settings, got 3"),
        ("methods: {FT: [1]}", "FT: expected a group of settings, got .1"),
        ("setup: [overlapped]", "space.yaml, setup: give the option --setup, it cannot vary"),
        ("methods: {FT: {seed: [1, 2]}}", "space.yaml, seed: give the option --seeds"),
        ("data.held_out: [0, 0.2]", "space.yaml, data.held_out: it says what is measured"),
        ("data.test_size: [32, 64]", "space.yaml, data.test_size: it says what is measured"),
        ("data.zero: [background, ignore]", "space.yaml, data.zero: it says what is measured"),
        ("1: [1, 2]", "space.yaml as YAML: line 1: the key '1' is no name"),
    ],
)
def test_bad_space(tmp_path, text, message):
    (tmp_path / "space.yaml").write_text(text, "utf-8")
    with pytest.raises(UserError, match=message):
        read_space(tmp_path / "space.yaml", "FT")


@pytest.mark.parametrize("key", ["optim.momentum[1]", "optim.iterations[0]", "seed[0]"])
def test_a_place_in_what_is_no_list_is_refused_by_name(base, key):
    """These ended in the words of Python, after a first trial was begun."""
    config = base.config("FT", 0)
    assert recipe_values({key: Range(low=0, high=1)}, config) == {}
    if key != "optim.iterations[0]":  # the settings of these tests have some
        with pytest.raises(UserError, match="no list with places"):
            settings_of({key: 0.5}, config)


def test_a_range_over_a_name_begins_nowhere(base):
    assert recipe_values({"model.head": Range(low=0, high=1)}, base.config("FT", 0)) == {}


@pytest.fixture
def plan(base, space, tmp_path):
    def make(trials=3, methods=("MiB",)) -> Sweep:
        spaces = {method: read_space(space, method) for method in methods}
        return Sweep(base, spaces, trials, [100], tmp_path / "journal.log")

    return make


@pytest.mark.parametrize("row, message", [
    ("optim.iterations: {low: 2, high: 40}", "got 14.1; a range of whole numbers has whole: true"),
    (
        "optim.iterations: {low: 2, high: 40}\noptim.lr: {low: 0.01, high: 0.1}",
        "got 14.1; a range of whole numbers has whole: true",
    ),
    ("optim.momentum: {low: 0.5, high: 1.5}", "below 1, got 1.499"),
    ("data.batch_size: [4, 8, -3]", "got -3"),
    ("method.classifier_init: [random, unknown]", "set method.unknown=2"),
])  # fmt: skip
def test_a_value_that_no_run_can_have_is_refused_before_the_first_trial(
    plan, recorder, space, row, message
):
    """Some trial drew it, which ended the search, and a space that was mended was another one."""
    space.write_text(row, "utf-8")
    with pytest.raises(UserError, match=re.escape(message)):
        sweep(plan(), recorder.store, jobs=1)
    assert not recorder.asked and not plan().storage.exists()


def test_extremes_are_every_choice_and_both_ends():
    space = {"a": Range(low=1, high=3, whole=True), "b": Range(low=0.5, high=1.5), "c": ("x", None)}
    drawn = list(extremes(space))
    assert {d["a"] for d in drawn} == {1, 3} and {d["c"] for d in drawn} == {"x", None}
    assert {0.501, 1.499} < {d["b"] for d in drawn} and all(type(d["a"]) is int for d in drawn)


def test_budget_is_equal_and_a_longer_one_goes_on(plan, recorder):
    table = sweep(plan(2, ("MiB", "FT")), recorder.store, jobs=1)
    assert table.groupby("method")["trial"].apply(list).to_dict() == {"FT": [0, 1], "MiB": [0, 1]}
    assert set(table.state) == {"complete"} and table["miou_all"].between(0, 100).all()
    first = table[(table.method == "MiB") & (table.trial == 0)].iloc[0]
    assert "method.terms.kd.weight=1.5" in first.settings  # the recipe as it stands
    assert (recorder.store.roots[0] / first.runs / "metrics.json").is_file()
    assert recorder.asked.count("first") == 1
    before = len(recorder.asked)
    longer = sweep(plan(3, ("MiB", "FT")), recorder.store, jobs=1)
    assert len(longer) == 6 and len(recorder.asked) == before + 2
    assert _study(plan(3), "MiB").user_attrs["trials"] == 3


def test_claims_never_exceed_the_budget_and_lost_trials_are_taken_over(plan, recorder):
    claims = [_claim(plan(), "MiB") for _ in range(5)]
    assert [claim and claim.number for claim in claims] == [0, 1, 2, None, None]
    claims[1].lock.release()  # as when its process is killed
    again = _claim(plan(), "MiB")
    assert again.number == 1 and again.values == claims[1].values
    again.lock.release()
    run_one(plan(), "MiB", recorder.store)
    table = trials_table(plan())
    assert table.state.tolist() == ["running", "complete", "running"]
    assert sweep_text(table).startswith("2 trials still running elsewhere")


def test_a_search_that_is_stopped_at_any_line_of_its_journal_draws_the_same(plan, monkeypatch):
    """A trial that was begun and had no values yet, or some, was drawn anew, each time others."""
    journal = pytest.importorskip("optuna").storages.journal.JournalFileBackend
    module = "sparcl_lib.experiments.sweep"
    monkeypatch.setattr(f"{module}._measure", lambda *_: dict.fromkeys((*SCORES, "seconds"), 1.0))
    append, lines = journal.append_logs, []

    def search(storage: str, stop: int = 0) -> list[dict]:
        """The values of every trial; stop: after so many writes of the journal."""
        mine = dataclasses.replace(plan(2), storage=plan().storage.with_name(storage))

        def write(self, logs):
            append(self, logs)
            lines.append(logs)
            if len(lines) == stop:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            lines.clear()
            patch.setattr(journal, "append_logs", write)
            for _ in range(2):
                run_one(mine, "MiB", None)
        return [trial.params for trial in _study(mine, "MiB").get_trials()]

    undisturbed = search("whole")
    assert len(undisturbed) == 2 and all(len(values) > 1 for values in undisturbed)
    for stop in range(1, len(lines) + 1):
        with pytest.raises(KeyboardInterrupt):
            search(f"{stop}", stop)
        assert search(f"{stop}")[:2] == undisturbed, f"stopped after line {stop} of the journal"


def test_ctrl_c_while_a_trial_is_claimed_leaves_it_to_the_next(plan, monkeypatch):
    """Its lock was held for as long as a notebook kept the traceback: the trial ran elsewhere."""
    optuna = pytest.importorskip("optuna")
    module = "sparcl_lib.experiments.sweep"
    monkeypatch.setattr(f"{module}._measure", lambda *_: dict.fromkeys((*SCORES, "seconds"), 1.0))
    ask = optuna.study.Study.ask

    def asked(study, *arguments):
        signal.raise_signal(signal.SIGINT)
        return ask(study, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as kept:
        patch.setattr(optuna.study.Study, "ask", asked)
        run_one(plan(2), "MiB", None)
    for _ in range(2):
        run_one(plan(2), "MiB", None)
    assert trials_table(plan(2)).state.tolist() == ["complete", "complete"], kept


def test_a_term_that_only_the_space_names_goes_to_the_processes(plan, tmp_path):
    """Trials over the weight of a loss of one's own failed: "unknown setting", and give the file
    that was given."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from sparcl_lib import term\n\n@term\ndef mine(context):\n"
        "    return context.output.logits.square().mean()\n", "utf-8",
    )  # fmt: skip
    load_plugins([file])
    searched = {"method.terms.mine.weight": Range(low=0.1, high=1)}
    mine = dataclasses.replace(plan(2), spaces={"FT": searched})
    table = sweep(mine, open_store(tmp_path / "runs"), jobs=2)
    assert table.state.tolist() == ["complete", "complete"], table.error.tolist()


def test_other_code_of_a_term_that_only_the_space_names_is_another_sweep(plan, tmp_path):
    """The trials of the code before were the answer, and new ones came among them."""
    searched = {"method.terms.mine.weight": Range(low=0.1, high=1)}
    for number in (1, 2):
        (tmp_path / f"mine{number}.py").write_text(
            "from sparcl_lib import term\n\n@term\ndef mine(context):\n"
            f"    return {number} * context.output.logits.square().mean()\n", "utf-8",
        )  # fmt: skip
    mine = dataclasses.replace(plan(2), spaces={"FT": searched})
    load_plugins([tmp_path / "mine1.py"])
    assert _study(mine, "FT") and _study(mine, "FT")
    del TERMS["mine"]
    load_plugins([tmp_path / "mine2.py"])
    with pytest.raises(UserError, match="holds a sweep of FT with recipe, data and code"):
        _study(mine, "FT")


def test_a_loss_that_runs_off_scores_0_and_the_search_goes_on(plan, tmp_path):
    recorder = Recorder(tmp_path / "runs", fails="MiB")
    table = sweep(plan(2), recorder.store, jobs=1)
    assert table["miou_all"].tolist() == [0, 0] and len(table) == 2
    assert set(table.error) == {"the loss is not a number"}


def test_a_broken_set_up_is_no_score_and_takes_no_turns_of_others(plan, tmp_path):
    broken = Recorder(tmp_path / "runs", fails="MiB", error=UserError("the disk is full"))
    with pytest.raises(UserError, match="the disk is full"):
        sweep(plan(1), broken.store, jobs=1)
    assert trials_table(plan(1)).state.tolist() == ["running"]  # whoever comes next takes it over
    with pytest.raises(UserError, match="the disk is full"):
        sweep(plan(4), broken.store, jobs=1)
    assert trials_table(plan(4)).state.tolist() == ["fail", "running"]
    mended = sweep(plan(2), RunStore((tmp_path / "runs",), broken.fit), jobs=1)
    assert mended.state.tolist() == ["fail", "complete", "complete"]


def test_the_space_that_comes_with_the_benchmarks_holds_the_recipes():
    file = STUDIES / "minivoc_search" / "space.yaml"
    for method in yaml.safe_load(file.read_text("utf-8"))["methods"]:
        config = RunBase(dataset="minivoc", task="6-4").config(method, 0)
        space = read_space(file, method)
        assert recipe_values(space, config).keys() == space.keys()


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*/space.yaml")), ids=lambda f: f.parent.name)
def test_every_space_that_comes_with_the_benchmarks_can_be_drawn(file, tmp_path):
    methods = yaml.safe_load(file.read_text("utf-8"))["methods"]
    base = RunBase(dataset="minivoc", task="6-4")
    spaces = {method: read_space(file, method) for method in methods}
    searched = Sweep(base, spaces, 1, [100], tmp_path / "journal.log")
    for method in spaces:
        searched.check_space(method)


def test_a_journal_of_another_sweep_is_refused(plan, recorder, tmp_path, monkeypatch):
    _study(plan(), "MiB")
    other = dataclasses.replace(plan(), seeds=[7])
    with pytest.raises(UserError, match=r"holds a sweep of MiB with seeds \[100\], not \[7\]"):
        sweep(other, recorder.store)
    monkeypatch.setattr("sparcl_lib.revision.code.TRAINING_REVISION", 99)
    message = r"holds a sweep of MiB with recipe, data and code MiB-\w+, not MiB-\w+: name another"
    with pytest.raises(UserError, match=message):
        sweep(plan(), recorder.store)
    monkeypatch.undo()
    (tmp_path / "text.log").write_text("no journal\n", "utf-8")
    with pytest.raises(UserError, match="text.log is no journal of Optuna"):
        sweep(dataclasses.replace(plan(), storage=tmp_path / "text.log"), recorder.store)


def test_without_optuna_one_line(tiny, space, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    asked = ["--task", "6-4", "--method", "FT", "--space", space, "--trials", "1"]
    assert sparcl("sweep", *quick(tiny), *asked, "--storage", tmp_path / "j.log") == 2
    assert "needs Optuna: pip install 'sparcl-lib[search]'" in capsys.readouterr().err


def test_sweep_command_prints_the_best_and_writes_every_trial(tiny, space, tmp_path, capsys):
    asked = ["--task", "6-4", "--method", "FT", "--space", space, "--trials", "2"]
    assert sparcl("sweep", *quick(tiny), *asked, "--storage", tmp_path / "j.log") == 0
    trials = pd.read_csv(tmp_path / "j-results" / "trials.csv")
    assert trials.chosen_by.tolist() == ["test images"] * 2
    printed = capsys.readouterr().out
    best = r"best by test images: trials? \d.*--set 'optim.lr=\[0.05"
    assert "FT: 2 trials" in printed and re.search(best, printed)


def test_trials_that_are_level_are_all_named():
    """The first among equals was called the best, alone."""
    table = pd.DataFrame({
        "method": "FT", "trial": [0, 1, 2], "state": "complete", **dict.fromkeys(SCORES, 9.0),
        "miou_all": [4.0, 7.0, 7.0], "seconds": 1.0, "settings": ["a=1", "a=2", "a=3"],
        "chosen_by": "test images", "error": "",
    })  # fmt: skip
    best = "best by test images: trials 1 and 2 alike, miou_all 7.0; the first: --set a=2"
    assert best in sweep_text(table)
    assert "images: trial 1, miou_all 7.0: --set a=2" in sweep_text(table[:2])
    lost = table.assign(error=["ran off", "", ""])
    assert "best by test images: trial 1, miou_all 7.0" in sweep_text(lost[:2])
    assert sweep_text(lost[:1]) == "FT: no trial of 1 has a score: ran off"
    kept = shlex.join(['model.weights="/my data/w.pth"', "optim.lr=[0.1]"])
    options = sweep_text(table[:1].assign(settings=kept)).rpartition(": ")[2]
    assert shlex.split(options) == [
        "--set", 'model.weights="/my data/w.pth"', "--set", "optim.lr=[0.1]"
    ]  # fmt: skip


# Comparison
def test_losses_by_hand():
    runs = [make_run(m, seed) for m in ("FT", "Joint") for seed in (0, 1)]
    comparison = Comparison(runs, [f"run{k}" for k in range(4)], [])
    table = comparison.table()
    ft = table[(table.method == "FT") & (table.seed == 0)].set_index("step")
    # make_run: classes start at 70 + seed and FT keeps a twentieth of each at every step.
    assert ft.forgetting[1] == pytest.approx(70 - 3.5)
    three, one = 70 - 70 * 0.05**2, 70 - 3.5
    assert ft.forgetting[2] == pytest.approx((3 * three + one) / 4, abs=1e-3)
    # Joint has 70 and 71, so 70.5 on the mean.
    assert np.isnan(ft.intransigence[0]) and ft.intransigence[2] == pytest.approx(0.5)
    losses = comparison.forgetting().loc[("minivoc", "mine", "disjoint")]
    assert losses.loc["FT", "intransigence"] == pytest.approx(0)
    assert losses.loc["FT", "intransigence_std"] == pytest.approx(0.5**0.5)
    assert losses.loc["Joint"].isna().all()
    alone = Comparison(runs[:2], ["run0", "run1"], []).forgetting()
    assert alone["intransigence"].isna().all() and alone["forgetting"].notna().all()


def test_blocks_share_runs(base, recorder):
    blocks = [Block(base, ["FT", "MiB"], [0]), Block(base, ["MiB", "Joint"], [0])]
    comparison = compare(blocks, recorder.store, jobs=1)
    assert [run.method for run in comparison.runs] == ["FT", "MiB", "Joint"]
    other = dataclasses.replace(base, setup="overlapped")
    before = recorder.asked.count("first")
    compare([Block(other, ["Joint"], [0])], recorder.store, jobs=1)
    assert recorder.asked.count("first") == before  # joint training knows no setup


def test_two_tasks_of_one_name_are_refused(base, recorder, tmp_path):
    """They were averaged as two seeds: a task file was copied, and its name stayed."""
    files = [tmp_path / "one.yaml", tmp_path / "other.yaml"]
    for file, steps in zip(files, ("[[disc, ring], [bar]]", "[[disc, bar], [ring]]")):
        file.write_text(f"name: mine\nsteps: {steps}\n", "utf-8")
    blocks = [Block(dataclasses.replace(base, task=str(file)), ["FT"], [0]) for file in files]
    with pytest.raises(
        UserError, match="one.yaml and .*other.yaml are both called mine, and their"
    ):
        compare(blocks, recorder.store, jobs=1)
    assert recorder.asked == []


def test_compare_command_writes_a_row_per_run_and_step_and_a_page(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["--tasks", "6-4,6-2", "--setups", "disjoint,overlapped", "--methods", "FT,MiB,Joint"]
    assert sparcl("compare", *quick(tiny), *asked, "--out", out) == 0
    table = pd.read_csv(out / "results.csv")
    assert len(table) == 2 * (2 + 2 + 1) + 2 * (3 + 3 + 1)
    assert {"miou_all", "forgetting", "intransigence", "average", "run"} <= set(table)
    last = table[(table.method == "FT") & (table.step == 2)]
    assert last.forgetting.notna().all()
    page = (out / "report.html").read_text("utf-8")
    assert page.count("<h2>MiniVOC, task") == 4 and page.count("Forgetting against") >= 4
    assert "Predictions" not in page  # no photographs
    printed = capsys.readouterr().out
    assert printed.count("mIoU in percent") == 4 and "intransigence" in printed
    assert printed.count("With one seed no method is called best") == 4


def test_compare_command_says_how_far_methods_are_above_one(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["--tasks", "6-4", "--methods", "FT,MiB", "--out", out]
    assert sparcl("compare", *quick(tiny), *asked, "--against", "SDR") == 2
    said = "unknown method of this comparison 'SDR'. Valid: FT, MiB"
    assert said in capsys.readouterr().err and not out.exists()
    assert sparcl("compare", *quick(tiny), *asked, "--seeds", "0,1", "--against", "mib") == 0
    table = pd.read_csv(out / "results.csv")
    last = table[table.step == 1].set_index(["method", "seed"]).miou_all
    gain = (last["FT"] - last["MiB"]).mean()
    printed = capsys.readouterr().out
    assert re.search(
        rf"Points above MiB, .*\n.*\nminivoc +6-4 disjoint +FT .* \{gain:+.1f} ", printed
    )
    assert "95 % interval" in printed.split("Points above MiB")[0]  # the verdict
    page = (out / "report.html").read_text("utf-8")
    assert "Points above MiB" in page and f"{gain:+.1f} (" in page


def test_a_comparison_without_the_method_that_the_others_are_held_against_says_so():
    """Its runs may have failed, and the tables of the others are there all the same."""
    runs = [make_run(method, pictures=False) for method in ("FT", "SDR")]
    text = comparison_text(Comparison(runs, ["run0", "run1"], []), "MiB")
    assert (
        "nothing is compared with MiB: unknown method of these runs 'MiB'. Valid: FT, SDR" in text
    )


def test_compare_command_takes_class_orders(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["--tasks", "6-2", "--methods", "FT,MiB,Joint", "--orders", "0,2,2", "--out", out]
    assert sparcl("compare", *quick(tiny), *asked) == 0
    table = pd.read_csv(out / "results.csv")
    own, other = table.task.unique()
    assert own == "6-2" and other.startswith("6-2, order ") and len(table) == 2 * (3 + 3 + 1)
    orders = set()
    for folder in (out / "runs").iterdir():
        config = folder / "config.yaml"
        if config.is_file() and folder.name.startswith("FT"):
            orders.add(str(yaml.safe_load(config.read_text("utf-8"))["class_order"]))
    assert orders == {"None", str([*shuffled_order(get_task("minivoc", "6-2"), 2)])}
    assert "minivoc 6-2 disjoint, over 2 class orders" in capsys.readouterr().out
    assert "What the order does" in (out / "report.html").read_text("utf-8")


def test_orders_that_are_none(base, tiny, tmp_path, capsys):
    asked = ["--tasks", "6-2", "--methods", "FT", "--out", tmp_path / "out"]
    for orders, words in (
        ("-1", "order -1: give 0, the task's own, or a number above it"),
        ("b", "--orders b: expected numbers"),
    ):
        assert sparcl("compare", *quick(tiny), *asked, "--orders", orders) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(UserError, match="order 'b': give 0"):
        in_orders([base], ["b"])
    ordered = dataclasses.replace(base, overrides=({"class_order": [*range(1, 11)]},))
    assert in_orders([ordered], [0]) == [ordered]
    row = Variant(name="FT back", method="FT", settings={"class_order": [*range(10, 0, -1)]})
    lists = dataclasses.replace(base, overrides=({"data": {"splits": "lists"}},))
    for key, bases, methods in (
        ("class_order", [ordered], ["FT"]),
        ("class_order", [base], [row]),
        ("data.splits", [lists], ["FT"]),
    ):
        with pytest.raises(UserError, match=f"{key} is of one class order: leave it or --orders"):
            in_orders(bases, [0, 1], methods)


def test_an_order_that_is_there_already_is_left_out(tiny, tmp_path, capfd):
    """Two classes have two orders; a task in another order has the same shuffled one."""
    files = {"two": "[[disc], [square]]", "back": "[[square], [disc]]"}
    for name, steps in files.items():
        (tmp_path / f"{name}.yaml").write_text(f"steps: {steps}\n", "utf-8")
    two, back = (
        RunBase(dataset="minivoc", task=str(tmp_path / f"{name}.yaml"), data_root=str(tiny))
        for name in files
    )
    assert in_orders([two, back], range(4)) == [two, back]  # what is asked for by name stays
    assert capfd.readouterr().err.count("is there already, and left out") == 6
    assert len(in_orders([two], range(4))) == 2 and len(in_orders([two, back], [1, 2, 3])) == 2


VARIANTS = """
MiB: {method: MiB}
MiB, random start: {method: mib, set: [method.classifier_init=random]}
LwF + matching: {method: LwF, set: ["method.terms.matching={weight: 0.1}"]}
"""


def test_variants_are_methods_under_names_of_their_own(tiny, tmp_path, capsys):
    out, file = tmp_path / "out", tmp_path / "variants.yaml"
    file.write_text(VARIANTS, "utf-8")
    asked = ["--tasks", "6-4", "--variants", file, "--methods", "FT", "--out", out]
    assert sparcl("compare", *quick(tiny), *asked) == 0
    table = pd.read_csv(out / "results.csv")
    assert list(table.method.unique()) == ["FT", "MiB", "MiB, random start", "LwF + matching"]
    runs = {run.name.rpartition("-")[0]: run for run in (out / "runs").iterdir()}
    assert "MiB-random-start" in runs
    config = yaml.safe_load((runs["LwF-matching"] / "config.yaml").read_text("utf-8"))
    assert config["method"]["terms"]["matching"] == {"weight": 0.1}
    assert config["method"]["terms"]["kd"] == {"weight": 14.7}, "LwF's own recipe below"
    assert "LwF + matching" in capsys.readouterr().out
    page = (out / "report.html").read_text("utf-8").replace(NO_BREAK, " ")
    said = "<li><b>LwF + matching</b>: <code>ce + 14.7 kd + 0.1 matching</code></li>"
    assert said in page, "a variant has no other place on the page"
    assert "<b>MiB, random start</b>: <code>ce(unbiased) + 1.5 kd(unbiased)</code></li>" in page
    assert "kd(unbiased)</code>; <code>classifier_init=mib</code></li>" in page


@pytest.mark.parametrize(
    "content, told",
    [
        ("X: {method: MiB, sets: []}", "variants.yaml, X: expected {method: MiB, set: ["),
        ("X: {method: MiX}", "variants.yaml, X: unknown method 'MiX'"),
        ("X: {method: MiB, set: a=1}", "variants.yaml, X: set is a list"),
        ("X: {method: MiB, set: [seed]}", "variants.yaml, X: setting seed: expected key=value"),
        ("X: {method: MiB, set: [opt.lr=1]}", "unknown setting 'opt.lr': did you mean optim.lr?"),
        ("X: {method: MiB, set: [setup=overlapped]}", "variants.yaml, X: setup=overlapped"),
        ("X: {method: MiB, set: [seed=7]}", "seed=7 would be ignored: give the option --seeds"),
    ],
)
def test_variants_that_are_none(tiny, tmp_path, capsys, content, told):
    file = tmp_path / "variants.yaml"
    file.write_text(content, "utf-8")
    asked = ["--tasks", "6-4", "--variants", file, "--out", tmp_path / "out"]
    assert sparcl("compare", *quick(tiny), *asked) == 2
    assert told in capsys.readouterr().err


def test_compare_wants_methods_or_variants(tiny, tmp_path, capsys):
    assert sparcl("compare", *quick(tiny), "--tasks", "6-4", "--out", tmp_path / "out") == 2
    assert "give --methods, --variants or both" in capsys.readouterr().err


def test_a_failure_is_told_at_the_end_with_status_1(tiny, tmp_path, capsys):
    asked = ["--tasks", "6-4", "--methods", "FT,MiB", "--out", tmp_path / "out"]
    off = ["--set", "method.terms.kd.weight=1e30", "--set", "optim.lr=[0.01,1e20]"]
    assert sparcl("compare", *quick(tiny), *asked, *off, "--set", "optim.iterations=3") == 2
    assert (
        "no run finished; the first: FT, 6-4 disjoint, seed 0: the loss" in capsys.readouterr().err
    )


def test_a_stop_of_all_is_no_attempt_of_a_trial(plan, recorder, monkeypatch):
    """After three of them the trial had failed, and others took its place."""
    module = "sparcl_lib.experiments.sweep"

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"{module}._measure", stopped)
        for _ in range(5):
            with pytest.raises(KeyboardInterrupt):
                sweep(plan(2), recorder.store, jobs=1)
    assert trials_table(plan(2)).state.tolist() == ["running"]
    for _ in range(4):  # its process is killed each time
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"{module}._measure", stopped)
            run_one(plan(2), "MiB", recorder.store)
    table = trials_table(plan(2))
    assert table.state.tolist()[0] == "fail" and table.error[0] == "its process was lost 3 times"


def test_a_file_of_something_else_is_no_journal_and_stays_as_it_is(plan, recorder, tmp_path):
    """Optuna wrote a line into it first."""
    file = tmp_path / "notes.txt"
    file.write_text("MiB: {optim.lr: [0.1, 0.2]}\n", "utf-8")
    with pytest.raises(UserError, match="notes.txt is no journal of Optuna: name another"):
        sweep(dataclasses.replace(plan(), storage=file), recorder.store)
    assert file.read_text("utf-8") == "MiB: {optim.lr: [0.1, 0.2]}\n"


def test_a_search_without_any_score_says_why_and_fails(tiny, tmp_path, capsys):
    """The settings of a trial whose loss ran off were called the best, with status 0."""
    file = tmp_path / "space.yaml"
    file.write_text("optim.lr: {low: 1.0e+5, high: 1.0e+6, log: true}", "utf-8")
    asked = ["--task", "6-4", "--method", "FT", "--space", file, "--trials", "1"]
    assert sparcl("sweep", *quick(tiny), *asked, "--storage", tmp_path / "j.log") == 1
    said = capsys.readouterr()
    assert "FT: no trial of 1 has a score: the loss" in said.out and "best by" not in said.out
    assert "no trial of FT has a score" in said.err
