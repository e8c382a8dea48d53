"""The command line: parse, call, print."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any, NoReturn

from sparcl_lib.stops import TERMINATING, Terminated, stops_come_out

_INTERRUPTED = 128 + signal.SIGINT
_CLEARED = "\x1b[K"
_ENDS = {_INTERRUPTED: "interrupted", **{128 + number: "terminated" for number in TERMINATING}}
_STDERR = 2
_NUMBERS = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS",
    "SLURM_STEP_NUM_TASKS", "JSM_NAMESPACE_RANK",
)  # fmt: skip
"""Variables of torchrun, SLURM and LSF that say which process this is, and of how many."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run `sparcl`; a mistake of the user, Ctrl-C, SIGTERM and its like end in one line on stderr.

    The status is 2 after a mistake, 130 after Ctrl-C and 143 after SIGTERM, as a shell has it.
    """
    if arguments is None:
        _use_utf8()
        _go_on_without_stderr()
    _check_launcher()
    try:
        with _raising_when_terminated(), stops_come_out():
            from sparcl_lib.cli.program import run  # here: Ctrl-C may come while it is imported

            status = run(arguments)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except Terminated as stop:
        status = 128 + stop.number
    if status in _ENDS and _is_first_on_machine():
        given = sys.argv[1:] if arguments is None else arguments
        add = " with --resume" if given[:1] == ["train"] and "--resume" not in given else ""
        rest = _CLEARED if sys.stderr.isatty() else ""  # of a bar that stood there
        goes_on = f"; the same command{add} goes on from here" if given[:1] != ["predict"] else ""
        print(f"sparcl: {_ENDS[status]}{goes_on}{rest}", file=sys.stderr)
    sys.exit(status)


def _use_utf8() -> None:
    """Text and names of files are UTF-8 in and out, whatever the locale says.

    A terminal that cannot show a character shows its code instead.
    """
    if sys.getfilesystemencoding().lower() != "utf-8" and not sys.flags.ignore_environment:
        os.environ["PYTHONUTF8"] = "1"  # how names are read is settled when Python starts
        os.execv(sys.executable, sys.orig_argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


class _NeverFails(FileIO):
    """What cannot be written is lost."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)  # None: would block
            return len(data) if written is None else written
        except OSError:  # a full disk, or a reader that is gone
            return len(data)


def _go_on_without_stderr() -> None:
    """A log on a full disk, or whose reader has died, ends no training of days.

    Where stderr is closed, the next file that is opened would take its place, and what C code says
    would be written into it.
    """
    if sys.platform == "win32":  # a console there takes no bytes
        return
    before: Any = sys.stderr
    if before is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)
        os.set_inheritable(_STDERR, True)
    if before is None or isinstance(before, TextIOWrapper):
        raw = _NeverFails(_STDERR, "w", closefd=False)
        sys.stderr = sys.__stderr__ = TextIOWrapper(  # type: ignore[misc]
            BufferedWriter(raw),
            encoding=getattr(before, "encoding", "utf-8"),
            errors="backslashreplace",
            line_buffering=True,
            write_through=getattr(before, "write_through", False),
        )


def _check_launcher() -> None:
    """A variable that is no number fails where Lightning is imported, in a traceback."""
    for name in _NUMBERS:
        value = os.environ.get(name)
        if value is not None and not (value.isascii() and value.isdigit()):
            print(
                f"sparcl: the variable {name} is {value!r}: torchrun and SLURM set it to a number; "
                f"unset it, or correct it",
                file=sys.stderr,
            )
            sys.exit(2)


def _is_first_on_machine() -> bool:
    """Whether this command is not one that was started for another device of this machine, by
    Lightning, torchrun or SLURM.

    By the environment alone: `training.devices.is_first_process`, the first of all machines, needs
    torch, and this must be known while it is imported.
    """
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"


def _raise_terminated(number: int, _: object) -> NoReturn:
    raise Terminated(number)


@contextmanager
def _raising_when_terminated() -> Iterator[None]:
    """A signal but SIGTERM that is ignored, as SIGHUP is under nohup, stays so."""
    before = {}
    if threading.current_thread() is threading.main_thread():  # signals are its
        for number in TERMINATING:
            if signal.getsignal(number) is signal.SIG_DFL or number == signal.SIGTERM:
                before[number] = signal.signal(number, _raise_terminated)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
