"""What is edited while a process lives: the key of one text, and numbers of another."""

import inspect
import os
import time

import pytest

from sparcl_lib.digests import edits
from sparcl_lib.digests.training_code import files_that_train
from sparcl_lib.errors import UserError
from sparcl_lib.experiments.pool import attempt
from sparcl_lib.revision import code, trained_by


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "losses.py"
    path.write_text("a = 1\n", "utf-8")
    return path


def test_a_file_that_was_written_after_it_was_loaded(file):
    written = file.stat().st_mtime
    edits.refuse_newer(file, written + 1)
    with pytest.raises(UserError, match="losses.py was edited after this process had read it: beg"):
        edits.refuse_newer(file, written - 1)
    os.utime(file, times=(time.time() + 1000,) * 2)  # a wrong clock is no edit
    edits.refuse_newer(file, written - 1)
    file.unlink()
    edits.refuse_newer(file, written - 1)


def test_the_library_s_own_code(monkeypatch):
    code.edited_code.cache_clear()
    newest = max(file.stat().st_mtime for file in files_that_train().values())
    with monkeypatch.context() as patch:
        patch.setattr(edits, "LOADED_AT", newest - 0.5)
        with pytest.raises(UserError, match="was edited after this process had read it"):
            trained_by()
    assert trained_by()


def test_what_is_not_the_library_s_is_known_by_what_was_read(file):
    """A script may be edited while it runs: keys are of what runs."""
    names = {}
    exec(compile("def one(x):\n    return x\n", str(file), "exec"), names)
    file.write_text("def one(x):\n    return x\n", "utf-8")
    assert edits.read_digest(file) is None
    edits.note_reading(file, names["one"])
    before = edits.read_digest(file), inspect.getsource(names["one"])
    file.write_text("def one(x):\n    return 2 * x\n", "utf-8")
    assert (edits.read_digest(file), inspect.getsource(names["one"])) == before
    edits.note_reading(file, names["one"])
    assert edits.read_digest(file) != before[0] and "2 * x" in inspect.getsource(names["one"])


def test_a_module_beside_it_that_says_something_else(file, tmp_path):
    helper, reader = tmp_path / "helper.py", file.resolve()
    edits.refuse_edited_beside(helper, "a", reader)
    edits.refuse_edited_beside(helper, "b", reader)  # nobody has read it
    edits.note_reading(file, test_the_library_s_own_code)
    edits.refuse_edited_beside(helper, "a", reader)
    edits.refuse_edited_beside(helper, "a", reader)
    with pytest.raises(UserError, match="helper.py was edited after this process had read it"):
        edits.refuse_edited_beside(helper, "b", reader)
    edits.refuse_edited_beside(helper, "b", None)
    edits.note_reading(file, test_the_library_s_own_code)
    edits.refuse_edited_beside(helper, "b", reader)


def test_a_process_of_a_pool_that_has_read_other_code_trains_nothing():
    """It kept runs of edited code under the key of the code before, for all who came later."""
    assert attempt(lambda: 3, {}, (trained_by(), [])).value == 3
    for read in (({"revision": 0}, []), (trained_by(), ["other"])):
        found = attempt(lambda: 3, {}, read)
        assert found.value is None and found.error.startswith("code was edited while this ran")
