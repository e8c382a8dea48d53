"""Names as somebody may choose them: shown in pictures, pages, tables and terminals, not obeyed."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from custom_data import describe, save_pair, street_mask
from fabricated_runs import make_run
from matplotlib.text import Text

from sparcl_lib.cli import main
from sparcl_lib.cli.options import print_checks
from sparcl_lib.config import parse_settings, resolve
from sparcl_lib.errors import UserError, printable
from sparcl_lib.metrics import StepMatrix
from sparcl_lib.report import render, results_text, steps_text
from sparcl_lib.report.page import write_report
from sparcl_lib.tasks import get_task
from sparcl_lib.viz import (
    confusion_flow,
    forgetting_curves,
    prediction_strips,
    step_heat_map,
    switch_heat_map,
    to_png,
    trade_off,
)
from sparcl_lib.writing import csv_text

MATHTEXT = "price $1^{ to $2"
CLASSES = [[MATHTEXT, "<b>bold</b>", "a|b"], ["_hidden", "*c*", r"$\frac{1}{$"]]
METHODS = ["=cmd|' /C calc'!A0", "@SUM(1)", "<script>alert(1)</script>", "SDR | *x*", "$a_{$"]


def named_run(method: str = "=1+1"):
    run = make_run(method, classes=CLASSES, task="=HYPERLINK(1)")
    pictures = {k: v % 7 if k != "images" else v for k, v in run.predictions.items()}
    return run._replace(predictions=pictures)


def texts(figure) -> list[str]:
    to_png(figure)  # which failed, or drew a formula
    return [text.get_text() for text in figure.findobj(Text)]


def test_pictures_show_a_name_as_it_is():
    run = named_run(METHODS[-1])
    names = ["background", *(name for names in CLASSES for name in names)]
    matrix = run.matrix()
    pictures = run.predictions
    strips = prediction_strips(
        pictures["images"], pictures["truth"], {METHODS[-1]: pictures["prediction"]}, names,
        CLASSES[-1],
    )  # fmt: skip
    shown = texts(strips)
    assert MATHTEXT in shown and METHODS[-1] in shown and " _hidden *" in shown
    for upright in (False, True):
        shown = texts(step_heat_map(matrix, MATHTEXT, upright))
        assert shown.count(MATHTEXT) >= 2 and r"$\frac{1}{$" in shown
    assert any(METHODS[-1] in text for text in texts(forgetting_curves({METHODS[-1]: [matrix]})))
    table = pd.DataFrame(
        {"forgetting": 1.0, "intransigence": 2.0, "forgetting_std": 1, "intransigence_std": 1},
        index=METHODS,
    )
    assert set(METHODS) <= set(texts(trade_off(table)))
    states = pd.DataFrame({name: [True] * 6 for name in (MATHTEXT, "kd", "ce")})
    means = pd.DataFrame({name: [1.0] * 6 for name in ("all", "new", "old")})
    assert MATHTEXT in texts(switch_heat_map(states, means, means))
    confusion = np.full((7, 7), 5)
    assert any(MATHTEXT in text for text in texts(confusion_flow(confusion, names, [1, 2])))


def test_the_page_shows_markup_as_text():
    page = render([named_run(method) for method in METHODS], "html")
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>bold" not in page and "&lt;b&gt;bold&lt;/b&gt;" in page


def test_markdown_shows_markup_as_text():
    lines = render([named_run(method) for method in METHODS], "md").splitlines()
    cells = {line.replace(r"\|", "").count("|") for line in lines}
    assert len(cells) == 1, "no name adds a cell"
    assert r"\<script\>alert(1)\</script\>" in lines[4] and r"SDR \| \*x\*" in lines[5]
    assert lines[1].startswith("| --- | --- |") and r"\$a\_{\$" in lines[6]


def test_a_spreadsheet_computes_nothing():
    text = render([named_run(method) for method in METHODS], "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["method"] for row in rows] == ["'" + METHODS[0], "'" + METHODS[1], *METHODS[2:]]
    assert {row["task"] for row in rows} == {"'=HYPERLINK(1)"}
    assert all(float(row["miou_all"]) > 0 for row in rows), "numbers stay numbers"
    frame = pd.DataFrame(
        {"=x": ["-1", "+1", "\t=1", "fine", None, "a=b"], "n": [-1, 2, 3, 4, 5, 6]}
    )
    lines = csv_text(frame).splitlines()
    assert lines[0] == "'=x,n" and lines[1] == "'-1,-1" and lines[2] == "'+1,2"
    assert lines[3].startswith("'\t") and lines[4:] == ["fine,4", ",5", "a=b,6"]


ESCAPES = "\x1b[31mred\x1b[0m\nnext\ttab\u202e"
SHOWN = r"\x1b[31mred\x1b[0m\nnext\ttab\u202e"


def test_a_task_and_a_method_are_named_in_one_line(tmp_path):
    """By what a terminal would obey, written out: where the name comes in."""
    task = tmp_path / "task.yaml"
    task.write_text(
        'name: "\\e[31mred\\e[0m\\nnext\\ttab\\u202e"\nsteps: [[disc], [bar]]\n', "utf-8"
    )
    assert get_task("minivoc", str(task)).name == SHOWN
    named = resolve("minivoc", "FT", [{"method": {"name": ESCAPES}}], task="6-4")
    assert named.method.name == SHOWN
    run = make_run(SHOWN, task=SHOWN)
    for text in (results_text([run]), steps_text(run.metrics), render([run], "md")):
        assert SHOWN.replace("\\", "") in text.replace("\\", "")
        assert all(character.isprintable() for line in text.splitlines() for character in line)


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_a_name_of_no_length_or_too_much(name, tmp_path):
    with pytest.raises(UserError, match="method.name must be of 1 to 100 characters"):
        resolve("minivoc", "FT", [{"method": {"name": name}}], task="6-4")
    if name:
        task = tmp_path / "task.yaml"
        task.write_text(f"name: {name}\nsteps: [[disc], [bar]]\n", "utf-8")
        with pytest.raises(UserError, match="the name is longer than 100 characters"):
            get_task("minivoc", str(task))


def test_what_is_printed_is_printable(capsys):
    assert printable(ESCAPES) == SHOWN and printable("Straße ± 1 – ok") == "Straße ± 1 – ok"
    print_checks([(True, f"a file named {ESCAPES}")])
    assert capsys.readouterr().out == f"OK   a file named {SHOWN}\n"


def test_settings_of_any_name_are_told_in_one_line():
    with pytest.raises(UserError) as error:
        resolve("minivoc", "FT", [parse_settings([f"{ESCAPES}=1"])], task="6-4")
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


def test_a_matrix_of_such_names_comes_back():
    run = named_run()
    again = StepMatrix.from_results(run.metrics["classes"], run.metrics["steps"])
    assert again.to_results() == run.metrics["steps"]


def test_a_page_shows_its_commands_and_title_as_text(tmp_path):
    """They hold what somebody typed."""
    write_report(
        [make_run("FT")], tmp_path / "r.html", "<i>mine</i>", [f"sparcl '<script>'{ESCAPES}"]
    )
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "<i>mine" not in page and "&lt;i&gt;mine&lt;/i&gt;" in page
    assert "'<script>'" not in page and "&lt;script&gt;" in page and "\x1b" not in page


@pytest.fixture
def strange_ids(tmp_path):
    """A data set whose images and classes are called like this."""
    save_pair(tmp_path / "a.png", tmp_path / "m.png", street_mask(0, (1, 2)))
    rows = [["image", "mask", "id"]]
    rows += [["a.png", "m.png", name] for name in ("=cmd()", "@SUM(1)", "<script>", "-1", "é")]
    with (tmp_path / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    pairs = {"pairs": "pairs.csv"}
    data = describe(tmp_path, classes={"=1+1": 1, "<b>": 2}, train=pairs, val=pairs)
    task = tmp_path / "task.yaml"
    task.write_text("steps: [['=1+1'], ['<b>']]\n", "utf-8")
    return ["--dataset", str(data), "--task", str(task), "--setup", "overlapped"]


def test_ids_of_images_are_shown_in_text_and_computed_by_no_spreadsheet(strange_ids, capsys):
    for form in ("csv", "txt"):
        with pytest.raises(SystemExit):
            main(["split", *strange_ids, "--format", form])
        out = capsys.readouterr().out
        if form == "csv":
            ids = {row["id"] for row in csv.DictReader(io.StringIO(out))}
            assert ids == {"'=cmd()", "'@SUM(1)", "<script>", "'-1", "é"}
        else:
            assert "0 =cmd()" in out.splitlines() and "1 <script>" in out.splitlines()


def test_an_id_that_a_terminal_would_obey_is_refused_by_its_line(tmp_path, capsys):
    save_pair(tmp_path / "a.png", tmp_path / "m.png", street_mask(0, (1, 2)))
    (tmp_path / "pairs.csv").write_text("image,mask,id\na.png,m.png,\x1b[31mred\n", "utf-8")
    pairs = {"pairs": "pairs.csv"}
    data = describe(tmp_path, classes=["a", "b", "c"], train=pairs, val=pairs)
    with pytest.raises(SystemExit) as stop:
        main(["data", "index", "--dataset", str(data)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and "pairs.csv line 2: no id" in error
    assert "\x1b" not in error
