"""The page of results in Chromium: nothing leaves a telephone's screen, and every picture shows."""

import shutil

import pytest
from fabricated_runs import make_run

from sparcl_lib.report.page import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="make test-lab installs it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")

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


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1400, "light")])
def test_the_page_fits_the_screen(report, width, scheme):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.goto(report)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        pictures = page.evaluate(SIZES)
        assert len(pictures) == 2 + 1 + 4
        for picture in pictures:
            assert picture["left"] >= 0 and picture["right"] <= width
            # sharp on a display of scale 2, and not shrunk by more than a sixth
            assert 1.6 * picture["shown"] <= picture["natural"] <= 2.4 * picture["shown"]
        browser.close()
