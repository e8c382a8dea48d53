"""What `sparcl_lib` offers at its top: train a run, compare methods, switch loss terms off.

What the commands `sparcl train`, `compare` and `ablate` do, in a cell of a notebook; steps one by
one and a step 0 of another run (`--steps`, `--start-from`) are of the command alone, as are pages.
"""

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from lightning_fabric import Fabric

from sparcl_lib import training
from sparcl_lib.config import OPTIONS, RunConfig, known_keys, resolve
from sparcl_lib.errors import UserError, shown
from sparcl_lib.experiments.base import RunBase, Variant, open_store
from sparcl_lib.experiments.cluster import open_cluster
from sparcl_lib.experiments.store import RunStore, Trainer, default_store, run_keys
from sparcl_lib.methods import method_name
from sparcl_lib.plain import nest
from sparcl_lib.run import Run, load_run
from sparcl_lib.tasks.classes import unknown_name

Settings = Mapping[str, Any]
"""Dotted keys, nested ones or both: {"optim.lr": [0.01, 0.001], "data": {"size": 32}}."""

T = TypeVar("T")
_SHOWN = 4


def train(
    dataset: str | Path,
    method: str,
    *,
    task: str | Path,
    setup: str = "disjoint",
    seed: int = 0,
    settings: Settings | None = None,
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    store: str | Path | None = None,
    accept_edits: bool = False,
    **fabric_options: Any,
) -> Run:
    """Train and evaluate all steps of one method, and return the run.

    Asked the same again, it returns the run that is there; interrupted, it goes on where the step
    that was not finished was saved last: every `save_minutes`, a setting, at Ctrl-C and at SIGTERM.

    Args:
        dataset: "minivoc" or "minivoc20" (made on first use), "voc", "ade20k", or a YAML file for
            your own data.
        method: as `sparcl methods` lists them: "FT", "MiB", "SDR", "Joint" ...
        task: name of a task, as "6-4" or "15-1", or a task file (YAML).
        setup: "sequential", "disjoint" or "overlapped".
        seed: of weights, batches and crops.
        settings: what differs from the recipe of the data set and method, by dotted keys, nested
            ones or both: {"optim.lr": [0.01, 0.001], "data": {"size": 32}}. `sparcl settings`
            lists them all; those that are arguments here (seed, task ...) are none of them.
        data_root: folder of the data; MiniVOC and a YAML file find their own.
        out: run directory, as `sparcl train --out` makes it. One that holds this run is loaded,
            or goes on; one that holds a run with other settings is refused. Without it the run
            goes to the store.
        store: folder that keeps runs by their settings, data and code, and step 0 once for all
            runs that agree on it. By default the folder in the environment variable SPARCL_STORE,
            or one in the user's cache. It does not tell a GPU's runs from a CPU's, nor those of
            another number of threads, which change the last digits.
        accept_edits: with `out`, go on although a term, mechanism or backbone of your own says
            something else now than when the run began. In the store that is another run.
        fabric_options: accelerator ("auto"), devices (1), num_nodes, strategy ... of
            lightning.Fabric.

    Raises:
        UserError: in one line, for whatever the caller can mend.

    >>> quick = {"optim.iterations": 2, "data": {"batch_size": 4}}  # to see it run, not to learn
    >>> run = train("minivoc", "FT", task="6-4", settings=quick)
    >>> run.config.optim.iterations, run.config.data.batch_size
    ((2,), 4)
    >>> train("minivoc", "FT", task="6-4", settings=quick).folder == run.folder  # found again
    True
    >>> train("minivoc", "FT", task="6-4", settings={"optim.momentun": 0.5})
    Traceback (most recent call last):
        ...
    sparcl_lib.errors.UserError: unknown setting 'optim.momentun': did you mean optim.momentum?
    """
    config = configure(
        dataset, method, task=task, setup=setup, seed=seed, settings=settings, data_root=data_root
    )
    _check_fabric_options(fabric_options)
    options = {"accelerator": "auto", "devices": 1, **fabric_options}
    fit: Trainer = partial(training.train, **options)
    if out is None:
        kept = RunStore((_folder(store),), fit)
        return kept.fetch(config, run_keys(config), checkpoints=True)
    if store is not None:
        raise UserError("give out, a run directory, or store, a folder of many runs: not both")
    fit(config, Path(out).expanduser(), resume=True, accept_edits=accept_edits)
    return load_run(out)


