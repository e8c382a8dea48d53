"""The site: links, formulas and docstrings as they are made for it, and the whole of it built."""

import ast
import io
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

for _module in ("sphinx", "myst_nb", "sphinx_book_theme", "latex2mathml", "ziamath"):
    pytest.importorskip(_module, reason="needs the extra site: pip install --editable '.[site]'")

from checking import problems
from colab import install_cell, write_notebooks
from docstrings import as_rst
from docutils.core import publish_doctree
from references import commands_page, methods_page, settings_page
from staging import find_pages, launch_buttons, rewrite_links, stage

from sparcl_lib.method_table import METHODS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_all_its_links_lead_somewhere(tmp_path):
    command = [sys.executable, ROOT / "docs" / "site" / "build_site.py", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    html = tmp_path / "html"
    pages = [Path(page).with_suffix(".html") for page in find_pages(ROOT)]
    assert len(pages) > 30 and all((html / page).is_file() for page in pages)
    losses = (html / "reference" / "api" / "losses.html").read_text("utf-8")
    assert "prototypes_matching" in losses and "Tensor" in losses
    chapter = (html / "notebooks" / "04_distillation.html").read_text("utf-8")
    assert "<math " in chapter and "colab.research" not in chapter
    for page in html.rglob("notebooks/*.html"):
        assert "sparcl-still" not in page.name and "\\mathcal" not in _text_of(page)


def _text_of(page: Path) -> str:
    """What is read of a page: no attributes, so no LaTeX of a formula."""
    from html.parser import HTMLParser

    parts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = parts.append
    parser.feed(page.read_text("utf-8"))
    return "".join(parts)


def test_links_become_those_of_the_site_but_not_in_code(tmp_path):
    (tmp_path / "docs" / "site").mkdir(parents=True)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").touch()
    (tmp_path / "README.md").touch()
    (tmp_path / "docs" / "page.html").touch()
    (tmp_path / "docs" / "site" / "index.md").write_text("# Home\n", "utf-8")
    (tmp_path / "docs" / "other.md").write_text("# Other\n", "utf-8")
    (tmp_path / "docs" / "one.md").write_text(
        "[o](other.md#x) [home](../README.md#y) [a](../lib/a.py) [`lib`](../lib) [p](page.html)\n"
        "[web](https://example.org) [here](#z)\n```\n[a](../lib/a.py)\n```\n",
        "utf-8",
    )
    stage(tmp_path, tmp_path / "staged")
    first, second, *code = (tmp_path / "staged/docs/one.md").read_text("utf-8").splitlines()
    assert first == ('[o](other.md#x) [home](../index.md) `a` `lib` <a href="page.html">p</a>')
    assert second == "[web](https://example.org) [here](#z)" and code[1] == "[a](../lib/a.py)"
    stage(tmp_path, tmp_path / "public", "me/it")
    first = (tmp_path / "public/docs/one.md").read_text("utf-8").splitlines()[0]
    assert "[a](https://github.com/me/it/blob/main/lib/a.py)" in first
    assert "[`lib`](https://github.com/me/it/tree/main/lib)" in first


def test_a_link_to_nothing_stops_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "one.md").write_text("[gone](../gone.md)\n", "utf-8")
    with pytest.raises(ValueError, match=r"docs/one.md: there is no gone.md"):
        stage(tmp_path, tmp_path / "staged")


def test_a_fence_within_a_list_is_code_too():
    text = "- x\n\n  ```sh\n  [a](b)\n  ```\n  [a](b)\n"
    changed = rewrite_links(text, "docs/x.md", lambda link, path, anchor: path)
    assert changed == text.replace("  ```\n  [a](b)", "  ```\n  docs/b")


