"""`sparcl export`: parse, call, print. Imports the heavy modules late."""

from pathlib import Path
from typing import Annotated

import typer

from sparcl_lib.cli.options import Plugins, Step
from sparcl_lib.errors import UserError


def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    format: Annotated[str, typer.Option(help="onnx.")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; network.onnx in the folder of the step if not given."),
    ] = None,
    step: Step = -1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    plugins: Plugins = None,
) -> None:
    """A trained network as a file that runs without torch: logits, class names, normalisation.

    Images of any size go in. Before the file is kept, onnxruntime has computed from it what torch
    does. sparcl predict takes it in the place of a run.
    """
    from sparcl_lib.exporting import export_onnx
    from sparcl_lib.plugins import load_plugins
    from sparcl_lib.run import load_run
    from sparcl_lib.tasks.classes import unknown_name

    if format != "onnx":
        raise unknown_name("format", format, ["onnx"])
    load_plugins(plugins or [])
    loaded = load_run(run)
    number = loaded.step_number(step)
    file = out or run / f"step-{number}" / "network.onnx"
    if file.exists() and not overwrite:
        raise UserError(f"{file} is there already: choose another --out, or add --overwrite")
    export_onnx(loaded, file, number)
    print(f"{file}: {len(loaded.classes_after(number))} classes after step {number}")
