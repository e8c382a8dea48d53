"""Every chapter as a reader meets it: opened in a real JupyterLab, run, its sliders moved.

`make test-lab` runs this; Chromium comes from the system (Debian: apt install chromium).
Screenshots go to the folder in SPARCL_LAB_PICTURES, or to pytest's temporary one.
"""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from sparcl_lib.course.build import NOTEBOOKS
from sparcl_lib.course.chapter import read_chapters

ROOT = NOTEBOOKS.parent
CHAPTERS = [chapter.name for chapter in read_chapters(NOTEBOOKS / "sources")]
MINUTE = 60_000


@pytest.fixture(scope="module")
def server(tmp_path_factory, serve):
    """A JupyterLab over a copy of the notebooks; its address."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("notebooks", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name)
    with serve(folder) as address:
        yield address


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = Path(os.environ.get("SPARCL_LAB_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


RUN_ALL = """async path => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = await app.commands.execute('docmanager:open', {path});
    await panel.context.ready;
    await panel.sessionContext.ready;
    await app.commands.execute('notebook:run-all-cells');
    return panel.context.model.toJSON();
}"""
SCROLL = """index => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = index;
    return notebook.scrollToItem(index, 'start');
}"""


def errors_in(notebook: dict) -> list[str]:
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    return [o["evalue"] for o in outputs if o["output_type"] == "error"]


def cells_with_widgets(notebook: dict) -> list[int]:
    view = "application/vnd.jupyter.widget-view+json"
    return [
        index
        for index, cell in enumerate(notebook["cells"])
        if any(view in output.get("data", {}) for output in cell.get("outputs", []))
    ]


def move_every_control(page, cell) -> int:
    """Sliders one to the right, buttons to the last one; how many changed the picture."""
    image = cell.locator(".jupyter-widgets img").last
    image.wait_for(timeout=MINUTE)
    changed = 0
    handles, groups = cell.locator(".noUi-handle"), cell.locator(".widget-toggle-buttons")
    moves = [partial(handle.press, "ArrowRight") for handle in handles.all()]
    moves += [group.locator("button").last.click for group in groups.all()]
    assert moves
    for move in moves:
        before = image.get_attribute("src")
        move()
        changed += _changes(page, image, before)
    return changed


def _changes(page, image, before: str) -> bool:
    for _ in range(100):
        if image.get_attribute("src") != before:
            return True
        page.wait_for_timeout(100)
    return False


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_runs_and_its_sliders_move(name, server, browser, pictures):
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.set_default_timeout(5 * MINUTE)
    page.goto(f"{server}/lab?reset")
    page.wait_for_function("window.jupyterapp !== undefined", timeout=2 * MINUTE)
    notebook = page.evaluate(RUN_ALL, f"notebooks/{name}.ipynb")
    assert errors_in(notebook) == []
    page.screenshot(path=pictures / f"{name}.png")
    for index in cells_with_widgets(notebook):
        page.evaluate(SCROLL, index)
        cell = page.locator(f'.jp-Notebook [data-windowed-list-index="{index}"]')
        assert move_every_control(page, cell) >= 1
        cell.scroll_into_view_if_needed()
        page.screenshot(path=pictures / f"{name}-cell-{index}.png")
    page.close()


def test_every_second_chapter_or_more_has_sliders():
    sources = [(NOTEBOOKS / "sources" / f"{name}.py").read_text("utf-8") for name in CHAPTERS]
    assert sum("explore(" in text for text in sources) >= len(CHAPTERS) / 2
