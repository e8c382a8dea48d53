"""`sparcl bench` at tiny size: the loops compute what the losses do, and every table is filled."""

import itertools
import json
import math
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_voc_tree

from sparcl_lib import UserError
from sparcl_lib.bench import measuring, timing
from sparcl_lib.bench.latent import FORMS, Sizes, latent_rows, pairs
from sparcl_lib.bench.loading import loading_rows
from sparcl_lib.bench.step import peak_gib, random_batches, random_trainer, step_row
from sparcl_lib.bench.timing import TimedBatches, seconds_of
from sparcl_lib.cli import main
from sparcl_lib.config import resolve
from sparcl_lib.experiments.pool import one_thread
from sparcl_lib.method_table import METHODS
from sparcl_lib.tasks import get_task

CPU = torch.device("cpu")
TINY = {"data.size": 32, "data.batch_size": 2, "model.backbone": "mini", "model.output_stride": 4,
        "model.head": "conv", "model.head_channels": 8}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_loops_and_losses_agree_in_value_and_gradient(seed, form):
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(2, 5, 4, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 4, 4), generator=generator)
    labels[0, 0] = 255
    prototypes = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    for ours, loop in pairs(labels, prototypes, form).values():
        found = []
        for form in (ours, loop):
            given = features.clone().requires_grad_()
            value = form(given)
            found.append((value.detach(), *torch.autograd.grad(value, given)))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_latent_rows_name_all_losses_and_their_sum():
    rows = {row["loss"]: row for row in latent_rows(Sizes(2, 5, 4, 3), CPU, 0.0)}
    compared = [name for name in rows if name != "update of the prototypes"]
    for first in (0, 5):  # the formulas, then the released form
        *single, total = [rows[name] for name in compared[first : first + 5]]
        assert total["loss"].startswith("all four")
        assert total["ms"] == pytest.approx(sum(row["ms"] for row in single))
        assert total["times"] == pytest.approx(total["loop ms"] / total["ms"])
    assert len(compared) == 10 and total["loss"] == "all four, released form"
    assert rows["update of the prototypes"]["ms"] > 0


def test_the_first_calls_do_not_count(monkeypatch):
    """Of eight calls that take 9, 9, 9, 1, 2, 3, 4, 5 seconds the median of the last five is 3."""
    now = itertools.accumulate([0, 0] + [x for t in (9, 9, 9, 1, 2, 3, 4, 5) for x in (t, 0)])
    monkeypatch.setattr(timing, "now", lambda: next(now))
    called = []
    assert seconds_of(lambda: called.append(0), CPU, 0.0) == 3
    assert len(called) == 8


def test_iterations_are_timed_between_batches(monkeypatch):
    now = itertools.count(step=1.0)
    monkeypatch.setattr(timing, "now", lambda: next(now))
    timed = TimedBatches(itertools.repeat("batch"), CPU, seconds=0.0, warm=2)
    assert len(list(timed)) == 2 + timing.FEWEST
    assert len(timed.times()) == timing.FEWEST
    few = TimedBatches(["a", "b", "c", "d"], CPU, seconds=100.0, warm=2)
    assert list(few) == ["a", "b", "c", "d"] and len(few.times()) == 2


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_every_method_is_measured(method):
    config = resolve("voc", method, [TINY], task="15-5", setup="overlapped")
    with one_thread():
        row = step_row(config, get_task("voc", "15-5"), "cpu", 0.0)
    assert row["method"] == method and row["classes"] == 21
    assert row["floor"] > 0 and row["update"] > 0 and 0 < row["peak GiB"] < 64
    assert row["images per second"] == pytest.approx(2 / row["seconds"])


def test_where_the_system_does_not_count_memory_no_number_is_given(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)  # Windows has no such module
    assert math.isnan(peak_gib(CPU))


def test_what_is_trained_on_is_what_step_1_sees():
    config, task = (
        resolve("voc", "SDR", [TINY], task="15-5", setup="disjoint"),
        get_task("voc", "15-5"),
    )
    batches = random_batches(config, task, CPU)
    found = set(torch.cat([batch.labels.flatten() for batch in batches]).tolist())
    assert {0, 255} < found <= {0, 255, *range(16, 21)}  # old classes hide in the background
    trainer = random_trainer(config, task, "cpu", batches)
    assert trainer.plan.num_old == 16 and trainer.teacher is not None
    assert torch.isfinite(trainer.student(batches[0].images).logits).all()


def test_the_command_measures_minivoc(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(
            ["bench", "--methods", "FT,SDR", "--seconds", "0.1", "--out", str(tmp_path / "made"),
             "--accelerator", "cpu", "--set", "data.size=32", "--set", "data.batch_size=2"]
        )  # fmt: skip
    assert stop.value.code == 0
    step, latent, loading = (
        pd.read_csv(tmp_path / "made" / f"{name}.csv") for name in ("step", "latent", "loading")
    )
    # Not that a step is above its floor: beside other work a tenth of a second does not say.
    assert list(step["method"]) == ["FT", "SDR"]
    assert np.allclose(step["seconds"] / step["floor"], step["of its floor"], rtol=1e-2)
    four = latent[latent["loss"] != "update of the prototypes"]
    assert len(four) == 10 and (four["times"] > 0).all()
    assert (loading["images per second"] > 0).all() and len(loading) == 3
    facts = json.loads((tmp_path / "made" / "device.json").read_text("utf-8"))
    assert (
        facts["torch"] == torch.__version__.partition("+")[0] or facts["torch"] == torch.__version__
    )
    assert facts["device"] in capsys.readouterr().out


def test_a_file_where_the_tables_would_go_is_refused_before_anything_is_measured(
    tmp_path, capsys, monkeypatch
):
    """It was said after all was measured, and lost."""
    (tmp_path / "made").touch()
    monkeypatch.setattr("sparcl_lib.bench.measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--methods", "FT", "--out", str(tmp_path / "made")])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.endswith("is a file: give a folder for the tables")


def test_joint_training_has_a_loader_too():
    """It has one step, and the index of a later one was asked of it."""
    settings = {"data.size": 32, "data.batch_size": 2}
    config = resolve("minivoc", "Joint", [settings], task="6-4", setup="disjoint")
    with one_thread():
        rows = list(loading_rows(config, "cpu", 0.0))
    assert len(rows) == 3 and all(row["images per second"] > 0 for row in rows)


def test_without_images_there_is_no_loader(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(measuring, "_apart", lambda call, *_: asked.append(call.__name__) or [{}])
    config = resolve("voc", "FT", [TINY], task="15-5", setup="disjoint")
    assert list(measuring.measure([config], "cpu", 0.0)) == ["step", "latent"]
    assert asked == ["_step", "_latent"]
    root = make_voc_tree(tmp_path, {"a": torch.zeros(4, 4, dtype=torch.uint8).numpy()}, val=["a"])
    config = resolve("voc", "FT", [TINY], task="15-5", setup="disjoint", data_root=str(root))
    assert list(measuring.measure([config], "cpu", 0.0)) == ["step", "latent", "loading"]


def test_a_task_of_one_step_and_a_dead_process_are_one_line(monkeypatch):
    one = resolve("voc", "FT", [TINY], task="offline", setup="disjoint")
    with pytest.raises(UserError, match="has one step"):
        measuring.measure([one], "cpu", 0.0)
    config = resolve("minivoc", "FT", [TINY], task="6-4", setup="disjoint")
    with pytest.raises(UserError, match="measured FT died.*data.batch_size"):
        measuring._apart(_die, (config,), [config])


def _die(config):
    import os

    os._exit(1)
