"""Runs on many machines: workers of dask.distributed, each with one device.

This process alone decides what is trained. A thread of it waits for each call that is under way, as
if it trained itself; the trainer of its store hands the work to a worker and writes down what comes
back. So the locks of the store, the claims of a sweep and what an interrupted call goes on from are
those of one machine.
"""

import asyncio
import logging
import math
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from sparcl_lib.config import RunConfig
from sparcl_lib.errors import UserError, number_of
from sparcl_lib.experiments.pool import CallResult, Results, Waiting, attempt, result_of
from sparcl_lib.experiments.store import RunStore
from sparcl_lib.experiments.worker import (
    Files,
    Job,
    Trained,
    forget_run,
    read_files,
    train_job,
    write_files,
)
from sparcl_lib.plain import is_yaml, read_yaml
from sparcl_lib.plugins import files_of, outside
from sparcl_lib.progress import tell
from sparcl_lib.revision import trained_by
from sparcl_lib.tasks.classes import unknown_name
from sparcl_lib.training.identity import outside_facts
from sparcl_lib.training.run_directory import RunDirectory, config_text
from sparcl_lib.writing import appearing_whole, write_text

CLUSTER_VARIABLE = "SPARCL_CLUSTER"
"""Names the cluster of a notebook."""
SYSTEMS = ("HTCondor", "LSF", "Moab", "OAR", "PBS", "SGE", "SLURM")
"""Whose jobs dask-jobqueue writes and hands in."""
_ONE_RUN_EACH = {"cores": 1, "processes": 1, "nanny": False}
_WORKER_ARGUMENTS = ("--memory-limit", "0")
"""A worker above its limit would take no further run."""
_MOST = 1024
_POLL = 2.0
"""Seconds after which it is seen that workers have come or gone."""
_ALONE = 60.0
"""Seconds without a worker after which that is said."""
_REACHED_WITHIN = "20s"
_GONE = (OSError, RuntimeError)
"""What dask raises where nobody answers any more."""
_NO_SCHEDULER = "the scheduler has gone: start it, its workers and the same command again"


class Jobs(NamedTuple):
    """Workers that are jobs of a queueing system."""

    file: Path
    """Which said so."""
    system: str
    workers: int
    options: Mapping[str, Any]
    """Of dask-jobqueue's class for the system."""


