"""Recipes of published rows: complete, sourced, and each of them trains."""

import copy
import csv
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import resources
from types import SimpleNamespace

import pytest
import torch
from fabricated_runs import voc_run
from lightning_fabric import Fabric

from sparcl_lib.config import RunConfig, all_settings, at_step, resolve
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.errors import UserError
from sparcl_lib.methods import METHODS
from sparcl_lib.models import NetworkSpec, Segmenter, build_segmenter, freeze, grow
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.published.tables import RowRecipe, get_recipe, get_table, recipes, tables
from sparcl_lib.reproduction.outcome import outcome_table
from sparcl_lib.tasks import Task, get_task
from sparcl_lib.training.plan import StepPlan
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.training.step import StepTrainer, make_optimizer, poly_lr

ROWS = list(recipes().values())
SIZE, BATCH, WIDTH = 32, 2, 4


@pytest.fixture(autouse=True)
def on_one_core() -> Iterator[None]:
    """Networks this small wait for one another on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config_of(row: RowRecipe) -> RunConfig:
    return resolve(row.dataset, row.method, [row.settings], task=row.task, setup=row.setup)


def test_every_published_row_of_a_method_that_there_is_has_a_recipe_and_no_other_says_it_is():
    text = (resources.files("sparcl_lib.published") / "results.csv").read_text("utf-8")
    known = set()
    for line in csv.DictReader(text.splitlines()):
        method, _, protocol = line["method"].partition(" [")
        setup = "overlapped" if line["setup"] == "unstated" else line["setup"]
        if method in METHODS:
            prefix = "mib-" if protocol else ""
            known.add(f"{prefix}{line['dataset']}-{line['task']}-{setup}-{method}")
    assert known == {row.name for row in ROWS if row.published}
    unpublished = {row.table for row in ROWS if not row.published}
    assert unpublished == {"sdr-voc-10-1"} and len(known) == 153


def test_published_old_and_new_are_step_0_and_all_later_steps_of_every_table():
    """Their mean over as many classes is the published mean of all, in each row that has three."""
    text = (resources.files("sparcl_lib.published") / "results.csv").read_text("utf-8")
    checked = {}
    for line in csv.DictReader(text.splitlines()):
        if not (line["miou_old"] and line["miou_new"] and line["miou_all"]):
            continue
        old, new, both = (float(line[f"miou_{part}"]) for part in ("old", "new", "all"))
        steps = get_task(line["dataset"], line["task"]).steps
        later = sum(map(len, steps[1:]))
        # Without background in MiB's protocol, and in the ADE20K tables, which have none.
        bare = "[MiB protocol]" in line["method"] or line["dataset"] == "ade20k"
        first = len(steps[0]) + (not bare)
        mean = (first * old + later * new) / (first + later)
        assert both == pytest.approx(mean, abs=0.11), line  # of rounded numbers
        checked[line["task"]] = checked.get(line["task"], 0) + 1
    assert sum(checked.values()) > 90 and checked["15-1"] > 20, checked


def test_beside_them_stand_ours_over_the_same_classes(tmp_path):
    """Of 15-1 they were those of all steps but the last, and of the last one."""
    run = voc_run("SDR", setup="overlapped")
    last = run.metrics["steps"][-1]
    last["class_iou"] = {name: float(k) for k, name in enumerate(last["class_iou"])}  # 0 to 20
    row = get_recipe("voc-15-1-overlapped-SDR")
    config = resolve("voc", "SDR", [row.settings], task=row.task, setup=row.setup)
    RunDirectory(tmp_path).open_for_writing(config)
    planned = SimpleNamespace(row=row, result=lambda: run, out=tmp_path, seed=0)
    outcome = outcome_table(get_table("sdr-voc"), [planned]).iloc[0]
    assert outcome[["old", "new", "all"]].tolist() == [7.5, 18, 10]
    assert outcome[["published_old", "published_new", "published_all"]].tolist() == [
        44.7,
        21.8,
        39.2,
    ]
    assert re.match("data: .* training images.*; seeds: 0$", outcome["published_unlike"])


def test_names_are_unique_and_the_tables_are_those_of_the_issue():
    names = [row.name for table in tables().values() for row in table.rows]
    assert len(names) == len(set(names)) == len(recipes())
    places = {(row.dataset, row.task, row.setup) for row in ROWS}
    voc = [("voc", task, setup) for task in ("19-1", "15-5", "15-1", "10-1")
           for setup in ("sequential", "disjoint", "overlapped")]  # fmt: skip
    ade = [("ade20k", task, "overlapped") for task in ("100-50", "100-10", "50-50")]
    assert places == {*voc, *ade}


def test_a_row_has_the_numbers_that_were_published_for_it():
    row = get_recipe("voc-15-1-overlapped-SDR")
    assert row.table == "sdr-voc" and row.published.all == 39.2
    mib, sdr = get_recipe("mib-voc-15-1-overlapped-MiB"), get_recipe("voc-15-1-overlapped-MiB")
    assert (mib.published.old, mib.published.all) == (35.1, 29.7)
    assert sdr.published.all not in (None, 29.7)
    assert get_table("mib-voc").without_background and not get_table("sdr-voc").without_background


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_number_has_a_source_or_the_word_unknown(row):
    """Zero is what is off. A setting that never acts moves no number."""
    for key, setting in all_settings(config_of(row)).items():
        if setting.acts == "never":
            continue
        values = setting.value if isinstance(setting.value, tuple) else (setting.value,)
        if any(isinstance(v, (int, float)) and not isinstance(v, bool) and v for v in values):
            assert row.source(key), key
    assert all(row.source(key) for key in row.settings)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_recipe_says_differences_only(row):
    plain = resolve(row.dataset, row.method, task=row.task, setup=row.setup)
    asked, before = all_settings(config_of(row)), all_settings(plain)
    for key in row.settings:
        if key == "method.variant":
            assert "method.terms.released_matching.weight" in asked
            continue
        assert key not in before or asked[key].value != before[key].value, key


def test_the_numbers_of_the_paper_are_those_of_the_recipes():
    sdr = config_of(get_recipe("voc-15-1-disjoint-SDR"))
    weights = {term.name: term.weight for term in sdr.method.terms if term.weight}
    assert weights == {
        "ce": 1, "kd": 100, "released_matching": 1e-2, "released_attraction": 1e-3,
        "released_repulsion": 1e-3, "released_sparsification": 1e-3,
    }  # fmt: skip
    assert (sdr.optim.lr, sdr.optim.epochs, sdr.data.batch_size) == ((1e-3, 1e-4), (30.0,), 8)
    ade = config_of(get_recipe("ade20k-100-50-overlapped-SDR"))
    assert (ade.optim.lr, ade.optim.epochs, ade.data.batch_size) == ((1e-2, 1e-3), (60.0,), 4)
    mib = config_of(get_recipe("mib-voc-15-1-disjoint-MiB"))
    assert mib.method.term("kd").weight == 100 and mib.data.batch_size == 24
    assert config_of(get_recipe("mib-voc-19-1-disjoint-MiB")).method.term("kd").weight == 10
    plop = config_of(get_recipe("voc-10-1-overlapped-PLOP"))
    assert plop.optim.epochs == (30.0, 10.0) and plop.data.border == "ignore"


def test_names_are_found_in_any_case_and_the_nearest_is_named():
    assert get_recipe("VOC-15-1-disjoint-sdr+mib").name == "voc-15-1-disjoint-SDR+MiB"
    with pytest.raises(UserError, match="did you mean voc-15-1-disjoint-SDR ") as caught:
        get_recipe("voc-15-1-disjont-SDR")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"unknown recipe 'x': sparcl recipes lists all"):
        get_recipe("x")
    with pytest.raises(UserError, match="did you mean 'sdr-voc'"):
        get_table("sdr-vok")


def test_names_are_known_without_torch():
    asked = "import sys; from sparcl_lib.published.tables import recipes; recipes()"
    code = f"{asked}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# One iteration of each row: its own network without values, then a small one with them.
@cache
def network_without_values(backbone: str, stride: int, head: str, channels: int, classes: int):
    spec = NetworkSpec(
        backbone, (classes,), output_stride=stride, head=head, head_channels=channels
    )
    with torch.device("meta"):
        return build_segmenter(spec)


@cache
def small_network(head: str, classes: int) -> Segmenter:
    torch.manual_seed(0)
    spec = NetworkSpec("mini", (classes,), output_stride=4, head=head, head_channels=WIDTH)
    return build_segmenter(spec)


@cache
def fabric() -> Fabric:
    made = Fabric(accelerator="cpu", devices=1)
    made.launch()
    return made


def a_batch(task: Task, step: int) -> StepBatch:
    torch.manual_seed(step)
    last = task.num_classes(step)
    labels = torch.randint(0, last, (BATCH, SIZE // 8, SIZE // 8))
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    images = torch.rand(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    return StepBatch(images, labels)


def train_step(row: RowRecipe, config: RunConfig, task: Task, before=None, previous=None):
    """An iteration of step 0, or with the state and network of step 0 one of step 1."""
    step, method = (0, config.method) if before is None else (1, config.method)
    if step:
        student = grow(previous, len(task.steps[1]), method.classifier_init)
        teacher = freeze(previous) if method.needs_teacher(1) else None
    else:
        first = small_network(config.model.head, task.num_classes(0))
        student, teacher = copy.deepcopy(first), None
    bank = PrototypeBank(task.num_classes(step), student.backbone.dim)
    mechanisms = method.around(step)
    for mechanism in mechanisms:
        mechanism.prepare(student, before)
    plan = StepPlan(
        method=method, step=step, iterations=1, num_old=task.num_classes(0) if step else 1,
        setup=row.setup, batch_norm=config.model.batch_norm, optim=config.optim,
        batches_per_pass=1,
    )  # fmt: skip
    trainer = StepTrainer(fabric(), plan, student, teacher, bank, mechanisms)
    logged = []
    trainer.fit([a_batch(task, step)], lambda values, iteration: logged.append(values))
    state = {"step": step, "model": student.state_dict(), "bank": bank.state_dict()}
    return student, {**state, "mechanisms": trainer.mechanism_states()}, logged[0]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_builds_its_network_optimiser_and_schedule_and_trains_an_iteration(row):
    config, task = config_of(row), get_task(row.dataset, row.task)
    if config.method.joint:
        task = get_task(row.dataset, "offline")
    model = config.model
    network = network_without_values(
        model.backbone, model.output_stride, model.head, model.head_channels, task.num_classes(0)
    )
    assert network.backbone.dim == 2048
    later = 0 if config.method.joint else 1
    optimizer = make_optimizer(network, config.optim, later)
    (group,) = optimizer.param_groups
    rate = at_step(config.optim.lr, later)
    assert (group["lr"], group["momentum"], group["nesterov"]) == (rate, 0.9, True)
    assert poly_lr(rate, 0, 10, config.optim.power) == rate
    assert 0 < poly_lr(rate, 9, 10, config.optim.power) < rate / 5

    student, state, logged = train_step(row, config, task)
    assert logged["lr"] == config.optim.lr[0]
    if not config.method.joint:
        student, _, logged = train_step(row, config, task, state, student)
        assert student.spec.classes == (task.num_classes(0), len(task.steps[1]))
        assert logged["lr"] == config.optim.lr[1]
        wanted = {term.name for term in config.method.active_terms(1)}
        assert wanted <= set(logged)
    assert torch.isfinite(torch.tensor(logged["total"]))
