"""One self-contained HTML page over several runs: the verdict, how to read, tables, pictures."""

import importlib.metadata
import os
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

import sparcl_lib
from sparcl_lib.errors import printable
from sparcl_lib.report.order_sections import order_sections
from sparcl_lib.report.runs import ReportRun, by_group
from sparcl_lib.report.sections import section, slug
from sparcl_lib.writing import write_text

_BESIDE = ("results.csv", "results.json")
_CHECKOUT = Path(sparcl_lib.__file__).parents[1]
_COURSE = _CHECKOUT / "notebooks" / "README.md"
_STUDIES = _CHECKOUT / "benchmarks" / "studies"


def write_report(
    runs: Iterable[ReportRun],
    path: str | Path,
    title: str,
    commands: Sequence[str] = (),
    remark: str = "",
    study: str = "",
) -> None:
    """Write the page to `path`. commands: what to type to get the same runs, if known.

    remark: a paragraph below the verdict; study: the folder in benchmarks/studies that it is from.
    Raises UserError when the file cannot be written.
    """
    write_page(Path(path), title, _sections(runs), commands, remark, study=study)


def write_page(
    path: Path,
    title: str,
    sections: Sequence[dict[str, Any]],
    commands: Sequence[str] = (),
    remark: str = "",
    links: bool = True,
    study: str = "",
) -> None:
    """Write a page of sections, with links to the results beside it and to the course.

    A link is there if its file is. links: False for a page that is read elsewhere, as on the site.
    study: folder in benchmarks/studies of what `remark` says. Raises UserError when the file cannot
    be written.
    """
    beside = [name for name in _BESIDE if links and (path.parent / name).is_file()]
    source = _STUDIES / study / "README.md"
    course, origin = (_seen_from(path, f) if links else "" for f in (_COURSE, source))
    write_text(path, page_of(title, sections, commands, remark, beside, course, origin))


def _seen_from(page: Path, file: Path) -> str:
    """The way from a page to a file; empty where there is none, as to another drive of Windows."""
    try:
        return os.path.relpath(file, page.parent) if file.is_file() else ""
    except ValueError:
        return ""


def page_html(runs: Iterable[ReportRun], title: str) -> str:
    """The page: one section per dataset, task and setup; pictures and style inside the file."""
    return page_of(title, _sections(runs))


def _sections(runs: Iterable[ReportRun]) -> list[dict[str, Any]]:
    runs = list(runs)
    found = [*order_sections(runs), *(section(group) for group in by_group(runs).values())]
    met: Counter[str] = Counter()
    for each in found:  # tasks 15.1 and 15-1 have one slug
        name = each["id"]
        met[name] += 1
        each["id"] = f"{name}-{met[name]}" if met[name] > 1 else name
    return found


def page_of(
    title: str,
    sections: Sequence[dict[str, Any]],
    commands: Sequence[str] = (),
    remark: str = "",
    beside: Sequence[str] = (),
    course: str = "",
    study: str = "",
) -> str:
    """A page of sections made by `section` and `order_sections`.

    beside, course, study: relative links, of files that exist; study: what `remark` is from.
    """
    template = (resources.files(__package__) / "page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["slug"] = slug
    return environment.from_string(template).render(
        title=title,
        writer=_writer(),
        commands=[printable(command) for command in commands],
        remark=remark,
        study=study,
        beside=beside,
        course=course,
        sections=sections,
    )


def _writer() -> str:
    """What wrote the page, and where: digits differ between versions of PyTorch and machines."""
    torch = importlib.metadata.version("torch")
    place = f"{platform.system()}, {platform.machine()}"
    return f"sparcl_lib {sparcl_lib.__version__} with PyTorch {torch} on {place}"
