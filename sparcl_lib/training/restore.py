"""Networks and prototypes as a step begins, from the checkpoint of the one before."""

from typing import Any

from sparcl_lib.config import to_plain
from sparcl_lib.errors import UserError
from sparcl_lib.methods import WeightPenalty
from sparcl_lib.models import NetworkSpec, Segmenter, build_segmenter, freeze, fuse, grow, hold
from sparcl_lib.plain import build
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.training.workspace import Workspace


def load_step(workspace: Workspace, directory: RunDirectory, step: int) -> dict[str, Any]:
    """A checkpoint that belongs to this run's task; UserError otherwise."""
    checkpoint = directory.load_checkpoint(step)
    config, theirs = workspace.config, checkpoint["config"]
    keys = ("dataset", "task", "class_order", *(() if workspace.method.joint else ("setup",)))
    for key in keys:
        mine = to_plain(config)[key]
        if theirs[key] != mine:
            raise UserError(
                f"{directory.checkpoint_file(step)} belongs to {key} {theirs[key]}, not {mine}: "
                f"give the run of this {key}"
            )
    return checkpoint


def start_models(
    workspace: Workspace, directory: RunDirectory, step: int
) -> tuple[Segmenter, Segmenter | None, PrototypeBank]:
    """Student, frozen teacher and prototypes with which a step begins."""
    config, task, method = workspace.config, workspace.learned, workspace.method
    if step == 0:
        model = config.model
        spec = NetworkSpec(
            model.backbone,
            (task.num_classes(0),),
            output_stride=model.output_stride,
            head=model.head,
            head_channels=model.head_channels,
            unknown=method.unknown > 0,
            head_per_step=method.head_per_step,
        )
        student = build_segmenter(spec, model.weights)
        return student, None, PrototypeBank(task.num_classes(0), student.backbone.dim)
    checkpoint = load_step(workspace, directory, step - 1)
    previous = restore_model(checkpoint)
    student = grow(previous, len(task.steps[step]), method.classifier_init)
    hold(student, method.frozen or ())
    teacher = freeze(previous) if method.needs_teacher(step) else None
    return student, teacher, restore_bank(checkpoint).grow(task.num_classes(step))


def start_penalty(
    workspace: Workspace, directory: RunDirectory, step: int, student: Segmenter
) -> WeightPenalty | None:
    """The method's weight regulariser with what it knows from the step before, if it has one."""
    row = workspace.method.regulariser
    if row is None or step == 0:
        return None if row is None else WeightPenalty(row, student)
    state = load_step(workspace, directory, step - 1).get("regulariser")
    kinds = {"ewc": {"fisher"}, "pi": {"score"}, "rw": {"fisher", "score"}}[row.name]
    if state is None or set(state) != kinds:
        raise UserError(
            f"{directory.checkpoint_file(step - 1)} knows no importances of {row.name}: train "
            f"step {step - 1} with this method too"
        )
    return WeightPenalty(row, student, state)


def fuse_with_previous(
    workspace: Workspace, directory: RunDirectory, step: int, student: Segmenter
) -> None:
    """Bring a trained student, in place, nearer to the network of the step before (`fuse`)."""
    if step == 0 or not workspace.method.fuse:
        return
    *old, new = student.classifier.num_classes
    share = workspace.method.new_share(sum(old), new)
    previous = load_step(workspace, directory, step - 1)["model"]
    student.load_state_dict(fuse(previous, student.state_dict(), share))


def restore_model(checkpoint: dict[str, Any]) -> Segmenter:
    """The network of a checkpoint, on the CPU, with its weights."""
    student = build_segmenter(network_spec(checkpoint))
    student.load_state_dict(checkpoint["model"])
    return student


def network_spec(checkpoint: dict[str, Any]) -> NetworkSpec:
    """What the network of a checkpoint is; version 0.2 wrote it down as settings of the run."""
    if "network" in checkpoint:
        found: NetworkSpec = build(NetworkSpec, checkpoint["network"])
        return found
    model, method = checkpoint["config"]["model"], checkpoint["config"]["method"]
    return NetworkSpec(
        model["backbone"],
        tuple(checkpoint["num_classes"]),
        output_stride=model["output_stride"],
        head=model["head"],
        head_channels=model["head_channels"],
        unknown=method.get("unknown", 0) > 0,
        head_per_step=method.get("own_heads", False),
    )


def restore_bank(checkpoint: dict[str, Any]) -> PrototypeBank:
    bank = PrototypeBank(*checkpoint["bank"]["sums"].shape)
    bank.load_state_dict(checkpoint["bank"])
    return bank
