"""Pictures and sliders: what is in the page."""

import base64
import io
import re
import sys

import pytest
from PIL import Image

from sparcl_lib.course import explore, panels, pictures, show
from sparcl_lib.course import output as cell_output


def draw(step, method):
    figure, axes = panels(width=3, height=2)
    axes.plot([step, len(method)])
    return figure


@pytest.fixture
def shown(monkeypatch):
    seen = []
    for module in (pictures, cell_output):
        monkeypatch.setattr(module, "display", lambda what, **options: seen.append(what))
    monkeypatch.setattr(cell_output, "get_ipython", lambda: "a kernel")
    return seen


def picture_in(page: str) -> Image.Image:
    data = re.search('src="data:image/png;base64,([^"]*)"', page)[1]
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_picture_is_an_image_of_the_page_with_a_text(shown):
    show(draw(1, "FT"), 'a "line" that rises > 2')
    (output,) = shown
    data = output._repr_mimebundle_()
    assert data["text/plain"] == 'a "line" that rises > 2'
    page = data["text/html"]
    assert 'alt="a &quot;line&quot; that rises &gt; 2"' in page
    assert 'width="300" height="200"' in page and "max-width:100%" in page
    assert picture_in(page).size == (600, 400) and picture_in(page).mode == "P"


def test_controls_draw_anew(shown, monkeypatch):
    import ipywidgets

    boxes = []
    box = ipywidgets.VBox
    monkeypatch.setattr(ipywidgets, "VBox", lambda kids: boxes.append(kids) or box(kids))
    explore(draw, "a line that rises", step=[0, 1, 2], method=["FT", "MiB"])
    still, view = shown
    assert 'alt="a line that rises; step = 0, method = FT"' in still.html
    assert "Run all cells to this one in JupyterLab to choose: step, method." in still.html
    assert "Shown: step = 0, method = FT." in still.html
    assert list(view) == [cell_output.WIDGET_VIEW]
    ((slider, buttons, picture),) = boxes
    before = picture.value
    assert before in still.html
    slider.value = 2
    middle = picture.value
    buttons.value = "MiB"
    assert len({before, middle, picture.value}) == 3
    assert (
        'alt="Drawn anew for step = 2, method = MiB. '
        'Before: a line that rises; step = 0, method = FT"' in picture.value
    )
    slider.value, buttons.value = 0, "FT"
    assert picture.value == before


def test_without_widgets_the_picture_remains(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    explore(draw, "a line that rises", step=[0, 1], method=["FT"])
    assert len(shown) == 1
