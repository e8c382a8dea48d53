"""Self-checks: what they say, in words, in a page and in `results`."""

import numpy as np
import pandas as pd
import pytest
import torch

from sparcl_lib.course import Property, check, exercises
from sparcl_lib.course.exercises import Result, Several, WithGradient


def raising(x):
    raise KeyError("old")


def unasked(x):
    raise AssertionError


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
    "a list for a tuple": (lambda x: [x, 2 * x], 1.0, (1.0, 2.0), "right."),
    "an array for a list": (lambda x: np.array([x, 2.0]), 1.0, [1.0, 2.0], "right."),
    "a tensor for a tuple": (lambda x: torch.tensor([x, 2.0]), 1.0, (1.0, 2.0), "right."),
    "whole in an array for a list": (lambda x: np.array([x]), 3, [4], "entry 0: is 3, expected 4"),
    "an array for texts": (
        lambda x: np.ones(1),
        1,
        ["a"],
        "an array of shape (1,), expected a list",
    ),
    "rows for a list": (lambda x: np.ones((1, 1)), 1, [1.0], "of shape (1, 1), expected a list"),
    "a tensor for an array": (lambda x: torch.ones(2), 1, np.ones(2), "right."),
    "an array for a tensor": (
        lambda x: np.ones(2),
        1,
        torch.ones(2),
        "returned an array of shape (2,), expected a tensor",
    ),
    "None in an array": (
        lambda x: np.array([1.0, None]),
        1,
        np.array([1.0, np.nan]),
        "is None at index (1,), expected nan.",
    ),
    "text in an array": (
        lambda x: np.array(["1"]),
        1,
        np.ones(1),
        "is '1' at index (0,), expected",
    ),
    "complex in an array": (
        lambda x: np.array([1, 2j]),
        1,
        np.array([1, 31639]),
        "is (1+0j) at index (0,), expected 1.",
    ),
    "a complex number": (lambda x: np.complex128(1j), 1, 2.5, "is 1j, expected 2.5."),
    "numbers in an array of objects": (
        lambda x: np.array([1.0, 3], dtype=object),
        1,
        np.array([1.0, 2.0]),
        "is 3 at index (1,), expected 2.",
    ),
    "None in a list": (lambda x: [None], 1, [1.0], "entry 0: returned None, expected a number"),
    "keys of two kinds": (
        lambda x: {"a": 1, 2: 1},
        1,
        {2: 1},
        "has the keys [2, 'a'], expected [2]",
    ),
    "no words": (unasked, 1, 1, "raised AssertionError. Hint"),
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
        "should be below zero; got 1. Hint",
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
    said = "Exercise 1.1: `answer(x=1)`: returned nothing; is there a return at the end? Hint: "
    assert capsys.readouterr().out == f"{said}look there\n"
    page = exercises._said(Result("1.1", "wrong", "is there a return?"), "")
    assert "return?</p>" in page._repr_mimebundle_()["text/html"]


def test_check_names_the_first_wrong_case(capsys, results):
    check("1.1", abs, [((-1,), 1), ((-2,), 3), ((-3,), 9)])
    assert capsys.readouterr().out == "Exercise 1.1: case 2 of 3, `abs(x=-2)`: is 2, expected 3.\n"
    assert results == [Result("1.1", "wrong", "case 2 of 3, `abs(x=-2)`: is 2, expected 3")]


@pytest.mark.parametrize(
    "given, shown",
    [
        (torch.tensor([1, 2]), "[1, 2]"),
        (torch.tensor(0.123456), "0.1235"),
        (torch.zeros(2, 1, 1), "float32 (2, 1, 1)"),
        (np.zeros(9, dtype=np.uint8), "uint8 (9,)"),
        ([(4, 1), (3,)], "[(4, 1), (3,)]"),
        ({0, 255}, "{0, 255}"),
        ({"a": 0.1234567, "b": None}, "{'a': 0.1235, 'b': None}"),
        ([], "[]"),
        ([0] * 9, "a list of 9"),
        (["a" * 50, "b" * 50], "a list of 2"),
        (True, "True"),
        (Property("x", bool), "a Property"),
        (np.mean, "mean"),
    ],
)
def test_what_was_asked_is_shown_in_short(given, shown, results):
    """Which case a number is could be seen in the folded check alone."""
    check("1.1", lambda given, n: None, [((given, 3), 1)])
    assert results[-1].problem.startswith(f"`answer(given={shown}, n=3)`: returned nothing")


