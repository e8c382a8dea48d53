"""Pages of the repository where Sphinx reads them: in the same places, with links of a site."""

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from sparcl_lib.course.formulas import with_formulas

HOME = "README.md"
"""A link to it is one to the site's first page."""
FRONT = "docs/site/index.md"
"""That page. Its links start where it lies; `reference/` is what is made from the code."""
LEFT_OUT = {"docs/pypi.md"}
PAGES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "benchmarks/studies/*/README.md",
    "data_scripts/README.md",
    "docs/*.md",
    "notebooks/README.md",
    "notebooks/project/README.md",
    "notebooks/[0-9][0-9]_*.ipynb",
)
CHILDREN = {
    "notebooks/README.md": "notebooks/*.ipynb",
    "benchmarks/README.md": "benchmarks/studies/*/README.md",
}
"""An index, and the pages below it in the sidebar."""
CONTENTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Course", ("notebooks/README", "notebooks/project/README", "docs/day_one", "docs/teaching")),
    ("Library", ("docs/using", "docs/reproduce", "docs/several_gpus", "docs/cluster",
                 "docs/own_data", "data_scripts/README", "docs/engineer", "docs/!")),
    ("Results", ("benchmarks/README", "docs/real_voc_subset", "docs/latent_terms",
                      "docs/paper_and_released", "docs/later_ideas")),
    ("Reference", ("reference/api/index", "reference/methods", "reference/settings",
                   "reference/commands", "docs/notation", "docs/glossary",
                   "docs/troubleshooting", "docs/reliability", "docs/licences")),
    ("Project", ("CHANGELOG", "CONTRIBUTING", "SECURITY")),
)  # fmt: skip
"""Caption -> pages in the order of the sidebar; those that are not there are left out, and
`docs/!` stands for the pages of docs/ that are not named here."""
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
_FENCE = re.compile(r"^\s*(```+|~~~+)")

LinkChange = Callable[[re.Match[str], str, str], str]
"""(the link, the path in the repository that it names, its anchor with #) -> what it becomes."""


def rewrite_links(text: str, page: str, change: LinkChange) -> str:
    """Markdown of a page of the repository with its relative links changed, but for code.

    `README.md` stands for a folder that has one. Links within the page stay.
    """
    lines, fence = [], ""
    for line in text.splitlines(keepends=True):
        match = _FENCE.match(line)
        if match and (not fence or match[1].startswith(fence)):
            fence = "" if fence else match[1]
        elif not fence:
            line = _LINK.sub(lambda link: _changed(link, page, change), line)
        lines.append(line)
    return "".join(lines)


def _changed(link: re.Match[str], page: str, change: LinkChange) -> str:
    target, mark, anchor = link["target"].partition("#")
    if not target or re.match(r"[a-z]+:", target):
        return link[0]
    path = os.path.normpath(PurePosixPath(page).parent / target)
    return change(link, path, mark + anchor)


def source_link(link: re.Match[str], path: str, repository: str, folder: bool) -> str:
    """A link to a file that is no page: to the repository, or its text as code."""
    if repository:
        kind = "tree" if folder else "blob"
        return f"[{link['text']}](https://github.com/{repository}/{kind}/main/{path})"
    return link["text"] if "`" in link["text"] else f"`{link['text']}`"


def find_pages(root: Path) -> list[str]:
    """The pages of the repository, as paths from its root."""
    found = {p.relative_to(root).as_posix() for pattern in PAGES for p in root.glob(pattern)}
    return sorted(found - LEFT_OUT)


