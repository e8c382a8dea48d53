"""How many cores this process may use: a job's share of a machine, where it has one."""

import os


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes_here(world: int) -> int:
    """How many of a training's `world` processes share the cores that this one may use.

    torchrun says it; SLURM's srun gives each task cores of its own; otherwise all are taken to be
    on this machine, which on several of them is too many.
    """
    alone = 1 if "SLURM_PROCID" in os.environ else world
    return int(os.environ.get("LOCAL_WORLD_SIZE", alone))
