"""`sparcl ablate`, `sweep` and `compare`: parse, call, print. Imports the heavy modules late."""

import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparcl_lib.cli.options import (
    Accelerator,
    Against,
    BackboneWeights,
    ClusterName,
    ConfigFile,
    DataRoot,
    Dataset,
    Jobs,
    Plugins,
    Seeds,
    Settings,
    Setup,
    Store,
    TaskName,
    end_with,
    layers,
    names,
    numbers,
    spelled,
)
from sparcl_lib.errors import UserError
from sparcl_lib.tasks.classes import unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sparcl_lib.experiments.base import Variant
    from sparcl_lib.experiments.cluster import Cluster

Out = Annotated[Path, typer.Option(help="Where tables, page and, without --store, runs go.")]


def ablate(
    dataset: Dataset,
    task: TaskName,
    method: Annotated[str, typer.Option(help="The method whose terms are switched.")],
    terms: Annotated[str, typer.Option(help="Its terms, as in matching,attraction,kd.")],
    out: Out,
    setup: Setup = "disjoint",
    seeds: Seeds = "0",
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="All terms and all but one, not every subset.")
    ] = False,
    data_root: DataRoot = None,
    backbone_weights: BackboneWeights = None,
    config: ConfigFile = None,
    settings: Settings = None,
    plugins: Plugins = None,
    store: Store = None,
    jobs: Jobs = None,
    cluster: ClusterName = None,
    accelerator: Accelerator = "cpu",
) -> None:
    """Switch the loss terms of a method on and off; runs that are kept are not trained again."""
    from sparcl_lib.experiments import ablation
    from sparcl_lib.experiments.base import RunBase, open_store
    from sparcl_lib.plugins import load_plugins

    load_plugins(plugins or [])
    base = RunBase(
        dataset=dataset, task=task, setup=setup, data_root=data_root,
        overrides=tuple(layers(config, settings, backbone_weights)),
    )  # fmt: skip
    with _opened(cluster, jobs) as workers:
        result = ablation.ablate(
            base, method, names(terms, "--terms"), numbers(seeds, "--seeds"),
            open_store(store or out / "runs", accelerator, workers), leave_one_out, jobs,
        )  # fmt: skip
    ablation.write_ablation(result, out, [_command()])
    print(f"{ablation.ablation_text(result)}\n\nThe page to look at: {out / 'report.html'}")
    end_with(result.errors)


def sweep(
    dataset: Dataset,
    task: TaskName,
    method: Annotated[str, typer.Option(help="One method or several, as in FT,MiB.")],
    space: Annotated[
        Path,
        typer.Option(
            help="What may vary, a YAML file: optim.lr: {low: 0.005, high: 0.1, log: true}, or a "
            "list of choices; what one method alone varies stands below methods: and its name."
        ),
    ],
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Budget of each method.")],
    storage: Annotated[Path, typer.Option(help="Journal file; others may share it.")],
    out: Annotated[
        Path | None, typer.Option(help="Where table and runs go; the journal's name if not given.")
    ] = None,
    setup: Setup = "disjoint",
    seeds: Annotated[
        str, typer.Option(help="A trial scores the mean over these: none of a later comparison.")
    ] = "100",
    data_root: DataRoot = None,
    backbone_weights: BackboneWeights = None,
    config: ConfigFile = None,
    settings: Settings = None,
    plugins: Plugins = None,
    store: Store = None,
    jobs: Jobs = None,
    cluster: ClusterName = None,
    accelerator: Accelerator = "cpu",
) -> None:
    """Search settings with Optuna, the same budget for each method; goes on where it stopped."""
    from sparcl_lib.experiments.base import RunBase, open_store, unique
    from sparcl_lib.experiments.space import read_space
    from sparcl_lib.experiments.sweep import Sweep, ended_well, sweep_text
    from sparcl_lib.experiments.sweep import sweep as run_sweep
    from sparcl_lib.methods import method_name
    from sparcl_lib.plugins import load_plugins
    from sparcl_lib.writing import write_csv

    load_plugins(plugins or [])
    out = out or storage.with_name(f"{storage.stem}-results")
    base = RunBase(
        dataset=dataset, task=task, setup=setup, data_root=data_root,
        overrides=tuple(layers(config, settings, backbone_weights)),
    )  # fmt: skip
    methods = unique(map(method_name, names(method, "--method")))
    spaces = {name: read_space(space, name) for name in methods}
    plan = Sweep(base, spaces, trials, numbers(seeds, "--seeds"), storage)
    with _opened(cluster, jobs) as workers:
        table = run_sweep(plan, open_store(store or out / "runs", accelerator, workers), jobs)
    write_csv(out / "trials.csv", table)
    print(f"{sweep_text(table)}\n\nEvery trial: {out / 'trials.csv'}")
    hopeful = table[ended_well(table) | (table["state"] == "running")]
    without = sorted(set(table["method"]) - set(hopeful["method"]))
    end_with([f"no trial of {name} has a score" for name in without])


