"""Runs that a notebook asks for: at once when they are kept, trained live with a bar when not.

Kept runs come with the package (`shipped/`, small); new ones go where those of
`sparcl_lib.train` go.
"""

import json
import os
from collections.abc import Container, Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from sparcl_lib.api import configure
from sparcl_lib.config import RunConfig, parse_settings
from sparcl_lib.errors import UserError
from sparcl_lib.experiments.cluster import CLUSTER_VARIABLE, Cluster, open_cluster
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.experiments.store import RunStore, default_store, run_keys
from sparcl_lib.plugins import can_travel, outside
from sparcl_lib.run import Run
from sparcl_lib.tasks import get_task
from sparcl_lib.training import train

SHIPPED = Path(__file__).parent / "shipped"
CACHE_VARIABLE = "SPARCL_COURSE_CACHE"
USES_VARIABLE = "SPARCL_COURSE_USES"

Name = TypeVar("Name", bound=Hashable)


def minivoc_config(
    method: str, *settings: str, task: str = "6-4", setup: str = "disjoint", seed: int = 0
) -> RunConfig:
    """The configuration of a run on MiniVOC.

    settings: as for `sparcl train --set`, e.g. "method.terms.kd.weight=3".
    Raises UserError for whatever is unknown.
    """
    if not all(isinstance(setting, str) for setting in settings):
        raise UserError('settings are texts, as in minivoc_config("MiB", "optim.lr=0.1")')
    get_task("minivoc", task)
    asked = parse_settings(settings)
    return configure("minivoc", method, task=task, setup=setup, seed=seed, settings=asked)


def run_or_load(config: RunConfig, checkpoints: bool = False) -> Run:
    """The run of this configuration: kept, or trained now.

    checkpoints: whether the networks are needed too; some runs are kept as numbers only.
    Step 0 is trained once for all runs that agree on it, so another weight of a later step
    costs that step alone.
    """
    run = _store().fetch(config, run_keys(config), checkpoints)
    _note_use(run, checkpoints)
    return run


def run_or_load_all(
    configs: Mapping[Name, RunConfig], checkpoints: Container[Name] = ()
) -> dict[Name, Run]:
    """`run_or_load` for each; those that are not kept are trained side by side, one per core, or on
    the cluster that the environment variable SPARCL_CLUSTER names, as `--cluster` does.

    checkpoints: names of the runs whose networks are needed.
    """
    there = can_travel(outside(configs.values()))
    with open_cluster(os.environ.get(CLUSTER_VARIABLE) if there else None) as cluster:
        errors = run_all(configs.values(), _store(cluster)).errors
    if errors:
        raise UserError(errors[0])
    return {name: run_or_load(config, name in checkpoints) for name, config in configs.items()}


def _store(cluster: Cluster | None = None) -> RunStore:
    if cluster is not None:
        return cluster.store(_roots(), "cpu")
    return RunStore(_roots(), partial(train, accelerator="cpu"))


def _roots() -> tuple[Path, ...]:
    """Where runs may be, the writable folder last. CACHE_VARIABLE names one that stands alone."""
    if CACHE_VARIABLE in os.environ:
        return (Path(os.environ[CACHE_VARIABLE]),)
    return SHIPPED, default_store()


def _note_use(run: Run, checkpoints: bool) -> None:
    """For the build: which runs a notebook used, a line each.

    A run with a term that stands in a cell does not count: nobody finds it without that cell, so it
    is trained where the cell is read.
    """
    file = os.environ.get(USES_VARIABLE)
    if file and not outside([run.config]):
        line = json.dumps(
            {"run": str(run.directory.path), "first": str(run.first.path), "whole": checkpoints}
        )
        with open(file, "a", encoding="utf-8") as uses:
            uses.write(line + "\n")
