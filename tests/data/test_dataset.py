"""Batches: image and mask stay in step, labels are looked up, processes share an epoch."""

import numpy as np
import pytest
import torch
from conftest import make_voc_tree
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from sparcl_lib.data import ImageReader, SegmentationDataset, training_transform, voc_source
from sparcl_lib.data.loading.dataset import (
    Draw,
    Draws,
    evaluation_batches,
    training_batches,
    worker_count,
)
from sparcl_lib.data.loading.transforms import evaluation_transform, normalise, to_rgb
from sparcl_lib.data.splits import remap_labels
from sparcl_lib.errors import UserError
from sparcl_lib.methods import salient

IDENTITY = np.arange(256, dtype=np.uint8)


@pytest.fixture
def tree(tmp_path):
    """Ten images of 48 x 32 whose grey value is ten times the mask's: left half 3, right half 5."""
    mask = np.full((32, 48), 3, dtype=np.uint8)
    mask[:, 24:] = 5
    make_voc_tree(tmp_path, {f"a{i}": mask for i in range(10)}, photo_suffix=".png")
    for photo in (tmp_path / "JPEGImages").iterdir():
        Image.fromarray(np.repeat(10 * mask[..., None], 3, axis=2)).save(photo)
    return tmp_path


def dataset(tree, transform, table=IDENTITY, cache=False) -> SegmentationDataset:
    reader = ImageReader(voc_source(tree), "train", cache)
    return SegmentationDataset(reader, reader.source.ids("train"), table, transform)


@pytest.mark.parametrize("scale", [(0.3, 1.0), (0.5, 2.0), None])
def test_image_and_mask_are_cropped_and_flipped_together(tree, scale):
    data = dataset(tree, training_transform(24, scale))
    left_is_three = set()
    for index in range(10):
        image, mask = data[index]
        assert image.shape == (3, 24, 24) and mask.shape == (24, 24)
        # Bilinear and nearest differ only next to the edge between the halves.
        agree = (image[0].float() / 10).round() == mask
        assert agree.float().mean() > 0.85
        assert set(mask.unique().tolist()) <= {3, 5}
        left_is_three.add(bool(mask[0, 0] == 3))
    assert left_is_three == {True, False}


def test_evaluation_takes_the_middle_of_the_whole_image(tree):
    _, mask = dataset(tree, evaluation_transform(16))[0]
    assert mask.shape == (16, 16)
    assert (mask[:, :8] == 3).all() and (mask[:, 8:] == 5).all()


