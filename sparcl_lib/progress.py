"""Progress bars: `tqdm` as this library shows it.

In a notebook a bar is HTML, not a widget: it is there when the notebook is saved, closed and opened
again, and ends green when it is whole and red when it was stopped. In a terminal it is tqdm's own.
In a file or a pipe, where nothing can be drawn over, it writes seldom.
"""

import html
import io
import multiprocessing
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from multiprocessing.context import BaseContext
from typing import Any

from tqdm.std import tqdm as _Bar

from sparcl_lib.errors import printable

_SECONDS_IN_A_FILE = 30.0
PAGE_CLASS = "sparcl-progress"
"""Of a bar in a page, by which its output is known."""
_RUNNING, _WHOLE, _STOPPED = "#1976d2", "#2e7d32", "#c62828"


class _PageBar(_Bar):  # type: ignore[misc]  # tqdm has no types
    """A bar in the output of a cell."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # gui: tqdm counts and times, and leaves all drawing to `display`.
        super().__init__(*arguments, **options | {"gui": True})
        self._whole: bool | None = None
        if not self.disable:
            self._output = _display(self, display_id=True)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        self._output.update(self)
        return True

    def clear(self, *_: Any, **__: Any) -> None:
        """Nothing is drawn over a page."""

    def close(self) -> None:
        if self.disable:
            return
        super().close()
        self._whole = not self.total or self.n >= self.total
        self.display()

    def _repr_html_(self) -> str:
        if self._whole and not self.leave:
            return ""
        share = min(1.0, self.n / self.total) if self.total else float(self._whole is not None)
        colour = {None: _RUNNING, True: _WHOLE, False: _STOPPED}[self._whole]
        before, _, after = self.format_meter(
            **self.format_dict | {"bar_format": "{l_bar}<bar/>{r_bar}"}
        ).partition("<bar/>")
        return (
            f'<div class="{PAGE_CLASS}" style="display:flex;align-items:center;gap:8px">'
            f"<span>{html.escape(before.rstrip('|'))}</span>"
            f'<div style="flex:0 1 300px;min-width:60px;border:1px solid {colour}">'
            f'<div style="width:{100 * share:.0f}%;height:12px;background:{colour}"></div></div>'
            f"<span>{html.escape(after.lstrip('|'))}</span></div>"
        )

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("" if self._whole and not self.leave else str(self))


class _TextBar(_Bar):  # type: ignore[misc]
    """A bar in a terminal, a file or a pipe."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        stream = options.get("file") or sys.stderr
        if stream is None:  # closed
            options = options | {"disable": True}
        elif not stream.isatty():
            seconds = _SECONDS_IN_A_FILE
            options = {"mininterval": seconds, "maxinterval": seconds} | options
            options["file"] = _WholeLines(stream)
        super().__init__(*arguments, **options)


class _WholeLines:
    """A file or a pipe in which each state of a bar is a line: what follows it, such as an error,
    begins one of its own."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._last = stream, ""
        self.encoding = getattr(stream, "encoding", None)

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> None:
        line = text.replace(_UP, "").strip()
        if line and line != self._last:  # and not where tqdm only clears or moves on
            self._stream.write(f"{line}\n")
        self._last = line or self._last

    def flush(self) -> None:
        self._stream.flush()


def _display_of_a_page() -> Any:
    """IPython's `display` where this process is the kernel of a page, else None.

    It is found, not imported: a kernel has it, and nothing else needs it.
    """
    ipython = sys.modules.get("IPython")
    if getattr(ipython and ipython.get_ipython(), "kernel", None) is None:
        return None
    return sys.modules["IPython.display"].display


_display = _display_of_a_page()
tqdm: Any = _PageBar if _display else _TextBar


def tell(line: str) -> None:
    """A line on stderr, also where bars stand in its place: in a pool's process, in `one_line`."""
    with suppress(OSError):  # a full disk, or a reader that is gone
        print(line, file=sys.stderr if _display else sys.__stderr__ or sys.stderr, flush=True)


@contextmanager
def ticking(*bars: Any, seconds: float = 1.0) -> Iterator[None]:
    """In a terminal these bars are drawn this often in here, so that their clocks go on."""
    drawn = [bar for bar in bars if not bar.disable and bar.fp.isatty()]
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(seconds):
            for bar in drawn:
                bar.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    if drawn:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if drawn:
            thread.join()


class BarsOfOthers:
    """The bars of other processes, each a line below this process's own, in a terminal.

    They come through shared memory without a lock, for a process may be killed while it writes.
    """

    def __init__(self, context: BaseContext, processes: int) -> None:
        self._processes = processes
        self._texts = context.RawArray("c", processes * _LINE)
        self._taken = context.Value("i", 0)
        self._seen = not _display and sys.stderr is not None and sys.stderr.isatty()
        self._encoding = getattr(sys.stderr, "encoding", None) or "ascii"

    def take(self) -> Any:
        """What is sys.stderr from now on in one of the other processes."""
        if not self._seen:
            return io.StringIO()
        with self._taken.get_lock():
            number = self._taken.value
            self._taken.value += 1
        return _Line(self._texts, number * _LINE, self._encoding)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw them in here."""
        with ExitStack() as stack:
            lines = range(self._processes if self._seen else 0)
            bars = [stack.enter_context(_LineOfOther(self._texts, number)) for number in lines]
            stack.enter_context(ticking(*bars))
            yield


@contextmanager
def one_line() -> Iterator[None]:
    """In here this process's own bars are as those of another one: a line below those that are
    there, in a terminal, and nothing in a file. In a page they stay as they are.
    """
    if _display:
        yield
        return
    bars = BarsOfOthers(multiprocessing.get_context("spawn"), 1)
    with bars.shown(), redirect_stderr(bars.take()):
        yield


_LINE = 400
"""Bytes of a line."""
_UP = "\x1b[A"


class _Line(io.TextIOBase):
    """A terminal of one line, in shared memory: the last text that was written there."""

    encoding = ""

    def __init__(self, texts: Any, start: int, encoding: str) -> None:
        self._texts, self._start, self.encoding = texts, start, encoding

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        shown = text.replace(_UP, "")
        if shown:  # and not where tqdm only moves back to an upper line
            line = shown.strip().encode(errors="replace")[: _LINE - 1]
            self._texts[self._start : self._start + _LINE] = line.ljust(_LINE, b"\0")
        return len(text)


class _LineOfOther(_TextBar):
    """Where this process draws such a line."""

    def __init__(self, texts: Any, number: int) -> None:
        self._texts, self._start = texts, number * _LINE
        super().__init__(position=number + 1, leave=False)

    def __str__(self) -> str:
        content: bytes = self._texts[self._start : self._start + _LINE]
        line = printable(content.rstrip(b"\0").decode(errors="ignore"))
        return line[: shutil.get_terminal_size().columns - 1]
