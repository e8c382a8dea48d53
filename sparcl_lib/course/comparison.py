"""Outputs that hold numbers from training, compared by tolerance; everything else strictly.

Between processors, numbers of threads and releases of torch the order of floating-point sums
differs, and so do the last digits of what is trained. A code cell of a chapter's source whose
numbers depend on that says how much they may differ, and from what spread that was chosen:

    # %% tolerance={"abs": 0.03, "spread": 0.012}

Labels of a table's rows and columns are words, whatever digits are in them. Integers are numbers
like others: below `abs` 1 they stay exact. What else is no result of training, such as a number of
a kept run or a count beside percents, stays strict by `"strict": "kept run [0-9.]+"`.
"""

import copy
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from nbformat import NotebookNode

from sparcl_lib.course.output import is_live
from sparcl_lib.errors import UserError
from sparcl_lib.plain import build

KEY = "tolerance"  # in the metadata of a cell
_MINUS = "\N{MINUS SIGN}"
_NUMBER = re.compile(
    rf"""(?<![\w.])             # not inside a word, such as M_0 or resnet101
    (?:(?<![\w.)\]])[-+{_MINUS}])?  # a sign; in 6-4 it is a hyphen
    (?: (?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d*)? (?:[eE][-+]?\d+)?
      | \.\d+ (?:[eE][-+]?\d+)?
      | (?:nan|inf)(?!\w) )""",
    re.VERBOSE | re.IGNORECASE,
)
_TAGS_AND_LABELS = r"<th(?: [^>]*)?>[^<]*</th>|<[^>]*>"
_COMPARED = ("text/plain", "text/html")


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a printed number may lie from the kept one."""

    abs: float
    """The distance: twice the spread in units of the last printed digit, and one unit at least."""
    spread: float
    """The largest difference that was measured between processors, threads and torch releases."""
    strict: str = ""
    """Regular expression of passages that are compared strictly all the same."""

    def __post_init__(self) -> None:
        if not 0 < self.abs >= self.spread >= 0:
            raise UserError(
                f"a tolerance needs abs, and a spread from 0 to it: abs {self.abs}, "
                f"spread {self.spread}"
            )
        try:
            re.compile(self.strict)
        except re.error as error:
            raise UserError(f"strict is no regular expression: {self.strict!r}: {error}") from error

    def holds(self, kept: float, new: float) -> bool:
        """NaN agrees with NaN alone, an infinity with itself."""
        if math.isnan(kept) or math.isnan(new):
            return math.isnan(kept) and math.isnan(new)
        if math.isinf(kept) or math.isinf(new):
            return kept == new
        # The last digits of a decimal fraction are not exact in binary: 0.48 - 0.47 > 0.01.
        return abs(kept - new) <= self.abs * (1 + 1e-9) + 1e-12


def tolerance_of(cell: NotebookNode) -> Tolerance | None:
    """What the cell's metadata say; None for a cell that is compared strictly.

    Raises UserError for metadata that are no tolerance.
    """
    stated = cell.metadata.get(KEY)
    if stated is None:
        return None
    if not isinstance(stated, dict):
        raise UserError(f'{KEY} is written as {{"abs": 0.03, "spread": 0.012}}, not {stated!r}')
    tolerance: Tolerance = build(Tolerance, stated, f"{KEY}.")
    return tolerance


def numbers_in(text: str, *strict: str) -> tuple[list[str], list[str]]:
    """The words between the numbers (one more than there are numbers), and the numbers.

    What one of the regular expressions `strict` finds are words, whatever digits are in it.
    """
    words: list[str] = [""]
    numbers: list[str] = []
    start = 0
    patterns = filter(None, strict)
    found = (passage.span() for pattern in patterns for passage in re.finditer(pattern, text))
    for begin, end in sorted(found):  # they may overlap
        _take(text[start : max(start, begin)], words, numbers)
        words[-1] += text[max(start, begin) : end]
        start = max(start, end)
    _take(text[start:], words, numbers)
    return words, numbers


def _take(text: str, words: list[str], numbers: list[str]) -> None:
    end = 0
    for match in _NUMBER.finditer(text):
        words[-1] += text[end : match.start()]
        numbers.append(match[0])
        words.append("")
        end = match.end()
    words[-1] += text[end:]


def _closed(words: list[str]) -> list[str]:
    """Runs of spaces as one: a column of a table is as wide as its longest number."""
    return [re.sub(" +", " ", word) for word in words]


def value(number: str) -> float:
    """-1,234.5e-3 and its like."""
    return float(number.replace(_MINUS, "-").replace(",", ""))


def adopt(kept: str, new: str, tolerance: Tolerance, html: bool = False) -> str:
    """`new` as far as it differs from `kept` by more than the tolerance.

    The kept text itself where all numbers agree within the tolerance; else the new one, in which
    those that agree are written as they were kept. Where words, lines or the number of numbers
    differ, the new text as it is.
    """
    strict = (tolerance.strict, _TAGS_AND_LABELS if html else "")
    kept_words, kept_numbers = numbers_in(kept, *strict)
    new_words, new_numbers = numbers_in(new, *strict)
    if _closed(kept_words) != _closed(new_words):
        return new
    pairs = list(zip(kept_numbers, new_numbers))
    agree = [tolerance.holds(value(old), value(now)) for old, now in pairs]
    if all(agree):
        return kept
    shown = [old if fine else now for (old, now), fine in zip(pairs, agree)]
    return "".join(word + number for word, number in zip(new_words, [*shown, ""]))


def adopt_outputs(
    kept: list[NotebookNode],
    new: list[NotebookNode],
    tolerance: Tolerance | None,
    sanitize: Callable[[str], str] = str,
) -> list[NotebookNode]:
    """The new outputs of a cell, with what lies within the tolerance written as it was kept.

    A strict comparison of the result with `kept` then says what is left: numbers beyond the
    tolerance, other words, lines, kinds or numbers of outputs. What is live is left out, as it is
    when outputs are saved. Without a tolerance nothing else changes.

    Args:
        sanitize: text -> text, applied to both sides first (what the whole run leaves out).
    """
    still = [output for output in new if not is_live(output)]
    if tolerance is None or [_kind(o) for o in kept] != [_kind(o) for o in still]:
        return still
    adopted = []
    for before, after in zip(kept, still):
        after = copy.deepcopy(after)
        if after.output_type == "stream" and after.name == "stdout":
            after.text = adopt(sanitize(before.text), sanitize(after.text), tolerance)
        elif "data" in after:
            for mime in _COMPARED:
                if mime in after.data:
                    old, now = sanitize(before.data[mime]), sanitize(after.data[mime])
                    after.data[mime] = adopt(old, now, tolerance, html=mime == "text/html")
        adopted.append(after)
    return adopted


def _kind(output: NotebookNode) -> tuple[str, ...]:
    return output.output_type, output.get("name", ""), *sorted(output.get("data", {}))
