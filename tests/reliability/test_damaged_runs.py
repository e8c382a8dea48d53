"""A sample of the cases of tests/damaged_runs.py, which tries 200."""

import pytest
from damaged_runs import KINDS, damage, small_run, try_all


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield small_run(tmp_path_factory.mktemp("damaged").resolve())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_damaged_is_refused_by_name_or_is_what_it_was(kept, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # where a hostile pickle would write
    tally = try_all(kept, kind, range(KINDS[kind][0] - 5, KINDS[kind][0]))
    assert tally.faults == []
    assert set(tally.outcomes) <= {"refused", "unharmed"} and tally.cases == 5


def test_hostile_pickles_are_among_the_cases(kept):
    _, _, damages, _ = KINDS["checkpoints"]
    names = [change.__name__ for change in damages]
    assert {"hostile_archive", "hostile_state", "pickled"} <= set(names)
    assert sum(cases for cases, *_ in KINDS.values()) == 200
    assert len(damages) < KINDS["checkpoints"][0] and callable(damage)
