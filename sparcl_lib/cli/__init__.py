"""The command line: parse, call, print."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import NoReturn

from sparcl_lib.stops import Terminated, stops_come_out

_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM
_CLEARED = "\x1b[K"
_ENDS = {_INTERRUPTED: "interrupted", _TERMINATED: "terminated"}


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run `sparcl`; a mistake of the user, Ctrl-C and SIGTERM end in one line on stderr.

    The status is 2 after a mistake, 130 after Ctrl-C and 143 after SIGTERM.
    """
    if arguments is None:
        _use_utf8()
    try:
        with _raising_at_sigterm(), stops_come_out():
            from sparcl_lib.cli.program import run  # here: Ctrl-C may come while it is imported

            status = run(arguments)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except Terminated:
        status = _TERMINATED
    if status in _ENDS and _is_first_on_machine():
        given = sys.argv[1:] if arguments is None else arguments
        add = " with --resume" if given[:1] == ["train"] and "--resume" not in given else ""
        rest = _CLEARED if sys.stderr.isatty() else ""  # of a bar that stood there
        goes_on = f"the same command{add} goes on from here"
        print(f"sparcl: {_ENDS[status]}; {goes_on}{rest}", file=sys.stderr)
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


def _is_first_on_machine() -> bool:
    """Whether this command is not one that was started for another device of this machine, by
    Lightning, torchrun or SLURM.

    By the environment alone: `training.devices.is_first_process`, the first of all machines, needs
    torch, and this must be known while it is imported.
    """
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"


def _raise_terminated(*_: object) -> NoReturn:
    raise Terminated


@contextmanager
def _raising_at_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
