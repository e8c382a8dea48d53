"""IoU per class, confusion and curves of the runs on real photographs, one class at a time.

    python benchmarks/studies/real_one_by_one/real_one_by_one.py [--store runs/real]

From the results.csv beside this file and the runs that it names to classes.csv (a row per run and
step), confusion.csv (a row per run and true class, after the last step) and
docs/images/real_one_by_one.png and real_confusion.png.
"""

import argparse
from pathlib import Path

import pandas as pd
import seaborn
from matplotlib.figure import Figure

from sparcl_lib.report import load_runs
from sparcl_lib.report.runs import ReportRun, by_method
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.viz import forgetting_curves, row_shares, small_png

HERE = Path(__file__).parent
IMAGES = HERE.parents[2] / "docs" / "images"
SHOWN = ("FT", "MiB", "PLOP", "SDR+MiB", "Joint")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("runs", "real"))
    store = parser.parse_args().store
    names = pd.read_csv(HERE / "results.csv").run.unique()
    runs = load_runs(store / name for name in names)
    pd.concat(map(iou_per_class, runs)).round(2).to_csv(HERE / "classes.csv", index=False)
    answers = pd.concat(
        answered_as(run, RunDirectory(store / name)) for run, name in zip(runs, names)
    )
    answers.round(2).to_csv(HERE / "confusion.csv", index=False)
    methods = by_method(runs)
    matrices = {method: [run.matrix() for run in group] for method, group in methods.items()}
    (IMAGES / "real_one_by_one.png").write_bytes(small_png(forgetting_curves(matrices)))
    (IMAGES / "real_confusion.png").write_bytes(small_png(confusion_maps(answers)))
    print(f"written: {HERE} and two pictures to {IMAGES}")


def iou_per_class(run: ReportRun) -> pd.DataFrame:
    """method, seed, step and a column per class, in percent; empty before it is learned."""
    return labelled(run, run.matrix().to_frame().rename_axis("step"))


def answered_as(run: ReportRun, directory: RunDirectory) -> pd.DataFrame:
    """method, seed, truth and a column per answer: percent of the true class's pixels."""
    names = run.matrix().to_frame().columns
    last = directory.load_checkpoint(len(run.metrics["seconds"]) - 1)
    shares = 100 * row_shares(last["confusion"].numpy())
    return labelled(run, pd.DataFrame(shares, names.rename("truth"), names))


def confusion_maps(answers: pd.DataFrame) -> Figure:
    """A map per method of SHOWN, mean of its seeds: rows true classes, columns answers."""
    figure = Figure(figsize=(2.6 * len(SHOWN), 3.1), layout="constrained")
    means = answers.drop(columns="seed").groupby(["method", "truth"], sort=False).mean()
    for axes, method in zip(figure.subplots(1, len(SHOWN), sharey=True), SHOWN):
        seaborn.heatmap(
            means.loc[method], ax=axes, vmin=0, vmax=100, cmap="viridis", annot=True, fmt=".0f",
            annot_kws={"fontsize": 9}, linewidths=0.8, linecolor="white", cbar=False,
        )  # fmt: skip
        axes.set(title=method, xlabel="called", ylabel="true class" if method == SHOWN[0] else "")
        axes.tick_params(length=0)
    return figure


def labelled(run: ReportRun, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its index as a column, after method and seed."""
    frame = frame.reset_index()
    frame.insert(0, "seed", run.metrics["seed"])
    frame.insert(0, "method", run.method)
    return frame


if __name__ == "__main__":
    main()
