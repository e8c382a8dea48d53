"""SDR's latent terms on top of seven methods, in two setups: the runs of chapter 09.

    python benchmarks/studies/on_top_of_others/on_top_of_others.py [--store runs/minivoc]

MiniVOC 6-4, terms from step 1 on; each method keeps everything else as its recipe has it. Runs go
to the store, so that a second call trains only what is missing. Writes beside this file, or into
--out, results.csv (mIoU, a row per run and step) and features.csv, a row per run and step too;
"old" are the six classes of step 0, "new" the four of step 1, shares in percent of the locations of
the test images, means over the classes:

- predicted_old, predicted_new: what the network names;
- probe_old, probe_new: what a linear probe of the encoder's features names, fitted with all labels
  to training images of both steps;
- head_old, head_new: the same for the head's output, which the classifier reads;
- drift: of the old class means since step 0, in percent of their mean distance there.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from sparcl_lib.config import parse_settings
from sparcl_lib.experiments.base import RunBase, Variant, open_store, read_variants
from sparcl_lib.experiments.comparison import Block, compare
from sparcl_lib.experiments.feature_table import (
    NetworkLocations,
    feature_table,
    predicted_and_probed,
)
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.experiments.store import RunStore
from sparcl_lib.methods import method_to_plain
from sparcl_lib.writing import write_atomically

HERE = Path(__file__).parent
ALONE = HERE.parent / "latent_chapters" / "variants.yaml"
SETUPS = ("disjoint", "overlapped")
BASES = ("FT", "LwF", "ILT", "MiB", "PLOP", "SSUL-like", "MiB+EWF")
LATENT = ("matching", "attraction", "repulsion", "sparsification")
Terms = Mapping[str, Mapping[str, Any]]


def chapters_terms() -> Terms:
    """The four terms as in chapters 05 to 07, each alone on MiB there."""
    alone = {variant.name: variant.settings for variant in read_variants(ALONE)}
    return {name: alone[f"MiB + {name}"]["method"]["terms"][name] for name in LATENT}


def recipe_terms(base: RunBase) -> Terms:
    """The four terms as in SDR's recipe for MiniVOC, found by a search on 6-4 disjoint."""
    terms = method_to_plain(base.config("SDR", 0).method)["terms"]
    return {name: terms[name] for name in LATENT}


def variants(base: RunBase) -> Iterator[Variant]:
    """Each method with nothing, with matching, and with all four at two sets of weights."""
    terms = chapters_terms()
    added: dict[str, Terms] = {
        "": {},
        " + matching": {"matching": terms["matching"]},
        "".join(f" + {name}" for name in LATENT): terms,
        " + all four of the recipe": recipe_terms(base),
    }
    for method in BASES:
        for ending, chosen in added.items():
            settings = {"method": {"terms": dict(chosen)}} if chosen else {}
            yield Variant(name=method + ending, method=method, settings=settings)


def block(setup: str, seeds: Sequence[int], settings: Sequence[str] = ()) -> Block:
    """All runs of a setup; settings: KEY=VALUE over every recipe."""
    overrides = (parse_settings(settings),) if settings else ()
    base = RunBase(dataset="minivoc", task="6-4", setup=setup, overrides=overrides)
    return Block(base, list(variants(base)), seeds)


def measures(found: NetworkLocations) -> dict[str, float]:
    """Of one network: what features, head and classifier say of old and of new classes."""
    head = found.probe_recall(found.train.head, found.test.head)
    return {**predicted_and_probed(found), **found.old_and_new("head", head)}


def features(asked: Block, store: RunStore, jobs: int | None) -> tuple[pd.DataFrame, list[str]]:
    """A row per run and step of a setup, and what could not be measured."""
    runs = [run for run in run_all(asked.configs(), store, 1).runs if run is not None]
    setup = asked.base.setup
    rows, errors = feature_table(runs, measures, jobs, f"features, {setup}")
    rows.insert(0, "setup", setup)
    return rows, errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, help="runs side by side; one per core if not given")
    parser.add_argument("--store", type=Path, default=Path("runs", "minivoc"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="over every recipe, as in optim.iterations=2 to try the command",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the two tables")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    blocks = [block(setup, seeds, arguments.set) for setup in SETUPS]
    store = open_store(arguments.store)
    comparison = compare(blocks, store, arguments.jobs)
    save(comparison.table().drop(columns="intransigence").round(4), arguments.out / "results.csv")
    measured = [features(asked, store, arguments.jobs) for asked in blocks]
    save(pd.concat(rows for rows, _ in measured).round(3), arguments.out / "features.csv")
    errors = [*comparison.errors, *(line for _, lines in measured for line in lines)]
    sys.exit("\n".join(errors) or 0)


def save(table: pd.DataFrame, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, partial(table.to_csv, index=False))


if __name__ == "__main__":
    main()
