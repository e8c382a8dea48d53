"""SIGTERM, put off until a step in training is whole: between two iterations."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_INSISTS = 3.0
"""Seconds after which another SIGTERM is not a copy of the first: systems send it by several ways
at once."""


class PutOff:
    """A SIGTERM that may have come, and has not had its effect yet."""

    def __init__(self) -> None:
        self.came_at: float | None = None
        self._before: Any = None

    @property
    def came(self) -> bool:
        return self.came_at is not None

    def install(self) -> None:
        """From now on SIGTERM is put off; where it is ignored, or C code has it, it stays so."""
        before = signal.getsignal(signal.SIGTERM)
        if before not in (None, signal.SIG_IGN):
            self._before = before
            signal.signal(signal.SIGTERM, self._note)

    def remove(self) -> None:
        """SIGTERM acts as before."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def take_effect(self) -> None:
        """What SIGTERM would have done: it ends the process, or raises what its handler raises."""
        self.remove()
        self.came_at = None
        signal.raise_signal(signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.came_at is None:
            self.came_at = now
        elif now - self.came_at > _INSISTS:
            self.take_effect()


@contextmanager
def sigterm_put_off() -> Iterator[PutOff]:
    """Inside, SIGTERM is only noted, and has its effect at the end; a second one has it at once.

    In a thread that is not the main one it is left alone, for signals are the main thread's.
    """
    put_off = PutOff()
    if threading.current_thread() is threading.main_thread():
        put_off.install()
    try:
        yield put_off
    finally:
        put_off.remove()
        if put_off.came:
            put_off.take_effect()
