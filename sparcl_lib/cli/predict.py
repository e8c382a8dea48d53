"""`sparcl predict`: parse, call, print. Imports the heavy modules late."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sparcl_lib.cli.options import Plugins, Step
from sparcl_lib.errors import UserError, number_of


def predict(
    run: Annotated[
        Path, typer.Argument(help="Run directory, or a file (.onnx) that sparcl export wrote.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photographs.")],
    out: Annotated[Path, typer.Option(help="Folder of the maps; made if it is not there.")],
    step: Step = -1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of an earlier call.")
    ] = False,
    plugins: Plugins = None,
) -> None:
    """Segment photographs: class ids as NAME.png, NAME-overlay.png with a legend, areas as CSV."""
    from sparcl_lib.label_files import AREAS, write_label_maps

    if run.suffix.lower() == ".onnx" and not run.is_dir():
        from sparcl_lib.exporting import load_onnx

        if step != -1:
            raise UserError(f"--step {step}: {run} holds one step, the one it was exported from")
        if plugins:
            raise UserError(f"--plugin is of no use to {run}: leave it out")
        network = load_onnx(run)
        write_label_maps(network.predict, network.classes, images, out, overwrite)
    else:
        from sparcl_lib.plugins import load_plugins
        from sparcl_lib.run import load_run

        load_plugins(plugins or [])
        loaded = load_run(run)
        known = loaded.classes_after(step)
        write_label_maps(partial(loaded.predict, step=step), known, images, out, overwrite)
    maps, overlays = "map of class ids, its overlay", "maps of class ids, their overlays"
    print(f"{number_of(len(images), maps, overlays)} and {AREAS} in {out}")
