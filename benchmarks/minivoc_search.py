"""Search learning rate and weights of every method on MiniVOC 6-4, the same budget for each.

    python benchmarks/minivoc_search.py [--methods LwF ILT] [--trials 6] [--jobs 2]

Trial 0 of a method is its recipe as it stands, the next ones are drawn by Optuna's TPE from the
ranges below; then each method tries the learning rate and KD weight of the best trial of all.
The seed of the search is none of those on which methods are compared later. Step 0 is trained once
and shared. Writes one row per trial to benchmarks/minivoc_search.csv, in place of earlier rows of
the methods searched; the best of each method goes into sparcl_lib/recipes/minivoc.yaml by hand.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
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
    "ILT": LR_LATER | KD | {"feature_kd": (1e-2, 10.0)},
    "LwF": LR_LATER | KD,
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


def run_trial(method: str, trial: int, values: dict[str, float], first_step: Path) -> dict:
    """Train with these values and return the row of the table."""
    config = resolve("minivoc", method, [overrides(method, values)], **FIXED)
    start = None if method == "Joint" else first_step
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            metrics = train(config, Path(folder, "run"), start_from=start, accelerator="cpu")
            last = metrics["steps"][-1]
        except UserError as error:  # the loss ran off: the worst score, not the end
            print(f"\n{method} trial {trial}: {error}")
            last = dict.fromkeys(SCORES, 0.0)
    scores = {name: round(last[name], 2) for name in SCORES}
    rounded = {name: float(f"{value:.3g}") for name, value in values.items()}
    seconds = round(time.perf_counter() - began, 1)
    return {"method": method, "trial": trial, **scores, "seconds": seconds, **rounded}


def search(method: str, trials: int, first_step: Path) -> list[dict]:
    """Round one: the recipe as it stands, then draws from the method's space."""
    torch.set_num_threads(1)
    rows = []

    def objective(trial: optuna.Trial) -> float:
        space = SPACES[method].items()
        values = {name: trial.suggest_float(name, *span, log=True) for name, span in space}
        rows.append(run_trial(method, trial.number, values, first_step))
        return rows[-1]["miou_all"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=SEED, n_startup_trials=min(5, trials)),
    )
    study.enqueue_trial(recipe_values(method))
    study.optimize(objective, n_trials=trials)
    return rows


def borrow(method: str, rows: list[dict], first_step: Path) -> list[dict]:
    """Round two: a method's best weights with the rate and KD weight of the best trial of all.

    Few trials find a good rate by luck; no method shall win by that.
    """
    torch.set_num_threads(1)
    mine = [row for row in rows if row["method"] == method]
    own, winner = (
        max(group, key=lambda row: row["miou_all"]) for group in (mine, rows_later(rows))
    )
    values = {name: own[name] for name in SPACES[method]}
    lent = {name: winner[name] for name in (*LR_LATER, *KD) if name in values}
    if not lent or values | lent == values:
        return []
    return [run_trial(method, len(mine), values | lent, first_step)]


def rows_later(rows: list[dict]) -> list[dict]:
    """The trials of methods that have later steps."""
    return [row for row in rows if row["method"] != "Joint"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--trials", type=int, default=6, help="of each method in round one")
    parser.add_argument("--jobs", type=int, default=2, help="methods searched side by side")
    args = parser.parse_args()
    open_source("minivoc")  # generated once, before the processes start
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(args.jobs) as pool:
        first = Path(folder, "first")
        train(resolve("minivoc", "FT", **FIXED), first, steps=[0], accelerator="cpu")
        rows = known_rows(args.methods)
        rows = collect((pool.submit(search, m, args.trials, first) for m in args.methods), rows)
        rows = collect((pool.submit(borrow, m, rows, first) for m in args.methods), rows)
    best = pd.DataFrame(rows).sort_values("miou_all").groupby("method").tail(1)
    print(best.to_string(index=False))


def known_rows(searched: Iterable[str]) -> list[dict]:
    """Rows of an earlier search for the methods that are not searched now."""
    if not TABLE.is_file():
        return []
    table = pd.read_csv(TABLE)
    return table[~table["method"].isin(searched)].to_dict("records")


def collect(jobs: Iterable[Future], rows: Iterable[dict]) -> list[dict]:
    """The rows of all jobs after those given; the table is written as they come."""
    rows = list(rows)
    for job in as_completed(list(jobs)):
        rows += job.result()
        table = pd.DataFrame(rows)
        table.sort_values(["method", "trial"]).to_csv(TABLE, index=False)
    return rows


if __name__ == "__main__":
    main()
