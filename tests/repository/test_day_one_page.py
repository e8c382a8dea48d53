"""docs/day_one.md keeps its word: its map is made, its links lead somewhere, its numbers stand."""

import re
from pathlib import Path

import method_map
import pytest

from sparcl_lib.method_table import ROWS
from sparcl_lib.tasks import task_names

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "day_one.md").read_text("utf-8")
CHECKLIST = PAGE.split("## A checklist for an honest comparison")[1]
POINTS = [re.sub(r"\s+", " ", point) for point in re.findall(r"^- (\*\*.+)$", CHECKLIST, re.M)]
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\((?!http)([^)]+)\)")


def slug(heading: str) -> str:
    """The anchor that GitHub and the site give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def text_at(target: str) -> str:
    """What a link of the page leads to: a file, or one section of it."""
    file, _, anchor = target.partition("#")
    text = (ROOT / "docs" / file).read_text("utf-8") if file else PAGE
    if not anchor:
        return text
    outside = re.sub(r"^```.*?^```", lambda m: "." * len(m[0]), text, flags=re.M | re.S)
    headings = [(len(m[1]), slug(m[2]), m.start()) for m in HEADING.finditer(outside)]
    (place,) = [n for n, (_, name, _) in enumerate(headings) if name == anchor]
    level, _, start = headings[place]
    ends = [at for depth, _, at in headings[place + 1 :] if depth <= level]
    return text[start : ends[0] if ends else None]


def numbers(text: str) -> list[str]:
    """The numbers of a point, but for those in names of tasks, steps and chapters."""
    plain = re.sub(r"(?<![\w-])\d+-\d+(?![\w-])|[Ss]tep 0|[Cc]hapter", "", LINK.sub("", text))
    return re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)", plain)


def test_the_map_is_what_the_command_makes():
    """After a change of the code or the results: python docs/site/method_map.py"""
    assert method_map.with_map(PAGE) == PAGE


def test_the_map_has_every_method_and_chapters_that_exist():
    named = re.findall(r"^\| \*\*(.+?)\*\* \|", PAGE, flags=re.MULTILINE)
    assert named == list(ROWS)
    assert {*method_map.EXPLAINED, *method_map.PAGES} <= set(ROWS)
    for row in ROWS.values():
        files = method_map.files_of(row.settings)
        assert files and all((ROOT / "sparcl_lib" / file).is_file() for file in files)
    for method, chapters in method_map.EXPLAINED.items():
        for chapter in chapters:
            source = ROOT / "notebooks" / "sources" / f"{chapter}.py"
            names = {"FT": "Fine-tuning", "Joint": "Joint training"}
            assert names.get(method, method.partition("+")[0]) in source.read_text("utf-8")


def test_files_are_those_that_a_method_computes_with():
    files = {name: set(method_map.files_of(row.settings)) for name, row in ROWS.items()}
    assert files["FT"] == {"losses/segmentation.py"}
    assert files["EWC"] == {"losses/segmentation.py", "methods/regularisers.py"}
    assert "losses/latent.py" in files["SDR"] and "models/classifier.py" not in files["SDR"]
    assert files["SDR+MiB"] - files["SDR"] == {"models/classifier.py"}
    assert {"methods/fusion.py", "methods/frozen_parts.py"} <= files["MiB+EWF"]


def test_a_mean_of_another_source_is_said_to_be_from_there():
    (row,) = method_map.published_of("SDR")
    assert row[0] == 39.2 and row[1].startswith("SDR authors' CVPR 2021 slides")


def test_every_link_leads_to_a_file_and_a_heading():
    links = [target for _, target in LINK.findall(PAGE)]
    assert len(links) > 60
    for target in links:
        file = ROOT / "docs" / target.partition("#")[0]
        assert file.exists(), target
        if "#" in target:
            text_at(target)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: slug(point.split("**")[1])[:40])
def test_the_numbers_of_a_point_stand_where_it_links(point):
    targets = [target for _, target in LINK.findall(point)]
    assert targets, "a point without a link to what came out"
    sources = "\n".join(map(text_at, targets))
    for number in numbers(point):
        assert re.search(rf"(?<![\d.]){re.escape(number)}0?(?![\d.]*\d)", sources), number
    for chapter, section in re.findall(r"\(\.\./notebooks/(\w+)\.ipynb\), \*([^*]+)\*", point):
        source = (ROOT / "notebooks" / "sources" / f"{chapter}.py").read_text("utf-8")
        assert re.search(rf"^# #+ {re.escape(section)}$", source, flags=re.MULTILINE), section


def test_most_points_have_numbers_and_the_list_is_long():
    assert len(POINTS) >= 20
    assert sum(bool(numbers(point)) for point in POINTS) >= 0.8 * len(POINTS)


def test_papers_of_the_reading_list_are_those_of_the_methods():
    """Author, meeting and year of a paper stand once more in the table of methods."""
    cited = PAGE.split("## What to read")[1].split("## A checklist")[0]
    for row in ROWS.values():
        author, _, rest = row.paper.removeprefix("after ").partition(", ")
        if author:
            assert re.search(rf"{re.escape(author)}, \*[^*]+\*,\s+{re.escape(rest)}", cited), author


def test_tasks_that_are_named_exist():
    named = set(re.findall(r"(?<![\w-])(\d+-\d+)(?![\w-])", PAGE)) - {"2-0"}
    assert named and named <= {*task_names("voc"), *task_names("minivoc")}
