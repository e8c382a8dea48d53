"""A deck of slides for each chapter: its headings, formulas, figures, exercises and questions.

One HTML file, reveal.js and all, so that a lecture needs no network. The text of a section is in
the speaker's notes (key S). What the audience is to guess is a slide before the result.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import sphinx_revealjs
from nbformat import NotebookNode

from sparcl_lib.course.chapter import Chapter, tags_of
from sparcl_lib.course.copies import chapters_of_the_course, choose
from sparcl_lib.course.formulas import formula
from sparcl_lib.course.pages import markdown, output_html, saved_notebook
from sparcl_lib.errors import UserError
from sparcl_lib.writing import write_text

_REVEAL = "_static/revealjs"
"""Where reveal.js is in the package that carries it."""
_HEADING = re.compile(r"^(#{2,3}) (.+)$", re.MULTILINE)
_FORMULA = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
_FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
_IMAGE = re.compile(r"<img [^>]+>")
_TABLE = re.compile(r"<table.*?</table>", re.DOTALL)
_ROWS = re.compile(r"(?:^\|.*\n?)+", re.MULTILINE)
_QUESTION = re.compile(r"<p><b>(.*?)</b></p>", re.DOTALL)
_ANSWER = re.compile(r"<summary>(.*?)</summary>", re.DOTALL)


@dataclass
class Section:
    """What stands below one heading of a chapter."""

    title: str
    level: int
    items: list[str] = field(default_factory=list)
    """Formulas, tables, pictures, exercises, guesses and questions as HTML, in order: a slide
    each."""
    text: list[str] = field(default_factory=list)
    """Markdown."""
    notes: list[list[str]] = field(default_factory=list)
    """For each item the text since the one before; without new text, that one's."""
    _unsaid: list[str] = field(default_factory=list, init=False)

    def add_text(self, text: str) -> None:
        self.text.append(text)
        self._unsaid.append(text)

    def add_items(self, items: list[str]) -> None:
        for item in items:
            self.items.append(item)
            self.notes.append(self._unsaid or (self.notes or [[]])[-1])
        if items:
            self._unsaid = []

    def slides(self) -> list[tuple[str, str]]:
        """What each slide shows and says; the first paragraph, where there is nothing to show."""
        if not self.items:
            return [(f"<p>{_inline(_first_paragraph(self.text))}</p>", "\n\n".join(self.text))]
        notes = [*self.notes[:-1], [*self.notes[-1], *self._unsaid]]
        return [(item, "\n\n".join(texts)) for item, texts in zip(self.items, notes, strict=True)]


def write_slides(folder: Path, numbers: list[str]) -> list[Path]:
    """Write a deck for each chapter with these numbers (all if empty); returns the files.

    Raises UserError for an unknown number, or for a chapter without saved outputs."""
    written = []
    for chapter in choose(chapters_of_the_course(), numbers):
        written.append(folder / f"{chapter.name}-slides.html")
        write_text(written[-1], deck(chapter))
    return written


def deck(chapter: Chapter) -> str:
    """The whole file of a chapter's slides."""
    meta = chapter.meta
    goals = "".join(f"<li>{_inline(goal)}</li>" for goal in meta.goals)
    slides = [
        f"<section><h1>{chapter.number} {html.escape(meta.title)}</h1>"
        f"<p>Afterwards you can</p><ol>{goals}</ol></section>"
    ]
    slides += map(_slides, sections(saved_notebook(chapter)))
    found = "".join(f"<li>{_inline(line)}</li>" for line in meta.summary)
    slides.append(f"<section><h2>What was found</h2><ol>{found}</ol></section>")
    return _page(f"{chapter.number} {meta.title}", "\n".join(slides))


