"""Figures and sliders of the notebooks: a picture with a text for those who cannot see it, and,
where Jupyter can, controls that draw it anew."""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import PIL.Image
import seaborn
from IPython.display import display
from matplotlib.figure import Figure

from sparcl_lib.course.output import Output, as_html, display_live
from sparcl_lib.viz import small_png

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

CSS_PIXELS = 100  # of a page, per inch of a figure
_SCALE = 2  # pixels of the picture for each of the page: sharp on the displays of today
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


def show(figure: Figure, alt: str) -> None:
    """Display a figure, an inch of it as 100 pixels of the page. alt: what it shows, in a sentence.

    The output is an HTML image, because JupyterLab, nbconvert, GitHub and the site all read the
    text of that one.
    """
    display(Output(image_of(figure, alt), alt))


def explore(draw: Callable[..., Figure], alt: str, **choices: Sequence[Any]) -> None:
    """Show draw(...) for the first value of every choice, with controls that draw it anew.

    choices: argument of `draw` -> its values; numbers get a slider, texts a row of buttons.
    Without ipywidgets, or in a page that runs nothing, there is the first picture. alt: what that
    one shows; the choice is added to it, and stands before it where the picture is another.
    """
    first = {name: values[0] for name, values in choices.items()}
    alt = alt_of(alt, first)
    still = image_of(draw(**first), alt)
    output = Output(f"{still}<p>{as_html(how_to_choose(first))}</p>", alt)
    try:
        import ipywidgets
    except ImportError:
        display(output)
        return
    picture = ipywidgets.HTML(still)
    controls = {name: control_of(ipywidgets, name, values) for name, values in choices.items()}

    def redraw(change: Any) -> None:
        values = {name: control.value for name, control in controls.items()}
        words = alt if values == first else f"Drawn anew for {settings(values)}. Before: {alt}"
        picture.value = image_of(draw(**values), words)

    for control in controls.values():
        control.observe(redraw, names="value")
    display_live(output, ipywidgets.VBox([*controls.values(), picture]))


def image_of(figures: Figure | Sequence[Figure], alt: str, columns: int = 1) -> str:
    """HTML of a figure, or of several as one picture with `columns` of them to a row.

    With both sizes, so that the page keeps its place while another picture is loaded.
    """
    data = small_png(figures, CSS_PIXELS * _SCALE, columns)
    with PIL.Image.open(io.BytesIO(data)) as drawn:
        width, height = (round(pixels / _SCALE) for pixels in drawn.size)
    source = base64.b64encode(data).decode("ascii")
    return (
        f'<img alt="{html.escape(alt)}" width="{width}" height="{height}" '
        f'style="max-width:100%;height:auto" src="data:image/png;base64,{source}">'
    )


def settings(values: Mapping[str, Any]) -> str:
    """A choice in words, such as "loss = Hoyer's, step size = 0.1"."""
    return ", ".join(f"{name.replace('_', ' ')} = {value}" for name, value in values.items())


def how_to_choose(values: Mapping[str, Any], before: str = "to choose: ") -> str:
    """The line below a still picture: what runs it, and which choice is shown."""
    names = ", ".join(values).replace("_", " ")
    shown = f" Shown: {settings(values)}." if values else ""
    return f"Run all cells to this one in JupyterLab {before}{names}.{shown}"


def alt_of(alt: str, values: Mapping[str, Any]) -> str:
    """The text of a picture with the choice that it is of."""
    return f"{alt.removesuffix('.')}; {settings(values)}" if values else alt


def control_of(ipywidgets: Any, name: str, values: Sequence[Any]) -> Any:
    """A slider for numbers, a row of buttons for texts; its `value` is at first the first of them.

    A slider goes from the least number to the largest, in whatever order they are given.
    """
    label = name.replace("_", " ")
    if all(isinstance(value, str) for value in values):
        return ipywidgets.ToggleButtons(options=list(values), description=label)
    return ipywidgets.SelectionSlider(
        options=sorted(values),
        value=values[0],
        description=label,
        style={"description_width": "initial"},
    )
