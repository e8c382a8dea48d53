"""The command line: parse, call, print."""

import os
import sys
from io import TextIOWrapper
from typing import NoReturn

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run `sparcl`; a mistake of the user and Ctrl-C end in one line on stderr.

    The status is 2 after a mistake and 130 after Ctrl-C.
    """
    if arguments is None:
        _use_utf8()
    try:
        from sparcl_lib.cli.program import run  # here: Ctrl-C may come while it is imported

        status = run(arguments)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    if status == _INTERRUPTED:
        goes_on = "the same command goes on from here (train: add --resume)"
        print(f"sparcl: interrupted; {goes_on}", file=sys.stderr)
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
