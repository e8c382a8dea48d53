"""MiniVOC: the layout, the bits, the counts per task, and what happens to an existing folder."""

import hashlib
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sparcl_lib.data.minivoc import EDITIONS, MINIVOC, MINIVOC20
from sparcl_lib.data.minivoc import generation as minivoc
from sparcl_lib.data.minivoc import scene as minivoc_scene
from sparcl_lib.errors import UserError
from sparcl_lib.tasks.classes import BACKGROUND_NAME, DATASET_CLASSES

# What asks for a folder of MiniVOC's own does not advise to delete anybody's data.
IN_USE = "is in use and holds no MiniVOC of these settings; name another folder, a new or an empty"
OLD, NEW = range(6), range(6, 10)  # columns of the presence matrix


def small(root, **changes):
    minivoc.generate(root, **{"train": 40, "val": 10, "progress": False, **changes})
    return root


def ids(root, split):
    return (root / f"ImageSets/Segmentation/{split}.txt").read_text("utf-8").split()


def masks(root, split="train_aug"):
    folder = root / "SegmentationClassAug"
    return np.stack([np.asarray(Image.open(folder / f"{name}.png")) for name in ids(root, split)])


def tree(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return small(tmp_path_factory.mktemp("tiny") / "minivoc")


@pytest.fixture(scope="session")
def full(tmp_path_factory):
    return minivoc.ensure_minivoc(tmp_path_factory.mktemp("full") / "minivoc", progress=False)


@pytest.fixture(scope="session")
def presence(full):
    """bool (2500, 10): is class column + 1 in the training image?"""
    flat = masks(full).reshape(2500, -1)
    return np.stack([(flat == c).any(1) for c in range(1, 11)], axis=1)


def test_layout_is_that_of_voc(tiny):
    assert ids(tiny, "train_aug") == [f"mini_{i:06d}" for i in range(1, 41)]
    assert ids(tiny, "val") == [f"mini_{i:06d}" for i in range(41, 51)]
    for name in ids(tiny, "train_aug") + ids(tiny, "val"):
        with (
            Image.open(tiny / f"JPEGImages/{name}.jpg") as photo,
            Image.open(tiny / f"SegmentationClassAug/{name}.png") as mask,
        ):
            assert (photo.mode, mask.mode) == ("RGB", "P")
            assert photo.size == mask.size == (64, 64)
            assert mask.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]


def test_masks_hold_every_class_and_the_border(tiny):
    assert set(np.unique(masks(tiny))) == {*range(11), 255}


@pytest.mark.parametrize("edition", EDITIONS.values(), ids=EDITIONS)
def test_an_edition_draws_the_classes_of_its_name(edition):
    assert (BACKGROUND_NAME, *edition.classes) == DATASET_CLASSES[edition.name]
    assert list(edition.often_together) == list(range(1, len(edition.classes) + 1))
    for known, others in edition.often_together.items():
        assert known not in others and set(others) <= set(edition.often_together)


def test_no_outline_is_another_ones(tmp_path):
    """Each of the twenty differs from each other in a tenth of what the two cover, or more."""
    v, u = np.mgrid[-1200:1201:20, -1200:1201:20]
    drawn = {name: outline(u, v) for name, outline in MINIVOC20.shapes.items()}
    for (a, one), (b, other) in itertools.combinations(drawn.items(), 2):
        assert (one != other).sum() > 0.1 * (one | other).sum(), (a, b)
        assert not one[[0, -1]].any() and not one[:, [0, -1]].any()


def test_a_border_parts_every_object_from_its_neighbours(tiny):
    every = masks(tiny).astype(int)
    for a, b in ((every[:, 1:], every[:, :-1]), (every[:, :, 1:], every[:, :, :-1])):
        assert ((a == b) | (a == 255) | (b == 255)).all()


def test_border_is_one_pixel_wide_and_outside_the_object():
    owner = np.zeros((7, 7), int)
    owner[2:5, 2:5] = 1
    border = minivoc_scene._border(owner)
    assert border.sum() == 12 and not border[owner == 1].any()


def test_photo_survives_jpeg(tiny):
    drawn, _ = minivoc.sample(np.random.RandomState([0, 1]), 64, MINIVOC)
    stored = np.asarray(Image.open(tiny / "JPEGImages/mini_000001.jpg"))
    assert abs(drawn.astype(int) - stored).mean() < 8


def test_same_settings_give_the_same_bytes(tiny, tmp_path):
    again = small(tmp_path / "again")
    assert tree(again) == tree(tiny)
    assert minivoc.checksum(again) == minivoc.checksum(tiny)


def test_another_seed_gives_another_checksum(tiny, tmp_path):
    other = small(tmp_path / "other", seed=1, train=5, val=2)
    assert minivoc.checksum(other) != minivoc.checksum(tiny)
    assert not np.array_equal(masks(other)[0], masks(tiny)[0])


