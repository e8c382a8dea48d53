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
    "digits": (lambda x: x, 1417.5, 1418, "is 1417.5, expected 1418."),
    "whole digits": (lambda x: x, 31650, 31639, "is 31650, expected 31639."),
    "nearly whole": (lambda x: x, 31638.75, 31639, "is 31638.8, expected 31639."),
    "whole, one off": (lambda x: x, 31640, 31639, "is 31640, expected 31639."),
    "whole as a float": (lambda x: x, 31639.0, 31639, "right."),
    "whole in a list": (lambda x: [x], 31640, [31639], "entry 0: is 31640, expected 31639."),
    "whole in a dictionary": (lambda x: {"a": x}, 31640, {"a": 31639}, "'a': is 31640, expected"),
    "whole in an array": (
        lambda x: np.array([1.0, x]),
        31638.75,
        np.array([1, 31639]),
        "is 31638.8 at index (1,), expected 31639.",
    ),
    "whole in a tensor": (
        lambda x: torch.tensor([x]),
        31640,
        torch.tensor([31639]),
        "is 31640 at index (0,), expected 31639.",
    ),
    "very large": (lambda x: x, 10**17 + 1, 10**17, "is 100000000000000001, expected 1"),
    "real digits": (lambda x: x, 31650.0, 31639.4, "is 31650, expected 31639."),
    "real, nearly": (lambda x: x, 0.12351, 0.12347, "right."),
    "real, small": (lambda x: x, 1.2004, 1.2, "is 1.2004, expected 1.2."),
    "infinite": (lambda x: x, np.inf, 31639, "is inf, expected 31639."),
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


def test_a_sentence_has_one_full_stop(capsys):
    check("1.1", lambda x: None, [((1,), 1)], hint="look there")
    said = "Exercise 1.1: returned nothing; is there a return at the end? Hint: look there\n"
    assert capsys.readouterr().out == said
    page = exercises._said(Result("1.1", "wrong", "is there a return?"), "")
    assert "return?</p>" in page._repr_mimebundle_()["text/html"]


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
    "number": (50, "guessed 50"),
    "array": (np.float32(2.25), "guessed 2.25"),
    "pass": ("pass", "not guessed"),
}


@pytest.mark.parametrize("guess, said", GUESSES.values(), ids=GUESSES)
def test_a_guess_stands_beside_what_was_measured(guess, said, capsys):
    compare_guess("old classes", guess, 3.14)
    assert capsys.readouterr().out == f"old classes: measured 3.1, {said}\n"


FOUND = {
    "reckoned": ((0.6941, "reckoned"), "reckoned 0.69"),
    "large": ((16.04,), "measured 16.0"),
    "small, negative": ((-0.0123,), "measured -0.01"),
    "nothing": ((0.0,), "measured 0.00"),
    "a count": ((np.int64(1143),), "measured 1143"),
}


@pytest.mark.parametrize("given, said", FOUND.values(), ids=FOUND)
def test_what_was_found_has_its_word_and_its_digits(given, said, capsys):
    """ "measured 0.7" stood below 0.69, which no one had measured."""
    compare_guess("hours", 12.5, *given)
    assert capsys.readouterr().out == f"hours: {said}, guessed 12.5\n"


@pytest.mark.parametrize("guess", [50, 0.5, "pass", np.float64(1)])
def test_a_guess_lets_the_reader_go_on(guess):
    guess_first(guess)


@pytest.mark.parametrize("guess", [None, "50", "about half", True, [50], np.ones(2)])
def test_nothing_is_told_without_a_guess(guess, capsys):
    with pytest.raises(UserError):
        compare_guess("old classes", guess, 3.14)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("guess", [None, "50", "about half", True, [50], np.ones(2)])
def test_no_guess_stops_in_one_line(guess):
    with pytest.raises(UserError) as caught:
        guess_first(guess)
    assert "number" in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "guess, lowest, highest, asked",
    [
        (0, 0.1, 1000, "from 0.1 to 1000"),
        (-1, 0.1, 1000, "from 0.1 to 1000"),
        (5000, 0.1, 1000, "from 0.1 to 1000"),
        (100, 1, 64, "from 1 to 64"),
        (float("nan"), 0, 10582, "from 0 to 10582"),
    ],
)
def test_a_guess_outside_what_was_asked_for_stops_in_one_line(guess, lowest, highest, asked):
    with pytest.raises(UserError) as caught:
        guess_first(guess, lowest, highest)
    assert str(caught.value) == f'a guess is a number {asked} here, or "pass", not {guess:g}'


@pytest.mark.parametrize("guess", [0.1, 1000, np.float32(20), " Pass"])
def test_a_guess_within_what_was_asked_for_lets_the_reader_go_on(guess):
    guess_first(guess, 0.1, 1000)
