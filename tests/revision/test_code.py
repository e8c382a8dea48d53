"""Which code counts, what its digest follows, and what a key says of it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sparcl_lib
from sparcl_lib.digests.training_code import ASIDE, CONFIGURED, files_that_train
from sparcl_lib.revision import code, note_edits, trained_by
from sparcl_lib.revision.code import compare_code, record_code
from sparcl_lib.revision.recorded import TRAINING_REVISION, Record, read_record, write_record

SCALED = "def scaled(x, by=2.0):\n    return x * by\n"


@pytest.fixture
def fresh(monkeypatch):
    """Functions that answer once in a process answer anew."""
    for function in (code.edited_code, code.note_edits):
        function.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for function in (code.edited_code, code.note_edits):
        function.cache_clear()


def test_nothing_that_counts_imports_what_does_not():
    """So no code that is left out decides what is trained."""
    counted, package = files_that_train(), code.PACKAGE
    for name, file in counted.items():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            found = [a.name for a in getattr(node, "names", ()) if isinstance(node, ast.Import)]
            if isinstance(node, ast.ImportFrom):
                found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for module in found:
                place = module.removeprefix("sparcl_lib").lstrip(".").replace(".", "/")
                files = {f"{place}.py", f"{place}/__init__.py"}
                inside = module.startswith("sparcl_lib.")
                there = {f for f in files if inside and (package / f).is_file()}
                assert there <= counted.keys() | CONFIGURED, f"{name} imports {module}"


def test_what_does_not_count_is_there():
    assert [name for name in ASIDE | CONFIGURED if not (code.PACKAGE / name).exists()] == []
    assert {"training/step.py", "losses/latent.py", "seeding.py"} <= files_that_train().keys()


@pytest.fixture
def package(tmp_path):
    for name, text in {"losses/a.py": SCALED, "cli/b.py": "b = 1", "c.py": "c = 1"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def test_edited_files_are_named(package):
    record = record_code(package)
    assert list(record) == ["c.py", "losses/a.py"] and compare_code(record, package) == {}
    (package / "cli" / "b.py").write_text("b = 2", "utf-8")
    (package / "c.py").write_bytes(b"# a comment\r\nc = 1\r\n")
    assert compare_code(record, package) == {}
    (package / "losses" / "a.py").write_text(SCALED.replace("2.0", "3.0"), "utf-8")
    (package / "losses" / "new.py").write_text("", "utf-8")
    assert list(compare_code(record, package)) == ["losses/a.py", "losses/new.py"]
    (package / "c.py").unlink()
    assert compare_code(record, package)["c.py"] == ""


def test_only_files_that_changed_are_parsed(package, monkeypatch):
    recorded, parsed = record_code(package), []
    monkeypatch.setattr(code, "statements_digest", lambda text: parsed.append(text) or "other")
    assert compare_code(recorded, package) == {} and parsed == []
    (package / "c.py").write_bytes(b"c = 2")
    assert compare_code(recorded, package) == {"c.py": "other"} and parsed == [b"c = 2"]


def test_keys_carry_a_digest_only_where_code_is_edited(fresh):
    edited: dict[str, str] = {}
    fresh.setattr(code, "edited_code", lambda: edited)
    assert trained_by() == {"revision": TRAINING_REVISION}
    found = []
    for digest in ("1", "2"):
        edited["losses/a.py"] = digest
        found.append(trained_by())
    assert found[0].keys() == {"revision", "code"} and found[0]["code"] != found[1]["code"]


def test_edited_code_is_told_once_in_a_line(fresh, capsys):
    fresh.setattr(code, "edited_code", dict)
    note_edits()
    assert capsys.readouterr().err == ""
    code.note_edits.cache_clear()
    fresh.setattr(code, "edited_code", lambda: dict.fromkeys("abcde", ""))
    note_edits(), note_edits()
    assert capsys.readouterr().err == (
        "sparcl: edited code (a, b, c and 2 more) keeps its runs apart from those of training "
        f"revision {TRAINING_REVISION}\n"
    )


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = Record(3, record_code(), {"FT, disjoint": {"step 0 ce": [1.5]}}, {"a.b": [1, None]})
    write_record(record, tmp_path / "r.json")
    assert read_record(tmp_path / "r.json") == record
    assert read_record(tmp_path / "none.json") == Record()


def test_a_revision_that_is_not_recorded_trusts_no_code(fresh):
    record = Record(TRAINING_REVISION, record_code())
    fresh.setattr(code, "read_record", lambda: record)
    assert code.edited_code() == {}
    code.edited_code.cache_clear()
    fresh.setattr(code, "TRAINING_REVISION", TRAINING_REVISION + 1)
    assert code.edited_code().keys() == files_that_train().keys()


def test_the_revision_needs_no_torch():
    told = "import sys, sparcl_lib.revision as r; r.trained_by(); print('torch' in sys.modules)"
    root = Path(sparcl_lib.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", told], cwd=root, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_the_code_is_recorded():
    """Keys of the runs that come with the course name no digest, so this must hold for them."""
    record = read_record()
    edited = compare_code(record.code)
    assert edited == {}, (
        f"{', '.join(edited)}: not as recorded for training revision {record.revision}; run "
        "python -m sparcl_lib.revision record, which first proves that nothing trains otherwise"
    )


def test_hidden_files_do_not_count(package):
    """Copies of editors and of Jupyter made every kept run another one, or ended the training."""
    record = record_code(package)
    hidden = package / "losses" / ".ipynb_checkpoints"
    hidden.mkdir()
    (hidden / "a-checkpoint.py").write_text("a = 9", "utf-8")
    (package / "losses" / "._a.py").write_bytes(b"\x00\x05\x16\x07")
    (package / "losses" / ".#a.py").symlink_to("somebody@host.1234")
    assert record_code(package) == record and compare_code(record, package) == {}