def test_the_checker_finds_dead_links_and_what_a_network_would_serve(tmp_path):
    page = (
        '<p id="here"><a href="#here">ok</a><a href="#away">no</a><a href="two.html">no</a>'
        '<img src="https://example.org/x.png" alt="x"><img src="y.png"></p>'
        '<link rel="stylesheet" href="//cdn.example.org/x.css">'
    )
    (tmp_path / "one.html").write_text(page, "utf-8")
    (tmp_path / "x.css").write_text("@font-face {src: url('https://example.org/f.woff')}", "utf-8")
    (tmp_path / "x.js").write_text("import('https://example.org/m.js')", "utf-8")
    assert sorted(problems(tmp_path)) == [
        "one.html: 1 pictures say nothing to those who cannot see them (alt)",
        "one.html: loads //cdn.example.org/x.css",
        "one.html: loads https://example.org/x.png",
        "one.html: the link #away leads to no anchor",
        "one.html: the link two.html leads nowhere",
        "one.html: y.png is not there",
        "x.css: loads https://example.org/f.woff",
        "x.js: loads https://example.org/m.js",
    ]
    (tmp_path / "two.html").touch()
    assert "one.html: the link two.html leads nowhere" not in problems(tmp_path)


def test_docstrings_keep_their_words_as_they_stand():
    text = """One line with `code`, *args and a_.

    indented = code

features (B, D). Returns a scalar.
Raises ValueError for others.

Args:
    first: what it is,
        and more. `x`
    *rest: others

Raises:
    UserError: no.

- a
- b"""
    assert (
        "\n".join(as_rst(text.splitlines()))
        == r"""One line with ``code``, \*args and a\_.

::

    indented = code

features (B, D). Returns a scalar.

Raises ValueError for others.


**Arguments**

- ``first``: what it is,
  and more. ``x``
- ``*rest``: others


**Raises**

- ``UserError``: no.

- a
- b"""
    )


def test_every_docstring_of_the_library_is_read_without_a_warning():
    for path in sorted((ROOT / "sparcl_lib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                text, said = ast.get_docstring(node) or "", io.StringIO()
                settings = {"warning_stream": said, "report_level": 2}
                publish_doctree("\n".join(as_rst(text.splitlines())), settings_overrides=settings)
                assert not said.getvalue(), f"{path}: {text.splitlines()[0]}"


def test_references_name_all_there_is():
    methods, settings, commands = methods_page(), settings_page(), commands_page()
    assert all(f"\n## {name}\n" in methods for name in METHODS)
    assert "`optim.lr` = " in settings and "`method.terms.matching.weight` = " in settings
    assert "## sparcl train\n" in commands and "## sparcl data voc2012\n" in commands


def test_launch_buttons_need_a_public_address():
    assert launch_buttons("notebooks/00_welcome.ipynb", "") == ""
    shown = launch_buttons("notebooks/00_welcome.ipynb", "me/it")
    assert "colab.research.google.com/github/me/it/blob/gh-pages/colab/00_welcome.ipynb" in shown
    assert "mybinder.org/v2/gh/me/it/main?urlpath=lab/tree/my-course/00_welcome.ipynb" in shown


def test_chapters_for_colab_install_first_and_link_to_where_a_link_leads(tmp_path):
    write_notebooks(ROOT, tmp_path / "colab", "Me/it")
    notebooks = sorted((tmp_path / "colab").glob("*.ipynb"))
    assert [path.name for path in notebooks] == sorted(
        path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")
    )
    notebook = nbformat.read(notebooks[1], as_version=4)
    header, install = notebook.cells[:2]
    assert install.source == install_cell("https://github.com/Me/it.git").rstrip("\n") or (
        install.source == install_cell("https://github.com/Me/it.git")
    )
    assert "(https://me.github.io/it/docs/notation.html)" in header.source
    assert "/github/Me/it/blob/gh-pages/colab/00_welcome.ipynb)" in header.source
    assert not [c for c in notebook.cells if c.cell_type == "markdown" and "](../" in c.source]
    assert not [c for c in notebook.cells if c.get("outputs")]


def test_the_install_cell_is_python_but_for_its_commands():
    lines = install_cell("https://example.org/x.git").splitlines()
    plain = [line for line in lines if not line.lstrip().startswith(("!", "%"))]
    assert len(lines) - len(plain) == 3 and ast.parse("\n".join(plain))
