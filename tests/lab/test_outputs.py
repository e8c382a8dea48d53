"""What a cell shows in JupyterLab: run, used, saved, closed, opened again without its kernel."""

import os

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from sparcl_lib.course.lab import lab_environment

MINUTE = 60_000
CELLS = [
    """
from time import sleep
from sparcl_lib.course import check, explore, panels, quiz, show
from sparcl_lib.progress import tqdm

def draw(step):
    figure, axes = panels(width=7, height=2)
    axes.plot([0, step])
    return figure
""",
    "show(draw(1), 'one line')",
    "explore(draw, 'three lines', step=[1, 2, 3])",
    "quiz('Is $x^2 < 2$?', [('Yes', 'Right: $x = 1$.'), ('No', 'It may be.')], right=0)",
    "check('1.1', abs, [((-1,), 2)], hint='Read the docstring')",
    "for _ in tqdm(range(3), 'step 1'):\n    sleep(0.1)",
]
TOY = """
from sparcl_lib.course import panels, play

def start():
    return 0

def rise(height, by):
    return height + by

def draw(height, by):
    figure, axes = panels(width=4.4, height=1)
    axes.plot([0, height], linewidth=by)
    axes.set_ylim(0, 100)
    return figure

play(start, rise, draw, 'a line that rises', frames=(0, 3), by=[1, 2])
"""
OPEN = """async ([path, command]) => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = await app.commands.execute('docmanager:open', {path});
    await panel.context.ready;
    await panel.sessionContext.ready;
    if (command) await app.commands.execute(command);
    return panel.context.model.toJSON();
}"""
SAVE_AND_CLOSE = """async () => {
    const app = window.jupyterapp;
    const panel = app.shell.currentWidget;
    await app.commands.execute('docmanager:save');
    await panel.sessionContext.shutdown();
    panel.close();
}"""
INTERRUPT = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()"
MOVED = "before => document.querySelector('.jupyter-widgets img').src != before"
LOST = "Error displaying widget"


@pytest.fixture(scope="module", params=["jupyter lab", "make lab"])
def lab(request, tmp_path_factory, serve):
    """The folder and the address of a JupyterLab, as a stranger starts it and as we do."""
    folder = tmp_path_factory.mktemp("outputs")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [new_code_cell(source.strip()) for source in CELLS]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "a.ipynb")
    toy = new_notebook(cells=[new_code_cell(TOY)], metadata={"kernelspec": kernel})
    nbformat.write(toy, folder / "toy.ipynb")
    stop = new_code_cell("import sparcl_lib.course, time\nprint('now')\ntime.sleep(60)")
    after = new_code_cell("print('after')")
    nbformat.write(
        new_notebook(cells=[stop, after], metadata={"kernelspec": kernel}), folder / "b.ipynb"
    )
    env = lab_environment(folder) if request.param == "make lab" else dict(os.environ)
    with serve(folder, env) as address:
        yield folder, address


@pytest.fixture
def page(lab, browser):
    page = browser.new_page(viewport={"width": 1300, "height": 2000})
    page.set_default_timeout(2 * MINUTE)
    _start(page, lab[1])
    yield page
    page.close()


def _start(page, address: str) -> None:
    page.goto(f"{address}/lab?reset")
    page.wait_for_function("window.jupyterapp !== undefined")


def seen(page, selector: str) -> list:
    return [e for e in page.locator(f".jp-Notebook {selector}").all() if e.is_visible()]


def texts_of_pictures(page) -> list[str]:
    return [image.get_attribute("alt") for image in seen(page, ".jp-OutputArea img")]


