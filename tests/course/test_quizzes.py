"""The quiz: what it says for each answer, live and still."""

import pytest

from sparcl_lib.course import output as cell_output
from sparcl_lib.course import quiz
from sparcl_lib.errors import UserError

QUESTION = "Is $a < b$ for `a = 1`?"
ANSWERS = [("No", "One is less than two."), ("If $b > 1$", "Right: that is all it says.")]


@pytest.fixture
def shown(monkeypatch):
    seen = []
    monkeypatch.setattr(cell_output, "display", lambda what, **options: seen.append(what))
    monkeypatch.setattr(cell_output, "get_ipython", lambda: "a kernel")
    return seen


def test_a_page_that_runs_nothing_has_every_answer_with_its_reason(shown):
    quiz(QUESTION, ANSWERS, right=1)
    page = shown[0].html
    assert "$a &lt; b$" in page and "<code>a = 1</code>" in page
    wrong, right = page.split("<details>")[1:]
    assert "✗ Wrong</b>. One is less than two." in wrong
    assert "<summary>If $b &gt; 1$</summary>" in right and "✓ Right</b>: that" in right


def test_a_click_says_right_or_wrong_and_why(shown, monkeypatch):
    import ipywidgets

    boxes = []
    box = ipywidgets.HBox
    monkeypatch.setattr(ipywidgets, "HBox", lambda kids, **options: boxes.append(kids) or box(kids))
    quiz(QUESTION, ANSWERS, right=1)
    for number, (word, (answer, reason)) in enumerate(zip(("Wrong", "Right"), ANSWERS)):
        button, beside = boxes[number]
        text, verdict = beside.children
        assert answer.partition(" ")[0] in text.value and not verdict.value
        button.click()
        assert word in verdict.value and reason.removeprefix(word) in verdict.value
    assert list(shown[1]) == [cell_output.WIDGET_VIEW]


@pytest.mark.parametrize("answers, right", [(ANSWERS, 2), (ANSWERS, -1), (ANSWERS[:1], 0)])
def test_a_quiz_without_a_right_answer_is_refused(answers, right):
    with pytest.raises(UserError, match="quiz: "):
        quiz(QUESTION, answers, right)
