"""From a configuration to a run directory: every step trained, evaluated and saved."""

import dataclasses
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from torch import nn

from sparcl_lib.config import RunConfig, all_settings, first_step_difference
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.errors import LossDiverged, UserError, number_of
from sparcl_lib.metrics import StepMatrix, class_iou, json_number
from sparcl_lib.seeding import random_state, seed_everything
from sparcl_lib.training.alike import check_alike
from sparcl_lib.training.content import content_to_plain
from sparcl_lib.training.devices import (
    check_devices,
    check_synchronises,
    is_first_process,
    launched,
)
from sparcl_lib.training.evaluation import InPrecision, confusion_matrix, picture_arrays
from sparcl_lib.training.identity import check_same_backbone, check_same_code, outside_facts
from sparcl_lib.training.in_progress import StepSaver, begun_step, go_on, step_facts
from sparcl_lib.training.places import find_places
from sparcl_lib.training.plan import make_plan
from sparcl_lib.training.restore import load_step, restore_model, start_step, step_record
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.training.step import Log, StepTrainer, check_weights, share_statistics
from sparcl_lib.training.stopping import STOPS, stops_put_off
from sparcl_lib.training.workspace import Workspace, open_workspace
from sparcl_lib.writing import write_atomically


@contextmanager
def _logging(
    fabric: Fabric, directory: RunDirectory, step: int, tensorboard: bool
) -> Iterator[Log]:
    """A function of (values, iteration) that writes step-k/metrics.csv, and TensorBoard events if
    they are wanted."""
    if not fabric.is_global_zero:
        yield lambda values, iteration: None
        return
    folder = directory.path / "logs"
    shutil.rmtree(folder / f"step-{step}", ignore_errors=True)  # of an attempt that was stopped
    version = f"step-{step}"
    loggers: list[CSVLogger | TensorBoardLogger] = [CSVLogger(folder, name=None, version=version)]
    if tensorboard:
        loggers.append(TensorBoardLogger(folder, name=None, version=version))

    def log(values: dict[str, float], iteration: int) -> None:
        for logger in loggers:
            logger.log_metrics({**values}, iteration)

    try:
        yield log
    finally:
        for logger in loggers:
            logger.finalize("done")


def train(
    config: RunConfig,
    out: str | Path,
    *,
    steps: Sequence[int] | None = None,
    resume: bool = False,
    start_from: str | Path | None = None,
    accept_edits: bool = False,
    **fabric_options: Any,
) -> dict[str, Any]:
    """Train the steps of a run, evaluate after each, and return the contents of metrics.json.

    out: run directory. steps: which ones, in order (None: all). resume: skip steps that are there,
    and go on inside one that was stopped, where it was saved: `sparcl_lib.training.in_progress`.
    start_from: another run whose step 0 is the same; it is copied instead of trained again.
    accept_edits: go on although a term or mechanism of your own says something else now than when
    the run began, as after a mistake in it was mended; inside a step a backbone may, too, and what
    was said before is written into the step's checkpoint.

    A run goes on, and is started from, wherever its files lie now, if they hold what they held:
    `sparcl_lib.training.agreement`. Steps may be appended to the task of a finished run. A step
    that is trained stays what it is then, with the images it was trained on, even where a run from
    the start would keep some of them for a new step; it is only evaluated again, because pixels of
    the new classes are of the future for it now.

    fabric_options: accelerator, devices, num_nodes, strategy of Lightning Fabric. Several processes
    share a run's folder: the first one writes, and decides what is left to train.
    Raises UserError for anything the user can mend.
    """
    check_devices(fabric_options)
    directory = RunDirectory(out)
    origin = None if start_from is None else RunDirectory(start_from)
    trained = [*directory.steps_done(), *([] if origin is None else [0])]
    workspace = open_workspace(config, progress=is_first_process(), trained=trained)
    config.check_defined()
    steps = _check_steps(workspace, directory, steps, resume)
    directory.check_settings(config)
    if origin is not None:
        _check_first_step(origin, workspace)
    directory.check_whole([*steps, *([] if origin is None else [0])])
    places = dict.fromkeys(directory.steps_done(), directory)
    if origin is not None:
        places = {0: origin, **places}
    accepted = check_same_code(config, places, accept_edits)
    workspace = _as_trained(workspace, places)
    with directory.written_by_one():
        if is_first_process():
            directory.open_for_writing(config, workspace.content)
            if origin is not None and not directory.checkpoint_file(0).exists():
                _copy_first_step(origin, directory)
                directory.remove_progress(range(workspace.learned.num_steps))
            directory.remove_progress(directory.steps_done())  # of one that ended while it saved
        with launched(config.precision, config.deterministic, **fabric_options) as fabric:
            fabric.barrier()
            check_alike(fabric, workspace, resume, accept_edits)
            # The others may see an older state of a network folder.
            steps = fabric.broadcast([k for k in steps if k not in directory.steps_done()])
            if config.model.sync_batch_norm and steps:
                check_synchronises(fabric)
            _tell_of_other_devices(fabric, directory, steps)
            if fabric.is_global_zero:
                for line in (*accepted, *workspace.remarks, *_waiting_settings(workspace)):
                    print(f"{directory.path}: {line}", file=sys.stderr)
            _evaluate_outdated(fabric, workspace, directory)
            # Now, for a term may change a value that it names while it trains.
            outside = {step: outside_facts(config, step) for step in steps}
            metrics: dict[str, Any] = {}
            for step in steps:
                _train_step(fabric, workspace, directory, step, outside[step], resume, accept_edits)
                metrics = _write_metrics(fabric, workspace, directory)  # whatever comes next
            return metrics or _write_metrics(fabric, workspace, directory)