def test_live_saved_and_opened_again(lab, page):
    address = lab[1]
    notebook = page.evaluate(OPEN, ["a.ipynb", "notebook:run-all-cells"])
    assert not any(o["output_type"] == "error" for c in notebook["cells"] for o in c["outputs"])
    page.locator(".noUi-handle").wait_for()

    # One picture each, sharp, with its text; the slider moves it.
    assert texts_of_pictures(page) == ["one line", "three lines; step = 1"]
    for image in seen(page, ".jp-OutputArea img"):
        assert image.evaluate("i => [i.width, i.naturalWidth]") == [700, 1400]
    live = page.locator(".jupyter-widgets img")
    before = live.get_attribute("src")
    page.locator(".noUi-handle").press("ArrowRight")
    page.wait_for_function(
        "s => document.querySelector('.jupyter-widgets img').src != s", arg=before
    )

    # The quiz: formulas, and a verdict with its reason.
    assert not seen(page, "details")
    quiz = page.locator(".jupyter-widgets", has=page.get_by_role("button", name="a")).first
    quiz.locator("mjx-container").first.wait_for()
    quiz.get_by_role("button", name="a").click()
    quiz.get_by_text("Right").wait_for()
    assert seen(page, ":text('Hint: Read the docstring')") and seen(page, ":text('3/3')")

    page.evaluate(SAVE_AND_CLOSE)
    _start(page, address)
    page.evaluate(OPEN, ["a.ipynb", None])
    page.get_by_text(LOST).first.wait_for(state="attached")  # JupyterLab has given up on widgets
    assert not seen(page, f":text('{LOST}')")
    assert texts_of_pictures(page) == ["one line", "three lines; step = 1"]
    assert len(seen(page, "details")) == 2 and seen(page, ".sparcl-still mjx-container")
    assert seen(page, ":text('Run all cells to this one in JupyterLab to choose: step.')")
    assert seen(page, ":text('Shown: step = 1.')")
    assert seen(page, ":text('Hint: Read the docstring')") and seen(page, ":text('3/3')")


def test_a_toy_goes_on_by_buttons_and_is_a_sequence_when_opened_again(lab, page):
    address = lab[1]
    page.evaluate(OPEN, ["toy.ipynb", "notebook:run-all-cells"])
    live = page.locator(".jupyter-widgets img")
    live.wait_for()
    pictures = [live.get_attribute("src")]
    for words in ("step", "10 steps"):
        page.get_by_role("button", name=words, exact=True).click()
        page.wait_for_function(MOVED, arg=pictures[-1])
        pictures.append(live.get_attribute("src"))
    page.locator(".noUi-handle").press("ArrowRight")
    page.wait_for_function(MOVED, arg=pictures[-1])
    page.locator(".noUi-handle").press("ArrowLeft")
    page.wait_for_function(f"before => !({MOVED})(before)", arg=pictures[-1])
    page.get_by_role("button", name="start again").click()
    page.wait_for_function(f"before => !({MOVED})(before)", arg=pictures[0])
    assert len(set(pictures)) == 3
    (image,) = seen(page, ".jp-OutputArea img")
    assert image.evaluate("i => [i.width, i.naturalWidth]") == [440, 880]

    page.evaluate(SAVE_AND_CLOSE)
    _start(page, address)
    page.evaluate(OPEN, ["toy.ipynb", None])
    page.get_by_text(LOST).first.wait_for(state="attached")
    assert not seen(page, f":text('{LOST}')")
    (image,) = seen(page, ".jp-OutputArea img")
    assert image.get_attribute("alt") == "a line that rises; by = 1"
    assert image.evaluate("i => [i.naturalWidth, i.width <= 880]") == [1760, True]
    assert seen(page, ":text('Run all cells to this one in JupyterLab to go on step by step')")


def test_from_somebody_else(lab, page):
    """JupyterLab trusts no style in a notebook that was not run here; nothing is lost with it."""
    folder, _ = lab
    notebook = nbformat.read(folder / "a.ipynb", as_version=nbformat.NO_CONVERT)
    assert any(cell.outputs for cell in notebook.cells)
    notebook.cells.insert(0, new_code_cell("'another notebook'"))
    nbformat.write(notebook, folder / "c.ipynb")
    page.evaluate(OPEN, ["c.ipynb", None])
    page.locator(".sparcl-still mjx-container").first.wait_for()
    assert not seen(page, f":text('{LOST}')")
    assert texts_of_pictures(page) == ["one line", "three lines; step = 1"]
    assert len(seen(page, "details")) == 2


def test_an_interrupt_is_one_line_and_nothing_runs_after_it(lab, page):
    page.evaluate(f"void ({OPEN})(['b.ipynb', 'notebook:run-all-cells'])")
    page.locator(".jp-OutputArea-output", has_text="now").wait_for()
    page.evaluate(INTERRUPT)
    error = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]')
    error.wait_for()
    assert len(error.inner_text().strip().splitlines()) == 1
    assert "KeyboardInterrupt: stopped" in error.inner_text()
    page.wait_for_timeout(1000)
    assert not seen(page, ":text-is('after')")
