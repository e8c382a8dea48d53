"""Pages, PDF and slides of a chapter: whole in one file, nothing dead, formulas drawn."""

import re

import nbformat
import pytest
from checking import Page
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sparcl_lib.cli import main
from sparcl_lib.course import copies, pages, slides
from sparcl_lib.course.chapter import NOTEBOOKS, read_chapters, tags_of
from sparcl_lib.course.marking import exercises_of
from sparcl_lib.errors import UserError

CHAPTERS = read_chapters(NOTEBOOKS / "sources")
PIXEL = '<img alt="a pixel" width="1" src="data:image/png;base64,iVBORw0KGgo=">'
QUIZ = (
    "<p><b>Which $K_{old}$?</b></p><details><summary>$a &lt; b$</summary><p>Wrong.</p></details>"
    "<details><summary>two</summary><p>Right.</p></details>"
)


def output(**data):
    return new_output("display_data", {key.replace("_", "/"): value for key, value in data.items()})


@pytest.fixture
def notebook():
    draw = new_code_cell(
        "def draw():\n    ...", metadata={"tags": ["draw", "hide-input"]},
        outputs=[output(text_html=PIXEL, text_plain="a pixel")],
    )  # fmt: skip
    quiz = new_code_cell(
        "quiz(...)", metadata={"tags": ["quiz", "hide-input"]},
        outputs=[output(text_html=QUIZ, text_plain="Which?")],
    )  # fmt: skip
    run = new_code_cell(
        "1 < 2  # a < b", outputs=[new_output("stream", text="a < b\n"), output(text_plain="True")]
    )
    text = (
        "Text.\n\n## One **thing**\n\nIt has $\\mathcal C_k$ and\n\n$$\\mathcal L = \\sum_c p_c$$"
        "\n\n| a | b |\n|---|---|\n| $1$ | `2` |\n\n### Smaller\n\n"
        "See [02](02_segmentation_network.ipynb), "
        "[a page](../docs/notation.md#x), [results](../benchmarks/README.md), "
        "[SDR](https://arxiv.org/abs/2103.06342), [above](#one-thing).\n\n"
        "<details><summary>Solution</summary>\n\n```python\nx = 1\n```\n\n</details>"
    )
    cells = [new_markdown_cell("# 01 Head"), new_markdown_cell(text), run, draw, quiz]
    return new_notebook(cells=[*cells, new_markdown_cell("## Summary")])


@pytest.fixture
def page(notebook, monkeypatch):
    monkeypatch.setattr(pages, "saved_notebook", lambda chapter: notebook)
    names = {
        "02_segmentation_network.ipynb": "two.html",
        "../docs/notation.md#x": "notation.html#x",
    }

    def link(target):
        return target if target.startswith(("http", "#")) else names.get(target)

    return pages.chapter_page(CHAPTERS[1], link)


def test_a_page_has_its_cells_outputs_and_formulas(page):
    assert "<title>01 Dataset partitioning</title>" in page
    assert '<div class="output"><pre>a &lt; b\n</pre></div>' in page
    assert PIXEL in page and "<pre>a pixel" not in page
    folded = re.search(r'<details class="folded"><summary>(.*?)</summary>', page)
    assert folded and folded[1] == "def draw():"
    assert page.count("<math") == 5  # two in the text, one in the table, two in the quiz
    assert "<mi>&#x1D49E;</mi>" in page  # a script C, as a letter that every browser draws
    drawn = "".join(re.findall(r"<math [^>]*(>.*?</math>)", page, re.DOTALL))
    assert "\\" not in drawn and "$" not in re.sub("<.*?>", "", page[page.index("<main>") :])
    assert '<span class="k">' in page or '<span class="o">' in page  # coloured code


def test_links_lead_to_pages_or_nowhere(page):
    links = Page(page)
    assert links.links == [
        "two.html", "notation.html#x", "https://arxiv.org/abs/2103.06342", "#one-thing"
    ]  # fmt: skip
    assert '<span class="elsewhere" title="../benchmarks/README.md">results</span>' in page
    assert "one-thing" in links.anchors


def test_on_paper_reasons_are_open_and_solutions_are_not(page):
    printed = pages._unfolded(page)
    assert printed.count("<details open>") == 2
    assert re.search(r"<details>\s*<summary>Solution", printed)


def run(arguments, capsys) -> list[str]:
    with pytest.raises(SystemExit) as done:
        main(["course", "make", *map(str, arguments)])
    captured = capsys.readouterr()
    assert done.value.code == 0, captured.err
    return captured.out.splitlines()


def test_pages_of_the_course_need_nothing_beside_them_and_have_no_dead_link(tmp_path, capsys):
    lines = run(["html", tmp_path], capsys)
    written = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert len(lines) == len(written) == len(CHAPTERS) + 4
    found = {name: Page(text) for name, text in written.items()}
    for name, links in found.items():
        assert all(target.startswith("data:") for target in links.loaded), name
        assert not re.search(r"url\(['\"]?(?!data:)|@import", written[name])
        for target in links.links:
            if not re.match("https?://", target):
                file, _, anchor = target.partition("#")
                assert not anchor or anchor in found[file or name].anchors, (name, target)
                assert not file or file in written, (name, target)
        drawn = re.findall(r"<math [^>]*(>.*?</math>)", written[name], re.DOTALL)
        assert "\\" not in "".join(drawn), name


def test_chapters_without_their_neighbours_do_not_link_them(tmp_path, capsys):
    run(["html", tmp_path, "01"], capsys)
    targets = Page((tmp_path / "01_dataset_partitioning.html").read_text("utf-8")).links
    assert "index.html" in targets and not any("00_welcome" in target for target in targets)


