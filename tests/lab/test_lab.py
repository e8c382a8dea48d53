"""The course as a reader meets it: the working copy in a real JupyterLab, as `make lab` opens it.

Links are clicked, chapters run, sliders moved, saved, closed and opened again, a training is
interrupted. `make test-lab` runs this; Chromium comes from the system (Debian: apt install
chromium). Screenshots go to the folder in SPARCL_LAB_PICTURES, or to pytest's temporary one.
"""

import json
import os
import platform
import shutil
import subprocess
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path

import nbformat
import pytest

from sparcl_lib.course import copies
from sparcl_lib.course.chapter import NOTEBOOKS, read_chapters
from sparcl_lib.course.lab import lab_command, lab_environment

ROOT = NOTEBOOKS.parent
CHAPTERS = [chapter.name for chapter in read_chapters(NOTEBOOKS / "sources")]
MINUTE = 60_000
# All cells are in the page at once, so that a test finds what a reader would scroll to.
WHOLE_PAGES = {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}}
WIDGET = "application/vnd.jupyter.widget-view+json"


def git(folder: Path, *arguments: str) -> str:
    name = ("-c", "user.name=a reader", "-c", "user.email=reader@example.org")
    done = subprocess.run(
        ["git", *name, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def made_here(path: Path) -> None:
    """The notebook as this Python would have built it: JupyterLab writes the version of the kernel
    into whatever it opens, also where there was none, and the notebook counts as changed."""
    text = path.read_text("utf-8")
    version = nbformat.reads(text, as_version=4).metadata.language_info.version
    here = text.replace(f'"version": "{version}"', f'"version": "{platform.python_version()}"')
    path.write_text(here, "utf-8")


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone of what is here, with a working copy in it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in git(ROOT, "ls-files").splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    for path in (folder / "notebooks").glob("*.ipynb"):
        made_here(path)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "as published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "NOTEBOOKS", folder / "notebooks")
        copies.start(folder / "my-course")
    return folder


@pytest.fixture(scope="module")
def server(clone, tmp_path_factory, serve):
    """JupyterLab as `make lab` starts it; its address."""
    place = tmp_path_factory.mktemp("settings")
    settings = place / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps(WHOLE_PAGES), "utf-8")
    environment = lab_environment(clone / "my-course", tmp_path_factory.mktemp("temporary"))
    environment |= {
        "JUPYTER_CONFIG_PATH": os.pathsep.join((environment["JUPYTER_CONFIG_PATH"], str(place))),
        "JUPYTERLAB_SETTINGS_DIR": str(place / "settings"),
        "PYTHONPATH": str(ROOT),
    }
    with serve(clone, environment, lab_command(clone / "my-course")) as address:
        yield address


@pytest.fixture
def lab(server, browser):
    """A page in which the index of the working copy is open, on a display of scale 2."""
    page = browser.new_page(viewport={"width": 1300, "height": 1000}, device_scale_factor=2)
    page.set_default_timeout(5 * MINUTE)
    page.goto(server)
    page.wait_for_function("window.jupyterapp !== undefined", timeout=2 * MINUTE)
    page.wait_for_selector(".jp-MarkdownViewer table")
    yield page
    page.close()
    with urllib.request.urlopen(f"{server}/api/sessions") as answer:
        sessions = json.load(answer)
    for session in sessions:
        delete(f"{server}/api/sessions/{session['id']}")
    # The tabs of this test are not those of the next one, whose index may then be a hidden tab.
    delete(f"{server}/lab/api/workspaces/default")


def delete(address: str) -> None:
    urllib.request.urlopen(urllib.request.Request(address, method="DELETE")).close()


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = Path(os.environ.get("SPARCL_LAB_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


OPEN = """async path => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = await app.commands.execute('docmanager:open', {path});
    await panel.context.ready;
    if (panel.sessionContext) await panel.sessionContext.ready;
    while (app.shell.currentWidget !== panel) {
        app.shell.activateById(panel.id);
        await new Promise(done => setTimeout(done, 50));
    }
}"""
RUN_ALL = """async () => {
    const app = window.jupyterapp;
    await app.commands.execute('notebook:run-all-cells');
    return app.shell.currentWidget.context.model.toJSON();
}"""
GUESS_AND_RUN = """async indices => {
    const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
    for (const index of indices) {
        const cell = notebook.model.cells.get(index).sharedModel;
        cell.setSource(cell.getSource().replace('guess = None', 'guess = 5'));
    }
    notebook.activeCellIndex = indices[0];
    await app.commands.execute('notebook:run-all-below');
    return notebook.model.toJSON();
}"""
RUN_ONE = """async index => {
    const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
    notebook.activeCellIndex = index;
    await app.commands.execute('notebook:run-cell');
    return notebook.model.cells.get(index).toJSON().outputs;
}"""
ADD_CELL = """source => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    const index = notebook.model.cells.length;
    notebook.model.sharedModel.insertCell(index, {cell_type: 'code', source});
    notebook.activeCellIndex = index;
    window.addedCell = window.jupyterapp.commands.execute('notebook:run-cell');
    return index;
}"""
INTERRUPT = """async () => {
    await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt();
    await window.addedCell;
}"""
OUTPUTS = """index => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    return notebook.model.cells.get(index).toJSON().outputs;
}"""
SAVE_AND_CLOSE = """async () => {
    const app = window.jupyterapp, panel = app.shell.currentWidget;
    await app.commands.execute('docmanager:save');
    await panel.sessionContext.shutdown();
    panel.dispose();
}"""
CURRENT = """() => {
    const widget = window.jupyterapp.shell.currentWidget;
    if (!widget || !widget.context || !widget.context.isReady) return null;
    const kind = widget.node.classList.contains('jp-NotebookPanel') ? 'notebook'
        : widget.node.querySelector('.jp-RenderedMarkdown, .jp-CSVViewer-grid, .lm-DataGrid')
        ? 'page' : 'source';
    return {path: widget.context.path, kind};
}"""
IMAGES = """() => {
    const node = window.jupyterapp.shell.currentWidget.node;
    return [...node.querySelectorAll('.jp-OutputArea img')].map(image => ({
        alt: image.alt, sharp: image.naturalWidth / (image.clientWidth || image.naturalWidth / 2),
        shown: image.clientWidth > 0}));
}"""


def errors_in(notebook: dict) -> list[dict]:
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    return [output for output in outputs if output["output_type"] == "error"]


def lines_of(error: dict) -> int:
    return len("\n".join(error["traceback"]).strip().splitlines())


def cells_that(notebook: dict, call: str) -> list[int]:
    """Places of the cells that show a widget and call a function of the course."""
    return [
        index
        for index, cell in enumerate(notebook["cells"])
        if any(WIDGET in output.get("data", {}) for output in cell.get("outputs", []))
        and call in "".join(cell["source"])
    ]


def cell_of(page, index: int):
    return page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell").nth(index)


def move_every_control(page, cell) -> None:
    """Buttons to the last one, then sliders one further: each control changes the picture.

    A choice may make no difference for one picture, so then the others are tried.
    """
    image = cell.locator(".jupyter-widgets img").last
    image.wait_for(timeout=MINUTE)
    handles, groups = cell.locator(".noUi-handle"), cell.locator(".widget-toggle-buttons")
    controls = [[b.click for b in reversed(g.locator("button").all())] for g in groups.all()]
    controls += [3 * [partial(slide, handle)] for handle in handles.all()]
    assert controls
    for number, moves in enumerate(controls):
        before = image.get_attribute("src")
        assert any(_moved(page, image, before, move) for move in moves), f"control {number}"
        assert image.get_attribute("alt").startswith("Drawn anew for ")


def _moved(page, image, before: str, move) -> bool:
    move()
    return _changes(page, image, before)


def slide(handle) -> None:
    """One to the right, or to the left where it stands at the right end."""
    now, end = (handle.get_attribute(f"aria-value{name}") for name in ("now", "max"))
    handle.press("ArrowLeft" if now == end else "ArrowRight")


def _changes(page, image, before: str) -> bool:
    for _ in range(100):
        if image.get_attribute("src") != before:
            return True
        page.wait_for_timeout(100)
    return False


def check_a_toy_lives(page, cell) -> None:
    """Its buttons go on and back, its controls choose, and there is one picture all the time."""
    cell.scroll_into_view_if_needed()
    image = cell.locator(".jupyter-widgets img").last
    image.wait_for(timeout=MINUTE)
    first = image.get_attribute("src")
    for words in ("step", "10 steps"):
        before = image.get_attribute("src")
        cell.get_by_role("button", name=words, exact=True).click()
        assert _changes(page, image, before), words
    assert cell.locator("img:visible").count() == 1
    cell.get_by_role("button", name="start again").click()
    page.wait_for_timeout(500)
    assert image.get_attribute("src") == first
    for handle in cell.locator(".noUi-handle").all():
        slide(handle)
    cell.get_by_role("button", name="step", exact=True).click()
    assert _changes(page, image, first)
    # The sliders have drawn it anew, too.
    cell.locator('.jupyter-widgets img[alt^="The toy after 1 step; "]').wait_for(timeout=MINUTE)


def check_pictures(page, explored: list[int]) -> None:
    """Each picture has a text and is sharp; each slider has one picture, and no widget is lost."""
    for index in explored:
        assert cell_of(page, index).locator("img:visible").count() == 1
    images = page.evaluate(IMAGES)
    assert len(images) >= 2
    for image in images:
        assert len(image["alt"]) > 15
        assert not image["shown"] or image["sharp"] >= 1.9, image
    assert page.get_by_text("Error displaying widget").locator("visible=true").count() == 0


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_runs_asks_moves_and_opens_again(name, lab, pictures):
    lab.evaluate(OPEN, f"my-course/{name}.ipynb")
    stopped = lab.evaluate(RUN_ALL)
    (error,) = errors_in(stopped)
    assert "first your guess" in error["evalue"] and lines_of(error) == 1
    guesses = [
        index
        for index, cell in enumerate(stopped["cells"])
        if "predict" in cell["metadata"].get("tags", [])
    ]
    below = range(guesses[0] + 1, len(stopped["cells"]))
    assert not any(stopped["cells"][index].get("outputs") for index in below)
    waiting = [i for i in below if "-after-guess-" in stopped["cells"][i]["id"]]
    for index in (waiting[0], waiting[1], waiting[-1]):  # nor one by one
        (refused,) = lab.evaluate(RUN_ONE, index)
        assert refused["ename"] == "GuessIsOwed" and lines_of(refused) == 1

    finished = lab.evaluate(GUESS_AND_RUN, guesses)
    assert errors_in(finished) == []
    lab.wait_for_timeout(1000)
    explored, asked = cells_that(finished, "explore("), cells_that(finished, "quiz(")
    check_pictures(lab, [*explored, *cells_that(finished, "play(")])
    lab.screenshot(path=pictures / f"{name}.png")
    for index in explored:
        cell = cell_of(lab, index)
        cell.scroll_into_view_if_needed()
        move_every_control(lab, cell)
        lab.screenshot(path=pictures / f"{name}-cell-{index}.png")
    for index in cells_that(finished, "play("):
        check_a_toy_lives(lab, cell_of(lab, index))
        lab.screenshot(path=pictures / f"{name}-cell-{index}.png")
    assert len(asked) >= 3
    for index in asked:
        cell = cell_of(lab, index)
        cell.locator(".jupyter-widgets button").first.click()
        cell.get_by_text("Right").or_(cell.get_by_text("Wrong")).locator(
            "visible=true"
        ).first.wait_for(timeout=MINUTE)

    lab.evaluate(SAVE_AND_CLOSE)
    lab.evaluate(OPEN, f"my-course/{name}.ipynb")
    lab.wait_for_timeout(2000)
    check_pictures(lab, explored)
    lab.screenshot(path=pictures / f"{name}-again.png")


@pytest.mark.parametrize("name", ["README.md", *(f"{name}.ipynb" for name in CHAPTERS)])
def test_every_link_opens_a_page_or_a_notebook(name, lab):
    lab.evaluate(OPEN, f"my-course/{name}")
    shown = ".jp-Document:not(.lm-mod-hidden) .jp-RenderedMarkdown"
    links = lab.locator(f"{shown} a:not(.jp-InternalAnchorLink)")
    links.first.wait_for()
    lab.wait_for_timeout(500)
    seen = set()
    for link in links.all():
        target = urllib.parse.urlsplit(link.get_attribute("href") or "")
        if target.hostname not in (None, "127.0.0.1"):
            assert link.get_attribute("target") == "_blank"
            continue
        path = urllib.parse.unquote(target.path.partition("/files/")[2])
        if not path or path in seen:  # a place in this page
            continue
        seen.add(path)
        link.click()
        lab.wait_for_function(
            f"path => (({CURRENT})() || {{}}).path === path", arg=path, timeout=MINUTE
        )
        opened = lab.evaluate(CURRENT)
        wanted = {".md": "page", ".ipynb": "notebook"}.get(Path(path).suffix, opened["kind"])
        assert opened["kind"] == wanted, path
        assert lab.locator(".jp-Dialog").count() == 0
        lab.evaluate(OPEN, f"my-course/{name}")
    assert {"my-course/README.md", "docs/glossary.md"} <= seen | {f"my-course/{name}"}


TRAIN = """import os, tempfile
os.environ["SPARCL_COURSE_CACHE"] = tempfile.mkdtemp()
run_or_load(minivoc_config("FT", "optim.iterations={iterations}", seed=4242));"""


def test_a_training_ends_green_and_an_interrupted_one_in_a_line(lab, pictures):
    lab.evaluate(OPEN, "my-course/00_welcome.ipynb")
    lab.evaluate(RUN_ALL)  # up to the question: the imports are there
    whole = lab.evaluate(ADD_CELL, TRAIN.format(iterations=8))
    lab.evaluate("() => window.addedCell")
    bars = json.dumps(lab.evaluate(OUTPUTS, whole))
    assert "8/8" in bars and "#2e7d32" in bars and "#c62828" not in bars

    stopped = lab.evaluate(ADD_CELL, TRAIN.format(iterations=5000))
    cell_of(lab, stopped).get_by_text("/5000").first.wait_for(timeout=2 * MINUTE)
    lab.evaluate(INTERRUPT)
    lab.wait_for_timeout(500)
    outputs = lab.evaluate(OUTPUTS, stopped)
    (error,) = [output for output in outputs if output["output_type"] == "error"]
    assert lines_of(error) == 1
    lab.screenshot(path=pictures / "interrupted.png")


def test_a_published_chapter_that_is_opened_and_saved_stays_as_it_is(lab, clone):
    lab.evaluate(OPEN, "notebooks/00_welcome.ipynb")
    lab.wait_for_timeout(3000)
    assert lab.evaluate("() => window.jupyterapp.shell.currentWidget.context.model.dirty") is False
    lab.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    assert git(clone, "status", "--porcelain") == ""


def test_open_tabs_are_remembered_in_the_copy_and_not_in_the_home(lab, clone):
    """The tabs of another session came up, and a kernel was started for one of them."""
    lab.evaluate(OPEN, "my-course/00_welcome.ipynb")
    lab.wait_for_timeout(5000)  # JupyterLab saves them with a delay
    (saved,) = (clone / "my-course" / ".workspaces").iterdir()
    assert "my-course/00_welcome.ipynb" in saved.read_text("utf-8")
    assert git(clone, "status", "--porcelain") == ""


def test_every_second_chapter_or_more_has_sliders():
    sources = [(NOTEBOOKS / "sources" / f"{name}.py").read_text("utf-8") for name in CHAPTERS]
    assert sum("explore(" in text for text in sources) >= len(CHAPTERS) / 2
