"""Questions with answers to choose from: each says whether it is right, and why."""

from collections.abc import Sequence
from typing import Any

from IPython.display import display

from sparcl_lib.course.output import Output, as_html, coloured, display_live
from sparcl_lib.errors import UserError


def quiz(question: str, choices: Sequence[tuple[str, str]], right: int) -> None:
    """Show a question and its answers, to be clicked; in a page that runs nothing, to be unfolded.

    Args:
        question: a text with $formulas$ and `code`, as are all others.
        choices: pairs (answer, reason); the reason is shown after "Right" or "Wrong",
            with which it may begin.
        right: index of the right answer.

    Raises UserError for fewer than two answers, or where none of them is right.
    """
    if len(choices) < 2 or not 0 <= right < len(choices):
        raise UserError(f"quiz: {len(choices)} answers, of which right={right} is none: {question}")
    verdicts = [_verdict(number == right, reason) for number, (_, reason) in enumerate(choices)]
    texts = [as_html(answer) for answer, _ in choices]
    still = _still(question, texts, verdicts)
    try:
        import ipywidgets
    except ImportError:
        display(still)
        return
    rows = [
        _row(ipywidgets, "abcdefgh"[number], text, verdict)
        for number, (text, verdict) in enumerate(zip(texts, verdicts))
    ]
    title = ipywidgets.HTMLMath(f"<b>{as_html(question)}</b>")
    space = ipywidgets.Layout(margin="4px 0 24px 0")
    display_live(still, ipywidgets.VBox([title, *rows], layout=space))


def _verdict(right: bool, reason: str) -> str:
    """The reason after its word; that of a right answer may begin with "Right" itself."""
    word = "Right" if right else "Wrong"
    rest = reason.removeprefix(word) if reason.startswith(word) else f". {reason}"
    mark = coloured("success", "✓ Right") if right else coloured("error", "✗ Wrong")
    return mark + as_html(rest)


def _still(question: str, texts: Sequence[str], verdicts: Sequence[str]) -> Output:
    folded = "\n".join(
        f"<details><summary>{text}</summary><p>{verdict}</p></details>"
        for text, verdict in zip(texts, verdicts)
    )
    page = f"<p><b>{as_html(question)}</b></p>\n{folded}\n<br>"
    return Output(page, question)


def _row(ipywidgets: Any, letter: str, text: str, verdict: str) -> Any:
    """A button, the answer beside it, and below that the verdict once it is clicked.

    The answer is no part of the button, which shows neither lines nor formulas.
    """
    narrow = ipywidgets.Layout(width="32px", flex="0 0 auto", padding="0")
    button = ipywidgets.Button(description=letter, tooltip=f"Choose answer {letter}", layout=narrow)
    below = ipywidgets.HTMLMath()

    def choose(_: Any) -> None:
        below.value = verdict

    button.on_click(choose)
    wide = ipywidgets.Layout(flex="1 1 0", min_width="0")
    beside = ipywidgets.VBox([ipywidgets.HTMLMath(text), below], layout=wide)
    return ipywidgets.HBox([button, beside], layout=ipywidgets.Layout(margin="4px 0"))
