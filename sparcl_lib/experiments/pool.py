"""Many runs side by side: one thread each, as many processes as cores, step 0 trained once.

A run is on one thread whatever the number of processes, so that its numbers do not depend on it;
two runs of one thread also end sooner than one after the other on two.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from sparcl_lib.config import RunConfig
from sparcl_lib.cores import cores
from sparcl_lib.definitions import Definition
from sparcl_lib.digests.edits import read_digest
from sparcl_lib.errors import UserError, printable
from sparcl_lib.experiments.store import RunKeys, RunStore, run_keys
from sparcl_lib.plugins import can_travel, files_of, load_files, outside
from sparcl_lib.progress import BarsOfOthers, one_line, ticking, tqdm
from sparcl_lib.revision import trained_by
from sparcl_lib.run import Run
from sparcl_lib.stops import stops_come_out
from sparcl_lib.training.workspace import open_workspace

DIED = "its process died, perhaps for lack of memory, or one beside it did: try fewer jobs"
_IN_A_SCRIPT = (
    '; in a script this is called under if __name__ == "__main__":, for processes read it again'
)

_FORETELL = 10
_NO_END = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}]"
"""Of the bar of fewer runs: they take too different times to foretell the end."""


class CallResult(NamedTuple):
    """What a call returned, or one line that says why it did not."""

    value: Any = None
    error: str = ""


Call = Callable[[], Any]
Calls = Mapping[Any, Call]
"""Key -> what is to be called."""
Waiting = deque[tuple[Any, Call]]
"""(key, call), first come, first called. More may join while results come."""
Results = Generator[tuple[Any, CallResult], None, None]
"""(key, what became of its call), in order of coming."""
Executor = Callable[[Waiting], Results]
"""Makes calls side by side: processes of this machine, or a cluster (`experiments.cluster`)."""


class Outcomes(NamedTuple):
    """What became of a list of runs."""

    runs: list[Run | None]
    """In the order asked for; None where it failed."""
    errors: list[str]
    """One line per failed run."""


def run_all(configs: Iterable[RunConfig], store: RunStore, jobs: int | None = None) -> Outcomes:
    """Every run, kept or trained now; one that fails becomes a line of errors and stops no other.

    Step 0 is trained first, and a run begins as soon as its own is there. jobs: processes; None:
    as many as the store says. They do not count where the store has an executor. Interrupted, the
    same call goes on where it stopped.
    """
    configs = list(configs)
    tell_of_data(configs)
    needed = outside(configs)
    keys = [run_keys(config) for config in configs]
    wanted = dict(zip(keys, configs))
    results: dict[RunKeys, CallResult] = {k: _kept(store, c, k) for k, c in wanted.items()}
    missing = {k: c for k, c in wanted.items() if results[k] == CallResult()}
    calls: dict[Any, Call] = {}
    for k, c in missing.items():
        if not store.has_first(k):
            calls.setdefault(k.first, partial(store.train_first, c, k))
    after: dict[Any, dict[Any, Call]] = {first: {} for first in calls}
    for k, c in missing.items():
        begun_by = after.get(k.first, calls)  # with the first calls where its step 0 is there
        begun_by[k] = partial(store.fetch, c, k)
    label = "first steps and runs" if after else "runs"
    titles = {k: title(c) for k, c in wanted.items()}
    firsts = {k.first: f"step 0 of {titles[k]}" for k in reversed(missing)}
    done = run_calls(
        calls, jobs, label, needed, store.executor, after, firsts | titles, store.usual_jobs
    )
    results |= {k: done[k] for k in missing}
    errors = [f"{titles[k]}: {r.error}" for k, r in results.items() if r.error]
    return Outcomes([results[k].value for k in keys], errors)


def tell_of_data(configs: Iterable[RunConfig]) -> None:
    """What each run would say of its lists, once for all: what they print is not seen."""
    said: dict[str, None] = {}
    alike: dict[Any, list[RunConfig]] = {}
    for c in configs:
        cut = c.task, c.class_order, c.setup, c.data.splits, c.data.held_out, c.method.joint
        alike.setdefault((c.dataset, c.data_root, *cut), []).append(c)
    for group in alike.values():
        for config in group:
            with suppress(UserError):  # the run says it; another one may open
                said |= dict.fromkeys(open_workspace(config, sys.stderr.isatty()).remarks)
                break
    for line in said:
        print(f"sparcl: {line}", file=sys.stderr)


def _kept(store: RunStore, config: RunConfig, keys: RunKeys) -> CallResult:
    """The run if it is in the store, an error if it is damaged there, and neither if it is not."""
    try:
        return CallResult(store.find(config, keys))
    except UserError as error:
        return CallResult(error=str(error))


def title(config: RunConfig) -> str:
    """What a run is, in a few words."""
    begins = " ".join(map(str, (config.class_order or ())[:4]))
    order = f", order {begins} ..." if begins else ""
    return f"{config.method.name}, {config.task} {config.setup}{order}, seed {config.seed}"


def run_calls(
    calls: Calls,
    jobs: int | None,
    label: str,
    needed: Sequence[Definition] = (),
    executor: Executor | None = None,
    after: Mapping[Any, Calls] = MappingProxyType({}),
    titles: Mapping[Any, str] = MappingProxyType({}),
    usual_jobs: int | None = None,
) -> dict[Any, CallResult]:
    """Key -> what its call returned, in processes of one thread, under one bar.

    With one job the calls are made here, one after the other. needed: what the calls take from
    outside the library, which other processes read from its files. Where one has no file (it stands
    in a notebook) the calls are made here, or refused with a UserError if more jobs were asked for.
    executor: who makes the calls in place of processes of this machine. after: key
    -> calls that are made once this key's has come back; where it failed, they fail with it.
    titles: key -> what is said to have failed. The bar counts what did not. usual_jobs:
    where none are given; None: one per core.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs is {jobs}: give how many processes, as in 1 or 2, or None")
    if not calls:
        return {}
    total = len(calls) + sum(map(len, after.values()))
    if executor is None:
        executor = _of_this_machine(total, jobs, needed, usual_jobs or cores())
    else:
        files_of(needed)  # refuses those that cannot travel
    results: dict[Any, CallResult] = {}
    waiting = deque(calls.items())
    arriving = executor(waiting)
    foretells = {} if total >= _FORETELL else {"bar_format": _NO_END}
    bar = tqdm(total=total, desc=label, unit="run", **foretells)
    with bar, closing(arriving), ticking(bar):
        for key, result in arriving:
            next_calls = after.get(key, {})
            results[key] = result
            if result.error:
                said = ": ".join(filter(None, [titles.get(key), result.error]))
                bar.write(f"failed: {printable(said)}", file=sys.stderr)
                results |= dict.fromkeys(next_calls, CallResult(error=f"not begun: {said}"))
            else:
                waiting.extend(next_calls.items())
                bar.update()
    return results


