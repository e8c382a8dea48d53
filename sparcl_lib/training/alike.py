"""Processes that train together were started alike, or none of them begins."""

import hashlib
from typing import Any

from lightning_fabric import Fabric

from sparcl_lib.config import read_config, settings_difference, to_plain
from sparcl_lib.digests import training_code_digest
from sparcl_lib.errors import FailedElsewhere, UserError
from sparcl_lib.plugins import outside
from sparcl_lib.training.content import content_to_plain
from sparcl_lib.training.identity import changed
from sparcl_lib.training.workspace import Workspace


def check_alike(
    fabric: Fabric, workspace: Workspace, resume: bool, accept_edits: bool = False
) -> None:
    """Raise UserError where a process has other settings, data, terms or code than the first.

    On several machines a command is typed, or a job written, for each. What one of them had
    otherwise went into the gradients of all, and nothing of the run told.
    """
    if fabric.world_size == 1:
        return
    plain, parts = to_plain(workspace.config), _parts(workspace, resume, accept_edits)
    first_plain, first_parts = fabric.broadcast((plain, parts))
    difference = _differing_part(first_parts, parts)
    if difference is None:  # of other code, the first one's settings might not be readable here
        steps = range(workspace.learned.num_steps)
        difference = settings_difference(read_config(first_plain), workspace.config, steps)
    for rank in range(fabric.world_size):
        found = fabric.broadcast(difference, src=rank)
        if found and fabric.is_global_zero:
            raise UserError(
                f"process {rank} was not started as the first one: {found}; start all with the "
                f"same command, data and code"
            )
        if found:
            raise FailedElsewhere(f"process {rank} was not started as the first one")


Parts = dict[str, dict[str, Any]]
"""What to say of a name whose value differs -> name -> value."""


def _parts(workspace: Workspace, resume: bool, accept_edits: bool = False) -> Parts:
    """What is in no setting, or there by its place alone."""
    # By their files: what a term names may differ in each process, such as its device.
    files = {f.title: f.file for f in outside([workspace.config]) if f.file is not None}
    steps = range(workspace.learned.num_steps)
    return {
        "its {} of the library is another": {"code": training_code_digest()},
        "it was started with another {}": {
            "--resume": resume,
            "--accept-edits": accept_edits,
        },
        "its file with the {} says something else": {
            name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()
        },
        "its data have other {}": content_to_plain(workspace.content),
        "its images to {} are others": {
            "train on": workspace.images_sha256,
            "test on": [workspace.evaluation_sha256(step) for step in steps],
        },
    }


def _differing_part(first: Parts, here: Parts) -> str | None:
    for words, values in here.items():
        name = changed(first.get(words, {}), values)
        if name:
            return words.format(name)
    return None
