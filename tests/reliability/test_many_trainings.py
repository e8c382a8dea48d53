"""A few of the trainings of tests/many_trainings.py, which makes a hundred."""

import sys
import tempfile

import pytest
from many_trainings import Held, growth, is_flat, trainings


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
def test_files_threads_and_drafts_stay_as_they_are(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    grown = growth(trainings(tmp_path, 14), warm_up=6)
    assert (grown.files, grown.threads, grown.temporary) == (0, 0, 0)
    assert grown.memory < 60, "the allocator still settles in so few"


def test_what_grows_is_seen():
    flat = [Held(500, 9, 4, 0)] * 30
    assert is_flat(growth(flat, 10))
    assert not is_flat(growth([Held(500 + n, 9, 4, 0) for n in range(60)], 10))
    for part in ("files", "threads", "temporary"):
        leak = [Held(**{**vars(flat[0]), part: n // 5}) for n in range(30)]
        assert not is_flat(growth(leak, 10))
