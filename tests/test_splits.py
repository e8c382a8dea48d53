"""Partition rules: properties, errors, and the published counts of VOC2012."""

import csv
import os
import time
from importlib import resources

import numpy as np
import pytest
from conftest import unpack_real_masks
from hypothesis import assume, given
from hypothesis import strategies as st

from sparcl_lib import data
from sparcl_lib.data import Presence, evaluation_ids, partition, remap_labels, scan, voc_source
from sparcl_lib.errors import UserError
from sparcl_lib.tasks import SETUPS, Task, get_task, training_table

CLASSES = ("background", "a", "b", "c", "d", "e", "f")

# Task -> images per step: (sequential and disjoint, overlapped); SDR and MiB, as published.
VOC_COUNTS = {
    "offline": ([10582], [10582]),
    "19-1": ([10034, 548], [10410, 548]),
    "15-5": ([8437, 2145], [9568, 2145]),
    "15-1": ([8437, 378, 299, 420, 500, 548], [9568, 487, 299, 491, 500, 548]),
    "10-10": ([3706, 6876], [6139, 6876]),
    "10-1": (
        [3706, 188, 868, 227, 201, 3247, 378, 299, 420, 500, 548],
        [6139, 528, 1177, 444, 482, 3898, 487, 299, 491, 500, 548],
    ),
}
VOC_TEST_COUNTS = [1240, 1277, 1329, 1353, 1421, 1449]  # of 15-1

presences = st.dictionaries(
    st.text("xyz019_", min_size=1, max_size=5),
    st.sets(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 255])),
    min_size=1,
    max_size=30,
)


@st.composite
def tasks(draw) -> Task:
    """Any order of some of six classes, in steps of any size."""
    order = draw(st.permutations(range(1, 7)))
    used = order[: draw(st.integers(1, 6))]
    cuts = sorted(draw(st.sets(st.integers(1, len(used)))) | {0, len(used)})
    steps = tuple(tuple(used[a:b]) for a, b in zip(cuts, cuts[1:], strict=False))
    return Task("t", "d", CLASSES, steps)


def split_or_skip(sets, task, setup):
    """The partition; examples that leave a step empty are not of interest."""
    try:
        return partition(sets, task, setup)
    except UserError as error:
        assert "has no image" in str(error)
        assume(False)


@given(presences, tasks(), st.sampled_from(SETUPS))
def test_partition_follows_the_rule(sets, task, setup):
    steps = split_or_skip(sets, task, setup)
    for step, ids in steps.items():
        seen, new = set(task.seen(step)), set(task.steps[step])
        expected = [
            image_id
            for image_id in sorted(sets)
            if (shown := sets[image_id] & set(task.used)) & new
            and (setup == "overlapped" or shown <= seen)
        ]
        assert ids == expected
    assert list(steps) == list(range(task.num_steps))


@given(presences, tasks())
def test_disjoint_steps_share_no_image_and_see_no_future(sets, task):
    steps = split_or_skip(sets, task, "disjoint")
    ids = [image_id for step in steps.values() for image_id in step]
    assert len(ids) == len(set(ids))
    assert set(ids) == {image_id for image_id, shown in sets.items() if shown & set(task.used)}
    for step, chosen in steps.items():
        future = set(task.used) - set(task.seen(step))
        assert not any(sets[image_id] & future for image_id in chosen)


@given(presences, tasks())
def test_setups_compare(sets, task):
    disjoint = split_or_skip(sets, task, "disjoint")
    overlapped = partition(sets, task, "overlapped")
    assert partition(sets, task, "sequential") == disjoint
    assert all(set(disjoint[k]) <= set(overlapped[k]) for k in disjoint)
    assert disjoint[task.num_steps - 1] == overlapped[task.num_steps - 1]


@given(presences, tasks(), st.sampled_from(SETUPS))
def test_input_order_does_not_matter(sets, task, setup):
    steps = split_or_skip(sets, task, setup)
    turned = Presence.from_sets(dict(reversed(sets.items())))
    assert partition(turned, task, setup) == steps
    assert all(ids == sorted(ids) for ids in steps.values())


@given(presences, tasks(), st.data())
def test_evaluation_ids_follow_the_rule(sets, task, data):
    step = data.draw(st.integers(0, task.num_steps - 1))
    expected = sorted(i for i, shown in sets.items() if shown & set(task.seen(step)))
    assume(expected)
    assert evaluation_ids(sets, task, step) == expected