class Cluster:
    """A scheduler of dask.distributed and its workers, reached when something is to be trained."""

    def __init__(self, where: str | Jobs) -> None:
        """where: the address of a scheduler, or the jobs that are its workers."""
        self._where = where
        try:
            self._distributed = import_module("distributed")
            self._jobqueue = _jobqueue() if isinstance(where, Jobs) else None
        except ImportError:
            raise UserError("--cluster needs dask: pip install 'sparcl-lib[cluster]'") from None
        self._client: Any = None
        self._jobs: Any = None
        self._futures: set[Any] = set()
        self._stopped = False
        self._most_jobs = _MOST
        """As many as a system takes that has refused one."""
        self._last_worker = math.inf
        """When there was one, by the clock; infinity, once it is said that there is none."""
        self._connecting = threading.Lock()

    def store(self, roots: tuple[Path, ...], accelerator: str) -> RunStore:
        """The runs in folders of this machine; new ones are trained on the cluster."""
        options = {"accelerator": accelerator, "devices": 1}
        return RunStore(roots, partial(self._fit, options), self.side_by_side)

    def side_by_side(self, waiting: Waiting) -> Results:
        """Make the calls here, as many at a time as there are workers; each waits for one."""
        _ = self.client  # connected before there is a bar
        return self._wait_for(waiting)

    def _wait_for(self, waiting: Waiting) -> Results:
        threads = ThreadPoolExecutor(_MOST)
        running: dict[Future[CallResult], Any] = {}
        self._last_worker = time.monotonic()
        try:
            while waiting or running:
                lanes = self._count_workers(len(waiting) + len(running))
                while waiting and len(running) < lanes:
                    key, call = waiting.popleft()
                    running[threads.submit(attempt, call)] = key
                for future in wait(running, _POLL, FIRST_COMPLETED).done:
                    yield running.pop(future), result_of(future)
        except BaseException:  # Ctrl-C above all: what came home is kept
            self._stopped = True
            with suppress(*_GONE):
                self.client.cancel(list(self._futures), force=True)
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Leave the scheduler; jobs that were handed in are ended."""
        for opened in (self._client, self._jobs):
            if opened is not None:
                opened.close()

    @property
    def client(self) -> Any:
        """dask's, connected. Raises UserError where no scheduler answers."""
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
                workers, link = len(self._client.nthreads()), self._client.dashboard_link
                print(f"sparcl: workers so far: {workers}; dashboard: {link}", file=sys.stderr)
        return self._client

    def _connect(self) -> Any:
        threshold = "distributed.admin.large-graph-warning-threshold"
        import_module("dask").config.set({threshold: "1 TB"})  # step 0 travels with a run
        # Its errors are said here in a line each; it logs them with a traceback before.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        where = self._where
        if isinstance(where, Jobs):
            self._jobs = where = _hand_in(where, self._jobqueue)
        try:
            if isinstance(where, str):
                with ThreadPoolExecutor(1) as apart:  # a notebook has a loop in this thread
                    apart.submit(asyncio.run, self._reach(where)).result()
            return self._distributed.Client(where, timeout=_REACHED_WITHIN, set_as_default=False)
        except (OSError, ValueError, MemoryError) as error:  # one reads HTTP as a length
            reason = " ".join(str(error).split())
            raise UserError(
                f"no scheduler answers at {self._where} ({reason}): start one with dask scheduler, "
                f"and give its address, as in --cluster tcp://10.0.0.1:8786"
            ) from error

    async def _reach(self, address: str) -> None:
        """Say hello to the scheduler, and raise what stands against it.

        A client that has reached nobody waits for its end for 40 s, and says so in a traceback.
        """
        arguments = self._distributed.Security().get_connection_args("client")
        comm = await self._distributed.comm.connect(address, timeout=_REACHED_WITHIN, **arguments)
        await comm.close()

    def _count_workers(self, calls: int) -> int:
        """How many there are, at least 1. Jobs are handed in (again) where workers are missing."""
        try:
            there = len(self.client.nthreads())
        except _GONE as error:
            raise UserError(_NO_SCHEDULER) from error
        if isinstance(self._where, Jobs):
            most = min(self._where.workers, self._most_jobs)
            wanted = max(len(self._jobs.worker_spec), min(most, calls))
            if there < wanted:
                self._hand_in_jobs(wanted)
        self._say_if_alone(there)
        return max(1, there)

    def _say_if_alone(self, workers: int) -> None:
        """Once each time, for a bar that stands still does not say that no worker comes."""
        now = time.monotonic()
        if workers:
            self._last_worker = now
        elif now - self._last_worker > _ALONE:
            self._last_worker = math.inf
            why = "its scheduler has none: start one"
            if isinstance(self._where, Jobs):
                why = f"the jobs of {self._where.file} wait in the queue, or their logs say why"
            tell(f"sparcl: no worker for {_ALONE:.0f} s: {why}")

    def _hand_in_jobs(self, wanted: int) -> None:
        """As `scale` of dask's cluster, which would not tell that a job is refused, and wait on."""
        jobs = self._jobs

        async def hand_in() -> None:
            while len(jobs.worker_spec) < wanted:
                jobs.worker_spec.update(jobs.new_worker_spec())
            await jobs._correct_state()

        try:
            jobs.sync(hand_in)
        except RuntimeError as error:
            for name in [n for n, job in jobs.workers.items() if job.job_id is None]:
                del jobs.workers[name], jobs.worker_spec[name]
            jobs._created.clear()  # dask cannot end what never began
            said = " ".join(str(error).rpartition("stderr:")[2].split()) or "no word why"
            refused = f"{jobs.job_cls.submit_command} refuses the job: {said}"
            if not jobs.workers:
                raise UserError(refused) from error
            self._most_jobs = len(jobs.workers)
            there = number_of(self._most_jobs, "job")
            tell(f"sparcl: {refused}; goes on with the {there} that it took")

    def _fit(
        self,
        options: Mapping[str, Any],
        config: RunConfig,
        out: Path,
        *,
        start_from: Path | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """`sparcl_lib.training.train` for a folder of a store, on a worker.

        Raises UserError as there, and when the cluster fails.
        """
        first, run = (out.name, None) if start_from is None else (start_from.name, out.name)
        files = files_of(outside([config]))
        plugins = {title: (file.name, file.read_bytes()) for title, file in files.items()}
        sent = {out.name: read_files(out)} if RunDirectory(out).steps_done() else {}
        job = Job(
            config, first, run, options, trained_by(), outside_facts(config), plugins, sent
        )  # fmt: skip
        trained = self._train(job)
        if trained.files is None and start_from is not None:
            job = job._replace(sent={**sent, first: read_files(start_from)})
            trained = self._train(job)
        assert trained.files is not None
        metrics = bring_home(trained.files, out, config)
        if run is not None:
            with suppress(Exception):  # of a worker that has gone meanwhile
                self.client.run(forget_run, run, workers=[trained.worker], on_error="ignore")
        return metrics

    def _train(self, job: Job) -> Trained:
        if self._stopped:
            raise UserError(f"{job.wanted} was stopped")
        # Another name each time: dask would answer with what became of the last one.
        key = f"{job.wanted}-{uuid.uuid4().hex[:8]}"
        future = self.client.submit(train_job, job, key=key)
        self._futures.add(future)
        try:
            trained: Trained = future.result()
            return trained
        except self._distributed.KilledWorker as error:
            raise UserError(
                "its worker died, and so did those that took over, perhaps for lack of memory or "
                "time: their logs say more"
            ) from error
        except CancelledError as error:
            raise UserError(_NO_SCHEDULER) from error
        finally:
            self._futures.discard(future)


@contextmanager
def open_cluster(where: str | Path | None) -> Iterator[Cluster | None]:
    """The cluster that `--cluster` names: ADDRESS of a scheduler, or FILE.yaml; None for None.

    Raises UserError without dask, and for a file that says something else.
    """
    if where is None:
        yield None
        return
    cluster = Cluster(_read_jobs(Path(where)) if is_yaml(str(where)) else str(where))
    try:
        yield cluster
    finally:
        cluster.close()


def bring_home(files: Files, out: Path, config: RunConfig) -> dict[str, Any]:
    """Let the files of a run appear in the folder `out`, whole, and return its metrics.

    Raises UserError unless each step's checkpoint and the metrics have the checksums they carry.
    """
    with appearing_whole(out, "free space, or name another --store") as draft:
        write_files(draft, files)
        received = RunDirectory(draft)
        try:
            metrics = received.metrics()
            for step in range(len(metrics["seconds"])):
                received.load_checkpoint(step)
        except UserError as error:
            raise UserError(f"what a worker sent as {out.name} is not whole: {error}") from error
        text = config_text(config, received.content(), out.absolute())
        write_text(received.config_file, text)
        shutil.rmtree(out, ignore_errors=True)  # of an attempt that was stopped
    return metrics


def _read_jobs(file: Path) -> Jobs:
    plain = read_yaml(file)
    system, workers = plain.pop("system", None), plain.pop("workers", None)
    known = {name.lower(): name for name in SYSTEMS}
    if not isinstance(system, str):
        raise UserError(f"{file} names no system: say one of {', '.join(SYSTEMS)}")
    if system.lower() not in known:
        raise unknown_name("system", system, SYSTEMS)
    if isinstance(workers, bool) or not isinstance(workers, int) or not 0 < workers <= _MOST:
        raise UserError(f"{file}: workers is a number from 1 to {_MOST}, as in workers: 8")
    return Jobs(file, known[system.lower()], workers, plain)


def _jobqueue() -> Any:
    """dask-jobqueue, which takes Ctrl-C for itself as it is imported: given back."""
    before = signal.getsignal(signal.SIGINT)
    try:
        return import_module("dask_jobqueue")
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


def _hand_in(jobs: Jobs, jobqueue: Any) -> Any:
    """dask-jobqueue's cluster, without a job yet. Raises UserError for what it refuses."""
    kind = getattr(jobqueue, f"{jobs.system}Cluster")
    command = kind.job_cls.submit_command.split()[0]
    if shutil.which(command) is None:
        raise UserError(f"there is no {command} here: start this where jobs are handed in")
    options = dict(jobs.options)
    options["worker_extra_args"] = [*_WORKER_ARGUMENTS, *options.get("worker_extra_args", ())]
    try:
        return kind(**_ONE_RUN_EACH | options)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).partition(". Very likely")[0]  # then all arguments
        raise UserError(f"{jobs.file}: dask-jobqueue refuses it: {reason}") from error
