"""Would the reader that was fitted to the old classes still find them? Networks put together again.

    python benchmarks/studies/old_names/readers.py [--store runs/minivoc]

Of the runs of old_names.py, after the last step: the encoder of one network, and the reader, head
and classifier, of the other, of M_0 (after step 0) and the last one. Nothing is trained or fitted
for it; missing runs are trained. Writes readers.csv beside this file, or into --out: a row per run
with the recall of the six classes of step 0 among the old names (background is one), in percent of
their locations on the test images, mean over the classes: `before`, M_0; `network`, the last one;
`encoder`, its encoder with the reader of M_0; `reader`, its reader with the encoder of M_0.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import pandas as pd

from sparcl_lib.experiments.base import open_store
from sparcl_lib.experiments.pool import run_all, run_calls
from sparcl_lib.latent_space import locations, recall
from sparcl_lib.models import Segmenter
from sparcl_lib.run import Run
from sparcl_lib.training.workspace import open_workspace
from sparcl_lib.writing import write_csv

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from old_names import SEEDS, blocks  # noqa: E402


def of_old_classes(run: Run) -> dict[str, object]:
    """The row of a run."""
    workspace = open_workspace(run.config, progress=False)
    num_old, step = 1 + len(workspace.task.steps[0]), run.steps[-1]
    tests = list(workspace.evaluation_batches(step))
    first, last = run.model(0), run.model(step)

    def found(encoder: Segmenter, reader: Segmenter) -> float:
        model = Segmenter(encoder.backbone, reader.head, reader.classifier).eval()
        here = locations(model, tests, num_old)
        return float(recall(here.labels, here.among_old, num_old)[1:].mean())

    config = run.config
    return {
        "task": config.task, "setup": config.setup, "method": config.method.name,
        "seed": config.seed, "before": found(first, first), "network": found(last, last),
        "encoder": found(last, first), "reader": found(first, last),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, help="processes; one per core if not given")
    parser.add_argument("--store", type=Path, default=Path("runs", "minivoc"))
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the table")
    arguments = parser.parse_args()
    store = open_store(arguments.store)
    configs = [
        base.config(method, seed)
        for base, methods in blocks() for method in methods for seed in SEEDS
    ]  # fmt: skip
    trained, errors = run_all(configs, store, arguments.jobs)
    calls = {run.directory.path: partial(of_old_classes, run) for run in trained if run is not None}
    done = run_calls(calls, arguments.jobs, "readers").values()
    errors = [*errors, *(result.error for result in done if result.error)]
    rows = pd.DataFrame([result.value for result in done if not result.error])
    write_csv(arguments.out / "readers.csv", rows.round(2))
    sys.exit("\n".join(errors) or 0)


if __name__ == "__main__":
    main()
