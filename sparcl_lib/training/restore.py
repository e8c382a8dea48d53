"""Networks and prototypes as a step begins, from the checkpoint of the one before."""

from dataclasses import dataclass
from typing import Any

from sparcl_lib.config import RunConfig, first_step_difference, read_config, settings_difference
from sparcl_lib.errors import OutsideFailed, UserError
from sparcl_lib.methods import Mechanism
from sparcl_lib.models import NetworkSpec, Segmenter, build_segmenter, freeze, grow, try_out
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training.agreement import check_agreement
from sparcl_lib.training.checkpoint import network_spec
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.training.workspace import Workspace


def load_step(workspace: Workspace, directory: RunDirectory, step: int) -> dict[str, Any]:
    """A checkpoint that agrees with this run's setup and contents; UserError otherwise."""
    checkpoint = directory.load_checkpoint(step)
    _check_agrees(workspace, directory, step, checkpoint)
    return checkpoint


def step_record(workspace: Workspace, directory: RunDirectory, step: int) -> dict[str, Any]:
    """The same without networks and prototypes: `RunDirectory.record`."""
    record = directory.record(step)
    _check_agrees(workspace, directory, step, record)
    return record


def _check_agrees(
    workspace: Workspace, directory: RunDirectory, step: int, checkpoint: dict[str, Any]
) -> None:
    theirs, mine = checkpoint["config"]["setup"], workspace.config.setup
    if theirs != mine and not workspace.method.joint:
        raise UserError(
            f"{directory.checkpoint_file(step)} belongs to setup {theirs}, not {mine}: "
            f"give the run of this setup"
        )
    check_same_settings(workspace.config, directory, step, checkpoint)
    check_agreement(workspace, directory, step, checkpoint)


def check_same_settings(
    now: RunConfig, directory: RunDirectory, step: int, checkpoint: dict[str, Any]
) -> None:
    """Raise UserError for a checkpoint of another run, or a config.yaml that was edited since.

    A step 0 may come from a run of another method: what it depends on must agree.
    """
    if "network" not in checkpoint:
        return  # version 0.2, whose settings had other names
    then = read_config(checkpoint["config"])
    if step == 0:
        difference = first_step_difference(now, then, checkpoint.get("terms"))
    else:
        difference = settings_difference(now, then, [step])
    if difference:
        raise UserError(
            f"{directory.checkpoint_file(step)} was trained with other settings ({difference}): "
            f"restore them, or the checkpoint of this run"
        )


@dataclass(frozen=True)
class StepStart:
    """What a step begins with."""

    student: Segmenter
    teacher: Segmenter | None
    """The previous network, frozen, if a term or a mechanism needs it."""
    bank: PrototypeBank
    mechanisms: tuple[Mechanism, ...]
    """Prepared: they know the student and what the step before left."""


def start_step(workspace: Workspace, directory: RunDirectory, step: int) -> StepStart:
    """Networks, prototypes and mechanisms of a step, from the checkpoint of the one before.

    Raises UserError for a checkpoint of another task, or without what a mechanism needs.
    """
    mechanisms = workspace.method.around(step)
    if step == 0:
        student, bank = _first_network(workspace)
        for mechanism in mechanisms:
            mechanism.prepare(student, None)
        return StepStart(student, None, bank, mechanisms)
    task, method = workspace.learned, workspace.method
    before = load_step(workspace, directory, step - 1)
    previous = restore_model(before)
    student = grow(previous, len(task.steps[step]), method.classifier_init)
    try:
        for mechanism in mechanisms:
            mechanism.prepare(student, before)
    except OutsideFailed:  # no fault of the checkpoint
        raise
    except UserError as error:
        raise UserError(f"{directory.checkpoint_file(step - 1)}: {error}") from None
    teacher = freeze(previous) if method.needs_teacher(step) else None
    bank = restore_bank(before).grow(task.num_classes(step))
    return StepStart(student, teacher, bank, mechanisms)


def _first_network(workspace: Workspace) -> tuple[Segmenter, PrototypeBank]:
    model, num_classes = workspace.config.model, workspace.learned.num_classes(0)
    student = build_segmenter(first_spec(workspace.config, num_classes), model.weights)
    try_out(student.backbone, model.backbone, model.output_stride, workspace.config.data.size)
    return student, PrototypeBank(num_classes, student.backbone.dim)


def first_spec(config: RunConfig, num_classes: int) -> NetworkSpec:
    """What the network of step 0 is, before it grows."""
    model, method = config.model, config.method
    return NetworkSpec(
        model.backbone, (num_classes,), output_stride=model.output_stride, head=model.head,
        head_channels=model.head_channels, unknown=method.unknown > 0,
        head_per_step=method.head_per_step,
    )  # fmt: skip


def restore_model(checkpoint: dict[str, Any]) -> Segmenter:
    """The network of a checkpoint, on the CPU, with its weights."""
    student = build_segmenter(network_spec(checkpoint))
    student.load_state_dict(checkpoint["model"])
    return student


def restore_bank(checkpoint: dict[str, Any]) -> PrototypeBank:
    """The prototypes of a step, from its checkpoint."""
    bank = PrototypeBank(*checkpoint["bank"]["sums"].shape)
    bank.load_state_dict(checkpoint["bank"])
    return bank
