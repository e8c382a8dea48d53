"""What the features of several runs say, in one table."""

from collections.abc import Iterator

import numpy as np
import pytest

from sparcl_lib.config import parse_settings
from sparcl_lib.data import minivoc
from sparcl_lib.experiments.base import RunBase, open_store
from sparcl_lib.experiments.feature_table import (
    NetworkLocations,
    feature_table,
    old_read,
    predicted_and_probed,
)
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.latent_space import Locations, class_features, class_means, drift
from sparcl_lib.run import Run
from sparcl_lib.training.workspace import open_workspace

QUICK = parse_settings(["optim.iterations=2", "data.size=32", "data.batch_size=4"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Iterator[list[Run]]:
    """Two methods that share step 0, and joint training."""
    folder = tmp_path_factory.mktemp("features")
    minivoc.generate(folder / "minivoc", train=60, val=12, size=32, progress=False)
    base = RunBase(
        dataset="minivoc", task="6-4", data_root=str(folder / "minivoc"), overrides=(QUICK,)
    )
    configs = [base.config(method, 3) for method in ("FT", "MiB", "Joint")]
    yield run_all(configs, open_store(folder / "store"), jobs=1).runs


def sizes(found: NetworkLocations) -> dict[str, float]:
    """Stands for a measure; processes find it here."""
    return {"dim": found.test.features.shape[1], "old": found.num_old, "all": found.num_classes}


def test_a_row_for_each_run_and_step(runs):
    table = feature_table(runs[:2], predicted_and_probed, jobs=1).rows
    assert table["method"].tolist() == ["FT", "FT", "MiB", "MiB"]
    assert table["step"].tolist() == [0, 1, 0, 1] and (table["seed"] == 3).all()
    shares = table[["predicted_old", "predicted_new", "probe_old", "probe_new"]]
    assert ((shares >= 0) & (shares <= 100)).all(axis=None)
    assert (table.loc[table["step"] == 0, "predicted_new"] == 0).all()  # no output for them yet
    assert (shares.iloc[0] == shares.iloc[2]).all()  # one network
    assert (table.loc[table["step"] == 0, "drift"] == 0).all()


def test_drift_is_that_of_the_old_classes_on_the_test_images(runs):
    found = feature_table(runs[:1], sizes, jobs=1).rows
    tests = list(open_workspace(runs[0].config, progress=False).evaluation_batches(1))
    means = [class_means(*class_features(runs[0].model(step), tests), 7)[1:] for step in (0, 1)]
    assert found["drift"].tolist() == pytest.approx([0, drift(*means)])
    assert found[["old", "all"]].to_numpy().tolist() == 2 * [[7, 11]]


def test_joint_training_is_a_row_of_the_last_step_without_a_drift(runs):
    """It ended as `KeyError: 1`, for it has one step and the task two."""
    rows, errors = feature_table(runs[2:], predicted_and_probed, jobs=1)
    assert errors == [] and rows["step"].tolist() == [1] and rows["drift"].isna().all()
    (shares,) = rows[["predicted_old", "predicted_new", "probe_old", "probe_new"]].to_numpy()
    assert ((shares >= 0) & (shares <= 100)).all()
    assert feature_table(runs[2:], sizes, jobs=1).rows[["old", "all"]].to_numpy().tolist() == [
        [7, 11]
    ]


def test_a_network_that_runs_share_is_measured_once(runs):
    asked = []

    def counted(found: NetworkLocations) -> dict[str, float]:
        asked.append(found)
        return {}

    assert len(feature_table(runs[:2], counted, jobs=1).rows) == 4 and len(asked) == 3


def test_what_cannot_be_measured_is_a_line_and_no_row(runs):
    def fails(found: NetworkLocations) -> dict[str, float]:
        raise ValueError("no such number")

    rows, errors = feature_table(runs[:2], fails, jobs=1)
    assert rows.empty and errors == 3 * ["ValueError: no such number"]


def test_means_of_old_and_new_leave_background_out():
    found = NetworkLocations(None, None, num_old=3, num_classes=5)
    shares = found.old_and_new("head", np.array([100.0, 10, 30, 1, 3]))
    assert shares == {"head_old": 20, "head_new": 2}
    shares = found.old_and_new("head", np.array([100.0, np.nan, 30, np.nan, np.nan]))
    assert shares["head_old"] == 30 and np.isnan(shares["head_new"])  # of classes that are there


def test_among_old_names_a_probe_has_no_new_ones():
    """With the new names it lost recall by them alone, as a network does that may give them."""
    here = np.repeat(np.arange(5), 40)
    features = np.random.default_rng(0).normal(size=(200, 3)) + 4 * (
        here[:, None] % 4
    )  # 4 is like 0
    of = Locations(features, None, None, here, None)
    found = NetworkLocations(of, of, num_old=3, num_classes=5)
    everything = found.probe_recall(features, features)
    among = found.probe_recall(features, features, among_old=True)
    assert everything.shape == (5,) and everything[0] < 70
    assert among.shape == (3,) and among[0] > 95


def test_old_classes_are_read_by_whom_and_among_which_names():
    here = np.array([0, 1, 1, 2, 2, 3])
    features = np.eye(4)[here]  # classes lie apart: each probe reads all
    of = Locations(
        features, features, predictions=np.array([0, 3, 1, 2, 2, 3]), labels=here,
        among_old=np.array([0, 1, 1, 2, 0, 0]),
    )  # fmt: skip
    shares = old_read(NetworkLocations(of, of, num_old=3, num_classes=4))
    assert shares == {
        "network": 75, "network_old": 75, "features": 100, "features_old": 100,
        "head": 100, "head_old": 100,
    }  # fmt: skip
