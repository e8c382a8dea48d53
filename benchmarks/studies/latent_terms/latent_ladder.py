"""Matching on top of more and more distillation, as a picture.

    python benchmarks/studies/latent_terms/latent_ladder.py

From the results.csv beside this file to docs/images/latent_ladder.png.
"""

import argparse
from pathlib import Path

import pandas as pd

from sparcl_lib.course.pictures import panels
from sparcl_lib.viz import small_png

HERE = Path(__file__).parent
TABLE = HERE / "results.csv"
PICTURE = HERE.parents[2] / "docs" / "images" / "latent_ladder.png"
KD = {"0": "UCE", "0.1": "UCE + KD 0.1", "0.5": "UCE + KD 0.5", "1.5": "UCE + KD 1.5"}
SIDES = {"": ("#888888", "without"), " + matching 0.1": ("#00855f", "with matching")}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    runs = pd.read_csv(TABLE)
    last = runs.step.max()
    figure, axes = panels(2, width=9, height=3.2, sharey=True)
    for axis, step in zip(axes, (1, last), strict=True):
        for ending, (color, label) in SIDES.items():
            names = [base + ending for base in KD.values()]
            scores = runs[runs.step == step].set_index("method").miou_all
            mean = [scores[name].mean() for name in names]
            deviation = [scores[name].std() for name in names]
            axis.errorbar(
                list(KD), mean, deviation, color=color, marker="o", capsize=3, label=label
            )
        axis.set(title=f"after step {step}", xlabel="weight of the distillation", ylim=(0, 75))
    axes[0].set_ylabel("mIoU of all classes (%)")
    axes[1].legend(loc="upper left")
    PICTURE.write_bytes(small_png(figure, 110))
    print(f"written: {PICTURE}")


if __name__ == "__main__":
    main()
