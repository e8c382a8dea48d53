"""Scan the masks of a data set once for all tasks: the same as `sparcl data index`."""

import sys

from sparcl_lib.cli import main

main(["data", "index", *sys.argv[1:]])