def compare(
    dataset: Dataset,
    tasks: Annotated[str, typer.Option(help="Tasks, as in 6-4,6-1.")],
    out: Out,
    methods: Annotated[str | None, typer.Option(help="Methods, as in FT,MiB,Joint.")] = None,
    variants: Annotated[
        Path | None,
        typer.Option(help="Rows NAME: {method: MiB, set: LIST} in a YAML file, LIST of key=value."),
    ] = None,
    setups: Annotated[str, typer.Option(help="Setups, as in disjoint,overlapped.")] = "disjoint",
    orders: Annotated[
        str,
        typer.Option(
            help="Class orders, as in 0,1,2 or 0-2: the task's own (0), and shuffled ones."
        ),
    ] = "0",
    seeds: Seeds = "0",
    data_root: DataRoot = None,
    backbone_weights: BackboneWeights = None,
    config: ConfigFile = None,
    settings: Settings = None,
    plugins: Plugins = None,
    store: Store = None,
    jobs: Jobs = None,
    cluster: ClusterName = None,
    accelerator: Accelerator = "cpu",
    against: Against = None,
) -> None:
    """Every method on every task, setup, class order and seed, step 0 shared: tables, CSV, page."""
    from sparcl_lib.experiments import comparison
    from sparcl_lib.experiments.base import RunBase, Variant, open_store, read_variants
    from sparcl_lib.plugins import load_plugins

    load_plugins(plugins or [])
    if methods is None and variants is None:
        raise UserError("nothing to compare: give --methods, --variants or both")
    compared: list[str | Variant] = []
    compared += [] if methods is None else names(methods, "--methods")
    compared += read_variants(variants) if variants else []
    against = _check_against(against, compared)
    overrides = tuple(layers(config, settings, backbone_weights))
    bases = [
        RunBase(dataset=dataset, task=task, setup=setup, data_root=data_root, overrides=overrides)
        for task in names(tasks, "--tasks")
        for setup in names(setups, "--setups")
    ]
    blocks = [
        comparison.Block(base, compared, numbers(seeds, "--seeds"))
        for base in comparison.in_orders(bases, numbers(orders, "--orders"), compared)
    ]
    with _opened(cluster, jobs) as workers:
        kept = open_store(store or out / "runs", accelerator, workers)
        result = comparison.compare(blocks, kept, jobs)
    page = out / "report.html"
    comparison.write_comparison(result, out / "results.csv", page, [_command()], against)
    print(f"{comparison.comparison_text(result, against)}\n\nThe page to look at: {page}")
    end_with(result.errors)


def _check_against(against: str | None, compared: "Iterable[str | Variant]") -> str | None:
    """As the method is spelled. Before anything is trained."""
    from sparcl_lib.methods import method_name

    known = [method_name(m) if isinstance(m, str) else m.name for m in compared]
    against = spelled(against, known)
    if against is not None and against not in known:
        raise unknown_name("method of this comparison", against, known)
    return against


def _opened(cluster: str | None, jobs: int | None) -> AbstractContextManager["Cluster | None"]:
    """The cluster that the option names, if it does."""
    if cluster is None:
        return nullcontext()
    if jobs is not None:
        raise UserError("--jobs counts processes of this machine: leave it out beside --cluster")
    from sparcl_lib.experiments.cluster import open_cluster

    return open_cluster(cluster)


def _command() -> str:
    return shlex.join(["sparcl", *sys.argv[1:]])