def sections(notebook: NotebookNode) -> list[Section]:
    """The headings between header and closing, each with what can be shown of it."""
    found: list[Section] = []
    for cell in notebook.cells[1:-1]:
        if cell.cell_type == "markdown":
            for title, level, text in _headed(_FOLDED.sub("", cell.source)):
                if title:
                    found.append(Section(title, level))
                if found:
                    found[-1].add_text(text)
                    found[-1].add_items(_formulas(text) + _tables(text))
        elif found and "exercise" in tags_of(cell):
            found[-1].add_items([_exercise(found[-1].text, cell.source)])
        elif found and "predict" in tags_of(cell):
            found[-1].add_items([_guess(found[-1].text[-1])])
        elif found:
            found[-1].add_items([x for output in cell.outputs for x in _shown(cell, output)])
    return found


def _headed(source: str) -> Iterator[tuple[str, int, str]]:
    """(title, level, text below it); the text before the first heading has no title."""
    marks = list(_HEADING.finditer(source))
    yield "", 0, source[: marks[0].start() if marks else len(source)]
    for mark, after in zip(marks, [*marks[1:], None]):
        yield mark[2], len(mark[1]), source[mark.end() : after.start() if after else len(source)]


def _formulas(text: str) -> list[str]:
    return [f'<div class="math block">{formula(f, True)}</div>' for f in _FORMULA.findall(text)]


def _tables(text: str) -> list[str]:
    return [markdown(rows, lambda target: None) for rows in _ROWS.findall(text)]


def _exercise(texts: list[str], stub: str) -> str:
    """What an exercise asks for and the function's head, which says what it is given."""
    head = stub.partition("raise NotImplementedError")[0].rstrip()
    return f"<p>{_inline(_first_paragraph(texts))}</p><pre>{html.escape(head)}</pre>"


def _guess(text: str) -> str:
    """The last paragraph, "Predict before you run ...", with the one that leads to it."""
    return markdown("\n\n".join(text.strip().split("\n\n")[-2:]), lambda target: None)


def _shown(cell: NotebookNode, output: NotebookNode) -> list[str]:
    """Pictures, tables and questions of an output."""
    shown = output_html(output)
    if "quiz" in tags_of(cell):
        choices = "".join(f"<li>{answer}</li>" for answer in _ANSWER.findall(shown))
        return [
            f'<p class="question">{question}</p><ol type="a">{choices}</ol>'
            for question in _QUESTION.findall(shown)
        ]
    return [*_IMAGE.findall(shown), *_TABLE.findall(shown)]


def _slides(section: Section) -> str:
    """A slide, or several below each other, with the heading on each and the text in the notes."""
    title = f"<h2>{_inline(section.title)}</h2>"
    slides = [
        f"<section>{title}{shown}"
        f'<aside class="notes">{markdown(text, lambda target: None)}</aside></section>'
        for shown, text in section.slides()
    ]
    return slides[0] if len(slides) == 1 else f"<section>{''.join(slides)}</section>"


def _first_paragraph(texts: list[str]) -> str:
    return "\n\n".join(texts).strip().partition("\n\n")[0]


def _inline(text: str) -> str:
    return markdown(text, lambda target: None).removeprefix("<p>").rstrip().removesuffix("</p>")


def _page(title: str, slides: str) -> str:
    ours = files("sparcl_lib.course").joinpath("slides.css").read_text("utf-8")
    theme = re.sub(r"@import [^;]+;", "", _carried("dist/theme/white.css"))  # fonts of its own
    styles = _carried("dist/reveal.css") + theme + ours
    scripts = _carried("dist/reveal.js") + ";\n" + _carried("plugin/notes/notes.js")
    options = "hash: true, width: 1200, height: 720, transition: 'none', plugins: [RevealNotes]"
    start = f"Reveal.initialize({{{options}}});"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{styles}\n</style>\n</head>\n<body>\n"
        f'<div class="reveal"><div class="slides">\n{slides}\n</div></div>\n'
        f"<script>\n{_in_a_page(scripts)}\n</script>\n<script>{start}</script>\n</body>\n</html>\n"
    )


def _carried(name: str) -> str:
    path = Path(sphinx_revealjs.__file__).parent / _REVEAL / name
    if not path.is_file():
        raise UserError(f"sphinx-revealjs carries no {name}: install a version from 3.1 to below 4")
    return path.read_text("utf-8")


def _in_a_page(script: str) -> str:
    return script.replace("</script", r"<\/script")
