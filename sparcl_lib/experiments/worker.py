"""What a worker of a cluster does: it trains a run in a folder of its own and returns its files.

The folder lies beside what dask keeps of the worker (`dask worker --local-directory`), on a disk of
its machine, so that a worker which comes back there goes on with a run that it had begun.
"""

import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from sparcl_lib.config import RunConfig
from sparcl_lib.errors import UserError
from sparcl_lib.experiments.pool import one_thread
from sparcl_lib.experiments.store import RunKeys, RunStore, run_keys
from sparcl_lib.plugins import load_files
from sparcl_lib.revision import trained_by
from sparcl_lib.training import train
from sparcl_lib.training.identity import changed, outside_facts, titled
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.writing import write_atomically

Files = dict[str, bytes]
"""Path within a folder, with slashes -> what the file holds."""
_FOLDER = "sparcl-runs"
_BEGUN = "in_progress"


class Job(NamedTuple):
    """One training, with all that a machine with the same code and data lacks to make it."""

    config: RunConfig
    first: str
    """Key of its step 0."""
    run: str | None
    """Key of the run; None: step 0 is wanted alone."""
    options: Mapping[str, Any]
    """Of Lightning Fabric."""
    code: Mapping[str, Any]
    """The code that trains at home, as `trained_by` has it."""
    outside: Mapping[str, Any] = {}
    """What is not the library's, as `outside_facts` has it at home."""
    plugins: Mapping[str, tuple[str, bytes]] = {}
    """What is not the library's -> name and contents of the file that defines it."""
    sent: Mapping[str, Files] = {}
    """Key -> what is there of it at home."""

    @property
    def wanted(self) -> str:
        """The key of what is trained."""
        return self.run or self.first


class Trained(NamedTuple):
    """What came out of a job."""

    worker: str
    """Address of the worker."""
    files: Files | None
    """Of the folder that was wanted; None: its step 0 has to be sent along."""


def train_job(job: Job) -> Trained:
    """Train what is wanted, in a process of a cluster.

    Raises UserError if the code or the data here are others than at home, and as `train` does.
    """
    worker = import_module("distributed").get_worker()
    _check_worker(worker, job)
    scratch = _scratch(worker)
    with one_thread(), _silent():
        load_files(_saved_files(scratch, job))
        keys = run_keys(job.config)
        _check_keys(worker, job, keys)
        store = RunStore((scratch,), partial(train, **job.options))
        for key, files in job.sent.items():
            if not RunDirectory(scratch / key).metrics_file.is_file():
                write_files(scratch / key, files)
        if job.run is None:
            return Trained(worker.address, read_files(store.train_first(job.config, keys)))
        if not store.has_first(keys):
            return Trained(worker.address, None)
        folder = store.fetch(job.config, keys, checkpoints=True).folder
        return Trained(worker.address, read_files(folder))


def forget_run(key: str, dask_worker: Any = None) -> None:
    """Remove a worker's folder of a run that has come home. dask gives the worker by that name."""
    shutil.rmtree(_scratch(dask_worker) / key, ignore_errors=True)


def read_files(folder: Path) -> Files:
    """What a run's folder holds, but for locks, drafts and steps that are not finished."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    wanted = [f for f in files if not f.name.startswith((".", _BEGUN))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in wanted}


def write_files(folder: Path, files: Files) -> None:
    """The files that say that a step or a run is done come last, as in a training."""
    last = ("checkpoint.pt", "metrics.json")
    for name in sorted(files, key=lambda n: last.index(f) if (f := Path(n).name) in last else -1):
        write_atomically(folder / name, partial(Path.write_bytes, data=files[name]))


def _scratch(worker: Any) -> Path:
    return Path(worker.local_directory).absolute().parent / _FOLDER


def _saved_files(scratch: Path, job: Job) -> dict[str, Path]:
    """The files of the job's plug-ins, each in a folder that is named by its contents."""
    saved = {}
    for title, (name, content) in job.plugins.items():
        saved[title] = scratch / "plugins" / hashlib.sha256(content).hexdigest()[:16] / name
        write_files(saved[title].parent, {name: content})
    return saved


def _check_worker(worker: Any, job: Job) -> None:
    """Raise UserError for a worker whose numbers would be others, or that cannot do the job."""
    threads = worker.state.nthreads
    if threads != 1:
        raise UserError(
            f"worker {worker.name} has {threads} threads, which would share one random state: "
            f"start it with --nthreads 1, and one worker per GPU"
        )
    if job.config.data.workers and multiprocessing.current_process().daemon:
        raise UserError(
            f"worker {worker.name} cannot start the {job.config.data.workers} processes that load "
            f"images: start it with --no-nanny, or give data.workers=0"
        )


def _check_keys(worker: Any, job: Job, keys: RunKeys) -> None:
    """Raise UserError unless settings, code and data give the keys that they give at home."""
    if keys.first == job.first and job.run in (None, keys.run):
        return
    if trained_by() != job.code:
        here, home = (", ".join(map(str, code.values())) for code in (trained_by(), job.code))
        raise UserError(
            f"worker {worker.name} trains with another sparcl_lib (revision {here}) than the one "
            f"here ({home}): install the same"
        )
    name = changed(job.outside, outside_facts(job.config))
    if name:
        raise UserError(
            f"worker {worker.name} has another {titled(name)} than this machine, by what it says "
            f"or by a value that it names: give it the same"
        )
    raise UserError(
        f"worker {worker.name} has other data than this machine where {job.config.dataset} is "
        f"looked for (data_root {job.config.data_root}): copy the same there"
    )


@contextmanager
def _silent() -> Iterator[None]:
    """The bar of all runs is shown at home."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
        yield
