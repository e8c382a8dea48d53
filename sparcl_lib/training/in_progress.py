"""A step that is stopped inside is saved, and goes on to the same end, bit for bit.

What follows from the seed and the step before is made anew: the old network, where new classes
begin, anchors and importances of a penalty, which image comes when and how it is cropped. What has
moved is saved: network, prototypes, optimiser, what mechanisms have found, the log, and of each
process its random state and what mechanisms of a user's have seen in it. No loader has a state: a
seed and a position are all there is to its order.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import distributed

import sparcl_lib
from sparcl_lib.config import (
    first_step_difference,
    read_config,
    settings_difference,
    to_plain,
)
from sparcl_lib.digests import training_code_digest
from sparcl_lib.errors import UserError
from sparcl_lib.training.agreement import content_difference
from sparcl_lib.training.checkpoint import CheckpointProblem, read_progress
from sparcl_lib.training.content import content_from_plain, content_to_plain
from sparcl_lib.training.identity import changed, titled
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.training.step import StepTrainer
from sparcl_lib.training.stopping import PutOff
from sparcl_lib.training.workspace import Workspace


def step_facts(
    fabric: Fabric, workspace: Workspace, step: int, outside: Mapping[str, Any]
) -> dict[str, Any]:
    """What a step is trained from and with: of its checkpoint, and of what is saved before.

    outside: of `outside_facts`.
    """
    return {
        "config": to_plain(workspace.config),
        "step": step,
        "devices": fabric.world_size,
        "content": content_to_plain(workspace.content),
        "images": workspace.trained_on(step),
        "terms": outside,
    }


class StepSaver:
    """Saves a step between two iterations: every so many minutes, and at SIGTERM or Ctrl-C.

    Processes that train together save in the same iteration: the first one writes what they share,
    and what each has of its own. Then the signal has its effect in all of them, whoever got it.
    """

    def __init__(
        self,
        fabric: Fabric,
        directory: RunDirectory,
        facts: Mapping[str, Any],
        minutes: float,
        put_off: PutOff,
        anew: bool,
        seconds: float,
    ) -> None:
        """facts: of `step_facts`. anew: whether the step began at its beginning. seconds: that it
        has taken so far, in earlier attempts too."""
        self.fabric, self.directory, self.facts, self.put_off = fabric, directory, facts, put_off
        self.minutes, self.anew, self.versions = minutes, anew, _versions(fabric)
        self.started = time.perf_counter() - seconds
        self.saved = time.monotonic()
        self.group: Any = None  # of all
        if self._together and distributed.get_backend() != "gloo":
            # On the processor: to agree there does not wait for what a GPU has still to do.
            self.group = distributed.new_group(backend="gloo")

    def __call__(self, trainer: StepTrainer) -> None:
        """Between two iterations, and behind the last one: mechanisms of a user's may fail then."""
        late = time.monotonic() - self.saved >= 60 * self.minutes
        late |= trainer.done == trainer.plan.iterations and trainer.may_fail_at_the_end
        due, stop = self._largest(late, self.put_off.came)
        if due or stop:
            self._save(trainer, bool(due))
            self.saved = time.monotonic()
        if stop:
            if self._together:
                distributed.barrier(self.group)  # whoever ends first takes the others along
            self.put_off.take_effect(stop)
            self.put_off.install()  # its handler has returned: it was no stop

    @property
    def _together(self) -> bool:
        return self.fabric.world_size > 1

    def _largest(self, *here: int) -> list[int]:
        """The largest of each in all processes."""
        if not self._together:
            return list(here)
        numbers = torch.tensor(here, dtype=torch.int32)
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX, self.group)
        return [int(number) for number in numbers]

    def _save(self, trainer: StepTrainer, due: bool) -> None:
        each = self._of_each(trainer)
        if not self.fabric.is_global_zero:
            return
        step = self.facts["step"]
        files = self.directory.progress_files(step)
        if self.anew and not due and any(map(Path.exists, files)):
            return  # what another attempt has saved stays, as `begun_step` has promised
        stays = "the save before it stays" if files[0].exists() else f"step {step} is not saved"
        for found in each:
            if isinstance(found, str):
                _note(f"cannot save {files[0]}: {found}; {stays}")
                return
        own = {key: [found[key] for found in each] for key in ("random", "added")}
        took = {"seconds": time.perf_counter() - self.started}
        try:
            state = {**self.facts, "versions": self.versions, **trainer.progress(), **own, **took}
            self.directory.save_progress(step, state, self.anew)
            self.anew = False
        except OSError as error:  # days of training are worth more than a save
            _note(f"cannot write {files[0]}: {error.strerror or error}; {stays}")

    def _of_each(self, trainer: StepTrainer) -> list[Any]:
        """What each process has of its own, or why it cannot be saved; complete in the first."""
        here: dict[str, Any] | str
        try:
            here = trainer.progress_here()
        except UserError as error:  # of a mechanism that is not the library's
            here = str(error)
        if not self._together:
            return [here]
        each: list[Any] = [None] * self.fabric.world_size
        first = self.fabric.is_global_zero
        distributed.gather_object(here, each if first else None, group=self.group)
        return each


