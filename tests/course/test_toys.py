"""Toys: the points that chapters share, and a state that buttons move on."""

import base64
import io
import re
import sys

import pytest
import torch
from PIL import Image

from sparcl_lib.course import four_classes, panels, pictures, play, plot_points, toys
from sparcl_lib.course import output as cell_output
from sparcl_lib.course.pictures import control_of


def start():
    return (0,)


def rise(state, by, how):
    return (*state, state[-1] + by)


def draw(state, by, how):
    figure, axes = panels(width=4.4, height=2)
    axes.plot(state, "o" if how == "points" else "-", markersize=by)
    axes.set_ylim(0, 50)
    return figure


@pytest.fixture
def shown(monkeypatch):
    seen = []
    for module in (pictures, cell_output, toys):
        monkeypatch.setattr(module, "display", lambda what, **options: seen.append(what))
    monkeypatch.setattr(cell_output, "get_ipython", lambda: "a kernel")
    return seen


def played(**options):
    play(start, rise, draw, "a line that rises", by=[1, 3], how=["line", "points"], **options)


def picture_in(page: str) -> Image.Image:
    data = re.search('src="data:image/png;base64,([^"]*)"', page)[1]
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_still_form_is_one_picture_of_all_frames_two_in_a_row(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    played()
    (output,) = shown
    page = output.html
    assert page.count("<img") == 1
    assert 'alt="a line that rises; by = 1, how = line"' in page
    assert 'width="880" height="400"' in page
    picture = picture_in(page)
    assert picture.size == (1760, 800) and picture.mode == "P"
    frames = [picture.crop((x, y, x + 880, y + 400)) for x in (0, 880) for y in (0, 400)]
    assert len({frame.tobytes() for frame in frames}) == 4
    assert "to go on step by step, and to choose: by, how." in page


def test_buttons_go_on_and_start_again_and_controls_steer(shown, monkeypatch):
    import ipywidgets

    boxes, calls = [], []
    box = ipywidgets.VBox
    monkeypatch.setattr(ipywidgets, "VBox", lambda kids: boxes.append(kids) or box(kids))
    play(
        start, rise, lambda state, by, how: calls.append((state, by, how)) or draw(state, by, how),
        "a line that rises", frames=(0, 2), by=[1, 3], how=["line", "points"],
    )  # fmt: skip
    still, view = shown
    assert 'alt="a line that rises; by = 1, how = line"' in still.html
    assert list(view) == [cell_output.WIDGET_VIEW]
    ((by, how, row, picture),) = boxes
    step, ten, again = row.children
    assert [button.description for button in row.children] == ["step", "10 steps", "start again"]
    first = picture.value
    step.click()
    assert calls[-1] == ((0, 1), 1, "line") and picture.value != first
    by.value = 3  # the state stays, what comes next is another
    assert calls[-1] == ((0, 1), 3, "line")
    step.click()
    assert calls[-1] == ((0, 1, 4), 3, "line")
    how.value = "points"
    ten.click()
    assert calls[-1] == ((0, 1, *range(4, 35, 3)), 3, "points")
    again.click()
    assert calls[-1] == ((0,), 3, "points")
    by.value, how.value = 1, "line"
    assert picture.value == first


@pytest.fixture
def titles(monkeypatch):
    """Of all the figures that were shown."""
    seen = []
    titled = toys._titled
    monkeypatch.setattr(toys, "_titled", lambda f, title: seen.append(title) or titled(f, title))
    return seen


def test_a_toy_says_which_choice_made_its_steps(shown, titles, monkeypatch):
    """Points that one loss had moved stood under another's name, "after 30 steps"."""
    import ipywidgets

    boxes = []
    box = ipywidgets.VBox
    monkeypatch.setattr(ipywidgets, "VBox", lambda kids: boxes.append(kids) or box(kids))
    played(frames=(0, 2))
    ((by, how, row, picture),) = boxes
    step, ten, again = row.children
    step.click()
    assert titles[-1] == "after 1 step"
    ten.click()
    assert titles[-1] == "after 11 steps"
    how.value = "points"
    assert titles[-1] == "after 11 steps: 11 with how = line; from now on how = points"
    ten.click()
    assert titles[-1] == "after 21 steps: 11 with how = line, then 10 with how = points"
    how.value = "line"
    step.click()
    parts = "11 with how = line, then 10 with how = points, then 1 with how = line"
    assert titles[-1] == f"after 22 steps: {parts}"
    alt = re.search('alt="([^"]*)"', picture.value)[1]
    assert alt.startswith(f"The toy after 22 steps: {parts}; by = 1, how = line. ")
    again.click()
    by.value = 3
    assert titles[-1] == "at the start"
    alt = re.search('alt="([^"]*)"', picture.value)[1]
    assert alt.startswith("The toy at the start; by = 3, how = line. ")
    assert alt.endswith("a line that rises; by = 1, how = line")


def test_a_long_title_is_within_the_figure():
    figure = draw((1,), 1, "line")
    made = [(10, {"loss": f"the ratio, number {n}"}) for n in range(4)]
    toys._titled(figure, toys._title(made, made[-1][1]))
    figure.draw_without_rendering()
    assert figure._suptitle.get_window_extent().width < figure.bbox.width


def test_points_are_the_same_for_all_and_fit_a_relu():
    toy, again = four_classes(), four_classes()
    assert torch.equal(toy.features, again.features)
    assert toy.features.shape == (60, 2) and toy.labels.shape == (60,)
    assert toy.features.min() >= 0 and toy.features.max() < 4
    assert toy.labels.bincount().tolist() == [15] * 4 == [len(toy.features) // 4] * 4
    assert len(toy.names) == len(toy.prototypes) == 4
    assert not torch.equal(four_classes(seed=1).features, toy.features)
    means = torch.stack([toy.features[toy.labels == c].mean(dim=0) for c in range(4)])
    away = (means - toy.prototypes).norm(dim=1)
    assert away[1:3].min() > 0.5 and away[3] < 0.01  # old classes drift, the new one is here
    gap = (means[1] - means[2]).norm()
    assert gap < (toy.prototypes[1] - toy.prototypes[2]).norm()  # towards each other


def test_points_are_drawn_by_class_with_prototypes_and_arrows():
    toy = four_classes(each=3)
    figure, axes = panels(width=4.4, height=4.2)
    plot_points(axes, toy.features, toy.labels)
    assert len(axes.collections) == 4 and figure.legends == []
    figure, axes = panels(width=4.4, height=4.2)
    pushes = toy.prototypes[toy.labels] - toy.features
    plot_points(axes, toy.features, toy.labels, toy.prototypes, pushes, toy.names)
    assert len(axes.collections) == 9
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(toy.names)
    figure.draw_without_rendering()
    above = axes.get_window_extent().y0 - legend.get_window_extent().y1
    assert above > 0 and axes.get_legend() is None  # it covered points
    arrows = axes.collections[-1]
    assert arrows.U.tolist() == pytest.approx(pushes[:, 0].tolist())
    assert arrows.get_offsets()[4].tolist() == pytest.approx(toy.features[4].tolist())
    pushes[::2] = 0  # no arrow of no length, which would be a speck on the point
    _, axes = panels(width=4.4, height=4.2)
    plot_points(axes, toy.features, toy.labels, None, pushes)
    assert axes.collections[-1].U.tolist() == pytest.approx(pushes[1::2, 0].tolist())
    figure, axes = panels(width=4.4, height=4.2)
    plot_points(axes, toy.features, toy.labels, pushes=0 * pushes, names=toy.names, legend=False)
    assert len(axes.collections[-1].U) == 0 and figure.legends == []
    assert axes.get_legend_handles_labels()[1] == list(toy.names)  # for one of the figure


def test_a_slider_goes_up_and_begins_at_the_first_number():
    import ipywidgets

    slider = control_of(ipywidgets, "step_size", [0.1, 0.02, 0.3])
    assert slider.options == (0.02, 0.1, 0.3)
    assert (slider.value, slider.description) == (0.1, "step size")
