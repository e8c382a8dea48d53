"""Images held out of train: settings are chosen by them, and the test images see none of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from custom_data import SMALL, describe, save_pair, street_mask
from fabricated_runs import make_run, voc_run
from PIL import Image

from sparcl_lib.config import RunConfig, parse_settings, resolve
from sparcl_lib.data import Presence, hold_out, write_lists
from sparcl_lib.errors import UserError
from sparcl_lib.experiments.store import run_keys
from sparcl_lib.report import load_runs, render, results_table, results_text, steps_text
from sparcl_lib.training import evaluate, train
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.training.workspace import open_workspace

HELD = {"test": {"images": "crop", "size": 64, "held_out": 0.2}}
SHARE = "data.held_out=0.3"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """24 training images that show all classes, and two test images."""
    root = tmp_path_factory.mktemp("held")
    for split, count in (("train", 24), ("val", 2)):
        for n in range(count):
            name, folder = f"{split}{n}.png", root / f"{split}annot"
            save_pair(root / split / name, folder / name, street_mask(n, [0, 1, 2, 3]))
    describe(root, classes=["background", "a", "b", "c"])
    return root


@pytest.fixture
def configured(root) -> Callable[..., RunConfig]:
    def make(*settings: str, method: str = "FT", steps: str = "[[a], [b, c]]") -> RunConfig:
        plain = parse_settings([*SMALL, "model.weights=null", *settings])
        task = root / f"task{len(steps)}.yaml"
        task.write_text(f"name: mine\nsteps: {steps}\n", "utf-8")
        data = str(root / "data.yaml")
        return resolve(data, method, [plain], task=str(task), setup="overlapped")

    return make


def opened(config: RunConfig):
    return open_workspace(config, progress=False)


# The rule
def test_an_id_decides_whatever_else_is_there():
    ids = [f"2007_{n:06}" for n in range(2000)]
    whole = Presence.from_sets({i: {n % 5} for n, i in enumerate(ids)})
    some = Presence.from_sets({i: {1} for i in reversed(ids[:100])})
    kept, held = hold_out(whole, 0.2)
    assert 360 < len(held.ids) < 440 and sorted(kept.ids + held.ids) == ids
    assert set(hold_out(some, 0.2)[1].ids) == set(held.ids) & set(some.ids)
    assert set(held.ids) < set(hold_out(whole, 0.3)[1].ids)
    assert hold_out(whole, 0.0)[1].ids == () and hold_out(whole, 1.0)[0].ids == ()


def test_rows_stay_with_their_images():
    table = np.zeros((50, 256), bool)
    table[np.arange(50), np.arange(50)] = True
    sizes = np.stack([np.arange(50), np.arange(50)], axis=1)
    whole = Presence(tuple(map(str, range(50))), table, sizes)
    for part in hold_out(whole, 0.5):
        numbers = [int(i) for i in part.ids]
        assert part.table.argmax(axis=1).tolist() == part.sizes[:, 0].tolist() == numbers


# The run
def test_no_image_is_trained_and_tested_and_none_of_val_is_touched(configured):
    plain, held = opened(configured()), opened(configured(SHARE))
    assert held.test_split == "train" and plain.test_split == "val"
    tested = set(held.evaluation_ids[1])
    for step, ids in held.train_ids.items():
        assert set(ids) == set(plain.train_ids[step]) - tested
    assert 2 < len(tested) < 15 and tested < set(plain.train_ids[1])
    assert set(held.picture_ids) <= tested
    assert {i.startswith("val") for i in plain.evaluation_ids[1]} == {True}


@pytest.mark.parametrize(
    ("others", "names"),
    [
        ((), {"method": "SDR"}),
        ((), {"method": "Joint"}),
        ((), {"steps": "[[b, c], [a]]"}),
        ((), {"steps": "[[c], [b], [a]]"}),
        (("seed=7",), {}),
    ],
)
def test_they_are_the_same_for_all(configured, others, names):
    ours = opened(configured(SHARE, *others, **names))
    assert ours.evaluation_ids[0] or ours.method.joint
    assert [*ours.evaluation_ids.values()][-1] == opened(configured(SHARE)).evaluation_ids[1]


def test_lists_of_ones_own_lose_them_too(root, configured, tmp_path):
    """Positions in a list are those of the whole of train."""
    whole = opened(configured())
    train_list = sorted(f"train{n}" for n in range(24))
    write_lists(whole.train_ids, train_list, tmp_path / "lists", "npy")
    listed = opened(configured(SHARE, f"data.splits={tmp_path / 'lists'}"))
    assert listed.train_ids == opened(configured(SHARE)).train_ids
    assert not [line for line in listed.remarks if "the list of step" in line]


def test_a_share_that_leaves_nothing_is_named(root, configured, tmp_path):
    with pytest.raises(UserError, match="data.held_out must be at least 0 and at most 0.9, got 1"):
        configured("data.held_out=1")
    lists = tmp_path / "lists"
    lists.mkdir()
    held = opened(configured(SHARE)).evaluation_ids[1]
    (lists / "train-0.txt").write_text("\n".join(held), "utf-8")
    (lists / "train-1.txt").write_text("\n".join(f"train{n}" for n in range(24)), "utf-8")
    message = rf"data.held_out=0.3 leaves step 0 .* no image of {len(held)}: set a smaller share"
    with pytest.raises(UserError, match=message):
        opened(configured(SHARE, f"data.splits={lists}"))
    with pytest.raises(UserError, match="no test image for step 0"):
        opened(configured("data.held_out=0.0001"))


def test_keys_are_others_and_those_of_nothing_held_out_stay(configured):
    plain, held = run_keys(configured()), run_keys(configured(SHARE))
    assert plain.run != held.run and plain.first != held.first
    assert run_keys(configured("data.held_out=0")) == plain


def test_a_run_is_tested_on_them_again_and_again(root, configured, tmp_path):
    folder = tmp_path / "run"
    metrics = train(configured(SHARE), folder, accelerator="cpu")
    tested = opened(configured(SHARE)).evaluation_ids[1]
    assert metrics["test"] == {"images": "crop", "size": 32, "held_out": 0.3}
    assert metrics["test_images"]["1"] == len(tested)
    assert evaluate(folder, accelerator="cpu") == metrics
    mask = root / "trainannot" / f"{tested[0]}.png"
    before = mask.read_bytes()
    try:
        Image.fromarray(street_mask(99, [0, 1, 2, 3])).save(mask)
        with pytest.raises(UserError, match=rf"mask .*{tested[0]}.png was redrawn"):
            evaluate(folder, accelerator="cpu")
    finally:
        mask.write_bytes(before)


# What reports say
def test_reports_say_what_was_tested():
    run = make_run("FT", pictures=False, **HELD)
    words = "the centre squares of the training images that were held out (20 %), 64 pixels wide"
    assert f"tested on {words})" in steps_text(run.metrics)
    assert f"Tested are {words}." in render([run], "html")
    assert words in results_text([run]) and words in render([run], "md")
    assert results_table([run])["test"].tolist() == ["crop, held out 0.2"]
    page = render([make_run("FT", **HELD)], "html")
    assert "6 held-out images" in page and "est images" not in page


def test_no_published_number_stands_beside_one_of_held_out_images():
    assert results_table([voc_run("FT", **HELD)])["published_all"].isna().all()


def test_they_share_no_table_with_test_images(tmp_path):
    for name, test in (("val", {}), ("held", HELD)):
        run = make_run("MiB" if test else "FT", pictures=False, **test)
        RunDirectory(tmp_path / name).save_metrics(run.metrics)
    with pytest.raises(UserError, match="cannot share a table: their test differ; report them"):
        load_runs([tmp_path / "val", tmp_path / "held"])