def test_pages_are_written_over_pages_and_nothing_else(tmp_path, capsys):
    """They were written into notebooks/, too."""
    run(["html", tmp_path, "00"], capsys)
    run(["slides", tmp_path, "00"], capsys)
    (tmp_path / ".nojekyll").write_text("", "utf-8")
    assert run(["html", tmp_path, "00", "01"], capsys)
    (tmp_path / "index.html").write_text("mine", "utf-8")
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    for folder in (tmp_path, tmp_path / "mine.txt", NOTEBOOKS):
        with pytest.raises(SystemExit) as done:
            main(["course", "make", "html", str(folder)])
        said = capsys.readouterr().err
        assert done.value.code == 2 and said.endswith("holds something else; give a new folder\n")
    assert (tmp_path / "index.html").read_text("utf-8") == "mine"
    assert not list(NOTEBOOKS.glob("*.html"))


def test_a_deck_has_a_slide_for_each_formula_table_picture_and_question(notebook):
    one, smaller = slides.sections(notebook)
    assert (one.title, one.level, smaller.title, smaller.level) == (
        "One **thing**",
        2,
        "Smaller",
        3,
    )
    assert len(one.items) == 2 and "<math" in one.items[0] and "<table" in one.items[1]
    picture, question = smaller.items
    assert picture == PIXEL and question.count("<li>") == 2 and "Wrong" not in question
    assert not any("details" in text for text in smaller.text)


def test_a_slide_has_the_text_that_leads_to_it_in_its_notes():
    """Each slide of a section had the notes of all of it."""
    section = slides.Section("title", 2)
    section.add_text("one")
    section.add_text("two")
    section.add_items(["a", "b"])
    section.add_items(["c"])
    section.add_text("three")
    section.add_items(["d"])
    section.add_text("four")
    said = [("a", "one\n\ntwo"), ("b", "one\n\ntwo"), ("c", "one\n\ntwo"), ("d", "three\n\nfour")]
    assert section.slides() == said
    bare = slides.Section("title", 2)
    bare.add_text("first\n\nsecond")
    ((shown, notes),) = bare.slides()
    assert shown.startswith("<p>first") and "second" not in shown and notes == "first\n\nsecond"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.number)
def test_a_deck_asks_for_each_guess_before_it_shows_the_result(chapter):
    """The question stood in the speaker's notes alone, and the next slide was the result."""
    cells = pages.saved_notebook(chapter).cells
    waiting = [n for n, cell in enumerate(cells) if "predict" in tags_of(cell)]
    items = [
        item for section in slides.sections(pages.saved_notebook(chapter)) for item in section.items
    ]
    asked = [n for n, item in enumerate(items) if "<strong>Predict before you run" in item]
    assert len(asked) == len(waiting) > 0
    for place, slide in zip(waiting, asked):
        shown = [
            item
            for cell in cells[place:]
            for output in cell.get("outputs", [])
            for item in slides._shown(cell, output)
        ]
        assert items.index(shown[0]) > slide
        assert "?" in items[slide] or "mean over three seeds" in items[slide]


def test_a_deck_is_whole_and_carries_reveal(tmp_path, capsys):
    (line,) = run(["slides", tmp_path, "00"], capsys)
    text = (tmp_path / "00_welcome-slides.html").read_text("utf-8")
    asked = re.findall(r"<pre>def (\w+)\(.*?</pre>", text, re.DOTALL)  # with what it is given
    assert asked == [exercise.name for exercise in exercises_of(CHAPTERS[0])]
    assert "raise NotImplementedError" not in text and "background first; num_old" in text
    assert line == f"wrote {tmp_path / '00_welcome-slides.html'}"
    links = Page(text)
    assert all(target.startswith("data:") for target in links.loaded)
    assert "@import" not in text and "Reveal.initialize(" in text and "RevealNotes" in text
    assert text.count("<section") > 8 and text.count('class="notes"') > 5
    saved = nbformat.read(CHAPTERS[0].notebook, as_version=4)
    titles = re.findall(r"^## ([\w ,]+)$", "\n".join(c.source for c in saved.cells[:-1]), re.M)
    assert titles and all(f"<h2>{title}</h2>" in text for title in titles)


def test_a_deck_says_which_package_it_misses(monkeypatch, tmp_path):
    monkeypatch.setattr(slides.sphinx_revealjs, "__file__", str(tmp_path / "none.py"))
    with pytest.raises(UserError, match="carries no dist/theme/white.css"):
        slides.deck(CHAPTERS[0])


@pytest.mark.skipif(not any(map(pages.shutil.which, pages.CHROMIUM)), reason="needs Chromium")
def test_a_chapter_is_printed(tmp_path, capsys):
    run(["pdf", tmp_path, "00"], capsys)
    assert (tmp_path / "00_welcome.pdf").read_bytes()[:5] == b"%PDF-"


def test_without_chromium_a_line_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pages.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit) as done:
        main(["course", "make", "pdf", str(tmp_path)])
    message = capsys.readouterr().err
    assert done.value.code == 2 and message.startswith("sparcl: no Chromium that could print")
    assert message.count("\n") == 1


def test_a_chapter_that_was_not_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "sources").mkdir()
    path = tmp_path / "sources" / "00_welcome.py"
    path.write_text((NOTEBOOKS / "sources" / "00_welcome.py").read_text("utf-8"), "utf-8")
    monkeypatch.setattr(copies, "NOTEBOOKS", tmp_path)
    with pytest.raises(UserError, match="00_welcome.ipynb is not there: make notebooks"):
        slides.write_slides(tmp_path, [])
