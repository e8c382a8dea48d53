"""Processes that train together were started alike, or none of them begins."""

from typing import Any

from lightning_fabric import Fabric

from sparcl_lib.config import settings_difference
from sparcl_lib.digests import text_digest, training_code_digest
from sparcl_lib.errors import FailedElsewhere, UserError
from sparcl_lib.methods import get_term
from sparcl_lib.training.content import content_to_plain
from sparcl_lib.training.identity import changed_term
from sparcl_lib.training.workspace import Workspace


def check_alike(fabric: Fabric, workspace: Workspace) -> None:
    """Raise UserError where a process has other settings, data, terms or code than the first.

    On several machines a command is typed, or a job written, for each. What one of them had
    otherwise went into the gradients of all, and nothing of the run told.
    """
    if fabric.world_size == 1:
        return
    config, parts = workspace.config, _parts(workspace)
    first_config, first_parts = fabric.broadcast((config, parts))
    difference = settings_difference(
        first_config, config, range(workspace.learned.num_steps)
    ) or _differing_part(first_parts, parts)
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


def _parts(workspace: Workspace) -> Parts:
    """What is in no setting, or there by its place alone."""
    images = {split: text_digest(repr(sorted(x.items()))) for split, x in workspace.images.items()}
    # By their files: what a term names may differ in each process, such as its device.
    weighted = (get_term(term.name) for term in workspace.method.terms if term.weight)
    files = {t.name: t.file for t in weighted if not t.of_library and t.file is not None}
    return {
        "its data have other {}": content_to_plain(workspace.content),
        "its images of {} are others": images,
        "its file with the term {} says something else": {
            name: text_digest(file.read_text("utf-8")) for name, file in files.items()
        },
        "its {} of the library is another": {"code": training_code_digest()},
    }


def _differing_part(first: Parts, here: Parts) -> str | None:
    for words, values in here.items():
        name = changed_term(first[words], values)
        if name:
            return words.format(name)
    return None
