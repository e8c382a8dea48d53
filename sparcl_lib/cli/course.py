"""`sparcl course`: the notebooks as a reader and a teacher use them. Parse, call, print."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sparcl_lib.errors import UserError

CHECKOUT = Path(__file__).parents[2]
_CHAPTER = re.compile(r"\d\d")
app = typer.Typer(
    no_args_is_help=True,
    help="The course: a working copy of the chapters, JupyterLab on it, and what a teacher needs.",
)

Copy = Annotated[
    Path | None, typer.Argument(help="The working copy, a folder beside notebooks/.", metavar="DIR")
]

Numbers = Annotated[
    list[str] | None,
    typer.Argument(help="Chapters, such as 03; all if none is given.", metavar="NN"),
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
    folder: Annotated[
        str | None, typer.Argument(help="A working copy, or a hand-out.", metavar="DIR")
    ] = None,
) -> None:
    """Open JupyterLab on the index of the working copy, which is made if it is not there.

    What follows is Jupyter's, such as --no-browser or --port=8890.
    """
    _need_checkout()
    from sparcl_lib.course.copies import is_hand_out
    from sparcl_lib.course.copies import start as start_copy
    from sparcl_lib.course.lab import open_lab

    options = context.args
    if folder is not None and folder.startswith("-"):  # Jupyter's, and no folder was given
        options = [folder, *options]
        folder = None
    copy = Path(folder) if folder else CHECKOUT / "my-course"
    if not is_hand_out(copy):
        print(start_copy(copy))
    raise typer.Exit(open_lab(copy, options))


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A folder with chapters.", metavar="DIR")],
    numbers: Numbers = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON in place of a table.")
    ] = False,
    core: Annotated[
        bool, typer.Option("--core", help="Leave further parts and open exercises out.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(help="What one exercise may take.", min=1, max=86400)
    ] = 60,
) -> None:
    """Mark the exercises of a folder: right, wrong (and what is wrong) or not started.

    Of a project (the folder project/ in it) it says which level the final run reaches. The checks
    are those of the course, so an edited check cell changes nothing. The status is 0 whatever the
    mark.
    """
    _need_checkout()
    from sparcl_lib.course.marking import mark

    marks = mark(folder, numbers or [], seconds, core)
    print(marks.to_json() if as_json else marks.table())


class Product(StrEnum):
    """What `sparcl course make` makes."""

    student = "student"
    solutions = "solutions"
    slides = "slides"
    html = "html"
    pdf = "pdf"


@app.command()
def make(
    what: Annotated[Product, typer.Argument(help="What to make.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write.", metavar="DIR")],
    numbers: Numbers = None,
) -> None:
    """Make what a teacher hands out or shows, from the one source of each chapter.

    student: notebooks with stubs, without outputs and solutions. solutions: with the answers in
    their place. Both want a folder beside notebooks/, where their links lead somewhere.

    slides: headings, formulas, figures and questions of each chapter, the text in the speaker's
    notes. html: pages that need no network. pdf: the same, printed by Chromium. These three are
    made of the saved outputs.
    """
    _need_checkout()
    from sparcl_lib.course import copies, pages

    if _CHAPTER.fullmatch(folder.name) and not folder.exists():
        raise UserError(
            f"{folder} is a chapter's number: give the folder before it, as in "
            f"sparcl course make {what} handout {folder}"
        )
    match what:
        case Product.slides:
            from sparcl_lib.course.slides import write_slides

            written = write_slides(folder, numbers or [])
        case Product.html:
            written = pages.write_pages(folder, numbers or [])
        case Product.pdf:
            written = pages.write_pdfs(folder, numbers or [])
        case Product.student:
            written = copies.hand_out(folder, "student", numbers or [])
        case Product.solutions:
            written = copies.hand_out(folder, "solutions", numbers or [])
    for path in written:
        print(f"wrote {path}")
