"""Make the MiniVOC data set: the same as `sparcl data minivoc`."""

import sys

from sparcl_lib.cli import main

main(["data", "minivoc", *sys.argv[1:]])