def evaluate(
    out: str | Path,
    *,
    dataset: str | None = None,
    data_root: str | None = None,
    **fabric_options: Any,
) -> dict[str, Any]:
    """Evaluate every checkpoint of a run again, rewrite its metrics.json and return it.

    dataset, data_root: the YAML file and the folder of its data, if they lie elsewhere now; the
    run remembers the places. A task file that is not there any more is not needed.
    Raises UserError, and writes nothing, if a class, a step or a file is another one now, or a
    step is gone.
    """
    check_devices(fabric_options)
    directory = RunDirectory(out)
    config = find_places(directory, dataset, data_root)
    if not directory.steps_done():
        directory.load_checkpoint(0)
    directory.check_whole()
    workspace = open_workspace(
        config, progress=is_first_process(), run=directory, trained=directory.steps_done()
    )
    workspace = _as_trained(workspace, dict.fromkeys(directory.steps_done(), directory))
    for step in directory.steps_done():
        where = str(directory.checkpoint_file(step))
        check_same_backbone(config, directory.record(step), where)
    with directory.written_by_one():
        if is_first_process():
            directory.open_for_writing(config, workspace.content)
        with launched(config.precision, config.deterministic, **fabric_options) as fabric:
            fabric.barrier()
            for step in directory.steps_done():
                _evaluate_again(fabric, workspace, directory, step)
            return _write_metrics(fabric, workspace, directory)


def _as_trained(workspace: Workspace, places: Mapping[int, RunDirectory]) -> Workspace:
    """The workspace with the images that the steps which are trained were trained on.

    places: step -> the run that holds it. Raises UserError if a step does not agree with today.
    """
    train_ids = dict(workspace.train_ids)
    for step, place in places.items():
        images = step_record(workspace, place, step).get("images")
        if images is not None:
            train_ids[step] = sorted(images)
            _tell_of_other_images(workspace, place, step, train_ids[step])
    return dataclasses.replace(workspace, train_ids=train_ids)


def _tell_of_other_images(
    workspace: Workspace, place: RunDirectory, step: int, images: list[str]
) -> None:
    """A line where a run from the start would train a step on other images than it was."""
    now = workspace.train_ids[step]
    if now != images and is_first_process():
        print(
            f"{place.path}: step {step} stays as it was trained, on {len(images)} images; a run "
            f"from the start would train it on {len(now)}",
            file=sys.stderr,
        )


def _tell_of_other_devices(fabric: Fabric, directory: RunDirectory, steps: Sequence[int]) -> None:
    """A line where these steps are trained on another number of devices than those that are there.

    Runs of version 0.3 and before did not write the number down.
    """
    done, now = directory.steps_done(), fabric.world_size
    if not steps or not fabric.is_global_zero:
        return
    for step in done:
        then = directory.record(step).get("devices", now)
        if then != now:
            print(
                f"{directory.path}: step {step} was trained on {number_of(then, 'device')}, what "
                f"follows is on {number_of(now, 'device')}, each with data.batch_size images an "
                "iteration",
                file=sys.stderr,
            )


def _waiting_settings(workspace: Workspace) -> list[str]:
    """A line for each setting with values of steps that the task does not have (yet), and for each
    term that begins at one.

    Two values are one for step 0 and one for whatever follows, on a task of one step as well.
    """
    steps = workspace.task.num_steps
    counts = {
        key: len(setting.value)
        for key, setting in all_settings(workspace.config).items()
        if setting.acts == "per step" and setting.value is not None
    }
    has = f"task {workspace.task.name} has {steps} step{'s' if steps > 1 else ''}"
    values = [
        f"{key} has {count} values, and {has}: the first {steps} act{'' if steps > 1 else 's'}, "
        f"the others wait for steps that are appended"
        for key, count in counts.items()
        if count > max(steps, 2)
    ]
    return values + [
        f"method.terms.{term.name}.from_step={term.from_step}, and {has}: it acts in none"
        for term in workspace.config.method.terms
        if term.weight > 0 and term.from_step >= max(steps, 2)
    ]


