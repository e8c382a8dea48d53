"""`sparcl bench`: parse, call, print. Imports the heavy modules late."""

from pathlib import Path
from typing import Annotated

import typer

from sparcl_lib.cli.options import (
    Accelerator,
    ConfigFile,
    DataRoot,
    Dataset,
    Plugins,
    Settings,
    Setup,
    TaskName,
    layers,
    names,
)
from sparcl_lib.errors import UserError


def bench(
    out: Annotated[Path, typer.Option(help="Folder of the tables.")] = Path("bench-results"),
    dataset: Dataset = "minivoc",
    task: TaskName = "6-4",
    setup: Setup = "disjoint",
    methods: Annotated[
        str, typer.Option(help="Whose steps are measured; SDR's losses are in any case.")
    ] = "FT,MiB,SDR",
    data_root: DataRoot = None,
    settings: Settings = None,
    config: ConfigFile = None,
    plugins: Plugins = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=600, help="Of each of a dozen measurements, at least.")
    ] = 3,
    accelerator: Accelerator = "auto",
) -> None:
    """Measure how fast this machine trains, and what it takes in memory, in a minute or two.

    An iteration of step 1 against its floor, the passes through the networks that no loss can do
    without; each latent loss against a loop over classes; images per second with and without the
    loader. Networks and images are random, so that VOC and ADE20K need no data, but for the loader.
    """
    import pandas as pd

    from sparcl_lib.bench import device_facts, measure, write_tables
    from sparcl_lib.config import resolve
    from sparcl_lib.plugins import load_plugins

    load_plugins(plugins or [])
    configs = [
        resolve(
            dataset, method, layers(config, settings), task=task, setup=setup, data_root=data_root
        )
        for method in names(methods, "--methods")
    ]
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder for the tables")
    device = device_facts(accelerator)
    tables = measure(configs, accelerator, seconds)
    write_tables(tables, out, device)
    print(", ".join(f"{key} {value}" for key, value in device.items() if value is not None))
    with pd.option_context("display.width", None, "display.max_columns", None):
        for name, table in tables.items():
            print(f"\n{name}\n{table.to_string(index=False, float_format='{:.4g}'.format)}")
    if "loading" not in tables:
        print("\nThe loader needs images: give --data-root")
    print(f"\nTables: {out}")
