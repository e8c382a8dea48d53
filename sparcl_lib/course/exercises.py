"""Self-checks of exercises: offline, and with a hint instead of a traceback."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from IPython.display import display

from sparcl_lib.course.arguments import (
    argument_names,
    call_text,
    copied,
    function_name,
    in_short,
    is_same,
)
from sparcl_lib.course.comparing import difference
from sparcl_lib.course.output import Output, as_html, coloured

Arguments = tuple[Any, ...]
Case = tuple["Arguments | Several", Any]
"""Arguments, and what the answer must return for them: a value, a WithGradient, or a Property."""


@dataclass(frozen=True)
class Several:
    """Arguments of several calls: a Property is then one of all their values, name -> value."""

    calls: Mapping[str, Arguments]
    """Name -> arguments."""


@dataclass(frozen=True)
class Property:
    """What must hold of an answer's value where many values are right: for open exercises."""

    text: str
    """What it should be, such as "zero where nothing moved"."""
    holds: Callable[[Any], Any]
    """Whether a value is so."""


@dataclass(frozen=True)
class WithGradient:
    """A loss, and its gradient by one argument."""

    value: float
    gradient: torch.Tensor
    """Of the shape of that argument."""
    place: int = 0
    """Of the argument, from 0."""

    @staticmethod
    def of(loss: Callable[..., Any], arguments: Arguments, place: int = 0) -> "WithGradient":
        """Those of a loss that is right."""
        leaf = arguments[place].detach().clone().requires_grad_()
        value = loss(*arguments[:place], leaf, *arguments[place + 1 :])
        return WithGradient(value.item(), torch.autograd.grad(value, leaf)[0], place)


@dataclass(frozen=True)
class Result:
    """What a check found."""

    exercise: str
    """Its number, such as 3.1."""
    outcome: Literal["right", "wrong", "not started", "not readable"]
    problem: str = ""
    """What is wrong, in which case; empty of what is right."""


results: list[Result] = []
"""One entry for each call of `check` in this process, in order: what marks a folder reads."""


def check(
    exercise: str,
    answer: Callable[..., Any],
    cases: Iterable[Case],
    hint: str = "",
    tolerance: float = 1e-4,
    seen_as: Callable[[Any], Any] = lambda value: value,
    rest: str = "",
) -> None:
    """Call `answer` on every case; show what is wrong with the first that fails, then a hint.

    An answer that raises NotImplementedError in the first case is not started, and gets no hint.
    What was found is appended to `results`. An answer that writes into the tensors, arrays, tables,
    lists, sets and dictionaries that it is given is wrong, and told so. What is said of a case
    that fails names the call.

    cases: pairs (arguments, expected); an expected whole number, also in a list, a dictionary or an
    array, is met by nothing else, 2.0 by what is close. A list and a tuple are the same here; where
    one of numbers is expected, an array or a tensor of one dimension is right too, and where an
    array is expected, a tensor. tolerance: relative and absolute, for floats. seen_as: makes of a
    value of the answer what is compared, where several kinds of values are right. rest: who judges
    what no case can see, such as "the rubric" of an open exercise.
    """
    cases, seen = list(cases), _Seen(answer, seen_as, tolerance)
    result = Result(exercise, "right")
    for number, (arguments, expected) in enumerate(cases, start=1):
        where = f"case {number} of {len(cases)}, " if len(cases) > 1 else ""
        try:
            seen.compare(arguments, expected)
        except _Wrong as wrong:
            started = number > 1 or not wrong.unwritten
            problem = f"{where}`{wrong.call}`: {wrong.problem}"
            result = Result(exercise, *(("wrong", problem) if started else ("not started",)))
            break
    results.append(result)
    display(_said(result, hint, rest))


class _Wrong(Exception):
    """What is wrong with an answer, and in which call."""

    def __init__(self, call: str, problem: str, unwritten: bool = False) -> None:
        super().__init__(problem)
        self.call, self.problem, self.unwritten = call, problem, unwritten