def begun_step(
    fabric: Fabric,
    workspace: Workspace,
    directory: RunDirectory,
    facts: Mapping[str, Any],
    resume: bool,
    accept_edits: bool,
) -> dict[str, Any] | None:
    """What a step that was stopped inside has come to, in every process; None: it begins anew.

    facts: of `step_facts`, now. A damaged save is removed, and the one before it taken. Where edits
    of a user's code are accepted, "edits" of the result has them all: what it said, and up to which
    iteration.

    Raises:
        UserError: the step was begun with other settings, data or terms, or on another number of
            devices: what it has come to would be lost, so the user decides.
    """
    step = facts["step"]
    files = directory.progress_files(step)
    if not resume:
        if fabric.is_global_zero and any(file.exists() for file in files):
            _note(
                f"{directory.path}: step {step} begins anew, although it was begun before; to go "
                f"on from there, stop this in the next {workspace.config.save_minutes:g} minutes "
                f"and add --resume"
            )
        return None
    found, number = None, -1
    if fabric.is_global_zero:
        for number, file in enumerate(files):
            found = _readable(directory, step, number) if file.is_file() else None
            if found is not None:
                break
    chosen = fabric.broadcast(number if found is not None else None)
    if chosen is None:
        return None
    state = found or read_progress(files[chosen], step)
    edited = _check(workspace, directory, state, facts, accept_edits)
    if edited:
        edit = {"iteration": state["iteration"], "terms": state["terms"]}
        state["edits"] = [*state.get("edits", ()), edit]
    if fabric.is_global_zero:
        _note_versions(fabric, directory, state)
        if edited:
            _note(
                f"{directory.path}: the {titled(edited)} said something else up to iteration "
                f"{state['iteration']} of step {step}; the edit is accepted and written down"
            )
    return state


def _readable(directory: RunDirectory, step: int, number: int) -> dict[str, Any] | None:
    file = directory.progress_files(step)[number]
    try:
        return read_progress(file, step)
    except CheckpointProblem as problem:
        if isinstance(problem.__cause__, (OSError, MemoryError)):  # the file may well be whole
            raise UserError(f"cannot read {file}: {problem}; try again") from problem
        _note(f"{file}: {problem}; it was removed, the save before it counts")
        file.unlink(missing_ok=True)
        return None


def go_on(trainer: StepTrainer, directory: RunDirectory, state: Mapping[str, Any]) -> None:
    """Bring a trainer to where its step was saved, and say so."""
    fabric, plan = trainer.fabric, trainer.plan
    try:
        rank, added = fabric.global_rank, state.get("added")  # saves of before have none
        here = {"random": state["random"][rank], "added": added[rank] if added else {}}
        trainer.go_on(state, here)
    except UserError:  # of a mechanism that is not the library's
        raise
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _refusal(directory, plan.step, "by another version", "go back to that") from error
    if fabric.is_global_zero:
        _note(f"{directory.path}: step {plan.step} goes on, "
              f"{trainer.done} of {plan.iterations} iterations are done")  # fmt: skip


def _check(
    workspace: Workspace,
    directory: RunDirectory,
    state: Mapping[str, Any],
    facts: Mapping[str, Any],
    accept_edits: bool,
) -> str | None:
    """Raise UserError unless a begun step is the one that would be trained now.

    Returns what of a user's code has been edited since, where that is accepted.
    """
    step, config = state["step"], workspace.config
    try:
        then = read_config(state["config"])
    except UserError as error:
        raise _refusal(directory, step, "by another version", "go back to that") from error
    if step == 0:
        difference = first_step_difference(config, then, state["terms"])
    else:
        difference = settings_difference(config, then, [step])
    if difference:
        raise _refusal(directory, step, f"with other settings ({difference})", "restore them")
    content = content_from_plain(state["content"])
    difference = content_difference(workspace, step, state, content)
    if not difference and list(state["images"]) != workspace.train_ids[step]:
        difference = "its images are others now"
    if difference:
        raise _refusal(directory, step, f"on something else ({difference})", "restore that")
    edited = changed(state["terms"], facts["terms"])
    if edited and not accept_edits:
        said = f"when the {titled(edited)} said something else"
        raise _refusal(directory, step, said, "restore it, or go on with --accept-edits")
    devices, now = state["devices"], facts["devices"]
    if devices != now:
        raise _refusal(directory, step, f"on {devices} devices, not {now}", f"give {devices}")
    return edited


def _refusal(directory: RunDirectory, step: int, begun: str, advice: str) -> UserError:
    last, _ = directory.progress_files(step)
    files = last.with_name(f"{last.stem}*{last.suffix}")
    return UserError(
        f"{directory.path}: step {step} was begun {begun}: {advice}, or delete {files} and it "
        f"begins anew"
    )


def _versions(fabric: Fabric) -> dict[str, str]:
    """What numbers depend on beside what is checked."""
    return {
        "sparcl_lib": f"{sparcl_lib.__version__} (code {training_code_digest()})",
        "torch": str(torch.__version__),
        "accelerator": fabric.device.type,
    }


def _note_versions(fabric: Fabric, directory: RunDirectory, state: Mapping[str, Any]) -> None:
    """A line where a step goes on under other conditions, which may change its numbers."""
    then, now = state["versions"], _versions(fabric)
    others = [f"{name} is {here} and was {then.get(name)}" for name, here in now.items()
              if then.get(name) != here]  # fmt: skip
    if others:
        _note(
            f"{directory.path}: step {state['step']} may not end as if it had not been stopped: "
            f"{', '.join(others)}"
        )


def _note(line: str) -> None:
    print(line, file=sys.stderr)