def stage(root: Path, target: Path, repository: str = "") -> None:
    """Copy the pages of the repository `root` into `target`, with the site's first page.

    repository: OWNER/NAME on GitHub, for links to source files and launch buttons.
    Raises ValueError for a link to a file that does not exist.
    """
    pages, taken_along = find_pages(root), set[str]()

    def change(page: str, link: re.Match[str], path: str, anchor: str) -> str:
        if path.startswith("docs/site/reference/"):
            return f"[{link['text']}]({path.removeprefix('docs/site/')})"
        if not (root / path).exists():
            raise ValueError(f"{page}: there is no {path}")
        path = f"{path}/README.md" if f"{path}/README.md" in pages else path
        if path == HOME:
            return f"[{link['text']}]({_relative('index.md', page)})"
        if path in pages:
            return f"[{link['text']}]({_relative(path, page)}{anchor})"
        if link["image"] or path.endswith(".html"):
            taken_along.add(path)
            address = _relative(path, page)
            return (
                f"![{link['text']}]({address})"
                if link["image"]
                else _as_html(link["text"], address)
            )
        return source_link(link, path, repository, (root / path).is_dir())

    for page in pages:
        text, of_page = (root / page).read_text("utf-8"), partial(change, page)
        if page.endswith(".ipynb"):
            text = _notebook(text, page, of_page, repository)
        else:
            text = rewrite_links(text, page, of_page) + _children(page, pages)
        _write(target / page, text)
    home = rewrite_links((root / FRONT).read_text("utf-8"), FRONT, partial(change, "index.md"))
    teaching = "docs/teaching" if "docs/teaching.md" in pages else "notebooks/README"
    _write(target / "index.md", home.replace("{{teaching}}", teaching) + _contents(pages))
    for file in taken_along:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, target / file)


def extra_files(target: Path) -> list[Path]:
    """Pages of plain HTML in a staged folder, which Sphinx does not copy."""
    return sorted(target.rglob("*.html"))


def _notebook(text: str, page: str, change: LinkChange, repository: str) -> str:
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = rewrite_links("".join(cell["source"]), page, change)
        else:
            _set_formulas(cell)
    notebook["cells"][0]["source"] += launch_buttons(page, repository)
    return json.dumps(notebook, indent=1, ensure_ascii=False)


def _set_formulas(cell: dict[str, Any]) -> None:
    """Set the formulas of a quiz, which no page does inside the HTML of an output."""
    if "quiz" in cell["metadata"].get("tags", []):
        for output in cell["outputs"]:
            page = output.get("data", {}).get("text/html")
            if page is not None:
                output["data"]["text/html"] = with_formulas("".join(page))


def colab_address(page: str, repository: str) -> str:
    """Where Colab finds the notebook that `colab.write_notebooks` makes of a chapter."""
    name = PurePosixPath(page).name
    return f"https://colab.research.google.com/github/{repository}/blob/gh-pages/colab/{name}"


def launch_buttons(page: str, repository: str) -> str:
    """Ways to run a chapter without installing anything; none before the repository is public."""
    if not repository:
        return ""
    working = f"my-course/{PurePosixPath(page).name}"  # made there by postBuild, in the root
    binder = f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/{working}"
    places = {"Run in Colab": colab_address(page, repository), "Run in Binder": binder}
    return "".join(
        f"\n\n```{{button-link}} {address}\n:color: primary\n:outline:\n{name}\n```"
        for name, address in places.items()
    )


def _relative(path: str, page: str) -> str:
    return PurePosixPath(os.path.relpath(path, PurePosixPath(page).parent)).as_posix()


def _as_html(text: str, address: str) -> str:
    return f'<a href="{address}">{text}</a>'


def _children(page: str, pages: Sequence[str]) -> str:
    if page not in CHILDREN:
        return ""
    return _toctree("", [f"/{_docname(p)}" for p in pages if fnmatch(p, CHILDREN[page])])


def _contents(pages: Sequence[str]) -> str:
    there = {_docname(page) for page in pages}
    named = {name for _, names in CONTENTS for name in names}
    rest = sorted(name for name in there - named if name.startswith("docs/"))
    result = ""
    for caption, names in CONTENTS:
        entries = [name for entry in names for name in (rest if entry == "docs/!" else [entry])]
        chosen = [name for name in entries if name in there or name.startswith("reference/")]
        result += _toctree(caption, chosen)
    return result


def _toctree(caption: str, names: Sequence[str]) -> str:
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "```{toctree}", *options, "", *names, "```", ""])


def _docname(page: str) -> str:
    return page.removesuffix(".md").removesuffix(".ipynb")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