def test_partition_by_hand():
    sets = {"x": {0, 1}, "w": {1, 3, 255}, "u": {3, 2}, "y": {2, 5}, "z": {5}}
    task = Task("t", "d", CLASSES, ((1,), (2,), (3,)))
    assert partition(sets, task, "disjoint") == {0: ["x"], 1: ["y"], 2: ["u", "w"]}
    assert partition(sets, task, "overlapped") == {0: ["w", "x"], 1: ["u", "y"], 2: ["u", "w"]}
    assert evaluation_ids(sets, task, 1) == ["u", "w", "x", "y"]


def test_empty_steps_are_named():
    task = Task("t", "d", CLASSES, ((1,), (2, 3)))
    message = r"step 1 of task 't' \(disjoint\) has no image; it learns b, c: add images"
    with pytest.raises(UserError, match=message):
        partition({"x": {1}}, task, "disjoint")
    with pytest.raises(UserError, match=r"step 0 of task 't' \(sequential\) has no image"):
        partition({"x": {1, 2}}, task, "sequential")
    with pytest.raises(UserError, match="no test image for step 0 of task 't'; add .* show a"):
        evaluation_ids({"x": {2}}, task, 0)
    with pytest.raises(UserError, match="has no step 2"):
        evaluation_ids({"x": {2}}, task, 2)
    with pytest.raises(UserError, match="unknown setup 'overlaped'"):
        partition({"x": {1}}, task, "overlaped")


def test_remap_arrays():
    table = training_table(get_task("voc", "15-1"), 1, "overlapped")
    mask = np.array([[0, 16], [15, 255]], dtype=np.uint8)
    labels = remap_labels(mask, table)
    assert labels.dtype == np.uint8 and labels.tolist() == [[0, 16], [0, 0]]
    assert remap_labels(mask.astype(np.int64), table).tolist() == labels.tolist()


def test_remap_tensors():
    torch = pytest.importorskip("torch")
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    table = training_table(get_task("voc", "15-1"), 1, "sequential")
    mask = torch.tensor([[0, 16], [15, 255]], dtype=torch.uint8)
    for tensor in (mask, mask.long(), tv_tensors.Mask(mask)):
        labels = remap_labels(tensor, table)
        assert type(labels) is torch.Tensor and labels.dtype == torch.int64
        assert labels.tolist() == [[0, 16], [15, 0]]


def test_public_names():
    assert all(hasattr(data, name) for name in data.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        data.nothing  # noqa: B018


@pytest.fixture(scope="module")
def published() -> dict[str, Presence]:
    """Images made up from the published counts of every set of classes."""
    text = (resources.files("sparcl_lib.published") / "voc_class_sets.csv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return {
        split: Presence.from_sets(
            {
                f"{row['classes']}/{n}": set(map(int, row["classes"].split()))
                for row in rows
                for n in range(int(row[split]))
            }
        )
        for split in ("train_aug", "val")
    }


def check_voc_counts(train: Presence, val: Presence) -> None:
    for name, (disjoint, overlapped) in VOC_COUNTS.items():
        task = get_task("voc", name)
        expected = {"sequential": disjoint, "disjoint": disjoint, "overlapped": overlapped}
        for setup, counts in expected.items():
            found = [len(ids) for ids in partition(train, task, setup).values()]
            assert found == counts, (name, setup)
    task = get_task("voc", "15-1")
    assert [len(evaluation_ids(val, task, k)) for k in range(6)] == VOC_TEST_COUNTS


def test_published_voc_counts(published):
    assert [len(found.ids) for found in published.values()] == [10582, 1449]
    check_voc_counts(published["train_aug"], published["val"])


def timed(source, split: str) -> tuple[Presence, float]:
    start = time.perf_counter()
    return scan(source, split, progress=False), time.perf_counter() - start


def test_real_voc_masks(tmp_path, published):
    folder = os.environ.get("SPARCL_TEST_DATA")
    if not folder:
        pytest.skip("SPARCL_TEST_DATA is not set: no real masks to scan")
    source = voc_source(unpack_real_masks(folder, tmp_path))
    (train, first), (val, first_val) = timed(source, "train"), timed(source, "val")
    assert first + first_val < 60
    again, reload = timed(source, "train")
    assert reload < 1
    assert again.ids == train.ids and (again.table == train.table).all()
    check_voc_counts(train, val)
    for found, name in ((train, "train_aug"), (val, "val")):
        assert sorted(map(tuple, found.table[:, 1:21])) == sorted(
            map(tuple, published[name].table[:, 1:21])
        )
