"""Do guesses get worse because the teacher does, or because the images of each step are others?

    python benchmarks/studies/latent_terms/first_guesses.py [--store runs/minivoc]

The teacher of step 1, M_0, asked on the training images of every step, as `latent_space.py` asks
each step's own teacher: writes first_guesses.csv, a row per seed and step with the precision of its
guesses in percent, where the step's labels say background. Missing runs are trained.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from sparcl_lib.experiments.base import open_store, read_variants
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.training.workspace import open_workspace
from sparcl_lib.writing import write_csv

TABLE = Path(__file__).with_suffix(".csv")
sys.path.insert(0, str(TABLE.parent))

from latent_space import TASK, VARIANTS, guesses  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("runs", "minivoc"))
    parser.add_argument("--out", type=Path, default=TABLE)
    arguments = parser.parse_args()
    uce = next(variant for variant in read_variants(VARIANTS) if variant.name == "UCE")
    runs, errors = run_all([TASK.config(uce, s) for s in range(3)], open_store(arguments.store))
    rows = []
    for run in (run for run in runs if run):
        workspace, first = open_workspace(run.config, progress=False), run.model(0)
        for step in run.steps[1:]:
            asked = guesses(first, workspace, step)
            rows.append({"seed": run.config.seed, "step": step, "precision": asked["precision"]})
    write_csv(arguments.out, pd.DataFrame(rows).round(2))
    print("\n".join([*errors, f"written: {arguments.out}"]))


if __name__ == "__main__":
    main()
