"""What the order of the classes does to each method, as a picture.

    python benchmarks/studies/class_orders/class_orders.py

From the results.csv beside this file to docs/images/class_orders.png.
"""

import argparse
from pathlib import Path

import pandas as pd

from sparcl_lib.viz import order_lines, small_png

HERE = Path(__file__).parent
PICTURE = HERE.parents[2] / "docs" / "images" / "class_orders.png"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    last = pd.read_csv(HERE / "results.csv").groupby("run").tail(1)
    each = last.pivot(index="task", columns="method", values="miou_all")
    PICTURE.write_bytes(small_png(order_lines(each), 150))
    print(f"written: {PICTURE}")


if __name__ == "__main__":
    main()
