"""Tasks by name and from files, training indices, label tables."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sparcl_lib.errors import UserError
from sparcl_lib.tasks import (
    ADE_CLASSES,
    BACKGROUND,
    DATASET_CLASSES,
    MINIVOC_CLASSES,
    PLOP_POLICY,
    SDR_POLICY,
    SETUPS,
    VOC_CLASSES,
    VOID,
    LabelPolicy,
    Task,
    check_setup,
    dataset_classes,
    evaluation_table,
    get_task,
    shuffled_order,
    task_names,
    training_table,
)

TINY = ("background", "a", "b", "c", "d", "e")


def sizes(task: Task) -> list[int]:
    return [len(step) for step in task.steps]


def tiny_task(**changes) -> Task:
    values = {"name": "t", "dataset": "tiny", "classes": TINY, "steps": ((4, 1), (3,), (2,))}
    return Task(**{**values, **changes})


@st.composite
def tasks(draw) -> Task:
    """Tasks on up to nine classes, some unused, in any order and in steps of any size."""
    classes = ("background", *"abcdefghi"[: draw(st.integers(1, 9))])
    order = draw(st.permutations(range(1, len(classes))))
    used = order[: draw(st.integers(1, len(order)))]
    cuts = sorted(draw(st.sets(st.integers(1, len(used)))) | {0, len(used)})
    steps = tuple(tuple(used[a:b]) for a, b in itertools.pairwise(cuts))
    return Task("t", "d", classes, steps, draw(st.sampled_from(["background", "ignore"])))


def test_class_lists():
    counts = {"minivoc": 11, "minivoc20": 21, "voc": 21, "ade20k": 151}
    assert {name: len(DATASET_CLASSES[name]) for name in counts} == counts
    for names in DATASET_CLASSES.values():
        assert names[0] == "background" and len(set(names)) == len(names)
    assert list(VOC_CLASSES[1:]) == sorted(VOC_CLASSES[1:])
    assert (VOC_CLASSES[5], VOC_CLASSES[15], VOC_CLASSES[20]) == ("bottle", "person", "tvmonitor")
    assert (ADE_CLASSES[1], ADE_CLASSES[13], ADE_CLASSES[150]) == ("wall", "person", "flag")
    assert MINIVOC_CLASSES[1:4] == ("disc", "square", "triangle")
    assert dataset_classes("voc") is VOC_CLASSES


@pytest.mark.parametrize(
    ("dataset", "name", "expected"),
    [
        ("voc", "offline", [20]),
        ("voc", "19-1", [19, 1]),
        ("voc", "15-5", [15, 5]),
        ("voc", "15-1", [15] + 5 * [1]),
        ("voc", "10-10", [10, 10]),
        ("voc", "10-1", [10] + 10 * [1]),
        ("voc", "19-1b", [19, 1]),
        ("voc", "10-5", [10, 5, 5]),
        ("voc", "5-3", [5, 3, 3, 3, 3, 3]),
        ("voc", "2-1", [2] + 18 * [1]),
        ("voc", "2-2", 10 * [2]),
        ("minivoc", "offline", [10]),
        ("minivoc", "6-4", [6, 4]),
        ("minivoc", "6-1", [6, 1, 1, 1, 1]),
        ("minivoc", "6-2", [6, 2, 2]),
        ("ade20k", "offline", [150]),
        ("ade20k", "100-50", [100, 50]),
        ("ade20k", "100-10", [100] + 5 * [10]),
        ("ade20k", "50-50", [50, 50, 50]),
        ("ade20k", "100-5", [100] + 10 * [5]),
        ("ade20k", "100-10b", [100] + 5 * [10]),
        ("ade20k", "50-50c", [50, 50, 50]),
    ],
)
def test_step_sizes(dataset, name, expected):
    task = get_task(dataset, name)
    assert sizes(task) == expected
    assert sorted(task.used) == list(range(1, len(task.classes)))
    assert task.name == name and name in task_names(dataset)


def test_natural_order_except_bottle_last():
    assert get_task("voc", "15-1").used == tuple(range(1, 21))
    assert get_task("voc", "19-1b").steps[1] == (5,)
    assert get_task("voc", "19-1b").class_names(1)[-1] == "bottle"


def test_every_listed_task_exists():
    for dataset in DATASET_CLASSES:
        for name in task_names(dataset):
            assert get_task(dataset, name).dataset == dataset
    assert len(task_names("ade20k")) == 11


@pytest.mark.parametrize("name", ["100-50", "100-10", "50-50"])
def test_ade_rule_is_the_published_natural_order(name):
    from importlib import resources

    text = (resources.files("sparcl_lib.published") / "ade_tasks.yaml").read_text("utf-8")
    published = yaml.safe_load(text)[name]
    assert [list(step) for step in get_task("ade20k", name).steps] == published


def test_names_in_code_are_the_same_task():
    assert get_task("voc", "15-5s") == get_task("voc", "15-1")
    assert get_task("voc", "10-10s") == get_task("voc", "10-1")
    assert get_task("voc", "15-5s_b") == get_task("voc", "15-1b")
    for name in ("15-5s_", "15-5s_z", "10-10s_b", "15-5sb"):
        with pytest.raises(UserError, match=f"unknown task of voc '{name}'"):
            get_task("voc", name)


def test_the_other_orders_of_15_1_are_all_different():
    tasks = [get_task("voc", f"15-1{letter}") for letter in ("", *"bcdefghijklmnopqrstuvw")]
    assert len({task.used for task in tasks}) == 23
    for task in tasks:
        assert sizes(task) == [15, 1, 1, 1, 1, 1]
        assert sorted(task.used) == list(range(1, 21))
    assert tasks[1].class_names(5)[-5:] == ("sheep", "bird", "bus", "sofa", "cow")


def test_a_shuffled_order_is_the_same_everywhere_and_another_for_each_number():
    task = get_task("minivoc", "6-4")
    assert shuffled_order(task, 1) == (1, 6, 3, 5, 7, 4, 9, 8, 10, 2)
    orders = {shuffled_order(task, number) for number in range(200)}
    assert len(orders) == 200
    last = [order[-1] for order in orders]
    assert all(8 <= last.count(c) <= 34 for c in task.used)  # 20 of 200 on average
    # The order that a task has already does not matter, nor do its sizes.
    assert shuffled_order(get_task("minivoc", "6-1", order=[*range(10, 0, -1)]), 1) == (
        shuffled_order(task, 1)
    )


def test_training_indices():
    task = tiny_task()
    assert task.num_steps == 3
    assert task.used == (4, 1, 3, 2)
    assert task.seen(1) == (4, 1, 3)
    assert [task.num_classes(k) for k in range(3)] == [3, 4, 5]
    assert task.class_names(1) == ("background", "d", "a", "c")


@given(tasks())
def test_merged_keeps_training_indices(task):
    last = task.num_steps - 1
    merged = task.merged()
    assert merged.num_steps == 1 and merged.name == task.name
    assert merged.class_names(0) == task.class_names(last)
    assert (evaluation_table(merged, 0) == evaluation_table(task, last)).all()


@pytest.mark.parametrize("step", [-1, 3])
def test_step_out_of_range(step):
    with pytest.raises(UserError, match=f"task 't' has no step {step}; valid steps: 0 to 2"):
        tiny_task().check_step(step)
    with pytest.raises(UserError, match="has no step"):
        tiny_task().seen(step)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": ((1, 2), (2,))}, r"'t' on 'tiny': class 2 \(b\) is learned twice"),
        ({"steps": ((1, 1),)}, r"class 1 \(a\) is learned twice"),
        ({"steps": ((0, 1),)}, "0 is not a class id; valid ids: 1 to 5"),
        ({"steps": ((6,),)}, "6 is not a class id"),
        ({"steps": ((-1,),)}, "-1 is not a class id"),
        ({"steps": ((True,),)}, "True is not a class id"),
        ({"steps": ((1, [2]),)}, r"\[2\] is not a class id"),
        ({"steps": ((1,), ())}, "step 1 is empty"),
        ({"steps": ()}, "there are no steps"),
        ({"unused": "void"}, "unused is 'void'; use 'background' or 'ignore'"),
        ({"classes": ("a", "b")}, "first class must be 'background', not 'a'"),
        ({"classes": ()}, "first class must be 'background', not None"),
        ({"classes": ("background", "a", "a")}, "class name 'a' stands 2 times"),
        ({"classes": ("background", *map(str, range(255)))}, "255 classes are too many"),
    ],
)
def test_invalid_tasks(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        tiny_task(**changes)
    assert "\n" not in str(caught.value)


def test_unknown_names():
    with pytest.raises(
        UserError, match="unknown data set 'vox'; did you mean 'voc'. Valid: .*minivoc"
    ):
        get_task("vox", "15-5")
    with pytest.raises(UserError, match="unknown task of voc '15-6'; did you mean '15-5'.*1w, F"):
        get_task("voc", "15-6")
    with pytest.raises(UserError, match="unknown task of minivoc '15-5s'"):
        get_task("minivoc", "15-5s")
    with pytest.raises(UserError, match="unknown setup 'overlap'; did you mean 'overlapped'"):
        check_setup("overlap")
    for setup in SETUPS:
        assert check_setup(setup) is None


def test_order():
    order = list(range(20, 0, -1))
    task = get_task("voc", "15-5", order=np.array(order))
    assert task.used == tuple(order) and sizes(task) == [15, 5]
    assert all(type(c) is int for c in task.used)


@pytest.mark.parametrize("order", [range(1, 20), [1] * 20, range(20)])
def test_order_must_be_a_permutation(order):
    with pytest.raises(UserError, match="not a permutation of the 20 class ids of task '15-5'"):
        get_task("voc", "15-5", order=order)


def test_classes_of_ones_own():
    assert get_task("mine", "offline", classes=TINY).steps == ((1, 2, 3, 4, 5),)
    with pytest.raises(UserError, match="unknown task of mine '2-1'.* Valid: offline, FILE.yaml"):
        get_task("mine", "2-1", classes=TINY)


def write(path, content) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
    return str(path)


def test_task_file(tmp_path):
    content = {"steps": [["dog", "cat"], [15, "bus"]], "unused": "ignore"}
    task = get_task("voc", write(tmp_path / "pets.yaml", content))
    assert task == Task("pets", "voc", VOC_CLASSES, ((12, 8), (15, 6)), "ignore")
    named = get_task("voc", write(tmp_path / "b.yml", {**content, "name": "x", "dataset": "voc"}))
    assert named.name == "x"
    own = get_task("mine", write(tmp_path / "c.yml", {"steps": [["e"], ["a"]]}), classes=TINY)
    assert own.steps == ((5,), (1,)) and own.unused == "background"
    turned = get_task("mine", str(tmp_path / "c.yml"), order=[1, 5], classes=TINY)
    assert turned.steps == ((1,), (5,))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"stepz": [["cat"]]}, "unknown key in task file .*t.yaml: 'stepz'; did you mean 'steps'"),
        ({"steps": [["cta"]]}, "unknown class in task file .*t.yaml: 'cta'; did you mean 'cat'"),
        ({"steps": [["cat"]], "dataset": "ade20k"}, "is for dataset 'ade20k', not 'voc'"),
        ({"steps": ["cat"]}, "'steps' must be a list of lists"),
        ({"name": "x"}, "'steps' must be a list of lists"),
        ({"steps": [["cat"], ["cat"]]}, r"t.yaml: task 't' on 'voc': class 8 \(cat\) is learned"),
        ({"steps": [["background"]]}, "t.yaml: every step learns background; leave it out"),
        ({"steps": [[0]]}, "0 is not a class id"),
        ({"steps": [["cat"]], "unused": "drop"}, "unused is 'drop'"),
        ({"steps": [["cat", [1]]]}, r"\[1\] is not a class id"),
        ("- cat\n", "must hold keys: name, dataset, steps, unused"),
        ("steps: [[\n", "cannot read task file .*t.yaml as YAML: line 2, column 1: .*; correct it"),
    ],
)
def test_bad_task_files(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        get_task("voc", write(tmp_path / "t.yaml", content))
    assert "\n" not in str(caught.value)


def test_numbers_in_a_task_file_of_ones_own_data_are_refused(tmp_path):
    """They were places in the list of classes; whoever meant mask values learned other classes."""
    file = write(tmp_path / "t.yaml", {"steps": [["a"], [5]]})
    with pytest.raises(UserError, match="5 is no class name, and numbers could mean masks or plac"):
        get_task("mine", file, classes=TINY)


def test_missing_task_file(tmp_path):
    with pytest.raises(
        UserError, match="cannot read task file .*no.yaml: No such .*; correct the path"
    ):
        get_task("voc", str(tmp_path / "no.yaml"))


ZEROS = ("background", "ignore", "ignore_at_test")


def slow_training_label(task, step, setup, policy, value) -> int:
    """The table of the setups, one pixel at a time."""
    if value == 255:
        return 0 if policy.border == "background" else 255
    if value == 0:
        return 255 if policy.zero == "ignore" else 0
    if value >= len(task.classes):
        return 255
    for k, new in enumerate(task.steps):
        if value in new:
            visible = k == step or (k < step and setup == "sequential")
            return 1 + task.used.index(value) if visible else 0
    return 0 if task.unused == "background" else 255


def slow_evaluation_label(task, step, policy, value) -> int:
    if value == 0:
        return 0 if policy.zero == "background" else 255
    if value >= len(task.classes):
        return 255
    for k, new in enumerate(task.steps):
        if value in new and k <= step:
            return 1 + task.used.index(value)
        if value in new:
            return 0 if policy.future == "background" else 255
    return 0 if task.unused == "background" else 255


@given(tasks(), st.data())
def test_label_tables_follow_the_rule(task, data):
    step = data.draw(st.integers(0, task.num_steps - 1))
    setup = data.draw(st.sampled_from(SETUPS))
    policy = data.draw(st.sampled_from([SDR_POLICY, PLOP_POLICY]))
    policy = replace(policy, zero=data.draw(st.sampled_from(ZEROS)))
    train = training_table(task, step, setup, policy)
    test = evaluation_table(task, step, policy)
    assert train.dtype == test.dtype == np.uint8
    values = range(256)
    assert train.tolist() == [slow_training_label(task, step, setup, policy, v) for v in values]
    assert test.tolist() == [slow_evaluation_label(task, step, policy, v) for v in values]


def test_label_tables_by_hand():
    task = tiny_task()
    assert training_table(task, 1, "overlapped")[[0, 1, 2, 3, 4, 5, 255]].tolist() == [
        0, 0, 0, 3, 0, 0, BACKGROUND,
    ]  # fmt: skip
    assert training_table(task, 1, "sequential", PLOP_POLICY)[[1, 2, 3, 4, 255]].tolist() == [
        2, 0, 3, 1, VOID,
    ]  # fmt: skip
    assert evaluation_table(task, 1)[[0, 1, 2, 3, 4, 5, 255]].tolist() == [
        0, 2, VOID, 3, 1, 0, VOID,
    ]  # fmt: skip
    assert evaluation_table(task, 1, PLOP_POLICY)[2] == BACKGROUND
    assert evaluation_table(tiny_task(unused="ignore"), 1)[5] == VOID


def test_label_errors():
    with pytest.raises(UserError, match="unknown setup 'disjont'; did you mean 'disjoint'"):
        training_table(tiny_task(), 0, "disjont")
    with pytest.raises(UserError, match="no step 3"):
        training_table(tiny_task(), 3, "disjoint")
    with pytest.raises(UserError, match="no step 3"):
        evaluation_table(tiny_task(), 3)
    with pytest.raises(UserError, match="unknown label policy for border 'ignored'; did you mean"):
        LabelPolicy(border="ignored")
    with pytest.raises(UserError, match="unknown label policy for future 'no'. Valid: backgr"):
        LabelPolicy(future="no")
    with pytest.raises(UserError, match="unknown label policy for zero 'ignored'; did you mean"):
        LabelPolicy(zero="ignored")
    with pytest.raises(UserError, match="unknown label policy for border 'ignore_at_test'"):
        LabelPolicy(border="ignore_at_test")
