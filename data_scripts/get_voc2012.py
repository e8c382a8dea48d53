"""Get Pascal VOC2012: the same as `sparcl data voc2012`; --help lists the options."""

import sys

from sparcl_lib.cli import main

main(["data", "voc2012", *sys.argv[1:]])
