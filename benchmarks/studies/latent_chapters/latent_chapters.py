"""Each latent term alone on three bases, and what it does to features: the runs of chapters 05-07.

    python benchmarks/studies/latent_chapters/latent_chapters.py [--store runs/minivoc] [--jobs N]

MiniVOC 6-4 disjoint; settings in the YAML files beside this file. Runs go to the store, so that a
second call trains only what is missing. Writes results.csv (mIoU, a row per run and step) and
features.csv, a row per run and step too, of the encoder's features on the test images; "old" are
the six classes of step 0, "new" the four of step 1, background is neither, shares in percent:

- answers_old, answers_new: locations that the network names, mean over the classes;
- probe_old, probe_new: the same for a linear probe fitted with all labels to training images of
  both steps;
- drift: of the old class means since step 0, in percent of their mean distance there;
- fisher: spread of all ten class means over the spread within classes;
- channels_old, channels_new: channels that carry 90 % of a class's mean activity, a mean;
- room: channels that are not among those of any old class;
- active: channels of a location above a tenth of its strongest, mean over locations;
- sparseness: Hoyer's, 1 for one active channel, 0 for all alike, mean over locations;
- dimensions: (sum of eigenvalues)^2 / sum of their squares, of the features' covariance.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from sparcl_lib.data.loading.dataset import SegmentationDataset, StepLoader, evaluation_batches
from sparcl_lib.data.loading.transforms import evaluation_transform
from sparcl_lib.experiments.base import RunBase, open_store, read_variants
from sparcl_lib.experiments.comparison import Block, compare
from sparcl_lib.experiments.pool import CallResult, run_all, run_calls, terms_of
from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.latent_space import (
    Floats,
    Labels,
    Locations,
    channels_used,
    class_means,
    drift,
    fisher_ratio,
    linear_probe,
    locations,
    recall,
)
from sparcl_lib.methods import load_plugins
from sparcl_lib.run import Run
from sparcl_lib.tasks import training_table
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.training.workspace import Workspace, open_workspace
from sparcl_lib.writing import write_atomically

HERE = Path(__file__).parent
TABLE = HERE / "results.csv"
FEATURES = HERE / "features.csv"
# Of these many training images, these many locations fit a probe.
IMAGES, PROBE_LOCATIONS = 200, 5_000
OLD, NEW = slice(1, 7), slice(7, 11)
SPARSER = HERE / "terms" / "sparser.py"
DISJOINT = RunBase(dataset="minivoc", task="6-4", setup="disjoint")
SEQUENTIAL = RunBase(dataset="minivoc", task="6-4", setup="sequential")


def blocks() -> list[Block]:
    """All runs."""
    files = {"variants": DISJOINT, "sparser": DISJOINT, "oracle": SEQUENTIAL}
    return [Block(b, read_variants(HERE / f"{name}.yaml"), range(3)) for name, b in files.items()]


class Portrait(NamedTuple):
    """What a network's features say."""

    means: Floats
    """(6, D) of the old classes."""
    measures: dict[str, float]


def portraits(runs: list[Run], jobs: int | None) -> dict[Path, CallResult]:
    """Folder of a step -> its network's portrait, side by side; runs share networks of step 0."""
    steps = {where.path: (run, k) for run in runs for k, where in enumerate(folders(run))}
    return run_calls(portrait, steps, jobs, "features", terms_of(run.config for run in runs))


def folders(run: Run) -> tuple[RunDirectory, ...]:
    return run.first, run.directory


def rows_of(run: Run, known: dict[Path, CallResult]) -> Iterator[dict[str, object]]:
    """A row per step of a run; none of a network that could not be measured."""
    found = [known[where.path].value for where in folders(run)]
    for step, drawn in enumerate(found):
        if drawn is None or found[0] is None:
            continue
        row = {"method": run.config.method.name, "seed": run.config.seed, "step": step}
        yield {**row, "drift": drift(found[0].means, drawn.means), **drawn.measures}


def portrait(run: Run, step: int) -> Portrait:
    with threadpool_limits(1):  # waiting threads cost more than they bring
        model, workspace = run.model(step), open_workspace(run.config, progress=False)
        test = locations(model, workspace.evaluation_batches(1))
        train = locations(model, training_images(workspace))
        return drawn_from(test, train)


def drawn_from(test: Locations, train: Locations) -> Portrait:
    named = recall(test.labels, test.predictions, 11)
    fitted, asked = (train.features, train.labels), (test.features, test.labels)
    probed = linear_probe(fitted, asked, PROBE_LOCATIONS)
    measures = {
        "answers_old": named[OLD].mean(),
        "answers_new": named[NEW].mean(),
        "probe_old": probed[OLD].mean(),
        "probe_new": probed[NEW].mean(),
        **of_features(test.features, test.labels),
    }
    return Portrait(class_means(test.features, test.labels, 11)[OLD], measures)


def training_images(workspace: Workspace) -> StepLoader:
    """Some training images of both steps with all their labels."""
    ids = sorted(set().union(*workspace.train_ids.values()))
    chosen = np.random.default_rng(0).permutation(ids)[:IMAGES].tolist()
    table = training_table(workspace.task, 1, "sequential", workspace.policy)
    transform = evaluation_transform(workspace.config.data.size)
    dataset = SegmentationDataset(workspace.train_reader, chosen, table, transform)
    return evaluation_batches(dataset, 32, 0)


def of_features(features: Floats, labels: Labels) -> dict[str, float]:
    """What the features alone say, background left out where classes are asked for."""
    classes = np.where(labels == BACKGROUND, VOID, labels)
    used = channels_used(features, classes)
    rows = features[features.max(axis=1) > 0]
    root = rows.shape[1] ** 0.5
    quotient = rows.sum(axis=1) / np.linalg.norm(rows, axis=1)  # from 1 to root
    spread = np.linalg.eigvalsh(np.cov(features.T))
    return {
        "fisher": fisher_ratio(features, classes),
        "channels_old": used[OLD].mean(),
        "channels_new": used[NEW].mean(),
        "room": room(class_means(features, classes, 11)[OLD], used[OLD]),
        "active": (rows > rows.max(axis=1, keepdims=True) / 10).sum(axis=1).mean(),
        "sparseness": ((root - quotient) / (root - 1)).mean(),
        "dimensions": spread.sum() ** 2 / np.square(spread).sum(),
    }


def room(means: Floats, used: Floats) -> int:
    """Channels that are not among the strongest `used` (C,) of any class; means (C, D)."""
    rank = np.argsort(np.argsort(-means, axis=1), axis=1)
    return int((rank >= used[:, None]).all(axis=0).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, help="runs side by side; one per core if not given")
    parser.add_argument("--store", type=Path, default=Path("runs", "minivoc"))
    arguments = parser.parse_args()
    load_plugins([SPARSER])
    store, asked = open_store(arguments.store), blocks()
    comparison = compare(asked, store, arguments.jobs)
    save(comparison.table().drop(columns="intransigence").round(4), TABLE)
    configs = [config for block in asked for config in block.configs()]
    runs = [run for run in run_all(configs, store, 1).runs if run is not None]
    known = portraits(runs, arguments.jobs)
    errors = comparison.errors + [found.error for found in known.values() if found.error]
    rows = [row for run in runs for row in rows_of(run, known)]
    save(pd.DataFrame(rows).round(3), FEATURES)
    sys.exit("\n".join(errors) or 0)


def save(table: pd.DataFrame, file: Path) -> None:
    write_atomically(file, lambda draft: table.to_csv(draft, index=False))


if __name__ == "__main__":
    main()