def _evaluate_outdated(fabric: Fabric, workspace: Workspace, directory: RunDirectory) -> None:
    """Evaluate the steps again whose numbers were measured on other labels, images or pictures.

    Those of version 0.2 too, which did not write down what they were measured on, and one that was
    stopped after it was trained.
    """
    outdated = []
    for step in directory.steps_done() if fabric.is_global_zero else ():
        known = directory.record(step).get("evaluation_sha256")
        if known != workspace.evaluation_sha256(step):
            outdated.append(step)
    for step in fabric.broadcast(outdated):
        _evaluate_again(fabric, workspace, directory, step)


def _evaluate_again(
    fabric: Fabric, workspace: Workspace, directory: RunDirectory, step: int
) -> None:
    checkpoint = load_step(workspace, directory, step)
    checkpoint.setdefault("content", content_to_plain(workspace.content))  # version 0.2 had none
    student = restore_model(checkpoint).to(fabric.device)
    student.to(memory_format=torch.channels_last)  # as it was when it had just been trained
    checkpoint |= _evaluate(fabric, workspace, directory, student, step)
    _save(fabric, directory, step, checkpoint)


def _check_steps(
    workspace: Workspace, directory: RunDirectory, steps: Sequence[int] | None, resume: bool
) -> list[int]:
    wanted = list(range(workspace.learned.num_steps) if steps is None else steps)
    for step in wanted:
        workspace.learned.check_step(step)
    if wanted != sorted(set(wanted)):
        raise UserError(f"steps are trained in order, each once: got --steps {_comma(wanted)}")
    done = set(directory.steps_done())
    again = sorted(done & set(wanted))
    if again and not resume and is_first_process():  # it may have copied step 0 here already
        raise UserError(
            f"{directory.path} already has step {_comma(again)}: add --resume to go on, "
            f"or choose another --out"
        )
    for step in wanted:
        if step > 0 and step - 1 not in done | set(wanted):
            directory.record(step - 1)  # says that it is missing
    return wanted


def _comma(steps: Sequence[int]) -> str:
    return ",".join(map(str, steps))


def _check_first_step(origin: RunDirectory, workspace: Workspace) -> None:
    then = origin.config()
    trained = origin.record(0).get("terms")
    difference = first_step_difference(workspace.config, then, trained)
    if difference:
        raise UserError(
            f"step 0 of {origin.path} differs in {difference}: train step 0 here instead"
        )


def _copy_first_step(origin: RunDirectory, directory: RunDirectory) -> None:
    # The checkpoint last: where it is, the step is done. The log stays with the run it is of.
    for file in filter(Path.is_file, (origin.predictions_file(0), origin.checkpoint_file(0))):
        target = directory.path / "step-0" / file.name
        write_atomically(target, partial(shutil.copyfile, file))


def _train_step(
    fabric: Fabric,
    workspace: Workspace,
    directory: RunDirectory,
    step: int,
    outside: dict[str, Any],
    resume: bool,
    accept_edits: bool,
) -> None:
    """One step from the checkpoint of the last one to its own, or from where it was stopped.

    outside: for its record.
    """
    config, started = workspace.config, time.perf_counter()
    seed = config.seed + 1000 * step  # a resumed run draws what an uninterrupted one would
    seed_everything(seed)
    facts = step_facts(fabric, workspace, step, outside)
    begun = begun_step(fabric, workspace, directory, facts, resume, accept_edits)
    start = start_step(workspace, directory, step)
    if fabric.global_rank > 0:
        seed_everything(seed + fabric.global_rank)  # other images, other dropout
    plan = make_plan(workspace, step, fabric.world_size)
    trainer = StepTrainer(fabric, plan, start.student, start.teacher, start.bank, start.mechanisms)
    before = 0.0
    if begun is not None:
        go_on(trainer, directory, begun)
        before = begun["seconds"]
        facts |= {"edits": begun["edits"]} if "edits" in begun else {}
    batches = workspace.training_batches(
        step, plan.iterations, seed, fabric.global_rank, fabric.world_size, fabric.device,
        trainer.done,
    )  # fmt: skip
    anew = begun is None
    del begun  # a copy of the network
    trainer.begin(batches)  # before there is anything that a stop could wait for
    with stops_put_off(STOPS) as put_off:
        took = before + time.perf_counter() - started
        saver = StepSaver(fabric, directory, facts, config.save_minutes, put_off, anew, took)
        with _logging(fabric, directory, step, config.tensorboard) as log:
            for iteration, values in trainer.rows:
                log(values, iteration)
            _fit(trainer, directory, batches, log, saver)
        assert start.student.spec is not None  # build_segmenter made it
        state = {
            **facts,
            "network": dataclasses.asdict(start.student.spec),
            "model": start.student.state_dict(),
            "bank": start.bank.state_dict(),
            "mechanisms": trainer.mechanism_states(),
            "optimizer": trainer.optimizer.state_dict(),
            "rng": random_state(fabric.device),
            "iterations": plan.iterations_before + plan.iterations,
            "accelerator": fabric.device.type,
            "seconds": round(before + time.perf_counter() - started, 1),
        }
        _save(fabric, directory, step, state)  # before the test: it may be stopped there too
        if fabric.is_global_zero:
            directory.remove_progress(range(step, workspace.learned.num_steps))
    state |= _evaluate(fabric, workspace, directory, start.student, step)
    _save(fabric, directory, step, state)