def test_what_was_asked_is_shown_as_it_was_before_the_answer_wrote_into_it(results):
    check("1.1", lambda x: x.clear(), [(([1, 2],), None)])
    assert results[-1].problem.startswith("`answer(x=[1, 2])`: wrote into argument 1")


def test_an_answer_that_takes_other_arguments_is_shown_those_without_names(results):
    check("1.1", lambda x: x, [((1, 2), 1)])
    assert results[-1].problem.startswith("`answer(1, 2)`: raised TypeError")
    check("1.1", lambda *x: None, [((1, 2), 1)])
    assert results[-1].problem.startswith("`answer(1, 2)`: returned nothing")


@pytest.mark.parametrize("given", [torch.tensor([0.0, np.nan]), np.array([0.0, np.nan])])
def test_an_answer_that_writes_into_what_it_is_given_is_told_so(given, results):
    """It was told that the next case came out wrong."""

    def one_more(x):
        x += 1
        return x

    check("1.1", lambda x: x + 1, [((given,), given + 1)])
    assert results[-1].outcome == "right"
    check("1.1", one_more, [((given,), given + 1), ((given,), given + 1)])
    assert results[-1].problem.startswith("case 1 of 2, `one_more(x=[0, nan])`: wrote into arg")


def test_an_answer_that_gives_an_argument_another_shape_is_told_so(results):
    check("1.1", lambda x: x.unsqueeze_(0).sum(), [((torch.zeros(2),), 0.0)])
    assert "`: wrote into argument 1" in results[-1].problem


@pytest.mark.parametrize(
    "given, write",
    [
        ([3, 1], lambda x: x.sort()),
        ({1}, lambda x: x.add(2)),
        ({"a": 1}, lambda x: x.pop("a")),
        ([{"a": 1.0}], lambda x: x[0].update(a=2.0)),
        ([({1}, 5)], lambda x: x[0][0].add(2)),
        ({"a": np.zeros(2)}, lambda x: x["a"].fill(1)),
        ([torch.zeros(2)], lambda x: x[0].add_(1)),
        ([1], lambda x: x.__setitem__(0, None)),
    ],
)
def test_writing_into_a_list_a_set_or_a_dictionary_is_told_at_any_depth(given, write, results):
    check("1.1", lambda n, x: n, [((2, given), 2)])
    assert results[-1].outcome == "right"
    check("1.1", lambda n, x: (write(x), n)[1], [((2, given), 2)])
    assert "`: wrote into argument 2" in results[-1].problem


def test_not_started_is_said_of_the_first_case_alone(results):
    """An answer with a branch that is not written was called not started, whatever it did."""

    def half(x):
        if x > 1:
            raise NotImplementedError("large x")
        return x

    check("1.1", half, [((1,), 1), ((2,), 2)])
    told = "case 2 of 2, `half(x=2)`: raised NotImplementedError: large x"
    assert results[-1] == Result("1.1", "wrong", told)
    check("1.1", half, [((2,), 2), ((1,), 1)])
    assert results[-1].outcome == "not started"


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


SLOPE = WithGradient(6.0, torch.tensor([1.0, 2.0]), place=1)
"""Of the sum of weights times x, at x = (2, 2)."""


