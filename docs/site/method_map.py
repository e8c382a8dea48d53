"""The map of docs/day_one.md: each method with its files, chapters and numbers. None is typed.

    python docs/site/method_map.py       # writes the table into the page

Names and files come from the code, published numbers from `sparcl_lib/published`, our own from the
results of `benchmarks/studies`. A test holds the page to it.
"""

import ast
import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sparcl_lib import losses
from sparcl_lib.method_table import ROWS
from sparcl_lib.methods import get_term
from sparcl_lib.metrics import format_mean
from sparcl_lib.published.tables import recipes
from sparcl_lib.writing import write_text

PAGE = ROOT / "docs" / "day_one.md"
STUDIES = ROOT / "benchmarks" / "studies"
BLOCK = re.compile(r"(?<=<!-- map -->\n).*?(?=<!-- end of map -->)", re.DOTALL)
_LATENT = (
    "05_prototypes_matching",
    "06_attraction_and_repulsion",
    "07_sparsification",
    "08_the_whole_method",
)
EXPLAINED: dict[str, tuple[str, ...]] = {
    "FT": ("03_fine_tuning",),
    "Joint": ("02_segmentation_network",),
    "LwF": ("04_distillation",),
    "ILT": ("04_distillation",),
    "MiB": ("04_distillation",),
    "PLOP": ("09_on_top_of_others",),
    "SDR": _LATENT,
    "SDR+MiB": _LATENT,
    "SSUL-like": ("09_on_top_of_others",),
    "MiB+EWF": ("09_on_top_of_others",),
}
"""Method -> the chapters that build it or show where it holds; a new chapter adds its line here."""
PAGES = {"SSUL-like": "later_ideas.md", "MiB+EWF": "later_ideas.md"}
"""Method -> the page of docs/ that says how it differs from its paper."""
MECHANISMS = {
    "regulariser": "regularisers",
    "unknown": "saliency",
    "frozen": "frozen_parts",
    "fuse": "fusion",
}
"""Setting of a method -> the file of `sparcl_lib/methods` that does it."""
OURS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("MiniVOC 6-4 disjoint", "minivoc_comparison", {"task": "6-4", "setup": "disjoint"}),
    ("MiniVOC 6-1 overlapped", "minivoc_comparison", {"task": "6-1", "setup": "overlapped"}),
    ("photographs", "real_one_by_one", {}),
)
"""Title of a column, its study, and which of the study's rows."""
PUBLISHED = "15-1-overlapped"
_LETTERS = "abcdefghijklmnop"


def files_of(settings: dict[str, Any]) -> list[str]:
    """The files of `sparcl_lib` with a method's losses and with what it does beside them."""
    modules = [
        getattr(losses, name).__module__
        for term in settings["terms"]
        for name in _losses_of(inspect.getsource(get_term(term).function))
    ]
    found = [module.removeprefix("sparcl_lib.").replace(".", "/") for module in modules]
    found += [f"methods/{file}" for key, file in MECHANISMS.items() if settings.get(key)]
    pseudo = any(o.get("pseudo") or o.get("threshold") for o in settings["terms"].values())
    found += ["losses/pseudo_labels"] * pseudo
    found += ["models/classifier"] * ("classifier_init" in settings)
    return [f"{file}.py" for file in dict.fromkeys(found)]


def _losses_of(source: str) -> Iterator[str]:
    """Names of the losses that a term calls."""
    for node in ast.walk(ast.parse(dedent(source))):
        if isinstance(node, ast.Attribute) and node.attr in losses.__all__:
            yield node.attr


def published_of(method: str) -> list[tuple[float, str]]:
    """mIoU of all classes on VOC 15-1 overlapped, and its source: one of each table."""
    rows = [r for r in recipes().values() if r.method == method and r.name.count(PUBLISHED)]
    rows = [r for r in rows if r.dataset == "voc" and r.published]
    numbers = [r.published for r in rows if r.published]
    # A source may say another one for the mean over all classes.
    return [(n.all, n.source.rpartition("; all: ")[2]) for n in numbers if n.all is not None]


def rows_of(method: str) -> str:
    """How many published rows of the method have a recipe, by table."""
    counts = Counter(r.table for r in recipes().values() if r.method == method and r.published)
    return ", ".join(f"{table} {count}" for table, count in counts.items())


def ours_of(method: str, study: str, rows: dict[str, str]) -> str:
    """Mean and deviation over the seeds, and how many; a dash where it was not trained."""
    runs = pd.read_csv(STUDIES / study / "results.csv")
    for column, value in rows.items():
        runs = runs[runs[column] == value]
    last = runs[(runs.step == runs.step.max()) & (runs.method == method)]
    if last.empty:
        return "–"
    return f"{format_mean(last.miou_all.mean(), last.miou_all.std())} ({last.seed.nunique()})"


def method_map() -> str:
    """The table and the sources of its published numbers, as Markdown."""
    sources: list[str] = []
    titles = [title for title, *_ in OURS]
    lines = [
        _line("method", "from", "losses and mechanisms", "explained in", "published rows",
              "published, VOC 15-1 overlapped", *titles),
        _line(*["---"] * 5, *["---:"] * (1 + len(titles))),
    ]  # fmt: skip
    for name, row in ROWS.items():
        shown = []
        for value, source in published_of(name):
            sources += [source] if source not in sources else []
            shown.append(f"{value:g} ({_LETTERS[sources.index(source)]})")
        ours = [ours_of(name, study, rows) for _, study, rows in OURS]
        files = " ".join(f"[{Path(f).stem}](../sparcl_lib/{f})" for f in files_of(row.settings))
        lines.append(
            _line(f"**{name}**", row.paper or "–", files, _explained(name), rows_of(name) or "–",
                  ", ".join(shown) or "–", *ours)
        )  # fmt: skip
    notes = [f"({letter}) {source}" for letter, source in zip(_LETTERS, sources)]
    return "\n".join([*lines, "", f"Sources: {'; '.join(notes)}.", ""])


def _explained(method: str) -> str:
    chapters = [f"[{name[:2]}](../notebooks/{name}.ipynb)" for name in EXPLAINED.get(method, ())]
    page = PAGES.get(method)
    return " ".join([*chapters, *([f"[{Path(page).stem}]({page})"] if page else [])]) or "–"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def with_map(text: str) -> str:
    """The page with the table of today; ValueError for one without a place for it."""
    if len(BLOCK.findall(text)) != 1:
        raise ValueError(f"{PAGE} has no place for the map: <!-- map --> and <!-- end of map -->")
    return BLOCK.sub(lambda _: method_map(), text)


def main(arguments: Sequence[str] = ()) -> None:
    write_text(PAGE, with_map(PAGE.read_text("utf-8")))


if __name__ == "__main__":
    main()
