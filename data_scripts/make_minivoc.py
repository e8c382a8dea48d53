"""Make the MiniVOC data set: `python data_scripts/make_minivoc.py [--root DIR]`."""

import argparse
import sys
from pathlib import Path

from sparcl_lib.data import minivoc
from sparcl_lib.errors import UserError


def parse_args():
    parser = argparse.ArgumentParser(description="Make the MiniVOC data set in VOC's layout.")
    parser.add_argument("--root", type=Path, default=minivoc.default_root(),
                        help="folder to make (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--train", type=int, default=2500, help="images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=400, help="images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="pixels (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        minivoc.generate(args.root, args.seed, args.train, args.val, args.size)
        print(f"MiniVOC in {args.root}")
        print(f"{args.train} train and {args.val} val images of {args.size} x {args.size} pixels")
        print(f"checksum {minivoc.checksum(args.root)}")
    except UserError as error:
        print(f"make_minivoc: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
