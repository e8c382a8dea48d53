"""Outputs compared by tolerance: what passes, what still fails, and nbval end to end."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from sparcl_lib.course.chapter import NOTEBOOKS
from sparcl_lib.course.comparison import (
    Tolerance,
    adopt,
    adopt_outputs,
    numbers_in,
    tolerance_of,
    value,
)  # fmt: skip
from sparcl_lib.errors import UserError
from sparcl_lib.progress import PAGE_CLASS

ROOT = Path(__file__).parents[2]
NEAR = Tolerance(abs=0.02, spread=0.01)
KEPT = "mIoU of 6-4 on M_0: 0.48\nloss -1.250 after 600 steps\n"


# Numbers and words
NUMBERS = {
    "plain": ("a 1 b 2.5", ["1", "2.5"]),
    "sign": ("-0.5 +3 \N{MINUS SIGN}2", ["-0.5", "+3", "\N{MINUS SIGN}2"]),
    "hyphen": ("task 6-4, 10-fold", ["6", "4", "10"]),
    "exponent": ("1e-05 and 2.5E+3", ["1e-05", "2.5E+3"]),
    "percent": ("47 % or 47.5%", ["47", "47.5"]),
    "thousands": ("42,000 of 1,234,567.8", ["42,000", "1,234,567.8"]),
    "list": ("[1, 2,3] (4,)", ["1", "2", "3", "4"]),
    "tensor": ("tensor([1., -.5])", ["1.", "-.5"]),
    "not numbers": ("nan inf -inf NaN", ["nan", "inf", "-inf", "NaN"]),
    "words": ("M_0 resnet101 conv2d info nano v1.2.3", []),
    "unit": ("3x 20ms", ["3", "20"]),
    "spread": ("65.3 ± 0.5", ["65.3", "0.5"]),
}


@pytest.mark.parametrize("text, expected", NUMBERS.values(), ids=NUMBERS)
def test_numbers_are_taken_out_of_the_text(text, expected):
    words, numbers = numbers_in(text)
    assert numbers == expected
    rebuilt = "".join(word + number for word, number in zip(words, [*numbers, ""]))
    assert rebuilt == text


def test_strict_passages_are_words():
    words, numbers = numbers_in(
        "loss 0.88 here, 0.87 in the kept run, 3", "[0-9.]+ in the kept run"
    )
    assert numbers == ["0.88", "3"] and words[1] == " here, 0.87 in the kept run, "


def test_values_of_numbers():
    texts = ["-1,234.5", "\N{MINUS SIGN}2", "1e-3", "5.", ".5", "+3"]
    assert [value(text) for text in texts] == [-1234.5, -2, 1e-3, 5, 0.5, 3]


# What is within and what is not
WITHIN = {
    "same": KEPT,
    "a number inside": KEPT.replace("0.48", "0.47"),
    "two inside": KEPT.replace("0.48", "0.50").replace("1.250", "1.235"),
    "another column width": KEPT.replace(" -1.250", "  -1.25"),
}
BEYOND = {
    "a number beyond": ("0.48", "0.45"),
    "a sign": ("-1.250", "1.250"),
    "an integer": ("600", "601"),
    "a name's digit": ("M_0", "M_1"),
    "not a number": ("0.48", "nan"),
    "infinite": ("-1.250", "-inf"),
    "an exponent": ("0.48", "0.48e-1"),
    "a percent": ("0.48", "0.48 %"),
    "another word": ("loss", "gain"),
    "a missing line": ("loss -1.250 after 600 steps\n", ""),
    "another line": ("steps\n", "steps\nsteps\n"),
    "a line break": (" after", "\nafter"),
    "one number more": ("0.48", "0.48 0.48"),
    "one number less": ("0.48", ""),
    "nothing": (KEPT, ""),
}


@pytest.mark.parametrize("new", WITHIN.values(), ids=WITHIN)
def test_numbers_within_the_tolerance_pass(new):
    assert adopt(KEPT, new, NEAR) == KEPT


@pytest.mark.parametrize("old, new", BEYOND.values(), ids=BEYOND)
def test_anything_else_is_left_to_the_strict_comparison(old, new):
    changed = KEPT.replace(old, new)
    assert changed != KEPT
    assert adopt(KEPT, changed, NEAR) != KEPT


def test_only_the_numbers_beyond_remain_to_be_told():
    new = KEPT.replace("0.48", "0.47").replace("-1.250", "-1.5")
    assert adopt(KEPT, new, NEAR) == KEPT.replace("-1.250", "-1.5")


def test_a_kept_number_in_the_same_output_stays_strict():
    tolerance = Tolerance(abs=0.02, spread=0.01, strict="kept run [0-9.]+")
    kept = "plain 0.48, kept run 0.48"
    assert adopt(kept, "plain 0.47, kept run 0.48", tolerance) == kept
    for new in ("plain 0.48, kept run 0.47", "plain 0.45, kept run 0.48"):
        assert adopt(kept, new, tolerance) == new


SIDES = {
    "inside": (0.48, 0.47, True),
    "on the border": (0.48, 0.50, True),
    "beyond": (0.48, 0.5001, False),
    "nan": (float("nan"), float("nan"), True),
    "nan kept": (float("nan"), 0.0, False),
    "nan new": (0.0, float("nan"), False),
    "inf": (float("inf"), float("inf"), True),
    "other inf": (float("inf"), float("-inf"), False),
    "inf new": (1.0, float("inf"), False),
}


@pytest.mark.parametrize("kept, new, expected", SIDES.values(), ids=SIDES)
def test_a_tolerance_holds(kept, new, expected):
    assert NEAR.holds(kept, new) is expected


# What a cell may state
def test_a_cell_without_a_tolerance_has_none():
    assert tolerance_of(new_code_cell("1")) is None


def test_a_cell_states_its_tolerance():
    cell = new_code_cell("1", metadata={"tolerance": {"abs": 0.02, "spread": 0.01}})
    assert tolerance_of(cell) == NEAR


BAD = {
    "no spread": ({"abs": 0.02}, "spread"),
    "no abs": ({"spread": 0.0}, "abs"),
    "no tolerance": ({"abs": 0, "spread": 0.0}, "needs abs"),
    "spread beyond": ({"abs": 0.02, "spread": 0.03}, "needs abs"),
    "negative": ({"abs": 0.02, "spread": -0.01}, "needs abs"),
    "a number": (0.02, "is written as"),
    "typo": ({"abs": 0.02, "spred": 0.01}, "unknown setting tolerance.'spred'"),
    "pattern": ({"abs": 0.02, "spread": 0.01, "strict": "["}, "strict is no regular expression"),
    "text": ({"abs": "much", "spread": 0.01}, "tolerance.abs must be a number"),
}


@pytest.mark.parametrize("stated, message", BAD.values(), ids=BAD)
def test_a_tolerance_that_is_none_is_refused(stated, message):
    with pytest.raises(UserError, match=message):
        tolerance_of(new_code_cell("1", metadata={"tolerance": stated}))


# Outputs of a cell
def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def table(plain, html):
    return new_output("execute_result", {"text/plain": plain, "text/html": html})


PLAIN, HTML = "   IoU\n0  0.48", '<th>0</th><td rowspan="1">0.48</td>'


def test_streams_and_tables_are_adopted():
    kept = [printed(KEPT), table(PLAIN, HTML)]
    near = table(PLAIN.replace("8", "7"), HTML.replace("8", "7"))
    new = [printed(KEPT.replace("0.48", "0.47")), near]
    assert adopt_outputs(kept, new, NEAR) == kept
    assert new[0].text != KEPT  # what was measured is left as it is


OTHER_OUTPUTS = {
    "one more": [printed(KEPT), table(PLAIN, HTML), table(PLAIN, HTML)],
    "one less": [printed(KEPT)],
    "another stream": [printed(KEPT, "stderr"), table(PLAIN, HTML)],
    "another kind": [printed(KEPT), new_output("execute_result", {"text/plain": PLAIN})],
    "html beyond": [printed(KEPT), table(PLAIN, HTML.replace("0.48", "0.58"))],
    "a label": [printed(KEPT), table(PLAIN, HTML.replace("<th>0<", "<th>1<"))],
    "a tag": [printed(KEPT), table(PLAIN, HTML.replace('"1"', '"2"'))],
}


def test_labels_of_a_table_and_strict_cells_of_it_are_words_at_any_tolerance():
    wide = Tolerance(abs=5, spread=2, strict="kept</th><td>[0-9]+")
    kept = """<thead><tr><th></th><th>step 1</th></tr></thead>
        <tr><th rowspan="2" valign="top">0.05</th><td>20</td></tr>
        <tr><th>kept</th><td>30</td></tr>"""
    assert adopt(kept, kept.replace("<td>20", "<td>24"), wide, html=True) == kept
    for old, new in (("step 1", "step 2"), ("0.05", "1.05"), ("<td>30", "<td>31")):
        assert adopt(kept, kept.replace(old, new), wide, html=True) != kept


@pytest.mark.parametrize("new", OTHER_OUTPUTS.values(), ids=OTHER_OUTPUTS)
def test_other_outputs_are_not_adopted(new):
    kept = [printed(KEPT), table(PLAIN, HTML)]
    assert adopt_outputs(kept, new, NEAR) != kept


def test_errors_of_stderr_stay_strict():
    kept, new = [printed("0.48", "stderr")], [printed("0.47", "stderr")]
    assert adopt_outputs(kept, new, NEAR) == new


def test_what_the_run_leaves_out_is_left_out_before():
    kept, new = [printed("0.48 in 3 s")], [printed("0.47 in 9 s")]
    adopted = adopt_outputs(kept, new, NEAR, lambda text: re.sub(r"\d s", "T", text))
    assert adopted == [printed("0.48 in T")]


# The whole way: nbval on a notebook, with the conftest and the sanitize file of the notebooks
STATED = {"tolerance": {"abs": 0.02, "spread": 0.01}}
SAID = [printed("mIoU 0.48\n")]


def shows(*bundles: dict) -> str:
    """A cell that displays these."""
    return "\n".join(f"display({bundle!r}, raw=True)" for bundle in bundles)


def image(data: str, alt: str = "a line", width: int = 900) -> dict:
    return {"text/html": f'<img alt="{alt}" width="{width}" src="data:image/png;base64,{data}">'}


def iou(number: float) -> dict:
    return {"text/html": f"<td>{number}</td>"}


DRAWN = [new_output("display_data", image("iVBORw0K+/="))]
TABLE = [new_output("display_data", iou(0.48))]
VIEW = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
BAR = {"text/html": f'<div class="{PAGE_CLASS}">MiB step 1: 0 %</div>', "text/plain": "MiB"}
GONE = {"text/html": "", "text/plain": ""}
AGREE = {
    "a bar": (shows(BAR, GONE, iou(0.48)), {}, TABLE),
    "a bar and a number within": (shows(BAR, iou(0.47)), STATED, TABLE),
    "within": ("print('mIoU', 0.47)", STATED, SAID),
    "the same": ("print('mIoU', 0.48)", {}, SAID),
    "another machine's pixels": (shows(image("iVBORw0KGgo")), {}, DRAWN),
    "a table within": (shows(iou(0.47)), STATED, TABLE),
    "a table within and a widget": (shows(iou(0.47), VIEW), STATED, TABLE),
    "a folder that is left": (
        "import tempfile\n_ = tempfile.mkdtemp(prefix='sparcl-left-')",
        {},
        [],
    ),
    "a picture and a table": (shows(image("iVB"), iou(0.47)), STATED, DRAWN + TABLE),
}
DIFFER = {
    "a bar and another number": (shows(BAR, iou(0.47)), {}, TABLE),
    "beyond": ("print('mIoU', 0.45)", STATED, SAID),
    "another word": ("print('mIou', 0.48)", STATED, SAID),
    "one number more": ("print('mIoU', 0.48, 0.48)", STATED, SAID),
    "strict": ("print('mIoU', 0.47)", {}, SAID),
    "another text of a picture": (shows(image("iVBORw0K+/=", "a point")), {}, DRAWN),
    "another width": (shows(image("iVBORw0K+/=", width=901)), {}, DRAWN),
    "another width within": (shows(image("iVB", width=901), iou(0.48)), STATED, DRAWN + TABLE),
    "a table beyond": (shows(iou(0.45)), STATED, TABLE),
}
CELLS = AGREE | DIFFER


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """Where temporary files lie while nbval runs."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def failures(tmp_path_factory, temporary):
    """What nbval says about each cell of a notebook whose kept outputs are the last of CELLS."""
    folder = tmp_path_factory.mktemp("notebooks")
    cells = [
        new_code_cell(source, execution_count=n, outputs=copy.deepcopy(kept), metadata=metadata)
        for n, (source, metadata, kept) in enumerate(CELLS.values(), start=1)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "numbers.ipynb")
    shutil.copy(NOTEBOOKS / "conftest.py", folder)
    sanitize = f"--nbval-sanitize-with={ROOT / 'tests' / 'nbval_sanitize.cfg'}"
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", sanitize]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # Not the screen: pytest shortens it by the width, and doubles it where CI is set.
    subprocess.run(
        [*command, "--junitxml=report.xml", "--rootdir", str(folder), "numbers.ipynb"],
        cwd=folder, env=os.environ | {"PYTHONPATH": paths, "TMPDIR": str(temporary)},
        capture_output=True,
    )  # fmt: skip
    cases = ElementTree.parse(folder / "report.xml").iter("testcase")
    return dict(zip(CELLS, [case.findtext("failure", "") for case in cases], strict=True))


@pytest.mark.parametrize("name", CELLS)
def test_nbval_compares_by_the_tolerance_of_the_cell(name, failures):
    failed = "Cell outputs differ" in failures[name]
    assert failed == (name in DIFFER), failures[name]


def test_nbval_shows_what_differs(failures):
    assert "mIoU 0.45" in failures["beyond"] and "mIou 0.48" in failures["another word"]


def test_what_a_killed_kernel_left_is_removed(failures, temporary):
    """nbval kills its kernels: chapter 11 left a folder of 50 MB at each run."""
    assert failures["a folder that is left"] == ""
    assert not list(temporary.rglob("sparcl-*"))
