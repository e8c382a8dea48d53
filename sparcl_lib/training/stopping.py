"""SIGTERM and its like, and Ctrl-C, put off until a step in training is whole: between two
iterations."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sparcl_lib.stops import TERMINATING
from sparcl_lib.training.devices import is_first_process

_INSISTS = {**dict.fromkeys(TERMINATING, 3.0), signal.SIGINT: 0.5}
"""Seconds after which another one is not a copy of the first: systems send SIGTERM by several ways
at once, and torchrun passes on the interrupt that a terminal has sent to everyone."""
STOPS = "\nsparcl: stops when this iteration is done and saved; Ctrl-C again stops at once\n"


class PutOff:
    """A SIGINT, or one of TERMINATING, that may have come, and has not had its effect yet."""

    def __init__(self, said: str = "") -> None:
        self._said = said
        self.came = 0
        """Its number, or 0."""
        self._at = 0.0
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """From now on all are put off; where one is ignored, or C code has it, it stays so.

        Those that only the command makes a stop are left alone where a program has not done so: it
        may have a use of its own for them, which `signal.getsignal` does not tell.
        """
        for number in _INSISTS.keys() - self._before.keys():
            before = signal.getsignal(number)
            usual = number in (signal.SIGTERM, signal.SIGINT) and before is signal.SIG_DFL
            if callable(before) or usual:
                self._before[number] = before
                signal.signal(number, self._note)

    def remove(self) -> None:
        """All act as before."""
        while self._before:
            signal.signal(*self._before.popitem())

    def take_effect(self, number: int) -> None:
        """What it would have done: it ends the process, or raises what its handler raises."""
        self.remove()
        self.came = 0
        signal.raise_signal(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.came:
            self.came, self._at = number, now
            terminal = sys.__stderr__
            seen = terminal and terminal.isatty() and is_first_process()
            if number == signal.SIGINT and self._said and terminal and seen:
                os.write(terminal.fileno(), self._said.encode())  # a print may be under way
        elif now - self._at > _INSISTS[signal.Signals(number)]:
            self.take_effect(number)
            self.install()  # its handler has returned: it was no stop


@contextmanager
def stops_put_off(said: str = "") -> Iterator[PutOff]:
    """Inside, a signal is only noted, and has its effect at the end; a second one has it at once.

    said: what a terminal shows at Ctrl-C, where the end may be far. In a thread that is not the
    main one it is left alone, for signals are the main thread's.
    """
    put_off = PutOff(said)
    if threading.current_thread() is threading.main_thread():
        put_off.install()
    try:
        yield put_off
    finally:
        put_off.remove()
        if put_off.came:
            put_off.take_effect(put_off.came)
