"""The site in Chromium: every page fits a telephone and a screen, in the light and in the dark."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPEN_CODE_THAT_IS_CUT = """[...document.querySelectorAll('.cell_input pre')]
    .filter(pre => !pre.closest('details:not([open])') && pre.scrollWidth > pre.clientWidth + 1)
    .map(pre => pre.textContent)"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, str(ROOT / "docs" / "site" / "build_site.py"), "--out", str(out)]
    subprocess.run(build, check=True)
    return out / "html"


@pytest.mark.parametrize(
    ("width", "scheme"), [(390, "light"), (390, "dark"), (1400, "light"), (1400, "dark")]
)
def test_every_page_fits_and_no_code_of_a_chapter_is_cut(site, browser, width, scheme):
    pages = sorted(p for p in site.rglob("*.html") if "_static" not in p.parts)
    with browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        broken = []
        page.on("requestfailed", lambda request: broken.append(request.url))
        for path in pages:
            page.goto(path.as_uri())
            name = path.relative_to(site).as_posix()
            assert page.evaluate("document.documentElement.scrollWidth") == width, name
            if width == 1400 and name.startswith("notebooks/"):
                assert page.evaluate(OPEN_CODE_THAT_IS_CUT) == [], name
    assert broken == [] and len(pages) > 60
