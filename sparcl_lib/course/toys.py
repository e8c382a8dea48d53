"""Toys: points of four classes in the plane, and a picture of them that lives."""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from sparcl_lib.course.output import Output, as_html, display_live
from sparcl_lib.course.pictures import alt_of, control_of, how_to_choose, image_of, settings

State = TypeVar("State")
History = list[tuple[int, dict[str, Any]]]
"""Steps that were made one after the other, and the choice that they were made with."""

_COLUMN = 9.0  # inches: the widest that a picture of the course is
_LOOKS = (("#777777", "X"), ("#0072b2", "o"), ("#d55e00", "^"), ("#007a5e", "*"))
_EDGE = 4.0  # the plane goes from 0, since features come after a ReLU, to this


class Points(NamedTuple):
    """Features of four classes in a plane, at the start of step 1."""

    features: Tensor
    """(N, 2), never negative, as after a ReLU; the classes one after the other."""
    labels: Tensor
    """(N,) int64: 0 background, 1 and 2 old classes, 3 a new one."""
    prototypes: Tensor
    """(4, 2): where the first three were in step 0, and the first mean of the new class."""
    names: tuple[str, ...]
    """Of the classes, by label."""


def four_classes(each: int = 15, seed: int = 0) -> Points:
    """The same picture for all who speak of it: old classes that have begun to drift.

    Disc and triangle stand aside of their prototypes, towards each other; the new class, star, lies
    beside the triangle, which it resembles; background is spread wide. each: points of a class.
    """
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.tensor([[0.9, 0.8], [1.0, 3.0], [3.1, 1.1], [2.6, 2.1]])
    drift = torch.tensor([[0.2, 0.1], [0.6, -0.5], [-0.5, 0.5], [0.0, 0.0]])
    spread = torch.tensor([0.45, 0.25, 0.25, 0.25])
    noise = torch.randn(4, each, 2, generator=generator)
    noise = noise - noise.mean(dim=1, keepdim=True)  # so that the class means are where they say
    features = (prototypes + drift)[:, None] + spread[:, None, None] * noise
    labels = torch.arange(4).repeat_interleave(each)
    names = ("background", "disc", "triangle", "star")
    return Points(features.reshape(-1, 2).clamp(min=0), labels, prototypes, names)


def plot_points(
    axes: Axes,
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor | None = None,
    pushes: Tensor | None = None,
    names: Sequence[str] = (),
    legend: bool = True,
) -> None:
    """Draw features (N, 2) by class, each with a colour and a marker of its own.

    Args:
        features: (N, 2).
        labels: (N,) int64, 0 to 3.
        prototypes: (C, 2), drawn as large hollow markers; rows of NaN are left out.
        pushes: (N, 2), drawn as arrows that begin at the points; none where there is no push.
        names: of the classes, for a legend below the figure; none without.
        legend: False for names that only a legend of the whole figure is to show.
    """
    for label, (colour, marker) in enumerate(_LOOKS):
        x, y = _columns(features[labels == label])
        name = names[label] if label < len(names) else None
        axes.scatter(x, y, s=26, color=colour, marker=marker, linewidths=0, alpha=0.75, label=name)
        if prototypes is not None and label < len(prototypes):
            x, y = _columns(prototypes[label : label + 1])
            axes.scatter(
                x, y, s=150, facecolors="none", edgecolors=colour, marker=marker, linewidths=1.8,
                path_effects=[withStroke(linewidth=3.8, foreground="white")],
            )  # fmt: skip
    if pushes is not None:
        pushed = pushes.norm(dim=1) > 0  # an arrow of no length would be a speck
        start, along = _columns(features[pushed]), _columns(pushes[pushed])
        axes.quiver(
            *start, *along, angles="xy", scale_units="xy", scale=1, width=0.004, color="#222222"
        )
    axes.set(xlim=(-0.15, _EDGE), ylim=(-0.15, _EDGE), aspect="equal")
    axes.set(xlabel="channel 0", ylabel="channel 1")
    if names and legend:
        axes.figure.legend(  # below, where no point is
            *axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(names),
            fontsize=8, handletextpad=0, columnspacing=0.8,
        )  # fmt: skip