def configure(
    dataset: str | Path,
    method: str,
    *,
    task: str | Path,
    setup: str = "disjoint",
    seed: int = 0,
    settings: Settings | None = None,
    data_root: str | Path | None = None,
) -> RunConfig:
    """The configuration that `train` trains; arguments as there.

    >>> configure("minivoc", "FT", task="6-4", settings={"optim.lr": 0.1}).optim.lr
    (0.1,)
    """
    return resolve(
        str(dataset), method, [_settings(settings)], task=str(task), setup=setup, seed=seed,
        data_root=None if data_root is None else str(data_root),
    )  # fmt: skip


def compare(
    dataset: str | Path,
    methods: Iterable[str] | Mapping[str, tuple[str, Settings]],
    *,
    tasks: Iterable[str | Path],
    setups: Iterable[str] = ("disjoint",),
    orders: Iterable[int] = (0,),
    seeds: Iterable[int] = (0,),
    settings: Settings | None = None,
    data_root: str | Path | None = None,
    store: str | Path | None = None,
    jobs: int | None = None,
    accelerator: str = "cpu",
    cluster: str | Path | None = None,
) -> pd.DataFrame:
    """Every method on every task, setup, class order and seed; runs that the store holds are not
    trained again.

    Args:
        methods: names; or name -> (method, settings) for variants of methods under names of
            their own, as {"SDR, no kd": ("SDR", {"method.terms.kd.weight": 0})}.
        orders: 0 is a task's own order of its classes, any other number a shuffled one, named in
            the column task.
        jobs: processes of one thread each, a run in each; None: one per core or GPU, 1: none
            beside this one. Processes import a script again: call this under
            `if __name__ == "__main__":`.
        accelerator: of Lightning Fabric; each run uses one device. `train` takes a GPU if there
            is one, and the store does not tell: name the same here, or another store.
        cluster: train on other machines, in place of processes of this one: the address of a dask
            scheduler, or a YAML file of jobs, as `sparcl compare --cluster` takes it.

    The other arguments are those of `train`, tasks, setups and seeds in lists.

    Returns:
        A row per run and step: dataset, task, setup, method, seed, step, mIoUs in percent; as of
        that step the means over classes of forgetting and intransigence (NaN without Joint beside
        it) and the mean over steps of miou_all; seconds of the step, run (its name in the store),
        folder (for `load_run`). A run that fails is warned of and left out.

    Raises:
        UserError: for whatever the caller can mend, and when no run finished.

    >>> quick = {"optim.iterations": 2, "data.batch_size": 4}
    >>> table = compare("minivoc", ["FT", "MiB"], tasks=["6-4"], settings=quick, jobs=1)
    >>> table[["method", "step"]].values.tolist()
    [['FT', 0], ['FT', 1], ['MiB', 0], ['MiB', 1]]
    """
    from sparcl_lib.experiments import comparison  # needs the extra `report`

    asked = _variants(methods)
    bases = [
        _base(dataset, task, setup, settings, data_root)
        for task in _several(tasks, "tasks")
        for setup in _several(setups, "setups")
    ]
    blocks = [
        comparison.Block(base, asked, _several(seeds, "seeds"))
        for base in comparison.in_orders(bases, _several(orders, "orders"), asked)
    ]
    with open_cluster(cluster) as workers:
        kept = open_store(_folder(store), accelerator, workers)
        found = comparison.compare(blocks, kept, jobs)
    _warn(found.errors)
    return _with_folders(found.table(), store)


