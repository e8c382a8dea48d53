"""The chapters for Colab: working copies that first fetch the course and install what is missing.

Colab opens notebooks that lie in a branch of a public repository, so these are published with the
site, in `colab/` of the branch gh-pages.
"""

import os
import re
from functools import partial
from pathlib import Path, PurePosixPath

import nbformat
from nbformat.v4 import new_code_cell
from staging import colab_address, find_pages, rewrite_links, source_link

from sparcl_lib.course.chapter import read_chapters, read_times, render

INSTALL = """\
# Fetches the course with its trained runs and installs what is missing: run it once.
# Colab's own Jupyter stays as it is: the chapters need no more of the extra `course` than this.
import os, sys
if not os.path.isdir("../sparcl_lib"):
    !git clone --quiet --depth 1 {address} {folder}
    %pip install --quiet --editable "./{folder}[report,data,export]" ipywidgets scikit-learn
    %cd {folder}/notebooks
    sys.path.insert(0, os.path.abspath(".."))  # installed after this Python was started
"""


def install_cell(address: str, folder: str = "sparcl") -> str:
    """The code that makes a bare notebook one of the course; running it again does nothing.

    address: of the repository, as git clones it.
    """
    return INSTALL.format(address=address, folder=folder)


def write_notebooks(root: Path, folder: Path, repository: str, address: str = "") -> None:
    """A notebook for every chapter of the repository `root`.

    repository: OWNER/NAME on GitHub. address: where the course is cloned from, if not there.
    """
    folder.mkdir(parents=True)
    chapters = read_chapters(root / "notebooks" / "sources")
    times, pages = read_times(), find_pages(root)
    address = address or f"https://github.com/{repository}.git"
    cell = new_code_cell(install_cell(address), id="install")
    for place, chapter in enumerate(chapters):
        notebook = render(chapters, place, times.get(chapter.name), "working")
        change = partial(_absolute, root, pages, repository)
        for text in (c for c in notebook.cells if c.cell_type == "markdown"):
            text.source = rewrite_links(text.source, f"notebooks/{chapter.name}.ipynb", change)
        notebook.cells.insert(1, cell)
        nbformat.validate(notebook)
        nbformat.write(notebook, folder / f"{chapter.name}.ipynb")


def _absolute(
    root: Path, pages: list[str], repository: str, link: re.Match[str], path: str, anchor: str
) -> str:
    """A link that holds in Colab: to its notebook there, to a page of the site, or to a file."""
    if path in pages and path.endswith(".ipynb"):
        return f"[{link['text']}]({colab_address(path, repository)})"
    if path in pages:
        owner, _, name = repository.partition("/")
        page = PurePosixPath(path).with_suffix(".html")
        return f"[{link['text']}](https://{owner.lower()}.github.io/{name}/{page}{anchor})"
    return source_link(link, path, repository, os.path.isdir(root / path))
