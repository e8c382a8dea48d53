"""How large is the space of features with each force, and how far apart are its classes?

    python benchmarks/studies/two_forces/sizes.py [--store runs/minivoc] [--jobs N]

Runs of this study on UCE, seeds 0, 1, 2; missing ones are trained. Writes sizes.csv beside this
file, or into --out: a row per run and step, of the encoder's features on all test images; of the
ten object classes, as chapter 06 has them on fewer images:

- drift: of the means of the six old classes since step 0, in percent of their mean distance there;
- gap: median distance of two class means;
- spread: mean distance of a location from the mean of its class;
- fisher: spread of the class means over the spread within classes, which size does not change.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from sparcl_lib.experiments.base import RunBase, open_store, read_variants
from sparcl_lib.experiments.feature_table import NetworkLocations, feature_table
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.latent_space import class_means, fisher_ratio
from sparcl_lib.plugins import load_plugins
from sparcl_lib.writing import write_csv

HERE = Path(__file__).parent
DISJOINT = RunBase(dataset="minivoc", task="6-4", setup="disjoint")
MEASURED = (
    "UCE",
    "UCE + repulsion",
    "UCE + both",
    "UCE + repulsion of directions",
    "UCE + repulsion of directions, up to a margin",
)


def sizes(found: NetworkLocations) -> dict[str, float]:
    """Of one network."""
    features, labels = found.test.features, found.test.labels
    objects = (labels != BACKGROUND) & (labels != VOID)
    features, labels = features[objects], labels[objects]
    means = class_means(features, labels, found.num_classes)[1:]
    j, k = np.triu_indices(len(means), 1)
    return {
        "gap": float(np.median(np.linalg.norm(means[j] - means[k], axis=1))),
        "spread": float(np.linalg.norm(features - means[labels - 1], axis=1).mean()),
        "fisher": fisher_ratio(features, labels),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, help="runs side by side; one per core if not given")
    parser.add_argument("--store", type=Path, default=Path("runs", "minivoc"))
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the table")
    arguments = parser.parse_args()
    load_plugins([HERE / "terms" / "forces.py"])
    store = open_store(arguments.store)
    variants = [v for v in read_variants(HERE / "variants.yaml") if v.name in MEASURED]
    configs = [DISJOINT.config(variant, seed) for variant in variants for seed in range(3)]
    runs, failed = run_all(configs, store, arguments.jobs)
    trained = [run for run in runs if run is not None]
    rows, missing = feature_table(trained, sizes, arguments.jobs)
    write_csv(arguments.out / "sizes.csv", rows.round(3))
    sys.exit("\n".join([*failed, *missing]) or 0)


if __name__ == "__main__":
    main()
