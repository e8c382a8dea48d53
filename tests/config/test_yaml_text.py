"""YAML that a few lines, or a few million, could bring the reader down with."""

import pytest

from sparcl_lib.errors import UserError
from sparcl_lib.fields import Range
from sparcl_lib.plain import nest, read_yaml
from sparcl_lib.tasks import get_task
from sparcl_lib.yaml_text import YamlProblem, parse_yaml

TEN = ", ".join(["x"] * 10)
ALIASES = f"k0: &k0 [{TEN}]\n" + "".join(
    f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
BAD = {
    "brackets": ("x: " + "[" * 3000, "line 1: it is nested in more than 40 levels"),
    "dashes": ("- " * 3000, "line 1: it is nested in more than 40 levels"),
    "aliases": (ALIASES, "line 5: its aliases stand for more than 100000 values"),
    "itself": ("a: &a [*a]", "line 1: .a stands within what it names"),
    "itself below": ("a: &a {b: {c: *a}}", "line 1: .a stands within what it names"),
    "large": ("# " + "x" * 10_000_000, "it is longer than 256 kB"),
    "a number": ("a: 1\n2: b", "line 2: the key '2' is no name; write it in quotes"),
    "a truth": ("yes: 1", "line 1: the key 'yes' is no name; write it in quotes"),
    "nothing": ("~: 1", "line 1: the key '~' is no name"),
    "a list": ("? [a, b]\n: 3", "line 1: the key of a mapping is no name"),
    "twice": ("a: 1\nb: {c: 1, c: 2}", "line 2: the key 'c' stands there twice"),
    "digits": (f"a: {'9' * 5000}", "Exceeds the limit"),
    "a date": ("a: 2020-99-99", "month must be in"),
    "code": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "no character": ("a: \0", "unacceptable character"),
    "open": ("a: [1,", "expected the node content"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_a_bad_text_is_refused_in_a_line(text, message, tmp_path):
    with pytest.raises(YamlProblem, match=message) as problem:
        parse_yaml(text)
    assert "\n" not in str(problem.value) and len(str(problem.value)) < 300
    file = tmp_path / "task.yaml"
    file.write_text(text, "utf-8")
    for read in (read_yaml, lambda path: get_task("minivoc", str(path))):
        with pytest.raises(UserError) as error:
            read(file)
        assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_aliases_and_merges_that_say_little_are_read():
    text = "a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\nd: &d [1]\ne: *d"
    assert parse_yaml(text) == {
        "a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}] * 2, "d": [1], "e": [1]
    }  # fmt: skip
    assert parse_yaml("") is None and parse_yaml("3") == 3


def test_settings_that_hold_themselves_are_refused():
    settings: dict = {}
    settings["a"] = settings
    with pytest.raises(UserError, match="'a' is nested too deep"):
        nest(settings)


def test_a_range_says_what_is_in_it():
    assert str(Range(16, 8192, "pixels")) == "at least 16 and at most 8192 pixels"
    span = Range(0, 1, open_low=True, open_high=True)
    assert str(span) == "above 0 and below 1"
    assert [x in span for x in (0, 0.5, 1, float("nan"))] == [False, True, False, False]
    assert 0 in Range(0, 1) and 1 in Range(0, 1) and 2 not in Range(0, 1)
