"""Seconds of calls and of iterations, as the clock of the device counts them."""

import time
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import Any

import torch

from sparcl_lib.data.loading.dataset import StepBatch

now = time.perf_counter
"""Seconds; a test puts another clock here."""
WARM = 3
"""First iterations that do not count: memory is found, kernels are chosen."""
FEWEST, MOST = 5, 100
"""How many iterations count at least and at most, however long they take."""


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked for; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median of the calls that fit into `seconds`, the first ones not counted."""
    taken: list[float] = []
    begun = now()
    while len(taken) < WARM + FEWEST or (now() - begun < seconds and len(taken) < WARM + MOST):
        synchronise(device)
        start = now()
        call()
        synchronise(device)
        taken.append(now() - start)
    return median(taken[WARM:])


class TimedBatches:
    """Batches for a training loop, with a mark whenever it asks for the next one.

    It ends after `seconds`, but not before `FEWEST` iterations that count, or with the batches. The
    marks of a GPU are on its own clock, so that nothing waits for it.
    """

    def __init__(
        self, batches: Iterable[StepBatch], device: torch.device, seconds: float, warm: int = WARM
    ) -> None:
        """warm: iterations that come before those that count."""
        self._batches, self._device, self._seconds, self._warm = batches, device, seconds, warm
        self._marks: list[Any] = []

    def __iter__(self) -> Iterator[StepBatch]:
        begun = now()
        for batch in self._batches:
            self._mark()
            counted = len(self._marks) - 1 - self._warm
            late = now() - begun > self._seconds
            if counted >= MOST or (counted >= FEWEST and late):
                return
            yield batch
        self._mark()

    def _mark(self) -> None:
        if self._device.type == "cuda":
            mark = torch.cuda.Event(enable_timing=True)
            mark.record()
            self._marks.append(mark)
        else:
            self._marks.append(now())

    def times(self) -> list[float]:
        """Seconds of each iteration that counts."""
        synchronise(self._device)
        pairs = list(zip(self._marks, self._marks[1:], strict=False))[self._warm :]
        if self._device.type == "cuda":
            return [a.elapsed_time(b) / 1000 for a, b in pairs]
        return [b - a for a, b in pairs]