def test_a_batch_is_normalised_and_its_labels_looked_up(tree):
    table = np.zeros(256, dtype=np.uint8)
    table[3], table[5] = 1, 255
    data = dataset(tree, evaluation_transform(16), table)
    (batch,) = evaluation_batches(data, batch_size=10, workers=0)
    assert batch.images.dtype == torch.float32 and batch.labels.dtype == torch.int64
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.unique().tolist() == [1, 255]
    assert (to_rgb(batch.images[0])[:, :, 0] == 30).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda images: normalise(images),
        lambda images: salient(images.float(), 1.0),
        lambda images: remap_labels(images[:, 0], torch.zeros(256, dtype=torch.uint8)),
    ],
    ids=["normalise", "salient", "labels"],
)
def test_nothing_is_copied_to_the_device_with_every_batch(call):
    class Named(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.add(function.__name__.partition(".")[0])
            return function(*args, **(kwargs or {}))

    called: set[str] = set()
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    with Named():
        call(images)
        made = called & {"lift_fresh", "lift_fresh_copy"}
        torch.tensor([1.0])
    assert not made and called & {"lift_fresh", "lift_fresh_copy"}  # the last line is seen


def test_normalise_is_what_torchvision_weights_expect():
    grey = torch.full((1, 3, 2, 2), 128, dtype=torch.uint8)
    expected = [(128 / 255 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    torch.testing.assert_close(normalise(grey)[0, :, 0, 0], torch.tensor(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_normalise_takes_bytes_alone(dtype):
    """Floats of 0 to 1 came out nearly constant, and the caller's own were written over."""
    images = torch.full((1, 3, 4, 4), 255).to(dtype)
    with pytest.raises(UserError, match=f"images must be uint8, 0 to 255, got {dtype}"):
        normalise(images)
    assert images.eq(255).all()


def test_cached_images_are_the_same_and_not_read_again(tree):
    data = dataset(tree, evaluation_transform(16), cache=True)
    first = data[0]
    (tree / "JPEGImages" / "a0.png").unlink()
    assert all(torch.equal(a, b) for a, b in zip(first, data[0]))


@pytest.mark.parametrize("world", [1, 2])
def test_processes_share_an_epoch_and_every_batch_is_full(tree, world):
    data = dataset(tree, training_transform(16, None))
    seen = []
    for rank in range(world):
        loader = training_batches(data, 2, iterations=5, workers=0, seed=1, rank=rank, world=world)
        assert len(loader) == 5
        seen.append([draw.position for draw in loader.loader.sampler])
    order = [index for together in zip(*seen) for index in together]
    assert sorted(order[:10]) == list(range(10)), "every image once in the first epoch"
    assert len(order) == 10 * world


@pytest.mark.parametrize("workers, start", [(0, None), (1, "spawn"), (2, None)])
def test_the_seed_alone_decides_the_batches_not_the_workers(tree, workers, start):
    data = dataset(tree, training_transform(16, (0.5, 1.0)))

    def batches(seed: int, workers: int = 0, start: str | None = None, iterations: int = 3):
        torch.manual_seed(workers)  # whatever the state of the process, too
        loader = training_batches(data, 2, iterations, workers, seed)
        if start:
            loader.loader.multiprocessing_context = start
        return [torch.stack(parts) for parts in zip(*loader)]

    images, labels = batches(1)
    again = batches(1, workers, start)
    assert torch.equal(images, again[0]) and torch.equal(labels, again[1])
    assert torch.equal(images, batches(1, iterations=12)[0][:3]), "also the first of a longer run"
    assert not torch.equal(images, batches(2)[0])


def test_loading_leaves_the_random_numbers_of_the_training_alone(tree):
    data = dataset(tree, training_transform(16, (0.5, 1.0)))
    state = torch.get_rng_state()
    data[Draw(0, 7)]
    assert torch.equal(torch.get_rng_state(), state)


def test_worker_count():
    assert worker_count(3, cache=True) == 3
    assert worker_count(None, cache=True) == 0
    assert 1 <= worker_count(None, cache=False) <= 16


@pytest.mark.parametrize(
    "environment, expected",
    [({}, 10), ({"LOCAL_WORLD_SIZE": "2"}, 16), ({"SLURM_PROCID": "1"}, 16)],
)
def test_processes_that_train_together_share_the_cores(monkeypatch, environment, expected):
    """Each of eight started as many loader processes as the machine has cores, or 16."""
    for name in ("LOCAL_WORLD_SIZE", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sparcl_lib.data.loading.dataset.cores", lambda: 80)
    assert worker_count(None, cache=False, world=8) == expected
    monkeypatch.setattr("sparcl_lib.data.loading.dataset.cores", lambda: 1)
    assert worker_count(None, cache=False, world=8) == 1


def test_ten_million_iterations_take_no_memory_before_the_first():
    draws = Draws(100, 10_000_000 * 4096, 3)
    assert len(draws) == 40_960_000_000
    first = [draw for draw, _ in zip(draws, range(150))]
    assert first == [draw for draw, _ in zip(draws, range(150))], "the same each time"
    assert sorted(draw.position for draw in first[:100]) == list(range(100))
    shared = [[*Draws(100, 150, 3, rank, 2)] for rank in range(2)]
    assert [draw for pair in zip(*shared, strict=True) for draw in pair] == first


def test_a_training_that_goes_on_draws_what_is_left(tree):
    for rank in range(2):
        whole, rest = [*Draws(7, 40, 3, rank, 2)], Draws(7, 40, 3, rank, 2, skipped=12)
        assert len(rest) == 8 and [*rest] == whole[12:]
    data = dataset(tree, training_transform(16, (0.5, 1.0)))
    batches = [*training_batches(data, 2, iterations=6, workers=0, seed=1)]
    left = [*training_batches(data, 2, iterations=6, workers=0, seed=1, done=4)]
    assert len(left) == 2
    for one, other in zip(batches[4:], left, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