def _of_this_machine(
    calls: int, jobs: int | None, needed: Sequence[Definition], usual: int
) -> Executor:
    """As many processes as are asked for and of use, or none beside this one."""
    if jobs is None:
        jobs = usual if can_travel(needed) else 1
    jobs = min(jobs, calls)
    return _one_by_one if jobs <= 1 else partial(_side_by_side, jobs=jobs, files=files_of(needed))


def attempt(
    call: Call,
    files: Mapping[str, Path] | None = None,
    code: "_Code | None" = None,
) -> CallResult:
    """What a call returns or raises. files: of what this process may not know; code: what the
    process that asks has read, where this is another one."""
    try:
        with stops_come_out():
            load_files(files or {})
            if code not in (None, _code_read(files or {})):
                raise UserError(
                    "code was edited while this ran, and would train under the key of what it said "
                    "before: begin anew (in a notebook, restart the kernel)"
                )
            return CallResult(call())
    except UserError as error:
        return CallResult(error=str(error))
    except Exception as error:  # a bug in one run must not cost the others
        return CallResult(error=f"{type(error).__name__}: {' '.join(str(error).split())}")


_Code = tuple[Mapping[str, Any], list[str | None]]


def _code_read(files: Mapping[str, Path]) -> _Code:
    """The library's code and that of these files, as this process has read it."""
    return trained_by(), [read_digest(file) for file in files.values()]


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, as in a pool's process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _one_by_one(waiting: Waiting) -> Results:
    with one_thread():
        while waiting:
            key, call = waiting.popleft()
            with one_line():
                result = attempt(call)
            yield key, result


def _side_by_side(waiting: Waiting, jobs: int, files: Mapping[str, Path]) -> Results:
    """As many calls at a time as there are processes, so that a death costs those alone."""
    while waiting:
        with _processes(jobs) as pool:
            running: dict[Future[CallResult], Any] = {}
            alive = True
            while running or (alive and waiting):
                while alive and waiting and len(running) < jobs:
                    key, call = waiting[0]
                    try:
                        with _deaf_to_interrupts():
                            future = pool.submit(attempt, call, files, _code_read(files))
                        running[future] = key
                    except BrokenProcessPool:
                        alive = False
                    else:
                        waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    alive &= not isinstance(future.exception(), BrokenProcessPool)
                    yield running.pop(future), result_of(future)


def result_of(future: Future[CallResult]) -> CallResult:
    """Of an `attempt`, or why it has none."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        return CallResult(error=DIED + (_IN_A_SCRIPT if _is_script() else ""))
    return CallResult(error=repr(error))


def _is_script() -> bool:
    """Whether this process runs a file, FILE.py, which the processes of a pool read as well."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None) or ""
    return getattr(main, "__spec__", None) is None and file.endswith(".py")


@contextmanager
def _processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned, because forking a process that has used PyTorch's threads may hang."""
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    bars, begun = BarsOfOthers(context, jobs), context.Value("i", 0)
    pool = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(bars, begun))
    try:
        with bars.shown():
            yield pool
    except BaseException:  # Ctrl-C above all: stop now, finished steps are kept
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that begin in here never hear of an interrupt: their parent ends them.

    An interrupt of this process waits until the end. To ignore it in the new process is too late,
    which imports for seconds before, and would print a traceback each.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(bars: BarsOfOthers, begun: Any) -> None:
    """A process of the pool: one thread, one GPU, bars that its parent shows, gone when its parent
    is. begun: how many there are, in shared memory."""
    torch.set_num_threads(1)
    with begun.get_lock():
        number = begun.value
        begun.value += 1
    _take_gpu(number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    sys.stderr = bars.take()
    # tqdm's own is shared with other processes, and said to be leaked where this one is ended.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _take_gpu(number: int) -> None:
    """The GPUs that this process may use, in turn: the others do not exist for it. It has not
    looked for any yet."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",") if named else [str(n) for n in range(torch.cuda.device_count())]
    if len(gpus) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
