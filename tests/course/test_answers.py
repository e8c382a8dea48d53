"""Answers that a reader may well give: the wrong ones are found, the right ones are not refused.

Each was given by somebody. They stand in answers/, a file for each chapter, below lines such as
`# %% 3.2, wrong: a title`; each runs after the sample solution, which it may call.
"""

import re
from pathlib import Path

import pytest
from chapter_exercises import EXERCISES, exercise_id, run_check

from sparcl_lib.course.chapter import solution

CHECKS = {exercise_id(entry): entry for entry in EXERCISES}
HEAD = re.compile(r"^# %% ([\d.]+), (right|wrong): (.+)\n", re.MULTILINE)
GIVEN = [
    pytest.param(number, verdict, code, id=f"{number} {verdict}: {title}")
    for file in sorted(Path(__file__).with_name("answers").glob("*.py"))
    for number, verdict, title, code in zip(*[iter(HEAD.split(file.read_text("utf-8"))[1:])] * 4)
]


@pytest.mark.parametrize("number, verdict, code", GIVEN)
def test_an_answer_is_judged_as_what_it_is(number, verdict, code):
    chapter, exercise, check = CHECKS[number]
    said = run_check(chapter, f"{solution(exercise.source)}\n{code}", check.source)
    if verdict == "right":
        assert f"Exercise {number}: right." in said
    else:
        assert f"Exercise {number}: " in said and "Hint: " in said


def test_every_answer_has_a_title_of_its_own():
    assert len(GIVEN) > 40 and len({given.id for given in GIVEN}) == len(GIVEN)
