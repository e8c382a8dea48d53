"""Search for settings with Optuna, on a journal file that processes and machines share.

Every trial is a run directory (one per seed) in the store. The budget is the number of trials of a
method, exact however many processes work on it: a trial is claimed under a lock beside the journal,
and one whose process died is taken over by the next that asks. Ctrl-C and SIGTERM wait while the
journal is written, whose own lock would outlive them for half a minute.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from filelock import FileLock, Timeout

from sparcl_lib.config import RunConfig, parse_settings
from sparcl_lib.digests import function_digest
from sparcl_lib.errors import LossDiverged, UserError, first_few
from sparcl_lib.experiments.base import RunBase
from sparcl_lib.experiments.pool import run_calls, tell_of_data
from sparcl_lib.experiments.space import (
    Space,
    extremes,
    plain_space,
    recipe_values,
    searched_backbones,
    settings_of,
    suggest,
    switches,
)
from sparcl_lib.experiments.store import RunStore, run_keys
from sparcl_lib.plugins import outside
from sparcl_lib.progress import tell
from sparcl_lib.run import Run
from sparcl_lib.stops import Terminated
from sparcl_lib.training.stopping import stops_put_off

SCORES = ("miou_old_no_bg", "miou_new", "miou_all")
OBJECTIVE = "miou_all"
_BY_TEST_IMAGES = (
    f"sparcl: {OBJECTIVE} of the test images chooses here, so it will look better on them than it "
    "is; --set data.held_out=0.2 chooses by images held out of train"
)
_TEST_IMAGES = "test images"
_STARTUP = 5
_ATTEMPTS = 3


@dataclass(frozen=True)
class Sweep:
    """What is searched, and how long."""

    base: RunBase
    spaces: Mapping[str, Space]
    """Method -> its space."""
    trials: int
    """Budget of each method, whoever runs them."""
    seeds: Sequence[int]
    """A trial's score is the mean over these; take none on which methods are compared later."""
    storage: Path
    """The journal; locks stand beside it."""

    def shared(self, method: str) -> dict[str, Any]:
        """What must agree between all who share the journal."""
        base = {name: getattr(self.base, name) for name in ("dataset", "task", "setup")}
        settings = json.loads(json.dumps(self.base.overrides))
        space = plain_space(self.spaces[method])
        # A plug-in that only the space names has its code in no run of the recipe alone.
        first = run_keys(self.with_all(method)).run
        given = {**base, "settings": settings, "seeds": list(self.seeds), "space": space}
        backbones = searched_backbones(self.spaces[method])
        if backbones:
            given["backbones"] = {b.name: function_digest(b.function, b.title) for b in backbones}
        return given | {"recipe, data and code": first}

    def with_all(self, method: str) -> RunConfig:
        """A run that has every term and mechanism of a user's that may be tried."""
        return self.base.config(method, self.seeds[0], switches(self.spaces[method]))

    def check_space(self, method: str) -> None:
        """Raise UserError for a value in the method's space that no run can have: some trial would
        draw it, perhaps the last, and a space that is mended is another sweep."""
        base = self.base.config(method, self.seeds[0])
        for values in extremes(self.spaces[method]):
            try:
                settings = settings_of(values, base)
                self.base.config(method, self.seeds[0], parse_settings(settings))
            except UserError as error:
                fraction = "must be a whole number" in str(error)
                hint = "; a range of whole numbers has whole: true" if fraction else ""
                raise UserError(f"the space of {method}: {error}{hint}") from None

    def chosen_by(self, method: str) -> str:
        """The images that decide which trial is best: `test images`, or `held out 0.2`."""
        share = self.base.config(method, self.seeds[0]).data.held_out
        return f"held out {share:g}" if share else _TEST_IMAGES

    def lock(self, name: str) -> FileLock:
        """A lock beside the journal, for all who share it."""
        folder = Path(f"{self.storage}.locks")
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name.replace('+', '-')}.lock")


class Claim(NamedTuple):
    """A trial that this process runs."""

    trial: Any
    """Optuna's."""
    values: dict[str, Any]
    lock: FileLock
    """Held while the trial is run: a running trial whose lock is free has lost its process."""

    @property
    def number(self) -> int:
        """Of the trial in its study, from 0."""
        number: int = self.trial.number
        return number


def sweep(plan: Sweep, store: RunStore, jobs: int | None = None) -> pd.DataFrame:
    """Run what is left of every method's budget and return the table of all trials.

    Columns: method, trial, state, SCORES (mean over seeds, percent), seconds, settings (as for
    --set), runs (their folders), chosen_by (of `Sweep`), error. Raises UserError without Optuna, or
    for a journal that holds another sweep.
    """
    for method in plan.spaces:
        plan.check_space(method)
    left = {method: plan.trials - len(_done(_study(plan, method))) for method in plan.spaces}
    turns = [(n, method) for n in range(plan.trials) for method in plan.spaces if n < left[method]]
    calls = {turn: partial(run_one, plan, turn[1], store) for turn in turns}
    configs = [plan.base.config(method, plan.seeds[0]) for method in plan.spaces]
    tell_of_data(configs)
    if any(plan.chosen_by(method) == _TEST_IMAGES for method in plan.spaces):
        tell(_BY_TEST_IMAGES)
    needed = outside(map(plan.with_all, plan.spaces))
    for space in plan.spaces.values():
        needed += searched_backbones(space)
    try:
        done = run_calls(calls, jobs, "trials", needed, store.executor, usual_jobs=store.usual_jobs)
    except (KeyboardInterrupt, Terminated):
        with stops_put_off():
            _forgive(plan)
        raise
    for result in done.values():
        if result.error:  # trials that fail stand in the journal: this is something else
            raise UserError(result.error)
    return trials_table(plan)


