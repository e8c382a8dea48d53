"""Is the built site whole? Every link and anchor leads somewhere, and nothing is fetched."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
_FETCHED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "manifest", "preconnect"}
_IN_CSS = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")\s]+)")
_IN_SCRIPT = re.compile(r"(?:import\s*\(?|fetch\(|\.src\s*=)\s*['\"]((?:https?:)?//[^'\"]+)")


class Page(HTMLParser):
    """The links, the anchors and the loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.unnamed_pictures = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and _FETCHED_LINKS & set(values.get("rel", "").split()):
            self.loaded.append(values.get("href", ""))
        if tag in _LOADED and _LOADED[tag] in values:
            self.loaded.append(values[_LOADED[tag]])
        self.unnamed_pictures += tag == "img" and not values.get("alt")


def problems(site: Path) -> list[str]:
    """What is wrong with a folder of HTML, a line each: dead links, and what a network serves."""
    files = (path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts)
    pages = {path: Page(path.read_text("utf-8")) for path in files}
    found = [
        f"{path.relative_to(site)}: {problem}"
        for path, page in pages.items()
        for problem in _of_page(path, page, pages, site)
    ]
    for pattern, name in ((_IN_CSS, "*.css"), (_IN_SCRIPT, "*.js")):
        for path in sorted(site.rglob(name)):
            found += [
                f"{path.relative_to(site)}: loads {address}"
                for address in pattern.findall(path.read_text("utf-8"))
            ]
    return found


def _of_page(path: Path, page: Page, pages: dict[Path, Page], site: Path) -> Iterator[str]:
    for address in page.loaded:
        if urlsplit(address).netloc:
            yield f"loads {address}"
        elif not address.startswith("data:") and not _file(path, address).exists():
            yield f"{address} is not there"
    for address in page.links:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = _file(path, address) if parts.path else path
        if site not in target.parents or not target.exists():
            yield f"the link {address} leads nowhere"
        elif target in pages and unquote(parts.fragment) not in pages[target].anchors | {""}:
            yield f"the link {address} leads to no anchor"
    if page.unnamed_pictures:
        yield f"{page.unnamed_pictures} pictures say nothing to those who cannot see them (alt)"


def _file(page: Path, address: str) -> Path:
    target = (page.parent / unquote(urlsplit(address).path)).resolve()
    return target / "index.html" if target.is_dir() else target
