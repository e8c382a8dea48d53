"""The page of results in Chromium: nothing leaves a telephone's screen, and every picture shows."""

import io

import numpy as np
import pytest
from fabricated_runs import make_run
from PIL import Image

from sparcl_lib.course.pages import write_pages
from sparcl_lib.report.page import write_report

SIZES = """[...document.images].map(i => {
  const box = i.getBoundingClientRect();
  return {shown: box.width, left: box.left, right: box.right, natural: i.naturalWidth};
})"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    runs = [make_run(m, seed) for m in ("FT", "MiB", "SDR", "Joint") for seed in (0, 1)]
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(runs, path, "Results")
    return path.as_uri()


GOES_ON = """[...document.querySelectorAll(".wide")].map(d => d.scrollWidth > d.clientWidth)"""


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_table_fits_a_telephone_or_shows_that_it_goes_on(browser, tmp_path, seeds):
    """By a shade at its right edge, which is gone at its end."""

    def shaded(table) -> bool:
        pixels = np.asarray(Image.open(io.BytesIO(table.screenshot())).convert("RGB")).astype(int)
        return bool((np.ptp(pixels[5:-5, -2], axis=-1) > 30).mean() > 0.5)  # paper is grey

    runs = [make_run(m, seed) for m in ("FT", "MiB", "SDR", "Joint") for seed in range(seeds)]
    write_report(runs, tmp_path / "report.html", "Results")
    with browser.new_page(viewport={"width": 390, "height": 900}) as page:
        page.goto((tmp_path / "report.html").as_uri())
        tables, goes_on = page.locator(".wide").all(), page.evaluate(GOES_ON)
        assert len(tables) == 1 + seeds and goes_on[:2] == [False, seeds > 1]  # steps, results
        assert [shaded(table) for table in tables] == goes_on
        tables[1].evaluate("d => { d.scrollLeft = d.scrollWidth }")
        assert not shaded(tables[1])


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1400, "light")])
def test_the_page_fits_the_screen(browser, report, width, scheme):
    with browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        page.goto(report)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        pictures = page.evaluate(SIZES)
        assert len(pictures) == 2 + 1 + 4
        for picture in pictures:
            assert picture["left"] >= 0 and picture["right"] <= width
            # sharp on a display of scale 2, and not shrunk by more than a sixth
            assert 1.6 * picture["shown"] <= picture["natural"] <= 2.4 * picture["shown"]


def test_every_chapter_as_a_page_fits_a_telephone(browser, tmp_path):
    """A formula within a line of chapter 04 was wider than the screen."""
    written = write_pages(tmp_path / "pages", [])
    with browser.new_page(viewport={"width": 390, "height": 900}) as page:
        for path in written:
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == 390, path.name
    assert len(written) >= 12
