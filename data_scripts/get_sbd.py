"""Get SBD and make VOC2012's augmented masks: the same as `sparcl data sbd`."""

import sys

from sparcl_lib.cli import main

main(["data", "sbd", *sys.argv[1:]])
