"""A saved notebook as nbconvert, the site and GitHub show it: texts of pictures, whole quizzes."""

import html
import re
import subprocess
import sys

import nbformat
import pytest
from conftest import PATIENCE
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

from sparcl_lib.course import (
    check,
    exercises,
    explore,
    output,
    panels,
    pictures,
    play,
    quiz,
    quizzes,
    show,
    toys,
)
from sparcl_lib.course.build import clean_outputs
from sparcl_lib.course.chapter import HIDDEN, NOTEBOOKS

ALTS = ["a line that rises", "one of three lines &gt; 0; step = 1", "a line at three times"]
# GitHub's pages keep these, and pictures of data with them, but no style and no script.
TAGS = {"b", "br", "details", "div", "img", "p", "summary"}


def draw(step=1):
    figure, axes = panels(width=3, height=2)
    axes.plot([0, step])
    return figure


@pytest.fixture(scope="module")
def notebook():
    """Outputs as a kernel would send them, saved as the published notebooks are."""
    outputs = []

    def display(shown, raw=False):
        data = shown if raw else shown._repr_mimebundle_()
        outputs.append(new_output("display_data", data))

    with pytest.MonkeyPatch.context() as patch:
        for module in (exercises, output, pictures, quizzes, toys):
            patch.setattr(module, "display", display)
        patch.setattr(output, "get_ipython", lambda: "a kernel")
        show(draw(), ALTS[0])
        explore(draw, "one of three lines > 0", step=[1, 2, 3])
        play(lambda: 0, lambda height: height + 1, draw, "a line at three times", (0, 1, 5))
        quiz("Is $x < 2$?", [("Yes", "Right: $x = 1$."), ("No", "It is.")], right=0)
        check("1.1", abs, [((-1,), 1)])
    cell = new_code_cell("draw()", execution_count=1, outputs=outputs)
    saved = new_notebook(cells=[cell])
    clean_outputs(saved)
    assert len(saved.cells[0].outputs) == 5
    return saved


def assert_whole(page: str) -> None:
    assert re.findall(r'<img[^>]* alt="([^"]*)"', page) == ALTS
    assert page.count('src="data:image/png;base64,') == 3
    assert "Run all cells to this one in JupyterLab to go on step by step." in page
    assert "Is $x &lt; 2$?" in page and page.count("<summary>") == 2
    assert (
        "Right</b>: $x = 1$." in page
        and "Run all cells to this one in JupyterLab to choose: step. Shown: step = 1." in page
    )
    assert "Exercise 1.1" in page and "widget-view" not in page


def test_in_a_page_of_nbconvert(notebook):
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
    assert_whole(page[page.index("<body") :])


def test_nbconvert_leaves_out_what_is_folded_when_told_the_tag(tmp_path):
    name = "00_welcome.ipynb"
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", tmp_path, name,
               "--TagRemovePreprocessor.enabled=True",
               f"--TagRemovePreprocessor.remove_input_tags={HIDDEN}"]  # fmt: skip
    subprocess.run(command, cwd=NOTEBOOKS, check=True, capture_output=True, timeout=PATIENCE)
    page = (tmp_path / "00_welcome.html").read_text("utf-8")
    page = html.unescape(re.sub("<[^>]+>", "", page[page.index("<body") :]))  # its text
    code = [c for c in nbformat.read(NOTEBOOKS / name, 4).cells if c.cell_type == "code"]
    folded = [c.source for c in code if c.metadata.get("jupyter", {}).get("source_hidden")]
    shown = [c.source for c in code if c.source not in folded]
    assert len(folded) > 5 and not any(source in page for source in folded)
    assert len(shown) > 5 and all(source in page for source in shown)


def test_on_the_site(notebook, tmp_path):
    pytest.importorskip("myst_nb")
    nbformat.write(notebook, tmp_path / "index.ipynb")
    (tmp_path / "conf.py").write_text(
        'extensions = ["myst_nb"]\nnb_execution_mode = "off"\n', "utf-8"
    )
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", ".", "out"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=PATIENCE)
    assert_whole((tmp_path / "out" / "index.html").read_text("utf-8"))


def test_on_github(notebook):
    """Nothing is lost without style: only colours and the switch between picture and slider."""
    outputs = [o.data["text/html"] for o in notebook.cells[0].outputs]
    page = re.sub("<style>.*?</style>", "", "\n".join(outputs), flags=re.DOTALL)
    page = re.sub(' (style|class)="[^"]*"', "", page)
    assert set(re.findall("<([a-z]+)", page)) == TAGS
    assert_whole(page)
