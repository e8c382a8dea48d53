"""Does a trained step agree with what the files say today? By content, step for step.

The steps that are trained must agree; later ones may be new. That is how a class arrives: a step
is appended to the task of a finished run, and training goes on.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sparcl_lib.data.minivoc import EDITIONS
from sparcl_lib.errors import UserError
from sparcl_lib.training.content import (
    MISSING,
    Content,
    class_difference,
    content_from_plain,
    file_difference,
    list_difference,
    step_difference,
)
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.training.workspace import Workspace


def check_agreement(
    workspace: Workspace, directory: RunDirectory, step: int, checkpoint: dict[str, Any]
) -> None:
    """Raise UserError, naming the class, step or file, unless a trained step agrees with today.

    While the task is the one that was recorded, the images must be exactly those that were
    recorded. Once steps are appended, images may have come, and in the disjoint and sequential
    setups the rule may give an earlier step fewer images than it was trained on, for one that
    shows a later class now belongs there: what counts is then that each recorded image that is
    still there has not changed.
    """
    then = _content_then(directory, checkpoint)
    if then is None:
        difference = _difference_by_names(workspace, directory, step, checkpoint)
    else:
        difference = content_difference(workspace, step, checkpoint, then)
    if difference:
        raise UserError(
            f"{directory.path} was trained on something else: {difference}; restore that, or "
            f"train another run"
        )


def _content_then(directory: RunDirectory, checkpoint: dict[str, Any]) -> Content | None:
    """What the checkpoint records; of one of version 0.2 what config.yaml does, since an evaluation
    that found agreement, or None.
    """
    if "content" in checkpoint:
        return content_from_plain(checkpoint["content"])
    return directory.content()


def content_difference(
    workspace: Workspace, step: int, checkpoint: Mapping[str, Any], then: Content
) -> str | None:
    """The first thing that is another one now than in a saved step, which `then` is the content
    of, or None."""
    now = workspace.content
    joint = workspace.method.joint
    trained = range(len(then.steps)) if joint else range(step + 1)
    difference = (
        step_difference(then, now, trained)
        or class_difference(then, now, trained)
        or (_joint_difference(then, now) if joint else None)
        or _origin_difference(then, now, step, workspace)
        or (_data_difference(then, now, workspace) if "images" not in checkpoint else None)
    )
    if difference:
        return difference
    source = workspace.source
    for split, key in (("train", "images"), (workspace.test_split, "evaluated")):
        found = file_difference(checkpoint.get(key, {}), workspace.images[split], source, split)
        if found:
            return found
    return _list_difference(workspace, step, checkpoint, extended=then.steps != now.steps)


def _list_difference(
    workspace: Workspace, step: int, checkpoint: Mapping[str, Any], extended: bool
) -> str | None:
    """Images that a step gained or lost; of an extended task's images only those that are lost."""
    listed = workspace.config.data.splits is not None
    for split, key, verb, today in (
        ("train", "images", "trains", workspace.train_ids[step]),
        (workspace.test_split, "evaluated", "is tested", workspace.evaluation_ids[step]),
    ):
        if key not in checkpoint:
            continue  # stopped before it was evaluated
        if extended and not (listed and key == "images"):
            today = sorted(checkpoint[key].keys() & workspace.images[split].keys())
        found = list_difference(checkpoint[key], today)
        if found:
            return f"step {step} {verb} {found} now"
    return None


def _joint_difference(then: Content, now: Content) -> str | None:
    if len(now.steps) > len(then.steps):
        names = ", ".join(now.steps[len(then.steps)])
        return f"joint training learns all classes at once, and {names} is new"
    return None


def _origin_difference(then: Content, now: Content, step: int, workspace: Workspace) -> str | None:
    """Other backbone weights at step 0, or a MiniVOC of other settings."""
    if step == 0 and MISSING not in (then.weights, now.weights) and then.weights != now.weights:
        return f"backbone weights are {now.weights} now and were {then.weights}"
    if now.dataset in EDITIONS and then.data != now.data:
        return f"the MiniVOC in {workspace.source.root} is another one"
    return None


def _data_difference(then: Content, now: Content, workspace: Workspace) -> str | None:
    """Other files, where no step says which are its images."""
    if then.steps == now.steps and then.data != now.data:
        return f"a list, mask or photograph in {workspace.source.root} is another one now"
    return None


def _difference_by_names(
    workspace: Workspace, directory: RunDirectory, step: int, checkpoint: dict[str, Any]
) -> str | None:
    """Runs of version 0.2 recorded the names of their classes alone, and images of all steps.

    What their confusion matrices hold says the rest: how many test pixels each class had.
    """
    if not directory.metrics_file.is_file():
        return None
    metrics = directory.metrics()
    for k, names in enumerate(metrics["classes"][: step + 1]):
        asked = workspace.step_names[k] if k < len(workspace.step_names) else []
        if names != asked:
            return f"step {k} learns [{', '.join(asked)}] now and learned [{', '.join(names)}]"
    if metrics["classes"] == workspace.step_names:
        known = metrics.get("images_sha256", workspace.images_sha256)
        if known != workspace.images_sha256:
            return "the images of its steps are others now (images_sha256 in metrics.json)"
        if "confusion" in checkpoint:
            return _truth_difference(workspace, step, checkpoint["confusion"])
    return None


def _truth_difference(workspace: Workspace, step: int, confusion: Tensor) -> str | None:
    """The first class that has another number of test pixels now."""
    counts = torch.zeros(256, dtype=torch.int64)
    for batch in workspace.evaluation_batches(step):
        counts += torch.bincount(batch.labels.flatten(), minlength=256)
    names = workspace.learned.class_names(step)
    for name, then, now in zip(names, confusion.sum(1).tolist(), counts.tolist(), strict=False):
        if then != now:
            return f"class {name!r} has {now} test pixels now and had {then}"
    return None
