"""Exceptions that are meant for the person at the keyboard, and the words of their lines."""

import traceback
from collections.abc import Sequence

_MOST = 120
"""Characters of a value in a message."""


class UserError(ValueError):
    """A mistake that the user can mend: one line saying what is wrong, where, and how to mend it.

    The command line prints it without a traceback and exits with status 2; a notebook prints the
    line too, and all the rest when asked by `%tb`.
    """

    _said = False

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the line first; asked again, where it was raised."""
        if self._said:
            return "".join(traceback.format_exception(self)).splitlines()
        self._said = True
        return [f"{type(self).__name__}: {self}  (%tb shows where)"]


def shown(value: object) -> str:
    """What a line says of a value: its repr, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes down
        text = "a number of thousands of digits"
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."


def printable(text: str) -> str:
    r"""The text with characters that a terminal would obey as their escapes: \x1b, \n.

    >>> printable("a\nb")
    'a\\nb'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def number_of(count: int, one: str, several: str | None = None) -> str:
    """How many of something, in words.

    >>> number_of(1, "image"), number_of(2, "image"), number_of(2, "copy is", "copies are")
    ('1 image', '2 images', '2 copies are')
    """
    return f"{count} {one if count == 1 else several or f'{one}s'}"


def first_few(values: Sequence[object], most: int = 12) -> str:
    """The first of them in one line, and how many more there are.

    >>> first_few(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    rest = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + rest


_NO_MEMORY = ("can't allocate memory", "out of memory")
"""In errors of torch that have no type of their own: of its allocator for a CPU, and of CUDA."""


def lacks_memory(error: BaseException) -> bool:
    """What torch and Python say in several ways, of a GPU's memory and of the machine's."""
    said = isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)
    return said or isinstance(error, MemoryError)


class OutsideFailed(UserError):
    """Code that is not the library's, of a term, a mechanism or a backbone, has failed."""


class FailedElsewhere(UserError):
    """Another process of the same training has failed, and has said why."""


class LossDiverged(UserError):
    """The loss became infinite or not a number: too high a rate or weight, not a broken set-up."""
