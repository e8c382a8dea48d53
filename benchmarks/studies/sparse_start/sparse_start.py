"""Sparse features before new classes come: in step 0 alone, and where channels are few.

    python benchmarks/studies/sparse_start/sparse_start.py [--store runs/minivoc] [--jobs N]

MiniVOC 6-4 disjoint, seeds 0, 1, 2. MiB and UCE (MiB without distillation, with a random start, at
a lower rate), with 64 channels and with 8; each without a loss, and with the paper's ratio or
Hoyer's measure in step 0 alone, in step 1 alone, and in both. Runs go to the store, so that a
second call trains only what is missing. Writes results.csv (mIoU, a row per run and step) and
features.csv, a row per run and step too, with the measures of latent_chapters.
"""

import argparse
import sys
from itertools import product
from pathlib import Path
from typing import Any

from sparcl_lib.experiments.base import RunBase, Variant, open_store
from sparcl_lib.experiments.comparison import Block, compare
from sparcl_lib.experiments.feature_table import feature_table
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.plain import merge
from sparcl_lib.plugins import load_plugins
from sparcl_lib.writing import write_csv

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "latent_chapters"))  # found by other processes, too
from latent_chapters import SPARSER, measures  # noqa: E402

EARLY = HERE / "terms" / "early.py"
DISJOINT = RunBase(dataset="minivoc", task="6-4", setup="disjoint")
BACKBONES = {64: "mini", 8: "mini_narrow"}
BASES: dict[str, dict[str, Any]] = {
    "MiB": {},
    "UCE": {
        "method": {"terms": {"kd": {"weight": 0}}, "classifier_init": "random"},
        "optim": {"lr": [0.05, 0.005]},
    },
}
WEIGHTS = {"sparsification": 0.002, "hoyer": 0.2}  # as in latent_chapters


def variants() -> list[Variant]:
    """All methods, such as `MiB, D = 8` and `MiB, D = 8 + hoyer in step 0`."""
    found = []
    for (base, settings), (dim, backbone) in product(BASES.items(), BACKBONES.items()):
        plain = merge(settings, {"model": {"backbone": backbone}})
        name = f"{base}, D = {dim}"
        found.append(Variant(name=name, method="MiB", settings=plain))
        for loss, weight in WEIGHTS.items():
            rows = {
                "in step 0": {f"early_{loss}": {"weight": weight}},
                "in step 1": {loss: {"weight": weight, "from_step": 1}},
                "in both steps": {loss: {"weight": weight, "from_step": 0}},
            }
            for when, terms in rows.items():
                with_loss = merge(plain, {"method": {"terms": terms}})
                row = Variant(name=f"{name} + {loss} {when}", method="MiB", settings=with_loss)
                found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, help="runs side by side; one per core if not given")
    parser.add_argument("--store", type=Path, default=Path("runs", "minivoc"))
    arguments = parser.parse_args()
    load_plugins([SPARSER, EARLY])
    store, asked = open_store(arguments.store), Block(DISJOINT, variants(), range(3))
    comparison = compare([asked], store, arguments.jobs)
    write_csv(HERE / "results.csv", comparison.table().drop(columns="intransigence").round(4))
    runs = [run for run in run_all(asked.configs(), store, 1).runs if run is not None]
    features = feature_table(runs, measures, arguments.jobs)
    write_csv(HERE / "features.csv", features.rows.round(3))
    sys.exit("\n".join([*comparison.errors, *features.errors]) or 0)


if __name__ == "__main__":
    main()
