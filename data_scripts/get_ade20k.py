"""Get ADE20K (ADEChallengeData2016): the same as `sparcl data ade20k`."""

import sys

from sparcl_lib.cli import main

main(["data", "ade20k", *sys.argv[1:]])