@dataclass(frozen=True)
class _Seen:
    """An answer as a check sees it. All methods raise _Wrong."""

    answer: Callable[..., Any]
    seen_as: Callable[[Any], Any]
    tolerance: float

    def compare(self, arguments: Arguments | Several, expected: Any) -> None:
        """Call the answer, and compare."""
        if isinstance(arguments, Several):
            values = {name: self.value(given) for name, given in arguments.calls.items()}
            called = f"{function_name(self.answer)} of {', '.join(values)}"
            return self.want(called, values, expected)
        call = call_text(self.answer, arguments)  # as it was: it may write into its arguments
        if isinstance(expected, WithGradient):
            self.want(call, self.value(arguments), expected.value)
            return self.want_gradient(call, arguments, expected)
        return self.want(call, self.value(arguments, may_be_none=expected is None), expected)

    def value(self, arguments: Arguments, may_be_none: bool = False) -> Any:
        """What the answer returns for arguments, into which it must not write."""
        call, before = call_text(self.answer, arguments), [copied(value) for value in arguments]
        got = self.called(call, arguments)
        if got is None and not may_be_none:
            raise _Wrong(call, "returned nothing; is there a return at the end?")
        for place, pair in enumerate(zip(before, arguments), start=1):
            if not is_same(*pair):
                leave = "leave what is given as it is, and make a new one"
                raise _Wrong(call, f"wrote into argument {place}; {leave}")
        try:
            return self.seen_as(got)
        except Exception as error:  # a value of a kind that cannot be seen so
            raise _Wrong(call, f"returned {in_short(got)}, and {_as_text(error)}") from error

    def called(self, call: str, arguments: Arguments) -> Any:
        """What the answer returns, without a look at it."""
        try:
            return self.answer(*arguments)
        except Exception as error:  # whatever the reader's code does
            unwritten = isinstance(error, NotImplementedError)
            raise _Wrong(call, f"raised {_as_text(error)}", unwritten) from error

    def want(self, call: str, got: Any, expected: Any) -> None:
        """The value must be what is expected, or have the property."""
        if not isinstance(expected, Property):
            try:
                problem = difference(got, expected, self.tolerance)
            except Exception as error:  # a value of a kind that cannot be compared
                what = f"returned a {type(got).__name__} that cannot be compared"
                problem = f"{what}: {_as_text(error)}"
            if problem:
                raise _Wrong(call, problem)
            return
        wanted = f"should be {expected.text}"
        try:
            holds = expected.holds(got)
        except Exception as error:  # a value of a kind that has no such property
            raise _Wrong(call, f"{wanted}; asking raised {_as_text(error)}") from error
        if not holds:
            of_each = got if isinstance(got, dict) else {}
            listed = ", ".join(f"{name} {in_short(value)}" for name, value in of_each.items())
            raise _Wrong(call, f"{wanted}; got {listed or in_short(got)}")

    def want_gradient(self, call: str, arguments: Arguments, expected: WithGradient) -> None:
        """The value must come with this gradient."""
        place = expected.place
        name = argument_names(self.answer, arguments)[place] or f"argument {place + 1}"
        leaf = arguments[place].detach().clone().requires_grad_()
        got = self.called(call, (*arguments[:place], leaf, *arguments[place + 1 :]))
        if not (isinstance(got, torch.Tensor) and got.requires_grad):
            without = f"is a number without a gradient by {name}; compute it from {name}"
            raise _Wrong(
                call, f"{without}, and where there is nothing to learn, from 0 times {name}"
            )
        try:
            gradient = torch.autograd.grad(got, leaf, allow_unused=True)[0]
        except RuntimeError as error:  # such as a tensor that was changed in place
            raise _Wrong(call, f"has no gradient by {name}: {_as_text(error)}") from error
        if gradient is None:
            raise _Wrong(call, f"has a gradient, but none by {name}")
        problem = difference(gradient, expected.gradient, self.tolerance)
        if problem:
            raise _Wrong(call, f"the value is right; its gradient by {name} {problem}")


def _as_text(error: Exception) -> str:
    return type(error).__name__ + (f": {error}" if str(error) else "")


def _said(result: Result, hint: str, rest: str = "") -> Output:
    """In a page and in a terminal; in both the words say it, and colour repeats them."""
    name = f"Exercise {result.exercise}"
    if result.outcome == "not started":
        return Output(f"<p>{name}: not started yet.</p>", f"{name}: not started yet.")
    if result.outcome == "right":
        form = f" That is its form; {rest} judges what it says." if rest else ""
        right = coloured("success", "✓ right.")
        return Output(f"<p>{name}: {right}{as_html(form)}</p>", f"{name}: right.{form}")
    problem = result.problem if result.problem.endswith((".", "?", "!")) else f"{result.problem}."
    page = f"<p>{name}: {coloured('error', '✗ not yet.')} {as_html(problem)}</p>"
    plain = f"{name}: {problem}"
    if hint:
        page += f"<p>Hint: {as_html(hint)}</p>"
        plain += f" Hint: {hint}"
    return Output(page, plain)
