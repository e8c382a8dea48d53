"""Runs kept under a key of their configuration, their data and the code that trains.

The same question asked twice is answered from disk, whoever asks: the course, an ablation, a sweep
or a comparison. Step 0 is kept under a key of its own and shared by all runs that agree on it.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import platformdirs
from filelock import FileLock, Timeout

from sparcl_lib.config import RunConfig
from sparcl_lib.digests import text_digest
from sparcl_lib.errors import UserError
from sparcl_lib.progress import tell
from sparcl_lib.revision import note_edits, trained_by
from sparcl_lib.run import Run
from sparcl_lib.training.devices import is_first_process
from sparcl_lib.training.identity import outside_facts, read_identity
from sparcl_lib.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from sparcl_lib.experiments.pool import Executor

STORE_VARIABLE = "SPARCL_STORE"
_LONGEST = 120
"""Bytes of a name in a key: a folder has room for 255, and its lock and drafts need some."""
Trainer = Callable[..., Mapping[str, Any]]


class RunKeys(NamedTuple):
    """Names under which a run and its step 0 are kept."""

    run: str
    first: str


def run_keys(config: RunConfig) -> RunKeys:
    """The keys of a run: its settings, the contents of the files that they name, and the code that
    trains. No path is in them. Raises UserError when the data are not there.
    """
    identity = read_identity(config)
    run = _digest({**_trained_by(outside_facts(config)), **identity.run})
    first = _digest({**_trained_by(outside_facts(config, 0)), **identity.first})
    name = re.sub(r"[^\w.]+", "-", config.method.name)
    name = name.encode()[:_LONGEST].decode(errors="ignore")
    name = "first-run" if name == "first" else name  # not to be taken for a shared step 0
    return RunKeys(f"{name}-{run}", f"first-{first}")


def _trained_by(outside: Mapping[str, Any]) -> dict[str, Any]:
    """The code: of the library by its revision, and of what is not the library's."""
    return {"training": trained_by(), **({"terms": outside} if outside else {})}


def _digest(content: Mapping[str, Any]) -> str:
    return text_digest(json.dumps(content, sort_keys=True))


@dataclass(frozen=True)
class RunStore:
    """Folders that hold runs by key. Processes of a machine may share them: a lock per key. Not all
    network disks honour it, so other machines are reached by a cluster."""

    roots: tuple[Path, ...]
    """Where runs may be; new ones go to the last."""
    fit: Trainer
    """sparcl_lib.training.train with its device, or one that has it done elsewhere."""
    executor: "Executor | None" = None
    """Who makes many calls of this store side by side; None: processes of this machine."""
    usual_jobs: int | None = None
    """How many of these, where no number of jobs is given; None: one per core."""

    def __post_init__(self) -> None:
        note_edits()

    def find(self, config: RunConfig, keys: RunKeys, checkpoints: bool = False) -> Run | None:
        """The run, if it is complete; checkpoints: whether its networks are needed too."""
        firsts = self._places(keys.first)
        for place, beside in zip(self._places(keys.run), firsts):
            # The run has a copy of step 0, for where the shared one is gone.
            first = next(filter(_has_first, [beside, *firsts, place]), beside)
            run = Run(config, RunDirectory(place), RunDirectory(first))
            if run.complete(checkpoints):
                return run
        return None

    def fetch(self, config: RunConfig, keys: RunKeys, checkpoints: bool = False) -> Run:
        """The run: kept, or trained now from where it stopped."""
        return self.find(config, keys, checkpoints) or self._train(config, keys)

    def has_first(self, keys: RunKeys) -> bool:
        return any(map(_has_first, self._places(keys.first)))

    def train_first(self, config: RunConfig, keys: RunKeys) -> Path:
        """The folder of step 0, trained now unless it is there."""
        places = self._places(keys.first)
        found = next(filter(_has_first, places), None)
        if found is None:
            found = places[-1]
            with self._lock(keys.first):
                if not _has_first(found):  # another process may have been at it
                    self.fit(config, found, steps=[0], resume=True)
        return found

    def _train(self, config: RunConfig, keys: RunKeys) -> Run:
        first = self.train_first(config, keys)
        place = self._places(keys.run)[-1]
        with self._lock(keys.run):
            self.fit(config, place, resume=True, start_from=first)
        return Run(config, RunDirectory(place), RunDirectory(first))

    def _places(self, key: str) -> list[Path]:
        return [root / key for root in self.roots]

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        """Held while a key is trained; the system frees it when the process ends, however. Of
        several processes that train one run together the first one holds it for all."""
        if not is_first_process():
            yield
            return
        place = self.roots[-1] / key
        lock = FileLock(make_store(self.roots[-1], ".locks") / f"{key}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            tell(f"{place}: another process trains it; waiting for its end")
            lock.acquire()
        except OSError as error:
            raise _cannot_keep(place, error) from error
        try:
            yield
        finally:
            lock.release()


def default_store() -> Path:
    """Where runs are kept that name no place: the folder in STORE_VARIABLE, or the user's cache."""
    cache = platformdirs.user_cache_path("sparcl", appauthor=False)
    return Path(os.environ.get(STORE_VARIABLE) or cache / "runs").expanduser()


def make_store(root: Path, inside: str = "") -> Path:
    """The folder of a store or one inside it, made if it is not there. Raises UserError if that
    cannot be."""
    folder = root / inside
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_keep(f"runs in {root}", error) from error
    return folder


def _cannot_keep(what: str | Path, error: OSError) -> UserError:
    return UserError(
        f"cannot keep {what}: {error.strerror or error}; name a folder as the store, or permit "
        f"writing there"
    )


def _has_first(path: Path) -> bool:
    directory = RunDirectory(path)  # one that was stopped in its test has no numbers yet
    return directory.checkpoint_file(0).is_file() and directory.metrics_file.is_file()
