"""Does the code train what is recorded for its revision? And what is written down, what refused."""

import pytest

from sparcl_lib.methods import METHODS
from sparcl_lib.revision import __main__ as command
from sparcl_lib.revision.golden import TOLERANCE, VARIANTS, golden_defaults, golden_values, moved
from sparcl_lib.revision.recorded import TRAINING_REVISION, Record, read_record


@pytest.fixture(scope="module")
def values():
    return golden_values()


def test_the_code_trains_what_is_recorded(values):
    """A value that moved is a mistake, or a reason for a new training revision: the last line."""
    record = read_record()
    assert record.revision == TRAINING_REVISION, command.RECORD_IT
    lines = moved(record, values, golden_defaults())
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
BEFORE = Record(TRAINING_REVISION, {}, ROWS, {"optim.power": 0.9})


def test_defaults_are_of_all_settings_that_change_numbers():
    defaults = golden_defaults()
    assert defaults["optim.weight_decay"] == 1e-4 and defaults["method.regulariser.alpha"] == 0.9
    assert "method.terms.kd.unbiased" in defaults and "data.workers" not in defaults


def test_moved_values_are_named():
    def lines(rows, defaults=BEFORE.defaults):
        return moved(BEFORE, {"FT": {**ROWS["FT"], **rows}}, defaults)

    assert lines({}) == [] and moved(BEFORE, {"MiB": {}}, {"new": 1}) == []
    assert lines({"step 0 ce": [1.0, 2.0 + TOLERANCE]}) == []
    (line,) = lines({"step 0 ce": [1.0, 2.0 + 5 * TOLERANCE]})
    assert line == "FT, step 0 ce: recorded 1 2, now 1 2.005"
    assert len(lines({"step 1 ce": [1e-6, 3.0]})) == 1 == len(lines({"step 0 ce": [1.0]}))
    assert lines({}, {"optim.power": 1.0}) == ["default of optim.power: recorded 0.9, now 1.0"]
    (line,) = moved(BEFORE, {"FT": {"step 0 ce": [1.0, 2.0]}}, {})
    assert line == "FT, step 1 ce: recorded 0 3, now nothing"


def test_what_moved_is_not_recorded_under_the_same_revision():
    other = {"FT": {**ROWS["FT"], "step 0 ce": [1.1, 2.0]}}
    with pytest.raises(ValueError, match="FT, step 0 ce: recorded 1 2, now 1.1 2\nIf that is"):
        command.new_record(BEFORE, other, {})
    with pytest.raises(ValueError, match="default of optim.power: recorded 0.9, now 0.8"):
        command.new_record(BEFORE, ROWS, {"optim.power": 0.8})
    later = command.new_record(BEFORE, other, {"optim.power": 0.8}, TRAINING_REVISION + 1)
    assert later.values == other and later.defaults == {"optim.power": 0.8}
    with pytest.raises(ValueError, match=f"revision {TRAINING_REVISION} is recorded, this is"):
        command.new_record(BEFORE, ROWS, {}, TRAINING_REVISION - 1)


def test_what_stayed_is_left_as_recorded_and_new_runs_are_added():
    drift = {"FT": {**ROWS["FT"], "step 0 ce": [1.0001, 2.0]}, "new": {"a": [1.0]}}
    record = command.new_record(BEFORE, drift, {"optim.power": 0.9, "optim.new": 1})
    assert record.values == ROWS | {"new": {"a": [1.0]}}
    assert record.revision == TRAINING_REVISION and "losses/latent.py" in record.code


def test_check_says_what_to_do(monkeypatch):
    edited: dict[str, str] = {}
    monkeypatch.setattr(command, "edited_code", lambda: edited)
    assert command.check(BEFORE, ROWS, BEFORE.defaults) == []
    later = Record(TRAINING_REVISION + 1, {}, ROWS)
    assert command.RECORD_IT in command.check(later, ROWS, {})[-1]
    other = {"FT": {"step 0 ce": [9.0]}}
    assert command.RAISE in command.check(BEFORE, other, BEFORE.defaults)[-1]
    edited["losses/a.py"] = "1"
    (line,) = command.check(BEFORE, ROWS | {"new": {}}, BEFORE.defaults)
    assert line == f"not recorded as it is: new, losses/a.py; {command.RECORD_IT}"
