"""What each difference between SDR's formulas and its released code costs on MiniVOC 6-4, over seeds.

    python benchmarks/sdr_variants.py [--seeds 0 1 2] [--setup disjoint] [--jobs 2]

Both forms, paper+x (the formulas with one difference) and released-x (the released form without
it); see docs/paper_and_released.md. Runs go to the store, so that a second call trains only what is
missing. Writes benchmarks/sdr_variants.csv, a row per run and step; a run whose loss ran off has no
row and a line at the end.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sparcl_lib.config import parse_settings
from sparcl_lib.experiments.base import RunBase, open_store
from sparcl_lib.experiments.comparison import Block, compare, comparison_text
from sparcl_lib.training.run_directory import write_atomically

TABLE = Path(__file__).with_suffix(".csv")
RELEASED = "method.variant=released"


class Side(NamedTuple):
    """Settings of one difference."""

    released: tuple[str, ...]
    paper: tuple[str, ...]


def switch(released: object, paper: object, *keys: str) -> Side:
    """The same two values for several settings."""
    return Side(*(tuple(f"{key}={value}" for key in keys) for value in (released, paper)))


TERMS = "method.terms"
CONTRASTIVE = (f"{TERMS}.attraction", f"{TERMS}.repulsion")
FLOOR = switch(0.0, 1.0, f"{TERMS}.sparsification.floor")
SIGN = switch("true", "false", f"{TERMS}.sparsification.signed")
DIFFERENCES = {
    "prototypes": switch("true", "false", "method.reshaped_prototypes"),
    "matching": switch("true", "false", f"{TERMS}.matching.reshaped"),
    "contrast": switch("true", "false", *(f"{term}.reshaped" for term in CONTRASTIVE)),
    "division": switch("nested", "mean", f"{TERMS}.attraction.division"),
    "labels": switch(
        "raw", "completed", *(f"{t}.labels" for t in (*CONTRASTIVE, f"{TERMS}.sparsification"))
    ),
    "sparsity": Side(FLOOR.released + SIGN.released, FLOOR.paper + SIGN.paper),
    "distances": switch("matmul", "exact", f"{TERMS}.repulsion.distances"),
    "head": switch("conv_linear", "conv", "model.head"),
    "batch-norm": switch("slow", "frozen", "model.batch_norm"),
}
# MiniVOC's recipe has what the released code has here, in both forms.
SHARED = {
    "norm": switch("mse", "l2", f"{TERMS}.matching.distance", f"{TERMS}.attraction.distance"),
    "step-0": switch(1, 0, *(f"{term}.from_step" for term in CONTRASTIVE)),
}


def variants() -> dict[str, tuple[str, ...]]:
    """Name of a row -> its settings."""
    rows: dict[str, tuple[str, ...]] = {"paper": (), "released": (RELEASED,)}
    for name, side in DIFFERENCES.items():
        rows[f"paper+{name}"] = side.released
        rows[f"released-{name}"] = (RELEASED, *side.paper)
    for name, side in SHARED.items():
        rows[f"paper+{name}"] = side.paper
        rows[f"released+{name}"] = (RELEASED, *side.paper)
    return rows


def blocks(seeds: Sequence[int], setup: str, settings: Sequence[str] = ()) -> list[Block]:
    """All runs; settings: over those of every row."""
    found = []
    for name, chosen in variants().items():
        layer = parse_settings([*chosen, *settings, f"method.name={name}"])
        base = RunBase(dataset="minivoc", task="6-4", setup=setup, overrides=(layer,))
        found.append(Block(base, ("SDR",), seeds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--setup", default="disjoint")
    parser.add_argument("--set", action="append", default=[], help="a setting of every row")
    parser.add_argument("--jobs", type=int, help="runs side by side; one per core if not given")
    parser.add_argument("--store", type=Path, default=Path("runs", "sdr_variants"))
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    asked = blocks(arguments.seeds, arguments.setup, arguments.set)
    comparison = compare(asked, open_store(arguments.store), arguments.jobs)
    table = comparison.table().round(4)
    write_atomically(arguments.table, lambda draft: table.to_csv(draft, index=False))
    print(comparison_text(comparison))
    sys.exit("\n".join(comparison.errors) or 0)


if __name__ == "__main__":
    main()
