"""Figures and sliders of the notebooks: a picture with a text for those who cannot see it first,
then, where Jupyter can, controls that draw it anew."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import seaborn
from IPython.display import Image, display
from matplotlib.figure import Figure

from sparcl_lib.viz import small_png

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_STYLE: "dict[RcKeyType, Any]" = {
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.edgecolor": "#222222",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


def panels(
    columns: int = 1, rows: int = 1, width: float = 9.0, height: float = 3.2, **options: Any
) -> tuple[Figure, Any]:
    """A figure in the style of the course, and its axes as `Figure.subplots` gives them.

    width, height: of the whole figure, in inches. options: sharex, sharey, squeeze ...
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, **options)
    seaborn.despine(figure)
    return figure, axes


def show(figure: Figure, alt: str, dpi: int = 80) -> None:
    """Display a figure as a PNG. alt: what it shows, in a sentence."""
    display(Image(small_png(figure, dpi), alt=alt, metadata={"alt": alt}))


def explore(draw: Callable[..., Figure], alt: str, dpi: int = 80, **choices: Sequence[Any]) -> None:
    """Show draw(...) for the first value of every choice, then controls that draw it anew.

    choices: argument of `draw` -> its values; numbers get a slider, texts a row of buttons.
    Without ipywidgets, or in a page that runs nothing, the figure alone remains.
    """
    start = {name: values[0] for name, values in choices.items()}
    figure = draw(**start)
    show(figure, alt, dpi)
    try:
        import ipywidgets
    except ImportError:
        return
    natural = ipywidgets.Layout(align_self="flex-start", max_width="100%")
    picture = ipywidgets.Image(value=small_png(figure, dpi), format="png", layout=natural)
    controls = {name: _control(ipywidgets, name, values) for name, values in choices.items()}

    def redraw(change: Any) -> None:
        values = {name: control.value for name, control in controls.items()}
        picture.value = small_png(draw(**values), dpi)

    for control in controls.values():
        control.observe(redraw, names="value")
    _display_widget(ipywidgets.VBox([*controls.values(), picture]), list(choices))


def _control(ipywidgets: Any, name: str, values: Sequence[Any]) -> Any:
    label = name.replace("_", " ")
    if all(isinstance(value, str) for value in values):
        return ipywidgets.ToggleButtons(options=list(values), description=label)
    return ipywidgets.SelectionSlider(options=list(values), description=label)


def _display_widget(widget: Any, names: Sequence[str]) -> None:
    """The widget, and for readers without one a line that is the same in every run."""
    bundle = widget._repr_mimebundle_() or {}
    view = {WIDGET_VIEW: bundle[WIDGET_VIEW]} if WIDGET_VIEW in bundle else {}
    text = f"Run this cell in JupyterLab to choose: {', '.join(names).replace('_', ' ')}."
    display({**view, "text/plain": text}, raw=True)
