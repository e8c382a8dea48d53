"""The command line: parse, call, print."""

import sys
from typing import NoReturn

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run `sparcl`; a mistake of the user and Ctrl-C end in one line on stderr.

    The status is 2 after a mistake and 130 after Ctrl-C.
    """
    try:
        from sparcl_lib.cli.program import run  # here: Ctrl-C may come while it is imported

        status = run(arguments)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    if status == _INTERRUPTED:
        goes_on = "the same command goes on from here (train: add --resume)"
        print(f"sparcl: interrupted; {goes_on}", file=sys.stderr)
    sys.exit(status)
