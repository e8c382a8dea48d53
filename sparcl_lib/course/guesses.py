"""Predictions: nothing below one is run until there is a guess, or an explicit "pass"."""

import ast
import math
from numbers import Integral, Real
from typing import Any, TypeGuard

from IPython import get_ipython
from IPython.core.error import InputRejected

from sparcl_lib.errors import UserError

PASS = "pass"
"""The guess of those who make none."""
_FIRST = 'first your guess: write a number (or "pass") after my_guess = and run that cell'


class GuessIsOwed(UserError, InputRejected):
    """A cell below a prediction without a guess: IPython does not run it."""


def guess_first(
    guess: float | str | None, lowest: float = -math.inf, highest: float = math.inf
) -> None:
    """Stop here until there is a guess: a number from `lowest` to `highest`, or "pass".

    Where the front end says which cell it runs, as JupyterLab does, the cells of the chapter below
    this one are refused until then, also when they are run one by one. Cells that a reader adds
    and cells above are not.

    Raises UserError for None and for whatever is neither.
    """
    gate = _gate()
    gate.wait_here()
    _check(guess, lowest, highest)
    gate.go_on()


def compare_guess(
    what: str, guess: float | str | None, found: float, word: str = "measured"
) -> None:
    """Print a prediction made before the run beside what came out.

    word: how it was found, such as "reckoned". Raises UserError for what is no guess, as
    `guess_first` does: not every front end says which cell it runs.
    """
    _check(guess)
    mine = f"guessed {guess:g}" if _is_number(guess) else "not guessed"
    print(f"{what}: {word} {_with_digits(found)}, {mine}")


class _Gate(ast.NodeTransformer):
    """Refuses cells below a prediction that waits for its guess.

    IPython asks its AST transformers before it runs a cell, and runs none that they reject. The
    cells of a chapter are counted, 04-055 for the 56th of chapter 04 (`chapter.render`).
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.waiting: set[tuple[str, int]] = set()
        """Chapter and number of each prediction without a guess."""

    def here(self) -> tuple[str, int] | None:
        """Chapter and number of the cell that runs; None where it is none of ours."""
        message = getattr(self.shell, "parent_header", {})
        name = str(message.get("metadata", {}).get("cellId", ""))
        chapter, _, number = name.partition("-")
        return (chapter, int(number)) if number.isdecimal() else None

    def wait_here(self) -> None:
        """From now on nothing below the cell that runs is run, until `go_on` there."""
        if here := self.here():
            self.waiting.add(here)

    def go_on(self) -> None:
        """What is below the cell that runs may be run again."""
        self.waiting.discard(self.here() or ("", 0))

    def visit(self, node: ast.AST) -> ast.AST:
        """The cell as it is; raises GuessIsOwed."""
        here = self.here()
        if here and any(chapter == here[0] and n < here[1] for chapter, n in self.waiting):
            raise GuessIsOwed(_FIRST)
        return node


def _gate() -> _Gate:
    """The one of this notebook; outside of notebooks one that refuses nothing."""
    shell = get_ipython()
    if shell is None:
        return _Gate(None)
    for transformer in shell.ast_transformers:
        if isinstance(transformer, _Gate):
            return transformer
    gate = _Gate(shell)
    shell.ast_transformers.append(gate)
    return gate


def _check(guess: Any, lowest: float = -math.inf, highest: float = math.inf) -> None:
    if guess is None:
        raise UserError(_FIRST)
    if isinstance(guess, str) and guess.strip().lower() == PASS:
        return
    if not _is_number(guess):
        got = " ".join(repr(guess).split())
        raise UserError(f'a guess is a number without quotes, or "pass", not {got:.40}')
    if not lowest <= guess <= highest:
        asked = f"a number from {lowest:g} to {highest:g}"
        raise UserError(f'a guess is {asked} here, or "pass", not {guess:g}')


def _is_number(guess: Any) -> TypeGuard[float]:
    return isinstance(guess, Real) and not isinstance(guess, bool)


def _with_digits(value: float) -> str:
    """A count in full, another number with a decimal, one below 1 with two."""
    if isinstance(value, Integral):
        return str(value)
    return f"{value:.{2 if abs(value) < 1 else 1}f}"
