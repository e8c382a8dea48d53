"""A chapter as one HTML file that needs nothing beside it, and as PDF.

Made of the saved notebook, outputs and all. Formulas become MathML, which browsers draw themselves;
pictures, styles and colours are in the file. A link to another chapter leads to its page in the
same folder; what has no page there stays as text.
"""

import html
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import nbformat
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from sparcl_lib.course.chapter import FOLDED, NOTEBOOKS, Chapter, tags_of
from sparcl_lib.course.copies import INDEX, chapters_of_the_course, choose, index_of_copies
from sparcl_lib.course.formulas import formula, with_formulas
from sparcl_lib.errors import UserError
from sparcl_lib.writing import write_text

Link = Callable[[str], str | None]
"""The target of a link in a page, or None if there is no page for it."""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SHARED = ("notation", "glossary", "troubleshooting")


def write_pages(folder: Path, numbers: list[str]) -> list[Path]:
    """Write the chapters with these numbers (all if empty), their index and the pages that every
    chapter links; returns the files. Raises UserError for an unknown number, for a chapter without
    saved outputs, and for a folder that holds something else than pages, slides and PDF of
    chapters."""
    chapters = choose(chapters_of_the_course(), numbers)
    _check_holds_pages(folder)
    docs = [NOTEBOOKS.parent / "docs" / f"{name}.md" for name in _SHARED]
    names = {chapter.notebook: f"{chapter.name}.html" for chapter in chapters}
    names |= {path: f"{path.stem}.html" for path in docs if path.is_file()}
    names[NOTEBOOKS / INDEX] = "index.html"
    texts = {names[c.notebook]: chapter_page(c, _links(NOTEBOOKS, names)) for c in chapters}
    for path in docs:
        if path in names:
            text = path.read_text("utf-8")
            texts[names[path]] = page(_title(text), markdown(text, _links(path.parent, names)))
    index = index_of_copies("published", {chapter.notebook.name for chapter in chapters})
    texts["index.html"] = page("The course", markdown(index, _links(NOTEBOOKS, names)))
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _check_holds_pages(folder: Path) -> None:
    """UserError for a folder that holds what is not made of chapters; hidden files do not count."""
    made = {"index.html", *(f"{name}.html" for name in _SHARED)}
    for chapter in chapters_of_the_course():
        made |= {chapter.name + ending for ending in (".html", "-slides.html", ".pdf")}
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or any(name not in made and name[0] != "." for name in there):
        raise UserError(f"{folder} holds something else; give a new folder")


def write_pdfs(folder: Path, numbers: list[str]) -> list[Path]:
    """Write the chapters with these numbers (all if empty) as PDF, printed by Chromium; returns the
    files. Raises UserError where there is no Chromium."""
    browser = find_chromium()
    written = []
    for chapter in choose(chapters_of_the_course(), numbers):
        text = _unfolded(chapter_page(chapter, lambda target: None))
        with tempfile.TemporaryDirectory() as place:
            source = Path(place, f"{chapter.name}.html")
            source.write_text(text, "utf-8")
            path = folder / f"{chapter.name}.pdf"
            folder.mkdir(parents=True, exist_ok=True)
            _print(browser, source, path, Path(place, "profile"))
        written.append(path)
    return written


def find_chromium() -> str:
    """The path of Chromium or Chrome; UserError where there is none."""
    for name in CHROMIUM:
        if path := shutil.which(name):
            return path
    raise UserError(
        f"no Chromium that could print ({', '.join(CHROMIUM)}): install one, or make html and "
        f"print that with any browser"
    )