@pytest.mark.parametrize("size", [32, 96, 101])
def test_sample_draws_any_size(size):
    photo, mask = minivoc.sample(np.random.RandomState(3), size, MINIVOC20)
    assert photo.shape == (size, size, 3) and mask.shape == (size, size)
    assert photo.dtype == mask.dtype == np.uint8


def test_second_run_does_nothing(tiny):
    before = (tiny / "minivoc.json").stat().st_mtime_ns
    small(tiny)
    assert minivoc.ensure_minivoc(tiny) == tiny
    assert (tiny / "minivoc.json").stat().st_mtime_ns == before


def test_an_empty_folder_is_filled(tmp_path):
    minivoc.verify(small(tmp_path, train=2, val=1))


def test_refuses_a_folder_in_use(tiny, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious", "utf-8")
    for root, train in ((tmp_path, 40), (tmp_path / "thesis.txt", 40), (tiny, 41)):
        with pytest.raises(UserError, match=IN_USE) as caught:
            small(root, train=train)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot read .*name another folder"):
        small(tmp_path / ("x" * 300))


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"train": 0}, {"val": 0}, {"size": 8}])
def test_refuses_numbers_out_of_range(tmp_path, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        small(tmp_path / "never", **wrong)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(rng, size, edition):
        raise KeyboardInterrupt

    monkeypatch.setattr(minivoc, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "half")
    assert not list(tmp_path.iterdir())


def test_verify_notices_a_changed_and_a_missing_mask(tmp_path):
    root = small(tmp_path / "minivoc", train=2, val=1)
    minivoc.verify(root)
    path = root / "SegmentationClassAug/mini_000002.png"
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
    with pytest.raises(UserError, match="damaged"):
        minivoc.verify(root)
    path.unlink()
    with pytest.raises(UserError, match="damaged"):
        minivoc.verify(root)
    with pytest.raises(UserError, match="no MiniVOC"):
        minivoc.verify(tmp_path)


def test_two_processes_at_once_share_one_folder(tmp_path):
    code = (
        "import sys; from sparcl_lib.data.minivoc import generate;"
        "generate(sys.argv[1], train=40, val=10, progress=False)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "minivoc")]) for _ in range(2)
    ]
    assert [process.wait(60) for process in both] == [0, 0]
    minivoc.verify(tmp_path / "minivoc")
    assert [path.name for path in tmp_path.iterdir()] == ["minivoc"]


@pytest.fixture(scope="session")
def full_twenty(tmp_path_factory):
    root = tmp_path_factory.mktemp("full") / "minivoc20"
    return minivoc.ensure_minivoc(root, progress=False, edition=MINIVOC20)


@pytest.mark.parametrize("edition", EDITIONS.values(), ids=EDITIONS)
def test_default_set_is_the_same_everywhere(edition, request):
    full = request.getfixturevalue("full" if edition is MINIVOC else "full_twenty")
    assert minivoc.checksum(full) == edition.checksum
    minivoc.verify(full)
    info = json.loads((full / "minivoc.json").read_text("utf-8"))
    expected = (edition.train, edition.val, 64, 0)
    assert (info["train"], info["val"], info["size"], info["seed"]) == expected
    digest = hashlib.sha256()
    for split in ("train_aug", "val"):
        for name, mask in zip(ids(full, split), masks(full, split), strict=True):
            digest.update(f"{split} {name}\n".encode() + mask.tobytes())
    assert digest.hexdigest() == info["masks_checksum"]


def test_every_step_has_images_enough(presence):
    assert (~presence[:, NEW].any(1)).sum() >= 800  # disjoint, step 0
    for column in NEW:
        now, later = presence[:, column], presence[:, column + 1 :].any(1)
        assert (now & ~later).sum() >= 120  # 6-1 disjoint
        assert now.sum() >= 240  # 6-1 overlapped


def test_a_folder_of_another_edition_is_in_use(tiny):
    with pytest.raises(UserError, match="name another folder"):
        minivoc.ensure_minivoc(tiny, progress=False, edition=MINIVOC20)


@pytest.mark.parametrize(("first", "beside_old"), [(15, 0.6), (10, 0.25)])
def test_every_step_of_twenty_classes_has_images_enough(full_twenty, first, beside_old):
    flat = masks(full_twenty).reshape(5000, -1)
    presence = np.stack([(flat == c).any(1) for c in range(1, 21)], axis=1)
    old = presence[:, :first].any(1)
    assert (~presence[:, first:].any(1)).sum() >= 1500  # disjoint, step 0
    for column in range(first, 20):
        now, later = presence[:, column], presence[:, column + 1 :].any(1)
        assert (now & ~later).sum() >= 150  # disjoint, steps of one class
        assert (now & old).sum() >= beside_old * now.sum()


def test_old_and_new_classes_share_images(presence):
    both = presence[:, OLD].any(1) & presence[:, NEW].any(1)
    assert both.sum() >= 500
    assert (presence.sum(1) >= 1).all()