def ablate(
    dataset: str | Path,
    method: str,
    terms: Iterable[str],
    *,
    task: str | Path,
    setup: str = "disjoint",
    seeds: Iterable[int] = (0,),
    leave_one_out: bool = False,
    settings: Settings | None = None,
    data_root: str | Path | None = None,
    store: str | Path | None = None,
    jobs: int | None = None,
    accelerator: str = "cpu",
    cluster: str | Path | None = None,
) -> pd.DataFrame:
    """Switch loss terms of a method off: every subset of them, or all and all but one.

    Args:
        terms: names of terms that the method has.
        leave_one_out: all of them and all but one, instead of every subset.

    The other arguments are those of `compare`.

    Returns:
        A row per variant and seed: variant, a truth value per term, seed, mIoUs of the last step
        in percent, seconds, run (its name in the store), folder (for `load_run`). A run that
        fails is warned of and left out.

    Raises:
        UserError: for whatever the caller can mend, and when no run finished.

    >>> quick = {"optim.iterations": 2, "data.batch_size": 4}
    >>> table = ablate("minivoc", "MiB", ["kd"], task="6-4", settings=quick, jobs=1)
    >>> table[["variant", "kd"]].values.tolist()
    [['kd', True], ['none of them', False]]
    """
    from sparcl_lib.experiments import ablation  # needs the extra `report`

    with open_cluster(cluster) as workers:
        found = ablation.ablate(
            _base(dataset, task, setup, settings, data_root), method, _several(terms, "terms"),
            _several(seeds, "seeds"), open_store(_folder(store), accelerator, workers),
            leave_one_out, jobs,
        )  # fmt: skip
    _warn(found.errors)
    return _with_folders(found.table, store)


def _settings(settings: Settings | None) -> dict[str, Any]:
    nested = nest({} if settings is None else settings)
    for name in OPTIONS:
        if name in nested:
            raise UserError(f"{name} is an argument, not a setting: {name}={nested[name]!r}")
    return nested


def _base(
    dataset: str | Path,
    task: str | Path,
    setup: str,
    settings: Settings | None,
    data_root: str | Path | None,
) -> RunBase:
    return RunBase(
        dataset=str(dataset), task=str(task), setup=setup, overrides=(_settings(settings),),
        data_root=None if data_root is None else str(data_root),
    )  # fmt: skip


def _variants(
    methods: Iterable[str] | Mapping[str, tuple[str, Settings]],
) -> Sequence[str | Variant]:
    if not isinstance(methods, Mapping):
        return _several(methods, "methods")
    for name, row in methods.items():
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != 2:
            raise UserError(
                f"{name!r} must be (method, settings), as in ('SDR', {{}}), got {row!r}"
            )
    return [
        Variant(name=name, method=method_name(method), settings=_settings(settings))
        for name, (method, settings) in _several(methods.items(), "methods")
    ]


def _several(values: Iterable[T], what: str) -> list[T]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UserError(f"{what} are a list, as in [{values!r}]")
    found = list(values)
    if not found:
        raise UserError(f"{what} are a list of at least one, got an empty one")
    return found


def _check_fabric_options(options: Mapping[str, Any]) -> None:
    """Raise UserError for what neither `train` nor Fabric takes: a misspelt argument above all."""
    own = [name for name in inspect.signature(train).parameters if name != "fabric_options"]
    fabric = [name for name in inspect.signature(Fabric).parameters if name != "precision"]
    for name, value in options.items():
        if name in fabric:
            continue
        keys = [key for key in _setting_names() if key == name or key.endswith(f".{name}")]
        if keys:
            more = f" (or {', '.join(keys[1:_SHOWN])})" if len(keys) > 1 else ""
            raise UserError(
                f"{name} is a setting, not an argument of train: give it as "
                f'settings={{"{keys[0]}": {shown(value)}}}{more}'
            )
        raise unknown_name("argument of train", name, [*own, *fabric])


def _setting_names() -> list[str]:
    """Settings and their groups: optim, optim.lr."""
    parts = (key.split(".") for key in known_keys())
    grouped = (".".join(key[: n + 1]) for key in parts for n in range(len(key)))
    return list(dict.fromkeys(grouped))


def _with_folders(table: pd.DataFrame, store: str | Path | None) -> pd.DataFrame:
    return table.assign(folder=[str(_folder(store) / name) for name in table["run"]])


def _folder(store: str | Path | None) -> Path:
    return default_store() if store is None else Path(store).expanduser()


def _warn(errors: Iterable[str]) -> None:
    for error in errors:
        warnings.warn(f"failed, and left out: {error}", stacklevel=3)
