"""What the features of trained networks hold: a row for each run and step, measured side by side.

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
from sparcl_lib.experiments.pool import CallResult, run_calls
from sparcl_lib.labels import VOID
from sparcl_lib.latent_space import (
    Floats,
    Locations,
    class_means,
    drift,
    linear_probe,
    locations,
    recall,
)
from sparcl_lib.metrics import mean_iou
from sparcl_lib.plugins import outside
from sparcl_lib.run import Run
from sparcl_lib.tasks import training_table
from sparcl_lib.training.workspace import Workspace, open_workspace

# Of these many training images, these many locations fit a probe.
IMAGES, PROBE_LOCATIONS = 200, 5_000


class NetworkLocations(NamedTuple):
    """What a network makes of the test images of the whole task and of some training images of all
    steps, each with all its labels.
    """

    test: Locations
    train: Locations
    num_old: int
    """Classes of step 0, background counted."""
    num_classes: int
    """Classes of the task, background counted."""

    def old_and_new(self, name: str, values: Floats) -> dict[str, float]:
        """`NAME_old` and `NAME_new`, means over the classes of (C,) values that have one."""
        old, new = values[1 : self.num_old], values[self.num_old :]
        return {f"{name}_old": mean_iou(old), f"{name}_new": mean_iou(new)}

    def probe_recall(
        self, train_features: Floats, test_features: Floats, among_old: bool = False
    ) -> Floats:
        """(C,) recall in percent, on the test images, of a linear probe that is fitted to features
        (N, D) of the training images.

        among_old: it knows background and old classes alone, and so does C.
        """
        known = self.num_old if among_old else self.num_classes
        labels = (np.where(x.labels < known, x.labels, VOID) for x in (self.train, self.test))
        train, test = zip((train_features, test_features), labels, strict=True)
        return linear_probe(train, test, PROBE_LOCATIONS)


Measure = Callable[[NetworkLocations], Mapping[str, float]]


class FeatureTable(NamedTuple):
    """What could be measured."""

    rows: pd.DataFrame
    """A row per run and step: method, seed, step; drift of the old class means since step 0, in
    percent of their mean distance there, NaN for joint training, which has no step 0 of its own;
    then what the measure gives. Joint training has one row, of the task's last step."""
    errors: list[str]
    """A line for each network that could not be measured."""


def feature_table(
    runs: Sequence[Run], measure: Measure, jobs: int | None = None, label: str = "features"
) -> FeatureTable:
    """Measure the networks of all steps of some runs; runs that share one are measured once there.

    measure: must be found by other processes, so no lambda and no cell's function. jobs: processes,
    one per core if not given. Raises UserError for what is not defined here, or where other
    processes cannot read it.
    """
    calls = {
        place: partial(_measure_network, measure, run, step)
        for run in runs for step, place in enumerate(_places(run))
    }  # fmt: skip
    known = run_calls(calls, jobs, label, outside(run.config for run in runs))
    rows = [row for run in runs for row in _rows(run, known)]
    return FeatureTable(pd.DataFrame(rows), [r.error for r in known.values() if r.error])


def predicted_and_probed(found: NetworkLocations) -> dict[str, float]:
    """predicted_old, predicted_new: percent of the locations that the network predicts right, mean
    over the classes; probe_old, probe_new: the same for a linear probe of the encoder's features.
    """
    predicted = recall(found.test.labels, found.test.predictions, found.num_classes)
    probed = found.probe_recall(found.train.features, found.test.features)
    return {**found.old_and_new("predicted", predicted), **found.old_and_new("probe", probed)}


def old_read(found: NetworkLocations) -> dict[str, float]:
    """Percent of the locations of old classes, mean over the classes, that are read right by
    whom, and with which names to choose from.

    network, network_old: by the network, which may give all its names, or background and the old
    ones alone; features, features_old, head, head_old: by a linear probe of the encoder's features
    or of the head's output, fitted with the labels of all classes of the task, or of background and
    old ones. Before a step a network knows the old names alone: what it loses among these is lost;
    the rest went to new names, and a probe that is given these loses by them, too.
    """
    test, num_old = found.test, found.num_old
    shares = {
        "network": recall(test.labels, test.predictions, num_old),
        "network_old": recall(test.labels, test.among_old, num_old),
    }
    for place in ("features", "head"):
        both = getattr(found.train, place), getattr(test, place)
        shares[place] = found.probe_recall(*both)
        shares[f"{place}_old"] = found.probe_recall(*both, among_old=True)
    return {name: float(values[1:num_old].mean()) for name, values in shares.items()}


Place = tuple[Path, int]
"""Folder of a run or of its step 0, and the step."""


class _Measured(NamedTuple):
    step: int
    """Of the task: joint training has one step, and stands after the last of them."""
    means: Floats
    """(C, D) of the old classes."""
    values: Mapping[str, float]


def _places(run: Run) -> list[Place]:
    return [((run.directory if step else run.first).path, step) for step in run.steps]


def _rows(run: Run, known: Mapping[Place, CallResult]) -> Iterator[dict[str, object]]:
    """A row per step of a run; none of a network that could not be measured."""
    measured: list[_Measured | None] = [known[place].value for place in _places(run)]
    for found in measured:
        first = measured[0]
        if found is None or first is None:
            continue
        moved = float("nan") if run.config.method.joint else drift(first.means, found.means)
        row = {"method": run.config.method.name, "seed": run.config.seed, "step": found.step}
        yield {**row, "drift": moved, **found.values}


def _measure_network(measure: Measure, run: Run, step: int) -> _Measured:
    with threadpool_limits(1):  # waiting threads cost more than they bring
        model, workspace = run.model(step), open_workspace(run.config, progress=False)
        task, last = workspace.task, workspace.learned.num_steps - 1
        num_old = 1 + len(task.steps[0])
        found = NetworkLocations(
            test=locations(model, workspace.evaluation_batches(last), num_old),
            train=locations(model, _training_images(workspace), num_old),
            num_old=num_old,
            num_classes=1 + len(task.seen(task.num_steps - 1)),
        )
        means = class_means(found.test.features, found.test.labels, found.num_old)[1:]
        return _Measured(workspace.reported_step(step), means, measure(found))


def _training_images(workspace: Workspace) -> StepLoader:
    """Some training images of all steps with all their labels."""
    ids = sorted(set().union(*workspace.train_ids.values()))
    chosen = np.random.default_rng(0).permutation(ids)[:IMAGES].tolist()
    last = workspace.task.num_steps - 1
    table = training_table(workspace.task, last, "sequential", workspace.policy)
    transform = evaluation_transform(workspace.config.data.size)
    dataset = SegmentationDataset(workspace.train_reader, chosen, table, transform)
    return evaluation_batches(dataset, 32, 0)
