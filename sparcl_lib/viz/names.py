"""Names in figures, shown as they are: dollars make no formula of them, and hide none."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

P = ParamSpec("P")


def plain_text(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Let a function that draws a figure take every text as it stands.

    A class called `price $1^{ to $2` is no formula of matplotlib's, and was an error of it.
    """

    @wraps(draw)
    def drawn(*arguments: P.args, **options: P.kwargs) -> Figure:
        with rc_context({"text.parse_math": False}):  # for what is laid out while it is drawn
            figure = draw(*arguments, **options)
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        return figure

    return drawn


def in_legend(name: str) -> str:
    """A name that a legend shows: of one that begins with _ it thinks that nobody wants it."""
    return f" {name}" if name.startswith("_") else name
