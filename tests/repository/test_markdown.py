"""Markdown that is read as Markdown: nothing of it lies in what is taken for HTML."""

import re
import subprocess
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from sparcl_lib.course.chapter import NOTEBOOKS, read_chapters, render
from sparcl_lib.course.copies import index_of_copies

ROOT = Path(__file__).parents[2]
CHAPTERS = read_chapters(NOTEBOOKS / "sources")
RAW = re.compile(r"\]\(|\*\*|`")


def shown_raw(text: str) -> list[str]:
    """Blocks of HTML with Markdown in them: a page shows the brackets and stars."""
    blocks = [t.content for t in MarkdownIt("gfm-like", {"linkify": False}).parse(text)
              if t.type == "html_block"]  # fmt: skip
    return [block for block in blocks if RAW.search(block)]


def files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_a_comment_that_begins_a_line_takes_the_line():
    """The link to the lessons stood in the index with its brackets."""
    assert shown_raw("a\n<!-- teachers -->· for teachers: [lessons](docs/teaching.md)\n\nb")
    assert not shown_raw("a<!-- teachers --> · for teachers: [lessons](docs/teaching.md)\n\nb")
    assert not shown_raw("<!-- teachers -->\n[lessons](docs/teaching.md)\n<!-- end -->\nb")


@pytest.mark.parametrize("name", files())
def test_pages_are_shown_as_they_are_meant(name):
    assert shown_raw((ROOT / name).read_text("utf-8")) == []


@pytest.mark.parametrize("form", ["published", "working", "student", "solutions"])
def test_what_is_made_of_the_sources_is_shown_as_it_is_meant(form):
    index = index_of_copies(form, {chapter.notebook.name for chapter in CHAPTERS}, "my-course")
    assert shown_raw(index) == []
    for place in range(len(CHAPTERS)):
        for cell in render(CHAPTERS, place, None, form).cells:
            if cell.cell_type == "markdown":
                assert shown_raw(cell.source) == [], cell.source
