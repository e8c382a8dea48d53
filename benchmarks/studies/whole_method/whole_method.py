"""SDR's four latent terms together: the runs of chapter 08.

    python benchmarks/studies/whole_method/whole_method.py [--store runs/minivoc] [--part map]

MiniVOC, seeds 0, 1, 2, terms from step 1 on. Runs go to the store, so that a second call trains
only what is missing. Writes a table beside this file for each part, a row per run and step:

- factorial: all sixteen combinations of the four terms on UCE and on MiB, 6-4 disjoint;
- map: weights of matching and repulsion on UCE, 6-4 disjoint;
- four_steps: nothing, matching and all four on UCE and on MiB, 6-1 disjoint;
- conditions: MiB and SDR under what the released code of SDR has besides its losses, on 6-4 and on
  6-1 disjoint.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sparcl_lib.config import parse_settings
from sparcl_lib.experiments.base import RunBase, Variant, open_store, read_variants
from sparcl_lib.experiments.comparison import Block, compare
from sparcl_lib.writing import write_atomically

HERE = Path(__file__).parent
SEEDS = range(3)
SIX_FOUR = RunBase(dataset="minivoc", task="6-4", setup="disjoint")
SIX_ONE = RunBase(
    dataset="minivoc",
    task="6-1",
    setup="disjoint",
    overrides=({"optim": {"iterations": [600, 200]}},),  # shorter steps, as in the comparison
)
# UCE: the unbiased cross-entropy alone, MiB without its distillation, as in latent_chapters.
BASES: dict[str, Mapping[str, Any]] = {
    "UCE": parse_settings(
        ["method.terms.kd.weight=0", "method.classifier_init=random", "optim.lr=[0.05, 0.005]"]
    ),
    "MiB": {},
}
# Weights as in latent_chapters: at the start of step 1 on UCE the gradient of each in the encoder
# is a seventh to two fifths of cross-entropy's.
TERMS: dict[str, dict[str, Any]] = {
    "matching": {"weight": 0.1, "distance": "mse"},
    "attraction": {"weight": 0.03, "distance": "mse", "from_step": 1},
    "repulsion": {"weight": 0.5, "from_step": 1},
    "sparsification": {"weight": 0.002, "from_step": 1},
}
MATCHING, REPULSION = (0.03, 0.1, 0.3), (0.005, 0.05, 0.5)


def with_terms(base: str, terms: Mapping[str, Mapping[str, Any]], name: str = "") -> Variant:
    """A base with some terms, by default under their names: `UCE + matching + repulsion`."""
    method: dict[str, Any] = dict(BASES[base].get("method", {}))
    method["terms"] = {**method.get("terms", {}), **terms}
    settings = {**BASES[base], "method": method}
    return Variant(name=name or " + ".join([base, *terms]), method="MiB", settings=settings)


def combinations(base: str) -> Iterator[Variant]:
    """Nothing, each term, each pair, each three, and all four."""
    for count in range(len(TERMS) + 1):
        for names in itertools.combinations(TERMS, count):
            yield with_terms(base, {name: TERMS[name] for name in names})


def weights() -> Iterator[Variant]:
    """Each weight of matching with each of repulsion on UCE; 0: without it."""
    for m, r in itertools.product((0.0, *MATCHING), (0.0, *REPULSION)):
        chosen = {"matching": m, "repulsion": r}
        terms = {name: {**TERMS[name], "weight": w} for name, w in chosen.items() if w}
        yield with_terms("UCE", terms, f"UCE, matching {m:g}, repulsion {r:g}")


def blocks(part: str) -> Iterable[Block]:
    """The runs of a part."""
    if part == "factorial":
        return [Block(SIX_FOUR, list(combinations(base)), SEEDS) for base in BASES]
    if part == "map":
        return [Block(SIX_FOUR, list(weights()), SEEDS)]
    if part == "four_steps":
        chosen: list[dict[str, Any]] = [{}, {"matching": TERMS["matching"]}, TERMS]
        return [Block(SIX_ONE, [with_terms(b, terms) for b in BASES for terms in chosen], SEEDS)]
    variants = read_variants(HERE / "conditions.yaml")
    return [Block(SIX_FOUR, variants, SEEDS), Block(SIX_ONE, variants, SEEDS)]


PARTS = ("factorial", "map", "four_steps", "conditions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, help="one of the four; all if not given")
    parser.add_argument("--jobs", type=int, help="runs side by side; one per core if not given")
    parser.add_argument("--store", type=Path, default=Path("runs", "minivoc"))
    arguments = parser.parse_args()
    errors: list[str] = []
    for part in [arguments.part] if arguments.part else PARTS:
        comparison = compare(blocks(part), open_store(arguments.store), arguments.jobs)
        table = comparison.table().drop(columns="intransigence").round(4)
        write_atomically(HERE / f"{part}.csv", partial(table.to_csv, index=False))
        errors += comparison.errors
    sys.exit("\n".join(errors) or 0)


if __name__ == "__main__":
    main()
