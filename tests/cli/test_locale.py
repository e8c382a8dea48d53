"""Text and names of files are UTF-8 in and out, whatever the locale says."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from custom_data import SMALL, camvid_tree, describe

CLASSES = ["background", "Straße", *(f"c{n}" for n in range(2, 12))]
LOCALES = {
    "ASCII names and terminal": {"LC_ALL": "C", "PYTHONUTF8": "0"},
    "ASCII terminal": {"PYTHONIOENCODING": "ascii"},
    "Windows terminal": {"PYTHONIOENCODING": "cp1252"},
}


@pytest.fixture
def root(tmp_path) -> Path:
    """A class, a task, a photograph and its mask with letters that ASCII does not have."""
    root = camvid_tree(tmp_path / "Bücher")
    for folder in ("train", "trainannot"):
        (root / folder / "0001TP_000000.png").rename(root / folder / "Käse.png")
    describe(root, classes=CLASSES)
    (root / "task.yaml").write_text("name: größe\nsteps: [[Straße], [c2]]\n", "utf-8")
    return root


def sparcl(locale: dict[str, str], *arguments: object) -> tuple[int, bytes, bytes]:
    plain = {k: v for k, v in os.environ.items() if k not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    done = subprocess.run(
        [sys.executable, "-m", "sparcl_lib", *map(str, arguments)],
        env={**plain, **locale},
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", LOCALES)
def test_what_is_printed_is_utf8(root, name):
    data = ("--dataset", root / "data.yaml")
    status, out, _ = sparcl(LOCALES[name], "data", "check", *data, "--task", root / "task.yaml")
    assert status == 0 and "of task größe and" in out.decode()
    status, out, _ = sparcl(LOCALES[name], "data", "index", *data)
    assert status == 0 and "train: 6 images; Straße 6, c2 6" in out.decode()
    task = ("--task", root / "task.yaml", "--setup", "overlapped", "--format", "txt")
    status, out, _ = sparcl(LOCALES[name], "split", *data, *task)
    assert status == 0 and "0 Käse\n" in out.decode()


@pytest.mark.parametrize("name", LOCALES)
def test_a_refusal_is_one_line(root, name):
    (root / "train/Käse.png").write_bytes(b"")
    status, out, error = sparcl(LOCALES[name], "data", "check", "--dataset", root / "data.yaml")
    assert status == 1 and f"FAIL train: photograph {root}/train/Käse.png is empty" in out.decode()
    status, out, error = sparcl(LOCALES[name], "data", "index", "--dataset", root / "Müll.yaml")
    assert status == 2 and out == b"" and error.decode().count("\n") == 1
    assert "Müll.yaml" in error.decode()


def test_a_run_and_its_reports(root):
    ascii_only, run = LOCALES["ASCII names and terminal"], root / "Läufe" / "FT"
    settings = [part for setting in SMALL for part in ("--set", setting)]
    status, out, error = sparcl(
        ascii_only, "train", "--dataset", root / "data.yaml", "--task", root / "task.yaml",
        "--setup", "overlapped", "--method", "FT", "--out", run, "--backbone-weights", "none",
        *settings,
    )  # fmt: skip
    assert status == 0, error.decode()
    assert "Straße" in json.loads((run / "metrics.json").read_text("utf-8"))["forgetting"]
    for form in ("csv", "md", "html"):
        file = root / f"Übersicht.{form}"
        status, out, error = sparcl(ascii_only, "report", run, "--format", form, "--out", file)
        assert status == 0 and "Übersicht" in out.decode(), error.decode()
        assert "größe" in file.read_text("utf-8")
    status, out, error = sparcl(ascii_only, "report", run, "--format", "csv")
    assert status == 0 and "größe" in out.decode(), error.decode()


PACKAGE = Path(__file__).parents[2] / "sparcl_lib"
NO_TEXT = ("Image", "PIL.Image", "tarfile", "os", "member")


def leaves_the_encoding_open(call: ast.Call) -> bool:
    """open(path), path.open(), read_text(), write_text(text), text=True: all without encoding."""
    keywords = {keyword.arg for keyword in call.keywords}
    if "encoding" in keywords:
        return False
    if {"text", "universal_newlines"} & keywords:
        return True
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    if name != "open":
        return False
    if isinstance(call.func, ast.Attribute):
        if ast.unparse(call.func.value) in NO_TEXT:
            return False
        modes = call.args[:1]
    else:
        modes = call.args[1:2]
    return not any("b" in ast.unparse(mode) for mode in modes)


def test_no_text_is_opened_in_the_encoding_of_the_locale():
    """The linter's PLW1514 sees this where it knows the type of what is opened."""
    guilty = [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and leaves_the_encoding_open(node)
    ]
    assert guilty == []
