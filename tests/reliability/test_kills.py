"""A few of the kills of tests/kills.py, which tries 40."""

import signal
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("processes are forked", allow_module_level=True)
pytest.importorskip("optuna")

from kills import COMMANDS, Done, fault_of_the_killed, make_place, try_all


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield make_place(tmp_path_factory.mktemp("kills") / "place")


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "number"), [("generation", 0), ("training", 1), ("evaluation", 2)]
)
def test_a_killed_command_goes_on_as_if_nothing_was(place, own_cache, name, number):
    tally, _ = try_all(place, name, range(number, number + 1), own_cache)
    assert (tally.outcomes, tally.faults) == ({"same": 1}, [])


def test_forty_kills_are_in_the_whole():
    assert sum(count for count, _ in COMMANDS.values()) == 40


@pytest.mark.parametrize(
    ("done", "kind", "fine"),
    [
        (Done(-9, "", "", 1), signal.SIGKILL, True),
        (Done(2, "", "", 1), signal.SIGKILL, False),
        (Done(143, "", "sparcl: terminated\n", 1), signal.SIGTERM, True),
        (Done(143, "", "", 1), signal.SIGTERM, False),
        (Done(130, "", "Traceback\nsparcl: interrupted\n", 1), signal.SIGINT, False),
        (Done(-15, "", "", 1), signal.SIGTERM, False),
    ],
)
def test_what_a_killed_command_says_is_looked_at(done, kind, fine):
    assert bool(fault_of_the_killed(done, kind)) != fine
