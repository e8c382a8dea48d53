"""What the features of trained networks say: a row for each run and step, measured side by side.

"Old" are the classes of step 0, "new" those of all later steps; background is neither.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from sparcl_lib.data.loading.dataset import SegmentationDataset, StepLoader, evaluation_batches
from sparcl_lib.data.loading.transforms import evaluation_transform
from sparcl_lib.experiments.pool import CallResult, run_calls, terms_of
from sparcl_lib.latent_space import (
    Floats,
    Locations,
    class_means,
    drift,
    linear_probe,
    locations,
    recall,
)
from sparcl_lib.run import Run
from sparcl_lib.tasks import training_table
from sparcl_lib.training.workspace import Workspace, open_workspace

# Of these many training images, these many locations fit a probe.
IMAGES, PROBE_LOCATIONS = 200, 5_000


class Seen(NamedTuple):
    """A network on the test images of the whole task and on some training images of all steps, each
    with all its labels.
    """

    test: Locations
    train: Locations
    num_old: int
    """Classes of step 0, background counted."""
    num_classes: int
    """Classes of the task, background counted."""

    def parted(self, name: str, shares: Floats) -> dict[str, float]:
        """`NAME_old` and `NAME_new`, means over the classes of (C,) shares."""
        old, new = shares[1 : self.num_old], shares[self.num_old :]
        return {f"{name}_old": float(old.mean()), f"{name}_new": float(new.mean())}

    def probed(self, features: Floats, asked: Floats) -> Floats:
        """(C,) recall in percent of a linear probe fitted to features (N, D) of the training
        images and asked on those of the test images.
        """
        return linear_probe(
            (features, self.train.labels), (asked, self.test.labels), PROBE_LOCATIONS
        )


Measure = Callable[[Seen], Mapping[str, float]]


class FeatureTable(NamedTuple):
    """What could be measured."""

    rows: pd.DataFrame
    """A row per run and step: method, seed, step; drift of the old class means since step 0, in
    percent of their mean distance there; then what the measure gives."""
    errors: list[str]
    """A line for each network that could not be measured."""


def feature_table(
    runs: Sequence[Run], measure: Measure, jobs: int | None = None, label: str = "features"
) -> FeatureTable:
    """Measure the networks of all steps of some runs; runs that share one are measured once there.

    measure: must be found by other processes, so no lambda and no cell's function. jobs: processes,
    one per core if not given. Raises UserError for terms that other processes cannot read.
    """
    asked = {place: (run, step) for run in runs for step, place in enumerate(_places(run))}
    names = terms_of(run.config for run in runs)
    known = run_calls(partial(_portrait, measure), asked, jobs, label, names)
    rows = [row for run in runs for row in _rows(run, known)]
    return FeatureTable(pd.DataFrame(rows), [r.error for r in known.values() if r.error])


def readable(seen: Seen) -> dict[str, float]:
    """answers_old, answers_new: percent of the locations that the network names, mean over the
    classes; probe_old, probe_new: the same for a linear probe of the encoder's features.
    """
    named = recall(seen.test.labels, seen.test.predictions, seen.num_classes)
    probed = seen.probed(seen.train.features, seen.test.features)
    return {**seen.parted("answers", named), **seen.parted("probe", probed)}


Place = tuple[Path, int]
"""Folder of a run or of its step 0, and the step."""


class _Portrait(NamedTuple):
    means: Floats
    """(C, D) of the old classes."""
    measures: Mapping[str, float]


def _places(run: Run) -> list[Place]:
    return [((run.directory if step else run.first).path, step) for step in run.steps]


def _rows(run: Run, known: Mapping[Place, CallResult]) -> Iterator[dict[str, object]]:
    """A row per step of a run; none of a network that could not be measured."""
    portraits = [known[place].value for place in _places(run)]
    for step, drawn in enumerate(portraits):
        if drawn is None or portraits[0] is None:
            continue
        row = {"method": run.config.method.name, "seed": run.config.seed, "step": step}
        yield {**row, "drift": drift(portraits[0].means, drawn.means), **drawn.measures}


def _portrait(measure: Measure, run: Run, step: int) -> _Portrait:
    with threadpool_limits(1):  # waiting threads cost more than they bring
        model, workspace = run.model(step), open_workspace(run.config, progress=False)
        task = workspace.task
        seen = Seen(
            test=locations(model, workspace.evaluation_batches(task.num_steps - 1)),
            train=locations(model, _training_images(workspace)),
            num_old=1 + len(task.steps[0]),
            num_classes=1 + len(task.seen(task.num_steps - 1)),
        )
        means = class_means(seen.test.features, seen.test.labels, seen.num_old)[1:]
        return _Portrait(means, measure(seen))


def _training_images(workspace: Workspace) -> StepLoader:
    """Some training images of all steps with all their labels."""
    ids = sorted(set().union(*workspace.train_ids.values()))
    chosen = np.random.default_rng(0).permutation(ids)[:IMAGES].tolist()
    last = workspace.task.num_steps - 1
    table = training_table(workspace.task, last, "sequential", workspace.policy)
    transform = evaluation_transform(workspace.config.data.size)
    dataset = SegmentationDataset(workspace.train_reader, chosen, table, transform)
    return evaluation_batches(dataset, 32, 0)
