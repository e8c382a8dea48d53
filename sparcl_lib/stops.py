"""Ctrl-C, SIGTERM and its like come out as what they are, whatever they broke on their way."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NAMES = ("SIGTERM", "SIGHUP", "SIGUSR1")
TERMINATING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""What ends a process unless it says otherwise: a system's SIGTERM, a terminal that is closed, and
the warning that SLURM's --signal sends before a job's end."""


class Terminated(BaseException):
    """One of TERMINATING, as an exception: what is half-written is taken away, as after Ctrl-C."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stops_of_the_system() -> Iterator[None]:
    """In here Ctrl-C and TERMINATING end the process at once, also while it is in C, where no
    handler of Python's is called."""
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *TERMINATING):
            if signal.getsignal(number) not in (None, signal.SIG_IGN):
                handlers[number] = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def stops_come_out() -> Iterator[None]:
    """An error inside, after Ctrl-C or one of TERMINATING came there, is that stop.

    A handler raises it wherever the program is: a class body, an archive that is closed or a reader
    in C then fails in words of its own, some without a trace of the stop. The error is its cause.
    Code that catches every error and goes on needs one around what it tries.
    """
    came: list[BaseException] = []
    before = _note(came)
    try:
        yield
    except Exception as error:
        if came:
            raise came[0] from error
        raise
    finally:
        for number, (handler, ours) in before.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, handler)


def _note(came: list[BaseException]) -> dict[int, tuple[Any, Any]]:
    """Have what the handlers raise noted; number of a signal -> its handler before, and now."""
    handlers: dict[int, tuple[Any, Any]] = {}
    if threading.current_thread() is not threading.main_thread():
        return {}  # signals are the main thread's
    for number in (signal.SIGINT, *TERMINATING):
        before = signal.getsignal(number)
        if not callable(before):
            continue  # it raises nothing

        def handle(number: int, frame: FrameType | None, before: Any = before) -> None:
            try:
                before(number, frame)
            except BaseException as stop:
                came.append(stop)
                raise

        signal.signal(number, handle)
        handlers[number] = before, handle
    return handlers
