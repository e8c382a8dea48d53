"""What is left of the old classes, and where: in the features, in the head, or in the answers.

    python benchmarks/studies/latent_terms/latent_space.py --store runs/minivoc

For each run (MiniVOC 6-1 overlapped, 200 iterations for each of its four steps) and step, shares
in percent on the locations of the feature map; "old" are the six classes of step 0:

- answers: test locations of old classes that the network names, mean over the classes;
- head, features: the same for a linear probe of the head's output or of the encoder's features,
  fitted with all labels of this step's classes, the old ones too: what could still be read;
- drift: how far the mean features of old classes are from where they were after step 0, relative
  to the mean distance between the classes there;
- precision, recall: the previous model's guesses on unlabelled training locations of the step,
  which the latent losses take for labels; the classes of all earlier steps.

Writes a CSV with a row per run and step; missing runs are trained. With --picture a PNG of --shown.
"""

import argparse
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.spatial.distance import pdist
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from sparcl_lib.course.pictures import panels
from sparcl_lib.data.loading.dataset import ImageReader, SegmentationDataset, evaluation_batches
from sparcl_lib.data.loading.transforms import evaluation_transform
from sparcl_lib.experiments.base import RunBase, open_store, read_variants
from sparcl_lib.experiments.pool import one_thread, run_all
from sparcl_lib.methods.context import nearest_grid
from sparcl_lib.models import Segmenter
from sparcl_lib.prototypes.class_sums import flatten_features
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
# Of these many training images, these many locations fit a probe.
IMAGES, PROBE_LOCATIONS = 600, 20_000
SHOWN = ["UCE", "UCE + matching 0.1", "MiB", "MiB + all four"]
LINES = {"head": "probe of the head", "features": "probe of the features", "answers": "answers"}
COLORS = ("#4477aa", "#228833", "#cc3311")


class Locations(NamedTuple):
    """Locations of some images: n rows."""

    truth: np.ndarray
    """(n,) class, all steps' classes known; 255 for none."""
    target: np.ndarray
    """(n,) what the step's training calls it."""
    answer: np.ndarray
    """(n,) what the network says."""
    features: np.ndarray
    """(n, D) the encoder's features."""
    head: np.ndarray
    """(n, D') what the classifier sees."""


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
        start = old_means(test, old) if start is None else start
        known = range(1, old + 1)
        yield {
            "method": run.config.method.name,
            "seed": run.config.seed,
            "step": step,
            "answers": recall(test.truth, test.answer, known),
            "head": recall(test.truth, probe(train.head, train.truth, test.head), known),
            "features": recall(
                test.truth, probe(train.features, train.truth, test.features), known
            ),
            "drift": drift(old_means(test, old), start),
            **(guesses(teacher, workspace, step) if step else {}),
        }
        teacher = model


def test_locations(model: Segmenter, workspace: Workspace, step: int) -> Locations:
    """Those of the test images of the whole task."""
    last = workspace.task.num_steps - 1
    return locations(
        model, workspace, step, workspace.evaluation_reader, workspace.evaluation_ids[last]
    )


def training_locations(
    model: Segmenter, workspace: Workspace, step: int, of_steps: Iterable[int]
) -> Locations:
    """Those of some training images of these steps."""
    ids = sorted(set().union(*(workspace.train_ids[k] for k in of_steps)))
    chosen = np.random.default_rng(0).permutation(ids)[:IMAGES].tolist()
    return locations(model, workspace, step, workspace.train_reader, chosen)


@torch.no_grad()
def locations(
    model: Segmenter, workspace: Workspace, step: int, reader: ImageReader, ids: list[str]
) -> Locations:
    """Every location of the feature map on these images; target: as the training of a step."""
    task, data = workspace.task, workspace.config.data
    labels = evaluation_table(task, task.num_steps - 1, workspace.policy)
    targets = training_table(task, step, workspace.config.setup, workspace.policy)
    dataset = SegmentationDataset(
        reader, ids, np.arange(256, dtype=np.uint8), evaluation_transform(data.size)
    )
    parts = []
    for batch in evaluation_batches(dataset, 32, 0):
        output = model(batch.images, maps=True)
        rows, columns = nearest_grid(
            batch.labels.shape[1:], output.features.shape[2:], batch.labels.device
        )
        at = (slice(None), rows.unsqueeze(1), columns)
        raw = batch.labels[at].flatten().numpy()
        answer = output.logits.argmax(1)[at].flatten().numpy()
        latent = (flatten_features(x).numpy() for x in (output.features, output.maps[-2]))
        parts.append((labels[raw], targets[raw], answer, *latent))
    return Locations(*map(np.concatenate, zip(*parts, strict=True)))


def recall(truth: np.ndarray, answer: np.ndarray, classes: range) -> float:
    """Percent of a class's locations that are named, mean over the classes."""
    return 100 * float(np.mean([(answer[truth == c] == c).mean() for c in classes]))


def probe(train: np.ndarray, truth: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Answers of a linear classifier for which all classes count the same."""
    chosen = np.flatnonzero(truth != 255)
    chosen = np.random.default_rng(0).permutation(chosen)[:PROBE_LOCATIONS]
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=100)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # close enough after 100 rounds
        classifier.fit(train[chosen], truth[chosen])
    return classifier.predict(test)


def old_means(test: Locations, old: int) -> np.ndarray:
    """(old, D) mean features of the classes of step 0."""
    return np.stack([test.features[test.truth == c].mean(0) for c in range(1, old + 1)])


def drift(now: np.ndarray, before: np.ndarray) -> float:
    """Mean distance that the classes moved, in percent of their mean distance from each other."""
    return 100 * float(np.linalg.norm(now - before, axis=1).mean() / pdist(before).mean())


def guesses(teacher: Segmenter, workspace: Workspace, step: int) -> dict[str, float]:
    """Precision and recall of the teacher's old classes where the step's labels are background."""
    seen = training_locations(teacher, workspace, step, [step])
    hidden = seen.target == 0
    truth, answer = seen.truth[hidden], seen.answer[hidden]
    is_old, said_old = (truth > 0) & (truth != 255), answer > 0
    right = float((is_old & (truth == answer)).sum())
    return {"precision": 100 * right / said_old.sum(), "recall": 100 * right / is_old.sum()}


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
