"""`sparcl predict`: parse, call, print. Imports the heavy modules late."""

from pathlib import Path
from typing import Annotated

import typer


def predict(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photographs.")],
    out: Annotated[Path, typer.Option(help="Folder of the maps; made if it is not there.")],
    step: Annotated[
        int,
        typer.Option(
            help="After which step, from 0; the last one if not given.", show_default=False
        ),
    ] = -1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of an earlier call.")
    ] = False,
) -> None:
    """Segment photographs: class ids as NAME.png, NAME-overlay.png, and areas of classes as CSV."""
    from sparcl_lib.label_files import AREAS, write_label_maps
    from sparcl_lib.run import load_run

    write_label_maps(load_run(run), images, out, step, overwrite)
    print(f"{len(images)} maps of class ids, their overlays and {AREAS} in {out}")