@pytest.mark.parametrize(
    "loss, said",
    [
        (lambda w, x: (w * x).sum(), "right."),
        (lambda w, x: (w * x).sum() + 1, "`answer(w=[1, 2], x=[2, 2])`: is 7, expected 6."),
        (lambda w, x: (w * x.detach()).sum(), "is a number without a gradient by x; compute it"),
        (lambda w, x: (w * x).sum().item(), "is a number without a gradient by x"),
        (lambda w, x: 6 * w.clone().requires_grad_()[0], "has a gradient, but none by x"),
        (
            lambda w, x: x.sum() + 2,
            "the value is right; its gradient by x is 1 at index (1,), expec",
        ),
        (lambda w, x: x.mul_(w).sum(), "wrote into argument 2"),
        (lambda w, x: None, "returned nothing; is there a return"),
        (lambda w, x: (w * x).sum()[None], "returned a tensor of shape (1,), expected a number."),
    ],
)
def test_a_loss_is_compared_with_its_gradient(loss, said, capsys):
    """Checks did so by functions of their own, and spoke of index 0 of a value and its gradient."""
    check("1.1", loss, [((torch.tensor([1.0, 2.0]), torch.full((2,), 2.0)), SLOPE)])
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    "measure, said",
    [
        (lambda x: x.mean(), "right."),
        (
            lambda x: 1.0,
            "`answer of low, high`: should be larger for high; got low 1, high 1.",
        ),
        (lambda x: None, "`answer(x=[0, 1])`: returned nothing"),
        (lambda x: x.__iadd__(1).mean(), "`answer(x=[0, 1])`: wrote into argument 1"),
        (unfinished, "not started yet."),
    ],
)
def test_a_property_may_be_of_several_calls(measure, said, capsys):
    """Checks called such answers themselves, so what was written into arguments was not seen."""
    calls = Several({"low": (np.array([0.0, 1.0]),), "high": (np.array([3.0, 4.0]),)})
    larger = Property("larger for high", lambda of: of["high"] > of["low"])
    check("1.1", measure, [(calls, larger)])
    assert said in capsys.readouterr().out


def test_what_an_answer_returns_may_be_seen_as_something_else(capsys):
    series = pd.Series({"a": 1.0})
    for got in (series, {"a": 1.0}):
        check("1.1", lambda x, got=got: got, [((1,), {"a": 1.0})], seen_as=dict)
        assert capsys.readouterr().out == "Exercise 1.1: right.\n"
    check("1.1", lambda x: None, [((1,), {"a": 1.0})], seen_as=dict)
    assert "`answer(x=1)`: returned nothing" in capsys.readouterr().out
    check("1.1", lambda x: 3, [((1,), {"a": 1.0})], seen_as=dict)
    assert "returned 3, and TypeError: 'int' object is not iterable" in capsys.readouterr().out


@pytest.mark.parametrize("write", [lambda x: x.pop("a"), lambda x: x.update({"a": [0.0]})])
def test_writing_into_a_table_is_seen(write, results):
    """The next case failed for it, and the sample solution after it."""
    table = pd.DataFrame({"a": [1.0, np.nan]})
    check("1.1", lambda x: x["a"].sum(), [((table,), 1.0)])
    assert results[-1].outcome == "right"
    check("1.1", lambda x: (write(x), 1.0)[1], [((table,), 1.0)])
    assert "`answer(x=a table of 2 rows)`: wrote into argument 1" in results[-1].problem


def test_a_gradient_may_be_that_of_a_loss_that_is_right(results):
    found = WithGradient.of(lambda w, x: (w * x).sum(), (torch.tensor([1.0, 2]), torch.ones(2)), 1)
    assert (found.value, found.gradient.tolist(), found.place) == (3.0, [1.0, 2.0], 1)


def test_a_gradient_that_cannot_be_computed_is_a_wrong_answer():
    """The check ended in a traceback of autograd, without a hint."""

    def in_place(x):
        squares = x * x
        total = (squares * squares).sum()
        squares *= 1.0
        return total

    x = torch.tensor([1.0, 2.0])
    expected = WithGradient(17.0, 4 * x**3)
    check("1.1", in_place, [((x,), expected)], hint="look there")
    found = exercises.results[-1].problem
    assert "has no gradient by x: RuntimeError" in found


@pytest.mark.parametrize(
    "value, said",
    [
        (torch.tensor([1.0, 3.0], dtype=torch.bfloat16), "is 3 at index (1,), expected 2"),
        (torch.empty(2, device="meta"), "returned a Tensor that cannot be compared: "),
        (10**400, "returned a number, expected a tensor"),
    ],
)
def test_an_answer_of_any_kind_is_compared_or_wrong(value, said):
    check("1.1", lambda x: value, [((1,), torch.tensor([1.0, 2.0]))])
    assert said in exercises.results[-1].problem
