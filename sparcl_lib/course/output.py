"""What a cell shows: HTML where there is a page, a plain text where there is none, and with a
kernel a widget in the place of the HTML.

A saved widget is lost when its kernel is gone: JupyterLab then says "Error displaying widget".
So a widget is always the second output of its cell, after a still form of the same thing, and a
style in the still form hides it while the widget lives, and the widget once it is lost.
"""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from IPython import get_ipython
from IPython.display import display

from sparcl_lib.progress import PAGE_CLASS

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_STILL = "sparcl-still"
# JupyterLab's page alone has these classes. On a page without widgets the still form is all there
# is; one with widgets and classes of its own, as Colab's, shows both, the still form above.
_STYLE = f"""<style>
.jp-OutputArea-child:has(.{_STILL}):has(+ .jp-OutputArea-child .jupyter-widgets *),
.jp-OutputArea-child:has(.{_STILL}) + .jp-OutputArea-child > .jp-OutputArea-output:not(:has(*)) {{
  display: none;
}}
</style>"""


@dataclass(frozen=True, repr=False)
class Output:
    """One output of a cell; `plain` is its repr too, so that it can be printed."""

    html: str
    plain: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.plain}

    def __repr__(self) -> str:
        return self.plain


def display_live(still: Output, widget: Any) -> None:
    """The still form, and where there is a kernel and a page the widget in its place."""
    page = f'<div class="{_STILL}">{still.html}</div>\n{_STYLE}'
    display(Output(page, still.plain))
    view = (widget._repr_mimebundle_() or {}).get(WIDGET_VIEW)
    if view is not None and get_ipython() is not None:
        # Without a text: where no widget can be, nothing stands below the still form.
        display({WIDGET_VIEW: view}, raw=True)


def is_live(output: Mapping[str, Any]) -> bool:
    """Whether an output of a notebook is neither saved nor compared: it says nothing of a result.

    A widget alone, which needs a kernel to show; a progress bar, or one that is gone: a run that is
    kept already shows none.
    """
    data = output.get("data", {})
    page = data.get("text/html")
    bar = page is not None and (not page or PAGE_CLASS in page)
    return bar or set(data) == {WIDGET_VIEW}


def as_html(text: str) -> str:
    """A plain text in a page: `code` between backticks, and $formulas$ as they are."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def coloured(kind: Literal["success", "error"], words: str) -> str:
    """HTML of words in the colour that JupyterLab's theme has for them, light or dark."""
    colour = {"success": "#1a7f37", "error": "#c62828"}[kind]
    return f'<b style="color:var(--jp-{kind}-color1,{colour})">{words}</b>'
