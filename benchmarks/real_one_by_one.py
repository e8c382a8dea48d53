"""IoU per class and curves of the runs on real photographs, one class at a time.

    python benchmarks/real_one_by_one.py [--store runs/real]

After the command at the head of real_methods.yaml. From its results.csv and the runs that it kept
to real_one_by_one/classes.csv (a row per run and step) and docs/images/real_one_by_one.png.
"""

import argparse
from pathlib import Path

import pandas as pd

from sparcl_lib.report.runs import ReportRun, by_method, load_runs
from sparcl_lib.viz import forgetting_curves, small_png

HERE = Path(__file__).parent
FOLDER = HERE / "real_one_by_one"
PICTURE = HERE.parent / "docs" / "images" / "real_one_by_one.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("runs", "real"))
    store = parser.parse_args().store
    names = pd.read_csv(FOLDER / "results.csv").run.unique()
    runs = load_runs(store / name for name in names)
    table = FOLDER / "classes.csv"
    pd.concat(map(iou_per_class, runs)).round(2).to_csv(table, index=False)
    methods = by_method(runs)
    matrices = {method: [run.matrix() for run in group] for method, group in methods.items()}
    PICTURE.write_bytes(small_png(forgetting_curves(matrices)))
    print(f"written: {table} and {PICTURE}")


def iou_per_class(run: ReportRun) -> pd.DataFrame:
    """method, seed, step and a column per class, in percent; empty before it is learned."""
    frame = run.matrix().to_frame().rename_axis("step").reset_index()
    frame.insert(0, "seed", run.metrics["seed"])
    frame.insert(0, "method", run.method)
    return frame


if __name__ == "__main__":
    main()
