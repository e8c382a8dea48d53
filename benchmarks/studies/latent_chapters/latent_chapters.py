"""Each latent term alone on three bases, and what it does to features: the runs of chapters 05-07.

    python benchmarks/studies/latent_chapters/latent_chapters.py [--store runs/minivoc] [--jobs N]

MiniVOC 6-4 disjoint; settings in the YAML files beside this file. Runs go to the store, so that a
second call trains only what is missing. Writes results.csv (mIoU, a row per run and step) and
features.csv, a row per run and step too, of the encoder's features on the test images; "old" are
the six classes of step 0, "new" the four of step 1, background is neither, shares in percent:

- predicted_old, predicted_new: locations that the network predicts right, mean over the classes;
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
from pathlib import Path

import numpy as np
import pandas as pd

from sparcl_lib.experiments.base import RunBase, open_store, read_variants
from sparcl_lib.experiments.comparison import Block, compare
from sparcl_lib.experiments.feature_table import (
    NetworkLocations,
    feature_table,
    predicted_and_probed,
)
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.latent_space import Floats, Labels, channels_used, class_means, fisher_ratio
from sparcl_lib.plugins import load_plugins
from sparcl_lib.writing import write_atomically

HERE = Path(__file__).parent
TABLE = HERE / "results.csv"
FEATURES = HERE / "features.csv"
OLD, NEW = slice(1, 7), slice(7, 11)
SPARSER = HERE / "terms" / "sparser.py"
DISJOINT = RunBase(dataset="minivoc", task="6-4", setup="disjoint")
SEQUENTIAL = RunBase(dataset="minivoc", task="6-4", setup="sequential")


def blocks() -> list[Block]:
    """All runs."""
    files = {"variants": DISJOINT, "sparser": DISJOINT, "oracle": SEQUENTIAL}
    return [Block(b, read_variants(HERE / f"{name}.yaml"), range(3)) for name, b in files.items()]


def measures(found: NetworkLocations) -> dict[str, float]:
    """Of one network."""
    return {**predicted_and_probed(found), **of_features(found.test.features, found.test.labels)}


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
    features = feature_table(runs, measures, arguments.jobs)
    save(features.rows.round(3), FEATURES)
    sys.exit("\n".join([*comparison.errors, *features.errors]) or 0)


def save(table: pd.DataFrame, file: Path) -> None:
    write_atomically(file, lambda draft: table.to_csv(draft, index=False))


if __name__ == "__main__":
    main()
