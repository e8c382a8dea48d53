"""A sample of the cases of tests/fuzz.py, which runs them all."""

import pytest
from fuzz import KINDS, Case, Outcome, drawn, fault_of, fuzz, run_case, small_world, snapshot

SAMPLE = 25


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with small_world(tmp_path_factory.mktemp("fuzz").resolve()) as world:
        yield world


@pytest.mark.filterwarnings("default")  # what a user would see, not an error
@pytest.mark.parametrize("kind", KINDS)
def test_a_case_is_accepted_as_it_is_meant_or_refused_in_a_line(world, kind):
    tally = fuzz(world, kind, range(SAMPLE))
    assert tally.faults == []
    assert set(tally.outcomes) == {"accepted", "refused"} and tally.cases == SAMPLE


def test_a_case_is_always_the_same(world):
    first, again = (drawn(world, "task files", 3) for _ in range(2))
    assert (first.arguments, first.files) == (again.arguments, again.files)


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome(2, "", "sparcl: no\n", 0), ""),
        (Outcome(2, "", "sparcl: no\nsparcl: no\n", 0), "not one line"),
        (Outcome(2, "", "sparcl: \x1b[31m\n", 0), "not one line"),
        (Outcome(2, "", "sparcl: TypeError: x\n", 0), "the words of Python"),
        (Outcome(1, "", "", 0), "status 1"),
        (Outcome(-1, "", "", 0, escaped="Traceback"), "Traceback"),
        (Outcome(0, "3", "", 0), "other numbers"),
    ],
)
def test_the_oracle_sees_what_is_wrong(outcome, fault):
    case = Case([], check=lambda outcome: "other numbers" if outcome.out == "3" else "")
    assert fault_of(case, outcome).startswith(fault) and bool(fault) == bool(
        fault_of(case, outcome)
    )


def test_the_oracle_sees_a_file_that_changed(world):
    before = snapshot(world.root)
    before["streets/notes.txt"] = "another"
    _, fault = run_case(world, Case(["methods"]), before)
    assert fault == "files that are others now: ['streets/notes.txt']"