def _columns(rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
    x, y = rows.detach().numpy().T
    return x, y


def play(
    start: Callable[[], State],
    step: Callable[..., State],
    draw: Callable[..., Figure],
    alt: str,
    frames: Sequence[int] = (0, 5, 20, 80),
    **choices: Sequence[Any],
) -> None:
    """Show a toy that lives: a state, buttons that go on from it, and controls that steer it.

    start() makes the first state; step(state, **values) returns the next one and leaves the one it
    got alone; draw(state, **values) draws one. Each figure gets the number of steps as its title,
    and where the choice was changed on the way, which of them were made with which.
    choices: argument of `step` and `draw` -> its values, as in `explore`; the first ones count
    until another is chosen. Where nothing runs there are the states after `frames` steps (from
    small to large), side by side as far as the page is wide: two figures of 4.4 inches. alt: what
    those show; the first choices are added to it.
    """
    first = {name: values[0] for name, values in choices.items()}
    alt = alt_of(alt, first)
    output = Output(_sequence(start, step, draw, alt, frames, first), alt)
    try:
        import ipywidgets
    except ImportError:
        display(output)
        return
    picture = ipywidgets.HTML()
    controls = {name: control_of(ipywidgets, name, values) for name, values in choices.items()}
    now = start()
    made: History = []

    def redraw(change: Any = None) -> None:
        values = {name: one.value for name, one in controls.items()}
        title = _title(made, values)
        words = f"The toy {title}; {settings(values)}. What the first choices lead to: {alt}"
        picture.value = image_of(_titled(draw(now, **values), title), words)

    def go_on(steps: int) -> None:
        nonlocal now
        values = {name: one.value for name, one in controls.items()}
        for _ in range(steps):
            now = step(now, **values)
        if made and made[-1][1] == values:
            steps += made.pop()[0]
        made.append((steps, values))
        redraw()

    def start_again(_: Any) -> None:
        nonlocal now
        now = start()
        made.clear()
        redraw()

    actions: dict[str, Callable[[Any], None]] = {
        "step": lambda _: go_on(1),
        "10 steps": lambda _: go_on(10),
        "start again": start_again,
    }
    buttons = []
    for words, action in actions.items():
        buttons.append(ipywidgets.Button(description=words))
        buttons[-1].on_click(action)
    for one in controls.values():
        one.observe(redraw, names="value")
    redraw()
    display_live(output, ipywidgets.VBox([*controls.values(), ipywidgets.HBox(buttons), picture]))


def _sequence(
    start: Callable[[], State],
    step: Callable[..., State],
    draw: Callable[..., Figure],
    alt: str,
    frames: Sequence[int],
    values: dict[str, Any],
) -> str:
    """The picture of some states, and what one could do with it where there is a kernel."""
    state, figures = start(), []
    for number in range(max(frames) + 1):
        if number in frames:
            figures.append(_titled(draw(state, **values), _after(number)))
        state = step(state, **values)
    columns = max(1, int(_COLUMN / figures[0].get_figwidth()))
    before = f"to go on step by step{', and to choose: ' if values else ''}"
    line = as_html(how_to_choose(values, before))
    return f"{image_of(figures, alt, columns)}<p>{line}</p>"


def _after(steps: int) -> str:
    return "at the start" if not steps else f"after {steps} step{'s' if steps > 1 else ''}"


def _title(made: History, now: dict[str, Any]) -> str:
    """After how many steps, and where the choice was another on the way, which were made with it.

    >>> _title([(30, {"loss": "a"}), (10, {"loss": "b"})], {"loss": "b"})
    'after 40 steps: 30 with loss = a, then 10 with loss = b'
    """
    changed = {name for _, values in made for name in values if values[name] != now[name]}

    def wording(values: dict[str, Any]) -> str:
        return settings({name: value for name, value in values.items() if name in changed})

    after = _after(sum(steps for steps, _ in made))
    if not changed:
        return after
    parts = [f"{steps} with {wording(values)}" for steps, values in made]
    ahead = "" if made[-1][1] == now else f"; from now on {wording(now)}"
    return f"{after}: {', then '.join(parts)}{ahead}"


def _titled(figure: Figure, title: str) -> Figure:
    wide = int(11 * figure.get_figwidth())  # letters, in the width of the figure
    lines = textwrap.wrap(title, wide)
    figure.suptitle("\n".join(lines), fontsize=11 if len(lines) == 1 else 9)
    return figure