def _print(browser: str, source: Path, target: Path, profile: Path) -> None:
    options = [
        "--headless",
        "--disable-gpu",
        "--no-pdf-header-footer",
        f"--user-data-dir={profile}",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--no-sandbox")  # Chromium refuses its sandbox to root
    command = [browser, *options, f"--print-to-pdf={target.resolve()}", source.as_uri()]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode or not target.is_file():
        raise UserError(f"{browser} did not print {target}: {done.stderr.strip()[-200:]}")


def _unfolded(text: str) -> str:
    """Paper cannot be clicked: quiz answers with their reasons open, solutions stay closed."""
    return re.sub(r"<details>(?!\s*<summary>Solution)", "<details open>", text)


def saved_notebook(chapter: Chapter) -> NotebookNode:
    """The published notebook; UserError if it was not made."""
    if not chapter.notebook.is_file():
        raise UserError(f"{chapter.notebook} is not there: make notebooks")
    notebook: NotebookNode = nbformat.read(chapter.notebook, as_version=4)
    return notebook


def chapter_page(chapter: Chapter, link: Link) -> str:
    """The whole file of a chapter."""
    cells = saved_notebook(chapter).cells
    body = "\n".join(part for cell in cells for part in _cell(cell, link))
    return page(f"{chapter.number} {chapter.meta.title}", body)


def page(title: str, body: str) -> str:
    """A whole HTML file."""
    styles = files("sparcl_lib.course").joinpath("page.css").read_text("utf-8")
    colours = HtmlFormatter(style="default").get_style_defs(".code")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{styles}{colours}\n</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _cell(cell: NotebookNode, link: Link) -> Iterable[str]:
    if cell.cell_type == "markdown":
        yield markdown(cell.source, link)
        return
    code = f'<pre class="code">{highlight_python(cell.source)}</pre>'
    if FOLDED & set(tags_of(cell)):
        first = html.escape(cell.source.partition("\n")[0])
        code = f'<details class="folded"><summary>{first}</summary>{code}</details>'
    yield code
    for output in cell.outputs:
        yield f'<div class="output">{output_html(output)}</div>'


def highlight_python(source: str) -> str:
    """Code with coloured words, as the inside of a <pre>."""
    coloured: str = highlight(source, PythonLexer(), HtmlFormatter(nowrap=True))
    return coloured


def output_html(output: Mapping[str, Any]) -> str:
    """What a saved output shows: its HTML with formulas drawn, else its text."""
    if output["output_type"] == "stream":
        return f"<pre>{html.escape(output['text'])}</pre>"
    data = output.get("data", {})
    if "text/html" in data:
        return with_formulas(data["text/html"])
    return f"<pre>{html.escape(data.get('text/plain', ''))}</pre>"


def markdown(text: str, link: Link) -> str:
    """Markdown with tables, formulas, heading anchors and HTML in it, as a piece of HTML."""
    parser = MarkdownIt("commonmark", {"html": True, "highlight": _highlighted})
    parser.enable(["table", "strikethrough"]).use(anchors_plugin, max_level=4)
    parser.use(
        dollarmath_plugin,
        allow_labels=False,
        double_inline=True,
        renderer=lambda content, options: formula(content, options["display_mode"]),
    )
    tokens = parser.parse(text)
    for token in tokens:
        if token.children:
            _redirect(token.children, link)
    rendered: str = parser.renderer.render(tokens, parser.options, {})
    return rendered.replace("<table>", '<div class="scroll"><table>').replace(
        "</table>", "</table></div>"
    )


def _highlighted(source: str, language: str, _: Any) -> str:
    return highlight_python(source) if language == "python" else ""


def _redirect(tokens: list[Token], link: Link) -> None:
    """Links of a line of Markdown: to the page of their target, or none."""
    plain = False
    for token in tokens:
        if token.type == "link_open":
            target = str(token.attrs["href"])
            place = link(target)
            plain = place is None
            token.tag = "span" if plain else "a"
            token.attrs = {"class": "elsewhere", "title": target} if plain else {"href": str(place)}
        elif token.type == "link_close":
            token.tag = "span" if plain else "a"


def _links(folder: Path, names: Mapping[Path, str]) -> Link:
    """For texts that lie in `folder`: targets outside stay, files get the name of their page."""

    def link(target: str) -> str | None:
        if re.match(r"https?://|mailto:|#", target):
            return target
        path, hash_, anchor = target.partition("#")
        name = names.get(Path(os.path.normpath(folder / path)))
        return None if name is None else f"{name}{hash_}{anchor}"

    return link


def _title(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ")
