"""Predictions: what they say, and that nothing below one is run without a guess."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sparcl_lib.course import compare_guess, guess_first
from sparcl_lib.course.chapter import read_chapters, render, tags_of
from sparcl_lib.errors import UserError

CHAPTERS = read_chapters(Path(__file__).parents[2] / "notebooks" / "sources")

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
        (10**400, 0, 100, "from 0 to 100"),
    ],
)
def test_a_guess_outside_what_was_asked_for_stops_in_one_line(guess, lowest, highest, asked):
    with pytest.raises(UserError) as caught:
        guess_first(guess, lowest, highest)
    assert str(caught.value) == f'a guess is a number {asked} here, or "pass"'


@pytest.mark.parametrize("guess", [0.1, 1000, np.float32(20), " Pass"])
def test_a_guess_within_what_was_asked_for_lets_the_reader_go_on(guess):
    guess_first(guess, 0.1, 1000)


def shown_before_the_comparison(cells) -> list[str]:
    """What the code cells below a prediction show, up to the one that compares the guess."""
    shown = []
    for cell in cells:
        for statement in ast.parse(cell.source).body:
            if isinstance(statement, ast.Expr):
                code = ast.unparse(statement)
                if code.startswith("compare_guess("):
                    return shown
                shown.append(code)
    raise AssertionError("a prediction is compared with nothing")


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.name)
def test_nothing_is_shown_between_a_prediction_and_its_comparison(chapter):
    """Where a front end does not say which cell it runs, only `compare_guess` stops the reader."""
    cells = [
        c
        for c in render(CHAPTERS, CHAPTERS.index(chapter), None, "student").cells
        if c.cell_type == "code"
    ]
    predictions = [i for i, cell in enumerate(cells) if "predict" in tags_of(cell)]
    assert predictions
    for first, last in pairwise([*predictions, len(cells)]):
        shown = shown_before_the_comparison(cells[first + 1 : last])
        table_of_speeds = [code for code in shown if code.startswith("parts.rename(")]
        assert shown == (table_of_speeds if chapter.number == "11" else [])


@pytest.mark.parametrize("form", ["working", "student", "published"])
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.name)
def test_all_that_shows_a_result_below_a_prediction_waits_for_its_guess(chapter, form):
    given, names = 0, []
    for cell in render(CHAPTERS, CHAPTERS.index(chapter), None, form).cells:
        tags = set(tags_of(cell))
        if "predict" in tags:
            given += 1
            names.append(cell.source.partition(" = ")[0])
            assert cell.id == f"{chapter.number}-guess-{given}"
        elif cell.cell_type == "code" and given and not tags & {"setup", "exercise", "check"}:
            assert re.fullmatch(rf"{chapter.number}-\d\d\d-after-guess-{given}", cell.id)
        else:
            assert "guess" not in cell.id
    assert given and len(set(names)) == given  # the second would be compared with the first guess


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.name)
def test_what_exercises_need_shows_nothing_and_so_waits_for_no_guess(chapter):
    tags = [set(tags_of(cell)) for cell in chapter.cells]
    first = next(n for n, found in enumerate(tags) if "predict" in found)
    for cell, found in zip(chapter.cells[first:], tags[first:], strict=True):
        if "setup" in found:
            shown = [s for s in ast.parse(cell.source).body if isinstance(s, ast.Expr)]
            assert shown == [], cell.source
