"""Partition rules: properties, errors, and the published counts of VOC2012."""

import csv
import itertools
import os
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from conftest import unpack_real_masks
from hypothesis import assume, given
from hypothesis import strategies as st

from sparcl_lib import data
from sparcl_lib.data import (
    Presence,
    evaluation_ids,
    partition,
    read_lists,
    remap_labels,
    scan,
    voc_source,
    write_lists,
)
from sparcl_lib.errors import UserError
from sparcl_lib.tasks import (
    SETUPS,
    VOID,
    LabelPolicy,
    Task,
    evaluation_table,
    get_task,
    task_names,
    training_table,
)

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
    steps = tuple(tuple(used[a:b]) for a, b in itertools.pairwise(cuts))
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


@given(presences, tasks(), st.sampled_from(SETUPS), st.permutations(range(1, 7)), st.data())
def test_class_ids_are_names_only(sets, task, setup, renamed, data):
    """Other numbers for the classes, and another order inside a step, change nothing."""
    new = dict(enumerate(renamed, start=1))
    steps = split_or_skip(sets, task, setup)
    shuffled = tuple(tuple(new[c] for c in data.draw(st.permutations(s))) for s in task.steps)
    others = {i: {new.get(value, value) for value in shown} for i, shown in sets.items()}
    assert partition(others, Task("t", "d", CLASSES, shuffled), setup) == steps


@given(presences, tasks(), st.data())
def test_another_class_order_moves_images_and_loses_none(sets, task, data):
    steps = split_or_skip(sets, task, "disjoint")
    used = iter(data.draw(st.permutations(task.used)))
    other = Task("t", "d", CLASSES, tuple(tuple(next(used) for _ in s) for s in task.steps))
    turned = split_or_skip(sets, other, "disjoint")
    assert sorted(i for ids in turned.values() for i in ids) == sorted(
        i for ids in steps.values() for i in ids
    )


@given(presences, tasks(), st.sampled_from(SETUPS))
def test_joint_training_takes_every_image_of_any_step(sets, task, setup):
    steps = split_or_skip(sets, task, setup)
    assert partition(sets, task.merged(), setup) == {0: sorted(set().union(*steps.values()))}


@given(
    presences, tasks(), st.sampled_from(SETUPS), *[st.sampled_from(["background", "ignore"])] * 2
)
def test_labels_of_a_training_image_follow_its_step(sets, task, setup, unused, border):
    """Each shows a new class, none an old one unless sequential, and nothing is out of range."""
    task = replace(task, unused=unused)
    for step, ids in split_or_skip(sets, task, setup).items():
        table = training_table(task, step, setup, LabelPolicy(border=border))
        old = len(task.seen(step)) - len(task.steps[step])
        labelled = {*range(old + 1, task.num_classes(step))}
        for image_id in ids:
            labels = set(remap_labels(list(sets[image_id]), table).tolist())
            assert labels & labelled
            assert labels <= {0, VOID, *(range(task.num_classes(step)))}
            if setup == "sequential":
                shown_old = sets[image_id] & set(task.seen(step)[:old])
                assert len(labels & {*range(1, old + 1)}) == len(shown_old)
            else:
                assert not labels & {*range(1, old + 1)}


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


@pytest.mark.parametrize(
    "values, message",
    [
        (-1, "a mask holds -1, and mask values are 0 to 255; give it as its file stores it"),
        (300, "a mask holds 300, and mask values are 0 to 255"),
        (0.0, "mask values are float(64|32); give whole numbers of 0 to 255"),
        (True, "mask values are bool; give whole numbers"),
    ],
)
def test_remapped_are_mask_values_alone(values, message):
    """-1 was read as 255, void, as an index from the table's end."""
    table = training_table(get_task("voc", "15-1"), 1, "overlapped")
    with pytest.raises(UserError, match=message):
        remap_labels(np.full((2, 2), values), table)
    torch = pytest.importorskip("torch")
    with pytest.raises(UserError, match=message):
        remap_labels(torch.full((2, 2), values), table)