def _fit(
    trainer: StepTrainer,
    directory: RunDirectory,
    batches: Iterable[StepBatch],
    log: Log,
    saver: StepSaver,
) -> None:
    """Raises LossDiverged, after which nobody wants to go on from what was saved."""
    try:
        trainer.fit(batches, log, saver)
        share_statistics(trainer.student)
        check_weights(trainer.student, trainer.plan)
    except LossDiverged:
        if trainer.fabric.is_global_zero:
            directory.remove_progress([trainer.plan.step])
        raise


def _save(fabric: Fabric, directory: RunDirectory, step: int, state: dict[str, Any]) -> None:
    if fabric.is_global_zero:
        directory.save_checkpoint(step, state)
    else:
        directory.forget_record(step)
    fabric.barrier()


def _evaluate(
    fabric: Fabric, workspace: Workspace, directory: RunDirectory, student: nn.Module, step: int
) -> dict[str, Any]:
    """Of a step's checkpoint: the confusion matrix, int64 (K, K), and what it was measured on.

    The pictures of the step are saved on the way. student: on its device, the same in every
    process.
    """
    model = InPrecision(student, fabric)
    ranks = fabric.global_rank, fabric.world_size
    batches = workspace.evaluation_batches(step, *ranks, fabric.device)
    num_classes = workspace.learned.num_classes(step)
    label = f"{workspace.method.name} test {step}"
    confusion = confusion_matrix(fabric, model, batches, num_classes, label, workspace.tests_whole)
    if fabric.is_global_zero:
        pictures = workspace.picture_batches(fabric.device)
        directory.save_predictions(step, picture_arrays(model, pictures))
    return {
        "confusion": torch.from_numpy(confusion),
        "evaluated": workspace.tested_on(step),
        "evaluation_sha256": workspace.evaluation_sha256(step),
    }


def _write_metrics(fabric: Fabric, workspace: Workspace, directory: RunDirectory) -> dict[str, Any]:
    """metrics.json from the confusion matrices that the checkpoints hold."""
    config, data = workspace.config, workspace.config.data
    side = data.test_size or data.size
    matrix = StepMatrix(workspace.step_names)
    seconds, accelerators = [], []
    for step in directory.steps_done():
        checkpoint = step_record(workspace, directory, step)
        names = workspace.learned.class_names(step)
        ious = class_iou(checkpoint["confusion"].numpy())
        matrix.add(workspace.reported_step(step), dict(zip(names, ious, strict=True)))
        seconds.append(checkpoint["seconds"])
        accelerators.append(checkpoint.get("accelerator"))  # version 0.3 did not write it down
    metrics = {
        "task": workspace.task.name,
        "setup": config.setup,
        "method": workspace.method.name,
        "dataset": workspace.task.dataset,
        "seed": config.seed,
        "label_policy": dataclasses.asdict(workspace.policy),
        "test": {
            "images": data.test,
            "size": None if workspace.tests_whole else side,
            "held_out": data.held_out,
        },
        "classes": workspace.step_names,
        "images": {str(k): len(ids) for k, ids in workspace.train_ids.items()},
        "images_sha256": workspace.images_sha256,
        "test_images": {str(k): len(ids) for k, ids in workspace.evaluation_ids.items()},
        "steps": matrix.to_results(),
        "forgetting": {name: json_number(value) for name, value in matrix.forgetting().items()},
        "seconds": seconds,
        "accelerators": accelerators,
    }
    if fabric.is_global_zero:
        directory.save_metrics(metrics)
    fabric.barrier()  # who asked for the run reads it next, in every process
    return metrics
