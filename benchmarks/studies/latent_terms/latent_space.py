"""What is left of the old classes, and where: in the features, the head, or the predictions.

    python benchmarks/studies/latent_terms/latent_space.py --store runs/minivoc

For each run (MiniVOC 6-1 overlapped, 200 iterations for each of its four steps) and step, shares
in percent on the locations of the feature map; "old" are the six classes of step 0:

- predicted: test locations of old classes that the network predicts right, mean over the classes;
- head, features: the same for a linear probe of the head's output or of the encoder's features,
  fitted with all labels of this step's classes, the old ones too: what could still be read;
- drift: how far the mean features of old classes are from where they were after step 0, relative
  to the mean distance between the classes there;
- precision, recall: the previous model's guesses on unlabelled training locations of the step,
  which the latent losses take for labels; the classes of all earlier steps.

Writes a CSV with a row per run and step; missing runs are trained. With --picture a PNG of --shown.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from sparcl_lib.course.pictures import panels
from sparcl_lib.data.loading.dataset import ImageReader, SegmentationDataset, evaluation_batches
from sparcl_lib.data.loading.transforms import evaluation_transform
from sparcl_lib.experiments.base import RunBase, open_store, read_variants
from sparcl_lib.experiments.pool import one_thread, run_all
from sparcl_lib.latent_space import (
    Locations,
    class_means,
    drift,
    linear_probe,
    locations,
    pseudo_label_quality,
    recall,
)
from sparcl_lib.models import Segmenter
from sparcl_lib.run import Run
from sparcl_lib.tasks import evaluation_table, training_table
from sparcl_lib.training.workspace import Workspace, open_workspace
from sparcl_lib.viz import small_png

TABLE = Path(__file__).with_suffix(".csv")
VARIANTS = TABLE.with_name("variants.yaml")
TASK = RunBase(
    dataset="minivoc",
    task="6-1",
    setup="overlapped",
    overrides=({"optim": {"iterations": [600, 200]}},),
)
IMAGES = 600  # of training, whose locations fit a probe
SHOWN = ["UCE", "UCE + matching 0.1", "MiB", "MiB + all four"]
LINES = {
    "head": "probe of the head",
    "features": "probe of the features",
    "predicted": "predictions",
}
COLORS = ("#4477aa", "#228833", "#cc3311")


class Seen(NamedTuple):
    """Locations of some images under three kinds of labels, (n,) each."""

    found: Locations
    truth: np.ndarray
    """All steps' classes known; 255 for none."""
    target: np.ndarray
    """What the step's training calls it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", type=Path, default=VARIANTS)
    parser.add_argument("--store", type=Path, default=Path("runs", "minivoc"))
    parser.add_argument("--methods", nargs="+", help="some of the variants; all if not given")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--shown", nargs="+", default=SHOWN, help="methods of the picture")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    variants = {variant.name: variant for variant in read_variants(arguments.variants)}
    chosen = arguments.methods or list(variants)
    if unknown := set(chosen) - set(variants):
        parser.error(f"{arguments.variants} has no row {', '.join(sorted(unknown))}")
    configs = [TASK.config(variants[name], seed) for seed in seeds for name in chosen]
    runs, errors = run_all(configs, open_store(arguments.store))
    with one_thread(), threadpool_limits(1):  # waiting threads cost more than they bring
        rows = [row for run in tqdm([r for r in runs if r], "runs") for row in measure(run)]
    table = pd.DataFrame(rows).round(2)
    table.to_csv(arguments.out, index=False)
    if arguments.picture:
        arguments.picture.write_bytes(small_png(draw(table, arguments.shown)))
    print("\n".join([*errors, f"written: {arguments.out}"]))


def measure(run: Run) -> Iterator[dict[str, object]]:
    """A row per step of a run."""
    workspace = open_workspace(run.config, progress=False)
    old = len(workspace.task.steps[0])
    start, teacher = None, None
    for step in range(workspace.task.num_steps):
        model = run.model(step)
        test = test_locations(model, workspace, step)
        train = training_locations(model, workspace, step, range(step + 1))
        means = class_means(test.found.features, test.truth, old + 1)[1:]
        start = means if start is None else start
        named = {
            "predicted": recall(test.truth, test.found.predictions, old + 1),
            "head": linear_probe((train.found.head, train.truth), (test.found.head, test.truth)),
            "features": linear_probe(
                (train.found.features, train.truth), (test.found.features, test.truth)
            ),
        }
        yield {
            "method": run.config.method.name,
            "seed": run.config.seed,
            "step": step,
            **{name: shares[1 : old + 1].mean() for name, shares in named.items()},
            "drift": drift(start, means),
            **(guesses(teacher, workspace, step) if step else {}),
        }
        teacher = model


def test_locations(model: Segmenter, workspace: Workspace, step: int) -> Seen:
    """Those of the test images of the whole task."""
    last = workspace.task.num_steps - 1
    return seen(model, workspace, step, workspace.evaluation_reader, workspace.evaluation_ids[last])


def training_locations(
    model: Segmenter, workspace: Workspace, step: int, of_steps: Iterable[int]
) -> Seen:
    """Those of some training images of these steps."""
    ids = sorted(set().union(*(workspace.train_ids[k] for k in of_steps)))
    chosen = np.random.default_rng(0).permutation(ids)[:IMAGES].tolist()
    return seen(model, workspace, step, workspace.train_reader, chosen)


def seen(
    model: Segmenter, workspace: Workspace, step: int, reader: ImageReader, ids: list[str]
) -> Seen:
    """Every location of the feature map on these images; target: as the training of a step."""
    task, data = workspace.task, workspace.config.data
    labels = evaluation_table(task, task.num_steps - 1, workspace.policy)
    targets = training_table(task, step, workspace.config.setup, workspace.policy)
    dataset = SegmentationDataset(
        reader, ids, np.arange(256, dtype=np.uint8), evaluation_transform(data.size)
    )
    found = locations(model, evaluation_batches(dataset, 32, 0))
    return Seen(found, labels[found.labels], targets[found.labels])


def guesses(teacher: Segmenter, workspace: Workspace, step: int) -> dict[str, float]:
    """Quality of the teacher's guesses where the step's labels are background."""
    there = training_locations(teacher, workspace, step, [step])
    hidden, num_old = there.target == 0, 1 + len(workspace.task.seen(step - 1))
    quality = pseudo_label_quality(there.found.predictions[hidden], there.truth[hidden], num_old)
    return quality._asdict()


def draw(table: pd.DataFrame, methods: list[str]) -> Figure:
    """A panel per method: lines are means over seeds, bands one deviation."""
    figure, axes = panels(len(methods), width=11, height=3.3, sharey=True)
    for method, axis in zip(methods, axes, strict=True):
        rows = table[table.method == method]
        for (name, label), color in zip(LINES.items(), COLORS, strict=True):
            values = rows.groupby("step")[name].agg(["mean", "std"])
            low, high = values["mean"] - values["std"], values["mean"] + values["std"]
            axis.plot(values.index, values["mean"], color=color, marker="o", label=label)
            axis.fill_between(values.index, low, high, color=color, alpha=0.2)
        axis.set(title=method, xlabel="step", ylim=(-3, 100))
    axes[0].set_ylabel("locations of the first six\nclasses that are named (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


if __name__ == "__main__":
    main()
