"""`sparcl course`: the notebooks as a reader and a teacher use them. Parse, call, print."""

from pathlib import Path
from typing import Annotated

import typer

from sparcl_lib.errors import UserError

CHECKOUT = Path(__file__).parents[2]
app = typer.Typer(
    no_args_is_help=True,
    help="The course: a working copy of the chapters, JupyterLab on it, and what a teacher needs.",
)

Copy = Annotated[
    Path | None, typer.Argument(help="The working copy, a folder beside notebooks/.", metavar="DIR")
]


def _need_checkout() -> None:
    if not (CHECKOUT / "notebooks" / "sources").is_dir():
        raise UserError(
            "the chapters do not come with the installed package: clone the repository, and in it "
            "pip install --editable '.[dev]'"
        )


@app.command()
def start(folder: Copy = None) -> None:
    """Make a working copy of the chapters (my-course), or add new chapters to it.

    What you wrote is never overwritten: a chapter that is there is kept. To begin one again, move
    it away first.
    """
    _need_checkout()
    from sparcl_lib.course.copies import start as start_copy

    print(start_copy(folder or CHECKOUT / "my-course"))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Option("--dir", help="Another working copy.")] = None,
) -> None:
    """Open JupyterLab on the index of the working copy, which is made if it is not there.

    All other options are Jupyter's, such as --no-browser or --port=8890.
    """
    _need_checkout()
    from sparcl_lib.course.copies import start as start_copy
    from sparcl_lib.course.lab import open_lab

    copy = folder or CHECKOUT / "my-course"
    print(start_copy(copy))
    raise typer.Exit(open_lab(copy, context.args))
