"""Accelerator and devices that a run trains on, checked before Lightning Fabric sees them."""

import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from subprocess import Popen
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators.xla import XLAAccelerator
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import distributed

from sparcl_lib.config import Precision
from sparcl_lib.cores import cores
from sparcl_lib.errors import FailedElsewhere, UserError, lacks_memory, number_of, shown
from sparcl_lib.progress import tell
from sparcl_lib.stops import stops_of_the_system
from sparcl_lib.tasks.classes import unknown_name
from sparcl_lib.training.memory import keep_freed_memory

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
_FEW = 8
"""Processes that any machine may run side by side on its processor."""
_PATIENCE = 3.0
"""Seconds in which a process that fails hears of another one that failed."""
_LONG_PATIENCE = 15.0
"""Seconds in which a process has to fail by itself when another one has failed."""
_LOOK_EVERY = 0.5
"""Seconds from one look at the other processes to the next; Fabric's own looks are 5 s apart."""
_TOLD = 2
"""Status of a command that has said what is wrong."""
_KILLED = (-9, 137)
"""Status of a process that the system has ended, as Python has it and as a shell."""
_PARENT = os.getppid()
_STARTED: list[Popen[bytes]] = []
"""The processes that this one has started to train with it, in its first training for all later
ones."""
_TAKING = threading.Lock()
_RANKS = ("RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Where torchrun, SLURM and LSF say which of all processes this is."""


def make_fabric(precision: Precision = "32-true", **options: Any) -> Fabric:
    """Fabric on whatever device there is, launched. options: accelerator, devices, strategy ...

    Raises UserError for devices that are not there, and what else Fabric refuses.
    """
    fabric = _not_launched(precision, options)
    with _refusals(options), _meeting(fabric, options):
        fabric.launch()
    return _ready(fabric)


@contextmanager
def launched(
    precision: Precision = "32-true", deterministic: bool = False, **options: Any
) -> Iterator[Fabric]:
    """Fabric, as `make_fabric` makes it, whose processes all end when this one fails.

    deterministic: whether PyTorch takes deterministic algorithms meanwhile, where it has them.

    What is wrong is told by one of them: the first, or if it knows nothing of it the one that does.
    Raises FailedElsewhere in the others, and UserError where the memory does not suffice.
    """
    fabric, over = _not_launched(precision, options), threading.Event()
    try:
        _watch_others(fabric, over)
        with _refusals(options), _meeting(fabric, options):
            fabric.launch()
        with _deterministic() if deterministic else nullcontext():
            yield _ready(fabric)
    except BaseException as error:
        over.set()
        _take_over(fabric)
        too_large = _lack_of_memory(error, fabric.device)
        if not fabric.is_global_zero:
            time.sleep(_PATIENCE)  # the first process ends this one if it failed as well
        unknown = isinstance(error, Exception) and not isinstance(too_large or error, UserError)
        elsewhere = _failed_elsewhere(error) if unknown and fabric.world_size > 1 else None
        _end_others()
        known = too_large or elsewhere
        if known is not None:
            raise known from error
        raise
    finally:
        over.set()


def _not_launched(precision: Precision, options: Mapping[str, Any]) -> Fabric:
    options = {**options, "devices": options.get("devices", 1)}  # Fabric takes all there are
    check_devices(options)
    given = options
    alone = options.get("num_nodes", 1) == 1 and _count(options["devices"]) == 1
    if alone and options.get("accelerator") != "tpu":  # which has an environment of its own
        # Where SLURM gave several tasks for something else, Fabric would not train at all.
        given = {"plugins": LightningEnvironment(), **options}
    with _refusals(options):
        return Fabric(precision=precision, **given)


@contextmanager
def _refusals(options: Mapping[str, Any]) -> Iterator[None]:
    """UserError for what Fabric refuses."""
    try:
        yield
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        given = ", ".join(f"{name}={value}" for name, value in options.items())
        raise UserError(f"cannot train with {given}: {' '.join(str(error).split())}") from error


@contextmanager
def _meeting(fabric: Fabric, options: Mapping[str, Any]) -> Iterator[None]:
    """Where the other processes are started elsewhere: say that this one waits for them, and let
    Ctrl-C and SIGTERM end it at once. It waits in C++, for half an hour, and no handler of Python's
    is called there.
    """
    known = getattr(fabric.strategy, "cluster_environment", None)
    # A launcher of ours leaves what looks like others started elsewhere.
    others = known is not None and known.creates_processes_externally and not _STARTED
    if not (others or options.get("num_nodes", 1) > 1):
        yield
        return
    rank = os.environ.get(_rank_variable() or "LOCAL_RANK", "0")
    where = ""
    with suppress(NotImplementedError):  # TPUs have no such address
        where = "" if known is None else f" at {known.main_address}:{known.main_port}"
    line = f"sparcl: process {rank} waits for the others{where}: is each of them started?"
    late = threading.Timer(_LONG_PATIENCE, tell, [line])
    late.daemon = True
    late.start()
    try:
        with stops_of_the_system():
            yield
    finally:
        late.cancel()


def _rank_variable() -> str:
    return next((name for name in _RANKS if name in os.environ), "")


def _ready(fabric: Fabric) -> Fabric:
    if fabric.world_size == 1:
        _check_alone()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    return fabric


@contextmanager
def _deterministic() -> Iterator[None]:
    """PyTorch's deterministic algorithms, a warning where it has none, and what was set before."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it as it begins
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def _watch_others(fabric: Fabric, over: threading.Event) -> None:
    """Look after the processes that `fabric` starts, in a thread, until `over`.

    In place of Fabric's own: that one kills the first process as soon as it sees another one dead,
    perhaps before a word is said, or while it ends.
    """
    if not hasattr(fabric.strategy.launcher, "procs"):
        return  # a single process

    def watch() -> None:
        while not over.wait(_LOOK_EVERY):
            _take_over(fabric)
            if _statuses() and not over.wait(_LONG_PATIENCE):
                _end_all()

    threading.Thread(target=watch, daemon=True, name="sparcl-watch").start()


def _take_over(fabric: Fabric) -> None:
    """Move the processes of `fabric` to those of ours: it looks after what is left in its list."""
    theirs: list[Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
    with _TAKING:
        while theirs:
            _STARTED.append(theirs.pop(0))


def _statuses() -> list[int]:
    """Of the processes that this one has started and that have failed."""
    return [process.returncode for process in _STARTED if process.poll()]


def _end_all() -> None:
    """End this process and those it started: it waits for one that has failed, and cannot hear.

    With gloo it hears. NCCL waits for minutes, in a call that no exception reaches.
    """
    error = _ended_elsewhere(_statuses()[0])
    _end_others()
    if not isinstance(error, FailedElsewhere):
        print(f"\nsparcl: {error}", file=sys.stderr, flush=True)
    os._exit(_TOLD)


def _end_others() -> None:
    for process in _STARTED:
        process.kill()
        process.wait()


def _lack_of_memory(error: BaseException, device: torch.device) -> UserError | None:
    if not lacks_memory(error):
        return None
    return UserError(
        f"this run does not fit into the memory ({device.type}): lower data.batch_size or "
        f"data.size; finished steps are kept"
    )


def _failed_elsewhere(error: BaseException) -> UserError | None:
    """An error of this process that follows from the end of another one, as all they send fails."""
    if not is_first_process() and os.getppid() != _PARENT:
        return FailedElsewhere("the first process of this training has ended")
    until = time.monotonic() + (_PATIENCE if _STARTED else 0)
    while not (failed := _statuses()) and time.monotonic() < until:
        time.sleep(0.05)
    return _ended_elsewhere(failed[0]) if failed else _lost_connection(error)


def _ended_elsewhere(status: int) -> UserError:
    """What there is to say of another process that ended with this status."""
    if status == _TOLD:
        return FailedElsewhere("another process of this training has failed")
    why = ", perhaps for lack of memory" if status in _KILLED else ""
    return UserError(
        f"another process of this training ended with status {status}{why}: finished steps are "
        f"kept, go on with --resume"
    )


def _lost_connection(error: BaseException) -> UserError | None:
    """For a process whose others were started by torchrun or SLURM, which say how they ended."""
    ours = distributed.is_available() and isinstance(error, distributed.DistError)
    if not (ours or "gloo" in str(error).lower()):
        return None
    if not is_first_process():
        return FailedElsewhere("another process of this training has ended")
    return UserError(
        "another process of this training has ended, its own line or what started it says why: "
        "finished steps are kept, go on with --resume"
    )


def is_first_process() -> bool:
    """Whether this is the first of the processes that train together, or the only one."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def check_devices(options: Mapping[str, Any]) -> None:
    """Raise UserError for an accelerator or a number of devices or nodes that cannot be had here.

    options: `accelerator`, `devices` (of a node) and `num_nodes` as Fabric takes them, and others
    that are passed over.
    """
    _check_nodes(options.get("num_nodes", 1))
    accelerator, devices = options.get("accelerator", "auto"), options.get("devices", "auto")
    if not isinstance(accelerator, str):
        return  # one of Lightning's objects, by someone who knows it
    if accelerator not in ACCELERATORS:
        raise unknown_name("accelerator", accelerator, ACCELERATORS)
    there = _devices_there(accelerator)
    if there == 0:
        raise UserError(
            f"accelerator {accelerator}: PyTorch sees no such device here (sparcl env shows what "
            f"it sees); use cpu, or auto for what there is"
        )
    wanted = _count(devices)
    if wanted is not None and there is not None and wanted > there:
        raise UserError(f"{wanted} devices are asked for, and there are {there}: give fewer")


def _check_alone() -> None:
    """Raise UserError where this is one of several processes: each would train the whole run."""
    elastic = distributed.is_available() and distributed.is_torchelastic_launched()
    others = int(os.environ["WORLD_SIZE"] if elastic else os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if not is_first_process() or others > 1:
        raise UserError(
            "several processes were started, by torchrun, SLURM or an earlier training on several "
            "devices, and each would train the whole run on one device: give --devices (of a "
            "machine) and --num-nodes as they were started, or start runs that have nothing to do "
            "with each other one by one (srun --ntasks=1)"
        )


def _check_nodes(nodes: object) -> None:
    """Raise UserError for several nodes unless something has started this process on each."""
    if not isinstance(nodes, int) or isinstance(nodes, bool) or nodes < 1:
        raise UserError(f"num_nodes is {shown(nodes)}: give how many machines, as in 1 or 2")
    if nodes > 1 and not _rank_variable():
        raise UserError(
            f"num_nodes is {nodes}, and nothing says which of the processes this is: start it with "
            f"srun or torchrun, which run it on every machine (docs/several_gpus.md)"
        )


def check_synchronises(fabric: Fabric) -> None:
    """Raise UserError where batch norm cannot be synchronised: torch's needs several GPUs."""
    if fabric.world_size == 1 or fabric.device.type != "cuda":
        here = number_of(fabric.world_size, "process", "processes")
        raise UserError(
            f"model.sync_batch_norm=true needs several GPUs, and this is {here} on "
            f"{fabric.device.type}: set it to false, or give --devices 2 where there are GPUs"
        )


def find_device(name: str) -> torch.device:
    """The device of a name as torch writes it, "cpu" or "cuda:1".

    Raises UserError for one that is not there.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise UserError(f"device {shown(name)} is none: give cpu, cuda, cuda:1 or mps") from None
    there = _devices_there(device.type) or 0
    if device.type != "cpu" and (device.index or 0) >= there:
        raise UserError(
            f"device {name}: PyTorch sees {there or 'none'} of this kind here (sparcl env shows "
            f"what it sees); use cpu, or leave device out"
        )
    return device


def gpus_there(accelerator: str) -> int:
    """How many GPUs this accelerator means here; 0: none, or the processor."""
    gpus, apple = torch.cuda.device_count(), int(torch.backends.mps.is_available())
    found = {"auto": gpus or apple, "gpu": gpus or apple, "cuda": gpus, "mps": apple}
    return found.get(accelerator, 0)


def _devices_there(accelerator: str) -> int | None:
    """How many devices there are at most; None: only Fabric knows."""
    if accelerator == "tpu":
        return None if XLAAccelerator.is_available() else 0
    gpus = gpus_there(accelerator)
    if accelerator == "cpu" or (accelerator == "auto" and not gpus):
        return max(_FEW, cores())
    return gpus


def _count(devices: Any) -> int | None:
    """How many are asked for; None: as many as there are."""
    if devices in ("auto", -1, "-1"):
        return None
    if isinstance(devices, str) and re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6})*,?", devices):
        return len(devices.rstrip(",").split(",")) if "," in devices else _positive(int(devices))
    if isinstance(devices, int) and not isinstance(devices, bool):
        return _positive(devices)
    if isinstance(devices, Sequence) and not isinstance(devices, str) and devices:
        return len(devices)
    raise _wrong(devices)


def _positive(devices: int) -> int:
    if devices < 1:
        raise _wrong(devices)
    return devices


def _wrong(devices: object) -> UserError:
    return UserError(f"devices is {shown(devices)}: give how many, as in 1 or 2, or auto")
