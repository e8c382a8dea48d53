"""ADE20K from its own layout: every task and order, and training with either meaning of value 0."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml
from custom_data import QUICK, save_pair

from sparcl_lib.cli import main
from sparcl_lib.data import evaluation_ids, open_source, partition, scan
from sparcl_lib.data.checking import check
from sparcl_lib.tasks import ADE_CLASSES, SETUPS, get_task, task_names

PUBLISHED = yaml.safe_load(
    (resources.files("sparcl_lib.published") / "ade_tasks.yaml").read_text("utf-8")
)
TASKS = [task for task in task_names("ade20k") if task != "offline"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """An image for each class, beside it value 0; one more of all even classes, of 1 and 150."""
    root = tmp_path_factory.mktemp("ade") / "ADEChallengeData2016"
    for split, short in (("training", "train"), ("validation", "val")):
        for c in range(1, 151):
            mask = np.zeros((24, 32), np.uint8)
            mask[:, 8:] = c
            _save(root, split, f"ADE_{short}_{c:08d}", mask)
    even = np.resize(np.arange(0, 151, 2), (24, 32)).astype(np.uint8)
    _save(root, "training", "ADE_train_00000999", even)
    ends = np.resize([1, 150], (24, 32)).astype(np.uint8)
    _save(root, "validation", "ADE_val_00000999", ends)
    return root.parent


def _save(root: Path, split: str, name: str, mask: np.ndarray) -> None:
    images, masks = root / "images" / split, root / "annotations" / split
    save_pair(images / f"{name}.jpg", masks / f"{name}.png", mask)


def test_every_file_is_found_and_legal(tree):
    lines = check(open_source("ade20k", tree), partial=True, progress=False)
    assert all(fine for fine, _ in lines)
    texts = [text for _, text in lines]
    assert "train: 151 masks decode, with values 0 to 150" in texts
    assert "val: 151 photographs decode and have the size of their mask" in texts


def test_the_tasks_are_those_of_the_literature():
    sizes = {"100-50": [100, 50], "100-10": [100, *[10] * 5], "50-50": [50] * 3,
             "100-5": [100, *[5] * 10]}  # fmt: skip
    assert set(PUBLISHED) == {n + o for n in ("100-50", "100-10", "50-50") for o in ("", "b", "c")}
    assert set(TASKS) == {*PUBLISHED, "100-5"}
    for name in TASKS:
        task = get_task("ade20k", name)
        assert [len(step) for step in task.steps] == sizes[name.rstrip("bc")]
        assert sorted(task.used) == list(range(1, 151))
        natural = name in sizes
        assert (list(task.used) == list(range(1, 151))) == natural
        if name in PUBLISHED:
            assert task.steps == tuple(map(tuple, PUBLISHED[name]))


@pytest.mark.parametrize("name", TASKS)
def test_steps_get_the_images_of_their_classes(tree, name):
    source = open_source("ade20k", tree)
    train, val = (scan(source, split, progress=False) for split in ("train", "val"))
    task = get_task("ade20k", name)
    for setup in SETUPS:
        steps = partition(train, task, setup)
        for step, new in enumerate(task.steps):
            expected = [f"ADE_train_{c:08d}" for c in sorted(new)]
            later = {c for classes in task.steps[step + 1 :] for c in classes}
            evens = set(range(2, 151, 2))
            if evens & set(new) and (setup == "overlapped" or not evens & later):
                expected.append("ADE_train_00000999")
            assert steps[step] == expected
    for step in range(task.num_steps):
        expected = [f"ADE_val_{c:08d}" for c in sorted(task.seen(step))]
        expected += ["ADE_val_00000999"] * bool({1, 150} & set(task.seen(step)))
        assert evaluation_ids(val, task, step) == expected


POLICIES = {
    # (zero, future): is any pixel of the truth background at test?
    ("background", "ignore"): True,
    ("ignore_at_test", "ignore"): False,
    ("ignore", "ignore"): False,
    ("ignore", "background"): True,
}


@pytest.mark.parametrize(("policy", "has_background"), POLICIES.items(), ids=map(str, POLICIES))
def test_training_with_either_meaning_of_value_0(tree, tmp_path, policy, has_background):
    zero, future = policy
    base = ["--dataset", "ade20k", "--data-root", str(tree), "--task", "100-50", "--method", "MiB"]
    rules = ["--set", f"data.zero={zero}", "--set", f"data.future={future}"]
    with pytest.raises(SystemExit) as stop:
        main(["train", *base, "--out", str(tmp_path / "run"), *QUICK, *rules])
    assert not stop.value.code
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))
    assert metrics["label_policy"] == {"border": "background", "future": future, "zero": zero}
    assert metrics["classes"] == [list(ADE_CLASSES[1:101]), list(ADE_CLASSES[101:])]
    first, last = metrics["steps"]
    assert (first["class_iou"]["background"] is not None) == has_background
    assert len(first["class_iou"]) == 101
    assert (first["miou_all"] == first["miou_all_no_bg"]) == (not has_background)
    assert last["class_iou"]["wall"] is not None and len(last["class_iou"]) == 151
