"""Check a data set, file by file: the same as `sparcl data check`."""

import sys

from sparcl_lib.cli import main

main(["data", "check", *sys.argv[1:]])