@pytest.mark.parametrize(
    "call",
    [
        lambda: partition({"x": {1}}, "6-4", "disjoint"),
        lambda: evaluation_ids({"x": {1}}, "6-4", 0),
        lambda: training_table("6-4", 0, "disjoint"),
        lambda: evaluation_table("6-4", 0),
    ],
)
def test_the_name_of_a_task_is_no_task(call):
    with pytest.raises(UserError, match="task is '6-4': give a Task, as get_task.* returns one"):
        call()


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
        for split in ("train_aug", "train", "val")
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


def check_voc_properties(train: Presence, val: Presence) -> None:
    """Whatever the task, also those for which no counts are published."""
    shown = dict(zip(train.ids, train.table, strict=True))
    for name in task_names("voc"):
        task = get_task("voc", name)
        disjoint, overlapped = (partition(train, task, s) for s in ("disjoint", "overlapped"))
        assert partition(train, task, "sequential") == disjoint, name
        assert sorted(i for ids in disjoint.values() for i in ids) == sorted(train.ids), name
        for step, new in enumerate(task.steps):
            some = {i for i in train.ids if shown[i][list(new)].any()}
            assert set(disjoint[step]) <= set(overlapped[step]) == some, (name, step)
            assert overlapped[step] == sorted(some) and disjoint[step] == sorted(disjoint[step])
        counts = [len(evaluation_ids(val, task, step)) for step in range(task.num_steps)]
        assert counts == sorted(counts) and counts[-1] == len(val.ids) == 1449, name


def test_published_voc_counts(published):
    assert [len(found.ids) for found in published.values()] == [10582, 1464, 1449]
    check_voc_counts(published["train_aug"], published["val"])
    check_voc_properties(published["train_aug"], published["val"])


def check_published_form(train: Presence, official: list[str], folder: Path) -> None:
    """Positions in the official list, as MiB saves them, and its lines of two paths."""
    task = get_task("voc", "15-1")
    steps = partition(train, task, "overlapped")
    lines = [f"/JPEGImages/{i}.jpg /SegmentationClassAug/{i}.png\n" for i in official]
    (folder / "txt").mkdir()
    for step, file in enumerate(write_lists(steps, train.ids, folder / "npy", "npy")):
        positions = np.load(file, allow_pickle=False)
        assert [official[n] for n in positions] == steps[step]
        assert (np.diff(positions) > 0).all()
        (folder / "txt" / f"train-{step}.txt").write_text(
            "".join(lines[n] for n in positions), "utf-8"
        )
    for form in ("npy", "txt"):
        assert read_lists(folder / form, train, task) == steps


def test_real_voc_masks(tmp_path, published, masks_read):
    folder = os.environ.get("SPARCL_TEST_DATA")
    if not folder:
        pytest.skip("SPARCL_TEST_DATA is not set: no real masks to scan")
    source = voc_source(unpack_real_masks(folder, tmp_path))
    train, val = (scan(source, split, progress=False) for split in ("train", "val"))
    assert len(masks_read) == len(train.ids) + len(val.ids)
    again = scan(source, "train", progress=False)
    assert len(masks_read) == len(train.ids) + len(val.ids)  # none is read again
    assert again.ids == train.ids and (again.table == train.table).all()
    check_voc_counts(train, val)
    check_voc_properties(train, val)
    lists = Path(folder, "voc_lists")
    check_published_form(train, (lists / "train_aug.txt").read_text("utf-8").split(), tmp_path)
    official = set((lists / "train.txt").read_text("utf-8").split())
    rows = [image_id in official for image_id in train.ids]
    of_voc = Presence(tuple(i for i in train.ids if i in official), train.table[rows])
    for found, name in ((train, "train_aug"), (of_voc, "train"), (val, "val")):
        assert sorted(map(tuple, found.table[:, 1:21])) == sorted(
            map(tuple, published[name].table[:, 1:21])
        )