def run_one(plan: Sweep, method: str, store: RunStore) -> None:
    """Claim the method's next trial and run it; nothing if no trial is left."""
    claim = None
    try:
        with stops_put_off():
            claim = _claim(plan, method)
        if claim is None:
            return
        notes = _measure(plan, method, store, claim.values)
        with stops_put_off():
            for name, value in notes.items():
                claim.trial.set_user_attr(name, value)
            claim.trial.study.tell(claim.number, notes[OBJECTIVE])
    finally:
        if claim is not None:
            claim.lock.release()


def _measure(
    plan: Sweep, method: str, store: RunStore, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Scores and what to remember of a trial; a loss that ran off scores 0 and stops nothing."""
    settings = settings_of(values, plan.base.config(method, plan.seeds[0]))
    notes: dict[str, Any] = {"settings": settings, "error": ""}
    try:
        runs = [_run(plan, method, store, settings, seed) for seed in plan.seeds]
    except LossDiverged as error:
        return notes | dict.fromkeys(SCORES, 0.0) | {"error": str(error)}
    last = pd.DataFrame([run.metrics["steps"][-1] for run in runs])[list(SCORES)].astype(float)
    notes["seconds"] = round(sum(sum(run.metrics["seconds"]) for run in runs), 1)
    notes["runs"] = [run.directory.path.name for run in runs]
    notes |= last.mean().fillna(0.0).to_dict()
    return notes


def _run(plan: Sweep, method: str, store: RunStore, settings: list[str], seed: int) -> Run:
    config: RunConfig = plan.base.config(method, seed, parse_settings(settings))
    return store.fetch(config, run_keys(config))


def _claim(plan: Sweep, method: str) -> Claim | None:
    """A trial that lost its process, or a new one while the budget lasts."""
    optuna, study, space = _optuna(), _study(plan, method), plan.spaces[method]
    with plan.lock("claim"):
        trials = study.get_trials(deepcopy=False)
        running = [t for t in trials if t.state is optuna.trial.TrialState.RUNNING]
        for trial in list(running):
            lock = plan.lock(f"{method}-{trial.number}")
            with suppress(Timeout):
                lock.acquire(timeout=0)
                if _begun_again(study, trial):
                    return _claimed(study, trial._trial_id, space, lock)
                running.remove(trial)
                lock.release()
        if len(running) + len(_done(study)) >= plan.trials:
            return None
        if not any(t.state is optuna.trial.TrialState.WAITING for t in trials):
            study.enqueue_trial(_values(plan, method, trials))
        trial = study.ask()  # the one that waits
        lock = plan.lock(f"{method}-{trial.number}")
        lock.acquire()
        return _claimed(study, trial._trial_id, space, lock)


def _values(plan: Sweep, method: str, before: Sequence[Any]) -> dict[str, Any]:
    """Values of the trial after these: of the first those of the recipe, where the space has them.

    Drawn aside, so that a trial is in the journal with all its values: what was only begun when its
    process died would be drawn again, otherwise.
    """
    optuna, space = _optuna(), plan.spaces[method]
    # Seeded by the trial's number, so that no two processes draw the same.
    sampler = optuna.samplers.TPESampler(
        seed=1000 * plan.seeds[0] + len(before), n_startup_trials=min(_STARTUP, plan.trials)
    )
    aside = optuna.create_study(sampler=sampler, direction="maximize")
    aside.add_trials([t for t in before if t.state.is_finished()])
    if not before:
        aside.enqueue_trial(recipe_values(space, plan.base.config(method, plan.seeds[0])))
    return suggest(aside.ask(), space)


def _begun_again(study: Any, trial: Any) -> bool:
    """Whether a lost trial is begun once more; one that was lost time and again has failed, else
    it would use up the turns of all others."""
    attempts = 1 + trial.user_attrs.get("attempts", 1)
    if attempts > _ATTEMPTS:
        lost = f"its process was lost {_ATTEMPTS} times"
        _optuna().trial.Trial(study, trial._trial_id).set_user_attr("error", lost)
        study.tell(trial.number, state=_optuna().trial.TrialState.FAIL)
        return False
    _optuna().trial.Trial(study, trial._trial_id).set_user_attr("attempts", attempts)
    return True


def _forgive(plan: Sweep) -> None:
    """Trials that were stopped by a stop of all have not lost their process once more."""
    optuna = _optuna()
    for method in plan.spaces:
        study = _study(plan, method)
        with plan.lock("claim"):
            for trial in study.get_trials(deepcopy=False):
                if trial.state is not optuna.trial.TrialState.RUNNING:
                    continue
                with suppress(Timeout), plan.lock(f"{method}-{trial.number}").acquire(timeout=0):
                    attempts = max(0, trial.user_attrs.get("attempts", 1) - 1)
                    again = optuna.trial.Trial(study, trial._trial_id)
                    again.set_user_attr("attempts", attempts)


def _claimed(study: Any, trial_id: int, space: Space, lock: FileLock) -> Claim:
    trial = _optuna().trial.Trial(study, trial_id)
    return Claim(trial, suggest(trial, space), lock)


def _done(study: Any) -> list[Any]:
    return [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]


def _optuna() -> Any:
    try:
        optuna = import_module("optuna")
    except ImportError:
        raise UserError("sparcl sweep needs Optuna: pip install 'sparcl-lib[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open_study(plan: Sweep, method: str) -> Any:
    optuna = _optuna()
    plan.storage.parent.mkdir(parents=True, exist_ok=True)
    _check_journal(plan.storage)
    try:
        journal = optuna.storages.journal.JournalFileBackend(str(plan.storage))
        return optuna.create_study(
            study_name=method, storage=optuna.storages.JournalStorage(journal),
            load_if_exists=True, direction="maximize",
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{plan.storage} is no journal of Optuna ({error}): name another") from None


def _check_journal(file: Path) -> None:
    """Raise UserError for a file of something else: Optuna would write a line into it, and then
    find that it is none of its own."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            first = next(lines, None)
    except OSError:  # none yet, or Optuna will say why
        return
    try:
        fine = first is None or "op_code" in json.loads(first)
    except (ValueError, TypeError):
        fine = False
    if not fine:
        raise UserError(f"{file} is no journal of Optuna: name another")


def _study(plan: Sweep, method: str) -> Any:
    """The study of a method, made on first use; UserError if the journal holds another sweep."""
    with stops_put_off(), plan.lock("study"):
        study = _open_study(plan, method)
        found, shared = study.user_attrs.get("asked"), plan.shared(method)
        if found is None:
            study.set_user_attr("asked", shared)
        if study.user_attrs.get("trials", 0) < plan.trials:
            study.set_user_attr("trials", plan.trials)
    for key in shared if found else ():
        if found.get(key) != shared[key]:
            raise UserError(
                f"{plan.storage} holds a sweep of {method} with {key} {found.get(key)}, not "
                f"{shared[key]}: name another --storage"
            )
    return study


def trials_table(plan: Sweep) -> pd.DataFrame:
    """All trials in the journal, as they were asked for; see `sweep` for the columns."""
    rows = []
    for method in plan.spaces:
        for trial in _study(plan, method).get_trials(deepcopy=False):
            notes = trial.user_attrs
            listed = {name: shlex.join(notes.get(name, ())) for name in ("settings", "runs")}
            numbers = {name: notes.get(name) for name in (*SCORES, "seconds")}
            state = {"method": method, "trial": trial.number, "state": trial.state.name.lower()}
            ended = {"chosen_by": plan.chosen_by(method), "error": notes.get("error", "")}
            rows.append({**state, **numbers, **listed, **ended})
    table = pd.DataFrame(rows)
    return table.astype(dict.fromkeys((*SCORES, "seconds"), float))


def ended_well(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which trials have a score of their own: not 0 for a loss that ran off."""
    return (table["state"] == "complete") & (table["error"] == "")


def sweep_text(table: pd.DataFrame) -> str:
    """The best trial of each method, the budget it had, and the settings to repeat it."""
    done = table[table["state"] == "complete"]
    running = (table["state"] == "running").sum()
    blocks = [f"{running} trials still running elsewhere"] if running else []
    for method, rows in done.groupby("method", sort=False):
        if not ended_well(rows).any():
            errors = first_few(list(dict.fromkeys(rows["error"])), most=1)
            blocks.append(f"{method}: no trial of {len(rows)} has a score: {errors}")
            continue
        best = rows.loc[rows.loc[ended_well(rows), OBJECTIVE].idxmax()]
        level = [str(n) for n in rows["trial"][rows[OBJECTIVE] == best[OBJECTIVE]]]
        which = f"trial {level[0]}" if len(level) == 1 else f"trials {' and '.join(level)} alike"
        listing = rows[["trial", *SCORES, "seconds", "settings"]].to_string(index=False)
        options = " ".join(f"--set {shlex.quote(s)}" for s in shlex.split(best["settings"]))
        blocks.append(
            f"{method}: {len(rows)} trials, {rows['seconds'].sum():.0f} s of training\n{listing}\n"
            f"best by {best['chosen_by']}: {which}, {OBJECTIVE} {best[OBJECTIVE]:.1f}"
            f"{'' if len(level) == 1 else '; the first'}: {options}"
        )
    return "\n\n".join(blocks)
