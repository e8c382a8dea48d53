"""Predictions: what is measured below one is not run before there is a guess, or a "pass".

IPython asks its AST transformers before it runs a cell, and runs none that they reject. JupyterLab
says which cell it runs, and the ids of a chapter's cells say which guess they wait for. So cells
that a reader adds are run, and exercises, their checks and what these need, which measure nothing.
A front end that sends no ids of ours has `guess_first` and `compare_guess` alone.
"""

import ast
import math
import re
from numbers import Integral, Real
from typing import Any, TypeGuard

from IPython import get_ipython
from IPython.core.error import InputRejected

from sparcl_lib.errors import UserError

_PREDICTION = re.compile(r"\d\d-guess-(\d)", re.ASCII)
_WAITING = re.compile(r"\d\d-\d{3}-after-guess-(\d)", re.ASCII)
_NO_GUESS_YET = (
    'first your guess, in the cell below "Predict before you run": write a number (or "pass") '
    "in place of None and run that cell"
)


class GuessIsOwed(UserError, InputRejected):
    """A cell waits for a guess: IPython does not run it."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]  # where it was raised tells a reader nothing


def prediction_id(chapter: str, number: int) -> str:
    """The id of a chapter's cell with its first, second ... prediction, such as 04-guess-1."""
    return f"{chapter}-guess-{number}"


def waiting_id(cell: str, number: int) -> str:
    """The id of a cell that waits for this guess, such as 04-056-after-guess-1."""
    return f"{cell}-after-guess-{number}"


def guess_first(
    guess: float | str | None, lowest: float = -math.inf, highest: float = math.inf
) -> None:
    """Stop here until there is a guess: a number from `lowest` to `highest`, or "pass".

    In JupyterLab the cells below that show what was measured are refused until then, also when
    they are run one by one.

    Raises UserError for None, for what is no number, and for one that is out of the range.
    """
    _GATE.take_back()
    _check(guess, lowest, highest)
    _GATE.give()


def compare_guess(
    what: str, guess: float | str | None, found: float, word: str = "measured"
) -> None:
    """Print a prediction made before the run beside what came out.

    word: how it was found, such as "reckoned".

    Raises UserError for None and for what is no number, as not every front end says which cell it
    runs: there a reader comes here without a guess.
    """
    _check(guess)
    mine = f"guessed {guess:g}" if _is_number(guess) else "not guessed"
    print(f"{what}: {word} {_with_digits(found)}, {mine}")


class Gate(ast.NodeTransformer):
    """What IPython asks before it runs a cell of this notebook; it changes none."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.given: dict[str, int] = {}
        """Id of the cell in which a guess was given -> the number of its prediction."""

    def cell(self) -> str:
        """The id of the cell that runs; empty where the front end does not say."""
        message = getattr(self.shell, "parent_header", {})
        return str(message.get("metadata", {}).get("cellId") or "")

    def missing(self) -> int:
        """The first prediction without a guess."""
        number = 1
        while number in self.given.values():
            number += 1
        return number

    def give(self) -> None:
        """The guess of the cell that runs is there.

        One that is given in a cell of the reader's own, for JupyterLab gives cells that are merged
        or copied ids of their own, is the first that is missing.
        """
        cell = self.cell()
        match = _PREDICTION.fullmatch(cell)
        self.given[cell] = int(match[1]) if match else self.missing()

    def take_back(self) -> None:
        """The guess of the cell that runs does not count any more."""
        self.given.pop(self.cell(), None)

    def visit(self, node: ast.AST) -> ast.AST:
        """The cell as it is; raises GuessIsOwed if one of the guesses above it is missing."""
        cell = self.cell()
        if match := _WAITING.fullmatch(cell):
            needed = int(match[1])
        elif match := _PREDICTION.fullmatch(cell):
            needed = int(match[1]) - 1
        else:
            return node
        if self.missing() <= needed:
            raise GuessIsOwed(_NO_GUESS_YET)
        return node


_GATE = Gate(get_ipython())


def hold_results_back() -> None:
    """From now on, in this notebook, cells wait for the guesses that their ids name."""
    if _GATE.shell is not None:
        _GATE.shell.ast_transformers.append(_GATE)


def _check(guess: Any, lowest: float = -math.inf, highest: float = math.inf) -> None:
    if guess is None:
        raise UserError(_NO_GUESS_YET)
    if isinstance(guess, str) and guess.strip().lower() == "pass":
        return
    if not _is_number(guess):
        got = " ".join(repr(guess).split())
        raise UserError(f'a guess is a number without quotes, or "pass", not {got:.40}')
    if not lowest <= guess <= highest:
        raise UserError(f'a guess is a number from {lowest:g} to {highest:g} here, or "pass"')


def _is_number(guess: Any) -> TypeGuard[float]:
    return isinstance(guess, Real) and not isinstance(guess, bool)


def _with_digits(value: float) -> str:
    """A count in full, another number with a decimal, one below 1 with two."""
    if isinstance(value, Integral):
        return str(value)
    return f"{value:.{2 if abs(value) < 1 else 1}f}"
