"""What the cells of the chapters state of their numbers: no wider than it must be, and no number
that is not trained among those that may differ."""

import copy
import math
import re
from fractions import Fraction

import nbformat
import pytest
from nbformat import NotebookNode

from sparcl_lib.course.chapter import NOTEBOOKS
from sparcl_lib.course.comparison import adopt, adopt_outputs, tolerance_of, value
from sparcl_lib.course.output import is_live

CELLS = {
    f"{path.stem[:2]}: {cell.source.splitlines()[0][:60]}": cell
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    for cell in nbformat.read(path, as_version=4).cells
    if "tolerance" in cell.metadata
}
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)")


def texts(cell: NotebookNode) -> list[tuple[str, bool]]:
    """What is compared: streams and tables, those as HTML (and whether they are)."""
    found = []
    for output in cell.outputs:
        data = output.get("data", {})
        mime = next((mime for mime in ("text/html", "text/plain") if mime in data), None)
        if output.output_type == "stream":
            found.append((output.text, False))
        elif mime and not is_live(output):
            found.append((data[mime], mime == "text/html"))
    return found


def free_numbers(cell: NotebookNode) -> list[str]:
    """Those that may be another by the least that is printed, or by one."""
    tolerance, free = tolerance_of(cell), []
    for text, html in texts(cell):
        for match in NUMBER.finditer(text):
            number = match[0]
            digits = len(number.partition(".")[2])
            more = f"{value(number) + float(Fraction(1, 10**digits)):.{digits}f}"
            new = text[: match.start()] + more + text[match.end() :]
            if adopt(text, new, tolerance, html) == text:
                free.append(number)
    return free


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_tolerance_is_twice_the_spread_or_one_unit_of_what_is_printed(cell):
    tolerance, free = tolerance_of(cell), free_numbers(cell)
    assert free, "no number needs it"
    unit = 10.0 ** -max(len(number.partition(".")[2]) for number in free)
    units = max(1, math.ceil(2 * tolerance.spread / unit - 1e-9))
    assert tolerance.abs <= units * unit * (1 + 1e-9)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_what_stays_strict_is_printed(cell):
    assert any(re.search(tolerance_of(cell).strict, text) for text, _ in texts(cell))


LABEL = r"(?:\b(?:step|iteration|seed|M_|x|of) *)(\d+)|<th[^>]*>[^<]*?(\d+)[^<]*</th>"


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_labels_are_strict(cell):
    for text, html in texts(cell):
        for match in re.finditer(LABEL, text):
            place = match.span(1 if match[1] else 2)
            new = f"{text[: place[0]]}{int(text[slice(*place)]) + 1}{text[place[1] :]}"
            assert adopt(text, new, tolerance_of(cell), html) != text, match[0]


# What is read of a run in the cell itself; not what an earlier cell read, as nearly every name of a
# chapter leads back to a run.
OF_A_RUN = r"\.(?:matrix|metrics|counts)\b|\.log\(\d"


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_cell_that_reads_numbers_of_a_kept_run_says_which_are_strict(cell):
    if re.search(OF_A_RUN, cell.source):
        assert tolerance_of(cell).strict


OTHERS = {  # chapter, start of the cell, a number in it, another that stood there unseen
    "a step": ("03", "def untrained", "after step 0", "after step 1"),
    "a count": ("05", "features, labels = class_features", "1987578", "1987577"),
    "a share of labels": ("05", "later = list", "10 % of what", "11 % of what"),
    "a step in a sentence": ("05", "later = list", "what step 1", "what step 2"),
    "a kept loss": ("05", 'logs = {"yours"', "0.26</td>", "0.27</td>"),
    "a rate": ("05", "def moving(rate)", "0.05", "1.05"),
    "a half-life": ("05", "def moving(rate)", "14</td>", "13</td>"),
    "a decimal": ("06", "@torch.no_grad()\ndef judged", "1.0</td>", "2.0</td>"),
    "a kept mIoU": ("06", 'SHORT = "optim', "27.4", "27.3"),
    "another kept mIoU": ("07", "short_looks =", "MiB 47.2", "MiB 44.3"),
}


@pytest.mark.parametrize(("chapter", "start", "kept", "other"), OTHERS.values(), ids=OTHERS)
def test_a_number_that_is_not_trained_may_not_change(chapter, start, kept, other):
    (path,) = NOTEBOOKS.glob(f"{chapter}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = (cell for cell in cells if cell.source.startswith(start))
    new = copy.deepcopy(cell.outputs)
    for output in new:
        if output.output_type == "stream":
            output.text = output.text.replace(kept, other)
        for mime in output.get("data", {}):
            output.data[mime] = output.data[mime].replace(kept, other)
    assert new != cell.outputs
    assert adopt_outputs(cell.outputs, new, tolerance_of(cell)) != cell.outputs
