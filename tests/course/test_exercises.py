"""Predictions and self-checks: what they say, in words, in a page and in `results`."""

import numpy as np
import pytest
import torch

from sparcl_lib.course import Property, check, compare_guess, exercises, guess_first
from sparcl_lib.course.exercises import Result
from sparcl_lib.errors import UserError


def raising(x):
    raise KeyError("old")


def unfinished(x):
    raise NotImplementedError


ANSWERS = {
    "right": (lambda x: 2 * x, 3, 6, "right."),
    "close enough": (lambda x: x + 1e-6, 3.0, 3.0, "right."),
    "right array": (lambda x: np.ones(x), 2, np.ones(2), "right."),
    "tensor for number": (lambda x: torch.tensor(2.5), 0, 2.5, "right."),
    "not started": (unfinished, 1, 1, "not started yet."),
    "raises": (raising, 1, 1, "raised KeyError: 'old'. Hint: look"),
    "nothing": (lambda x: None, 1, 1, "returned nothing; is there a return"),
    "number": (lambda x: x, 1, 2, "is 1, expected 2"),
    "truth": (lambda x: 1, 1, True, "returned a number, expected a truth value"),
    "kind": (lambda x: [x], 1, np.ones(1), "returned a list, expected an array"),
    "shape": (lambda x: np.ones(3), 1, np.ones(2), r"has shape (3,), expected (2,)"),
    "place": (lambda x: np.array([1, 5.0]), 1, np.ones(2), "is 5 at index (1,), expected 1"),
    "nan": (lambda x: np.nan, 1, 2.0, "is nan, expected 2"),
    "keys": (lambda x: {"a": 1}, 1, {"b": 1}, "has the keys ['a'], expected ['b']"),
    "entry": (lambda x: {"a": 1}, 1, {"a": 2}, "at 'a': is 1, expected 2"),
    "length": (lambda x: [1], 1, [1, 2], "has 1 entries, expected 2"),
    "list": (lambda x: [1, 3], 1, [1, 2], "entry 1: is 3, expected 2"),
    "text": (lambda x: "a", 1, "b", "returned 'a', expected 'b'"),
    "property": (lambda x: -x, 1, Property("below zero", lambda got: got < 0), "right."),
    "no property": (
        lambda x: x,
        1,
        Property("below zero", lambda got: got < 0),
        "should be below zero. Hint",
    ),
    "no such kind": (
        lambda x: "a",
        1,
        Property("below zero", lambda got: got < 0),
        "asking raised TypeError",
    ),
}


@pytest.fixture(autouse=True)
def results(monkeypatch):
    fresh: list[Result] = []
    monkeypatch.setattr(exercises, "results", fresh)
    return fresh


@pytest.mark.parametrize("answer, given, expected, said", ANSWERS.values(), ids=ANSWERS)
def test_check_says_what_is_wrong_and_hints_after_an_attempt(answer, given, expected, said, capsys):
    assert check("9.9", answer, [((given,), expected)], hint="look there") is None
    printed = capsys.readouterr().out
    assert printed.startswith("Exercise 9.9: ") and said in printed
    attempted = "right." not in printed and "not started" not in printed
    assert ("Hint: look there" in printed) == attempted


def test_check_names_the_first_wrong_case(capsys, results):
    check("1.1", abs, [((-1,), 1), ((-2,), 3), ((-3,), 9)])
    assert capsys.readouterr().out == "Exercise 1.1: case 2 of 3: is 2, expected 3.\n"
    assert results == [Result("1.1", "wrong", "case 2 of 3: is 2, expected 3")]


def test_every_check_is_recorded_in_order(results):
    check("1.1", unfinished, [((1,), 1)])
    check("1.2", abs, [((1,), 1)])
    check("1.3", raising, [((1,), 1)])
    assert [(r.exercise, r.outcome) for r in results] == [
        ("1.1", "not started"), ("1.2", "right"), ("1.3", "wrong"),
    ]  # fmt: skip
    assert "KeyError" in results[2].problem and not results[0].problem


def test_a_page_gets_html_in_which_the_reader_s_text_is_text():
    said = exercises._said(Result("1.1", "wrong", "returned '<b>', expected 'a'"), "use `x < 2`")
    page = said._repr_mimebundle_()["text/html"]
    assert "&lt;b&gt;" in page and "<code>x &lt; 2</code>" in page and "not yet" in page


GUESSES = {
    "number": (50, "guessed 50.0"),
    "array": (np.float32(2.25), "guessed 2.2"),
    "pass": ("pass", "not guessed"),
    "none": (None, "not guessed"),
    "text": ("about half", "not guessed"),
    "list": ([50], "not guessed"),
}


@pytest.mark.parametrize("guess, said", GUESSES.values(), ids=GUESSES)
def test_a_guess_of_any_kind_stands_beside_what_was_measured(guess, said, capsys):
    compare_guess("old classes", guess, 3.14)
    assert capsys.readouterr().out == f"old classes: measured 3.1, {said}\n"


@pytest.mark.parametrize("guess", [50, 0.5, "pass", np.float64(1)])
def test_a_guess_lets_the_reader_go_on(guess):
    guess_first(guess)


@pytest.mark.parametrize("guess", [None, "50", "about half", True, [50], np.ones(2)])
def test_no_guess_stops_in_one_line(guess):
    with pytest.raises(UserError) as caught:
        guess_first(guess)
    assert "number" in str(caught.value) and len(str(caught.value).splitlines()) == 1
