"""The main job on MiniVOC: fine-tuning forgets, MiB and SDR remember, joint training bounds."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from sparcl_lib.config import parse_settings, resolve
from sparcl_lib.report import load_runs, results_text, write_report, write_results
from sparcl_lib.training import train

METHODS = ("FT", "MiB", "SDR", "Joint")


def run_demo(
    out: Path, task: str, setup: str, seeds: Sequence[int], settings: Sequence[str] = ()
) -> str:
    """Train the demo's methods, write results.json, results.csv and report.html into `out`, and
    return the table as text. Step 0 is trained once per seed and shared. Earlier runs of a demo in
    `out` are replaced.
    """
    runs = out / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    overrides = parse_settings(settings)
    folders = []
    for seed in seeds:
        first = runs / f"FT-seed{seed}"
        for method in METHODS:
            folder = runs / f"{method}-seed{seed}"
            config = resolve("minivoc", method, [overrides], task=task, setup=setup, seed=seed)
            shares = method not in ("FT", "Joint")
            train(config, folder, start_from=first if shares else None, accelerator="cpu")
            folders.append(folder)
    results = load_runs(folders)
    write_results(results, out)
    write_report(results, out / "report.html", f"MiniVOC {task}, {setup}")
    return results_text(results)
