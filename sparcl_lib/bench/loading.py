"""Images per second: what the loader makes, what training takes, and both together."""

import itertools
from collections.abc import Iterator
from statistics import mean
from typing import Any

from sparcl_lib.bench.step import random_batches, random_trainer
from sparcl_lib.bench.timing import MOST, WARM, TimedBatches
from sparcl_lib.config import RunConfig
from sparcl_lib.training import make_fabric
from sparcl_lib.training.workspace import open_workspace


def loading_rows(config: RunConfig, accelerator: str, seconds: float) -> Iterator[dict[str, Any]]:
    """A row for the loader alone, one for training without it, and one for both.

    The images are those of the first step, with its crops; training is an iteration of step 1.
    Means, not medians: a loader is early with one batch and late with the next. Raises UserError
    where the data are not there.
    """
    workspace = open_workspace(config, progress=False)
    device = make_fabric(config.precision, accelerator=accelerator, devices=1).device
    batches, workers = random_batches(config, workspace.task, device), workspace.workers()
    # Loader processes begin late, and have two batches each in store when they are first asked.
    warm = WARM + 2 * workers

    def loader() -> TimedBatches:
        made = workspace.training_batches(0, warm + 2 * MOST, 0, 0, 1, device)
        return TimedBatches(made, device, seconds, warm=warm)

    def trained_on(timed: TimedBatches) -> TimedBatches:
        random_trainer(config, workspace.task, accelerator, batches).fit(timed)
        return timed

    alone = loader()
    for _ in alone:
        pass
    for what, timed in (
        ("the loader alone", alone),
        (
            "training, batches at hand",
            trained_on(TimedBatches(itertools.cycle(batches), device, seconds)),
        ),
        ("training with the loader", trained_on(loader())),
    ):
        yield {
            "what": what, "method": config.method.name, "loader processes": workers,
            "size": config.data.size, "batch": config.data.batch_size,
            "images per second": config.data.batch_size / mean(timed.times()),
        }  # fmt: skip
