"""Does the code train what is recorded for its revision? And what is written down, what refused."""

import pytest

from sparcl_lib.methods import METHODS
from sparcl_lib.revision import __main__ as command
from sparcl_lib.revision.golden import TOLERANCE, VARIANTS, golden_values, moved
from sparcl_lib.revision.recorded import TRAINING_REVISION, Record, read_record


@pytest.fixture(scope="module")
def values():
    return golden_values()


def test_the_code_trains_what_is_recorded(values):
    """A value that moved is a mistake, or a reason for a new training revision: the last line."""
    record = read_record()
    assert record.revision == TRAINING_REVISION, command.RECORD_IT
    lines = moved(record.values, values)
    assert lines == [], "\n".join([*lines, f"If that is meant, {command.RAISE}."])
    assert record.values.keys() == values.keys(), command.RECORD_IT


def test_every_method_has_golden_values_at_every_iteration(values):
    assert {name.partition(",")[0] for name in values} == {*METHODS, *VARIANTS, "batches"}
    for method in set(METHODS) - {"Joint"}:
        rows = values[f"{method}, disjoint"]
        for step in (1, 2):
            assert len(rows[f"step {step} total"]) == 3
    for term in ("kd", "matching", "attraction", "repulsion", "sparsification"):
        assert all(value > 1e-3 for value in values["SDR, disjoint"][f"step 1 {term}"])
        assert len(set(values["SDR, disjoint"][f"step 1 {term}"])) == 3
    assert len({rows.get("step 1 total", [0])[0] for rows in values.values()}) > 15


ROWS = {"FT": {"step 0 ce": [1.0, 2.0], "step 1 ce": [0.0, 3.0]}}


def test_moved_values_are_named():
    def now(**rows):
        return {"FT": {**ROWS["FT"], **rows}}

    assert moved(ROWS, now()) == [] and moved(ROWS, {"MiB": {}}) == []
    assert moved(ROWS, now(**{"step 0 ce": [1.0, 2.0 + TOLERANCE]})) == []
    (line,) = moved(ROWS, now(**{"step 0 ce": [1.0, 2.0 + 5 * TOLERANCE]}))
    assert line == "FT, step 0 ce: recorded 1 2, now 1 2.005"
    assert len(moved(ROWS, now(**{"step 1 ce": [1e-6, 3.0]}))) == 1
    assert len(moved(ROWS, now(**{"step 0 ce": [1.0]}))) == 1
    assert moved(ROWS, {"FT": {"step 0 ce": [1.0, 2.0]}}) == [
        "FT, step 1 ce: recorded 0 3, now nothing"
    ]


def test_moved_values_are_not_recorded_under_the_same_revision():
    before = Record(4, {}, ROWS)
    other = {"FT": {"step 0 ce": [1.1, 2.0], "step 1 ce": [0.0, 3.0]}}
    with pytest.raises(ValueError, match="FT, step 0 ce: recorded 1 2, now 1.1 2\nIf that is"):
        command.new_record(before, other, 4)
    assert command.new_record(before, other, 5).values == other
    with pytest.raises(ValueError, match="revision 4 is recorded, this is 3"):
        command.new_record(before, ROWS, 3)


def test_what_stayed_is_left_as_recorded_and_new_runs_are_added():
    drift = {"FT": {"step 0 ce": [1.0001, 2.0], "step 1 ce": [0.0, 3.0]}, "new": {"a": [1.0]}}
    record = command.new_record(Record(4, {}, ROWS), drift, 4)
    assert record.values == ROWS | {"new": {"a": [1.0]}} and record.revision == 4
    assert "losses/latent.py" in record.code


def test_check_says_what_to_do(monkeypatch):
    edited: dict[str, str] = {}
    monkeypatch.setattr(command, "edited_code", lambda: edited)
    same = Record(TRAINING_REVISION, {}, ROWS)
    assert command.check(same, ROWS) == []
    assert "record" in command.check(Record(TRAINING_REVISION + 1, {}, ROWS), ROWS)[-1]
    assert command.RAISE in command.check(same, {"FT": {"step 0 ce": [9.0]}})[-1]
    edited["losses/a.py"] = "1"
    (line,) = command.check(same, ROWS | {"new": {}})
    assert line == "not recorded as it is: new, losses/a.py; python -m sparcl_lib.revision record"
