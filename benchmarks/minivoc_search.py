"""Search learning rate and weights of every method on MiniVOC 6-4, the same budget for each.

    python benchmarks/minivoc_search.py [--trials 6] [--jobs 2]

Trial 0 of a method is its recipe as it stands, the others are drawn by Optuna's TPE from the ranges
below. The seed of the search is none of those on which methods are compared later. Step 0 is
trained once and shared. Writes one row per trial to benchmarks/minivoc_search.csv; the best of each
method goes into sparcl_lib/recipes/minivoc.yaml by hand.
"""

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import optuna
import pandas as pd
import torch

from sparcl_lib.config import resolve
from sparcl_lib.data import open_source
from sparcl_lib.errors import UserError
from sparcl_lib.training import train

SEED = 100
SCORES = ("miou_old_no_bg", "miou_new", "miou_all")
TABLE = Path(__file__).with_suffix(".csv")
FIXED = {"task": "6-4", "setup": "disjoint", "seed": SEED}

LR_LATER = {"optim.lr later": (0.005, 0.1)}
KD = {"kd": (0.5, 30.0)}
LATENT = {
    "matching": (1e-3, 1.0),
    "attraction": (1e-4, 3e-2),
    "repulsion": (1e-4, 1e-2),
    "sparsification": (1e-5, 1e-3),
}
SPACES = {
    "Joint": {"optim.lr first": (0.02, 0.2)},
    "SDR": LR_LATER | KD | LATENT,
    "SDR+MiB": LR_LATER | KD | LATENT,
    "MiB": LR_LATER | KD,
    "FT": LR_LATER,
}


def overrides(method: str, values: dict[str, float]) -> dict:
    """Nested settings for the values of one trial."""
    first, later = resolve("minivoc", method, **FIXED).optim.lr
    lr = [values.get("optim.lr first", first), values.get("optim.lr later", later)]
    weights = {name: {"weight": w} for name, w in values.items() if not name.startswith("optim")}
    return {"optim": {"lr": lr}, "method": {"terms": weights}}


def recipe_values(method: str) -> dict[str, float]:
    """The recipe as it stands, in the terms of the search space."""
    config = resolve("minivoc", method, **FIXED)
    known = {"optim.lr first": config.optim.lr[0], "optim.lr later": config.optim.lr[1]}
    known |= {
        name: row["weight"] for name, row in config.method["terms"].items() if "weight" in row
    }
    return {name: known[name] for name in SPACES[method]}


def search(method: str, trials: int, first_step: Path) -> list[dict]:
    torch.set_num_threads(1)
    rows = []

    def objective(trial: optuna.Trial) -> float:
        space = SPACES[method].items()
        values = {name: trial.suggest_float(name, *span, log=True) for name, span in space}
        config = resolve("minivoc", method, [overrides(method, values)], **FIXED)
        start = None if method == "Joint" else first_step
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            try:
                metrics = train(config, Path(folder, "run"), start_from=start, accelerator="cpu")
            except UserError as error:  # the loss ran off: the worst score, not the end
                print(f"\n{method} trial {trial.number}: {error}")
                metrics = {"steps": [dict.fromkeys(SCORES, 0.0)]}
        last = metrics["steps"][-1]
        scores = {name: round(last[name], 2) for name in SCORES}
        rounded = {name: float(f"{value:.3g}") for name, value in values.items()}
        seconds = round(time.perf_counter() - began, 1)
        rows.append(
            {"method": method, "trial": trial.number, **scores, "seconds": seconds, **rounded}
        )
        return last["miou_all"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=SEED, n_startup_trials=min(5, trials)),
    )
    study.enqueue_trial(recipe_values(method))
    study.optimize(objective, n_trials=trials)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=6, help="of each method")
    parser.add_argument("--jobs", type=int, default=2, help="methods searched side by side")
    args = parser.parse_args()
    open_source("minivoc")  # generated once, before the processes start
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder, "first")
        train(resolve("minivoc", "FT", **FIXED), first, steps=[0], accelerator="cpu")
        rows: list[dict] = []
        with ProcessPoolExecutor(args.jobs) as pool:
            jobs = [pool.submit(search, method, args.trials, first) for method in SPACES]
            for job in as_completed(jobs):
                rows += job.result()
                pd.DataFrame(rows).to_csv(TABLE, index=False)
    best = pd.DataFrame(rows).sort_values("miou_all").groupby("method").tail(1)
    print(best.to_string(index=False))


if __name__ == "__main__":
    main()
