"""Tests on whole images: nothing is cut off, whatever their sizes, and reports say so."""

from pathlib import Path

import numpy as np
import pytest
import torch
from custom_data import SMALL, describe, save_pair, street_mask
from fabricated_runs import make_run, voc_run
from PIL import Image
from torch import nn

from sparcl_lib import load_run
from sparcl_lib.config import resolve
from sparcl_lib.data import ImageReader, SegmentationDataset, open_source, pixels
from sparcl_lib.data.loading.dataset import whole_image_batches
from sparcl_lib.data.loading.transforms import whole_image
from sparcl_lib.data.masks import read_values
from sparcl_lib.errors import UserError
from sparcl_lib.models import NetworkSpec, build_segmenter, predict, predict_whole
from sparcl_lib.prediction import predict_photographs
from sparcl_lib.report import load_runs, render, results_table, results_text, steps_text
from sparcl_lib.training import evaluate, train
from sparcl_lib.training.workspace import open_workspace

SIZES = [(36, 48), (48, 36), (36, 120), (18, 18), (36, 48), (114, 30)]
"""Heights and widths of the test images."""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Class c appears at the left edge of a wide image alone, where no centre square reaches."""
    root = tmp_path_factory.mktemp("sizes")
    for n in range(6):
        mask = street_mask(n, [0, 1, 2, 3])
        save_pair(root / "train" / f"t{n}.png", root / "trainannot" / f"t{n}.png", mask)
    for n, shape in enumerate(SIZES):
        mask = street_mask(n, [0, 1, 2, 255], shape)
        if n == 2:
            mask[:, :6] = 3
        save_pair(root / "val" / f"v{n}.png", root / "valannot" / f"v{n}.png", mask)
    describe(root, classes=["background", "a", "b", "c"])
    (root / "task.yaml").write_text("name: mine\nsteps: [[a], [b, c]]\n", "utf-8")
    return root


def configured(root: Path, *settings: str):
    from sparcl_lib.config import parse_settings

    plain = parse_settings([*SMALL, "model.weights=null", *settings])
    return resolve(
        str(root / "data.yaml"), "FT", [plain], task=str(root / "task.yaml"), setup="overlapped"
    )


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(configured(root, "data.test=whole"), folder, accelerator="cpu")
    return load_run(folder)


def test_every_labelled_pixel_of_every_test_image_counts(root, run):
    source = open_source(str(root / "data.yaml"))
    labelled = sum(
        int((read_values(source.mask("val", i)) != 255).sum()) for i in source.ids("val")
    )
    assert run.confusion().sum() == labelled
    assert run.confusion()[3].sum() == 36 * 6  # of the class at the edge
    assert run.metrics["test"] == {"images": "whole", "size": None, "held_out": 0}


def test_squares_leave_pixels_and_a_class_out(root, tmp_path):
    metrics = train(configured(root), tmp_path, accelerator="cpu")
    confusion = load_run(tmp_path).confusion()
    assert metrics["test"] == {"images": "crop", "size": 32, "held_out": 0}
    assert confusion[3].sum() == 0 and confusion.sum() <= 6 * 32 * 32


def test_a_prediction_of_the_photographs_has_the_numbers_of_the_test(root, run):
    source = open_source(str(root / "data.yaml"))
    ids = source.ids("val")
    found = np.zeros_like(run.confusion())
    maps = run.predict([source.photo("val", i) for i in ids], device="cpu")
    for image_id, labels in zip(ids, maps, strict=True):
        truth = read_values(source.mask("val", image_id))
        np.add.at(found, (truth[truth < 255], labels[truth < 255]), 1)
    assert np.array_equal(found, run.confusion())


def test_an_evaluation_again_gives_the_same(run):
    before = run.metrics
    assert evaluate(run.folder, accelerator="cpu") == before


def test_pictures_are_squares_still(run):
    pictures = run.directory.predictions(1)
    assert pictures["images"].shape[1:] == (32, 32, 3)


@pytest.mark.parametrize("unknown", [False, True])
def test_classes_one_by_one_are_those_of_all_at_once(unknown):
    torch.manual_seed(0)
    spec = NetworkSpec(
        "mini", (4, 3), output_stride=4, head="conv", head_channels=8, unknown=unknown
    )
    model, images = build_segmenter(spec).train(), torch.randn(2, 3, 21, 50)
    for _ in range(50):
        model(images)  # batch norm sees them
    model.eval()
    assert torch.equal(predict_whole(model, images).long(), predict(model, images))
    assert len(predict(model, images).unique()) > 1


def test_batches_hold_images_of_one_size_and_few_pixels(root):
    source = open_source(str(root / "data.yaml"))
    ids = source.ids("val")
    table = np.arange(256, dtype=np.uint8)
    dataset = SegmentationDataset(ImageReader(source, "val"), ids, table, whole_image)
    sizes = [(width, height) for height, width in SIZES]
    for most, expected in ((2 * 36 * 48, 5), (36 * 48, 6), (1, 6)):
        batches = list(whole_image_batches(dataset, sizes, most, workers=0))
        shapes = [tuple(batch.labels.shape) for batch in batches]
        assert len(batches) == expected and sum(shape[0] for shape in shapes) == 6
        assert all(b.images.shape[2:] == b.labels.shape[1:] for b in batches)
        assert all(shape[0] == 1 or np.prod(shape) <= most for shape in shapes)
        assert sorted(s[1:] for s in shapes for _ in range(s[0])) == sorted(SIZES)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_share_the_images(root, world):
    workspace = open_workspace(configured(root, "data.test=whole"), progress=False)
    pixels_seen = 0
    for rank in range(world):
        for batch in workspace.evaluation_batches(1, rank, world):
            pixels_seen += batch.labels.numel()
    assert pixels_seen == sum(height * width for height, width in SIZES)


def test_the_limit_is_named_before_anything_is_trained(root, tmp_path, monkeypatch):
    assert pixels.MOST_WHOLE_PIXELS == 16_777_216 < 180_000_000
    monkeypatch.setattr(pixels, "MOST_WHOLE_PIXELS", 4000)
    message = (
        r"photograph .*v2.png has 4,320 pixels, and at most 4,000 go through a network at once; "
        "scale it down or cut it up, or use data.test=crop"
    )
    with pytest.raises(UserError, match=message):
        train(configured(root, "data.test=whole"), tmp_path / "out", accelerator="cpu")
    assert not (tmp_path / "out").exists()
    train(configured(root), tmp_path / "crop", accelerator="cpu", steps=[0])


def test_the_limit_holds_for_predictions(run, monkeypatch):
    monkeypatch.setattr(pixels, "MOST_WHOLE_PIXELS", 99)
    with pytest.raises(UserError, match="a photograph .* and at most 99 go through a network"):
        run.predict(np.zeros((10, 10, 3), np.uint8))


def test_the_limit_is_of_what_the_network_sees(tmp_path):
    """4 x 1000 pixels, with a shorter side of 512, were 65 million, and took 5.5 GiB."""
    Image.new("RGB", (1000, 4)).save(tmp_path / "thin.png")
    message = (
        r"photograph .*thin.png of 4 x 1000 with a shorter side of 512 has 65,536,000 pixels, and "
        "at most 16,777,216 go through a network at once; scale it down or cut it up$"
    )
    with pytest.raises(UserError, match=message):
        predict_photographs(nn.Identity(), [tmp_path / "thin.png"], 512, 1)


def test_a_side_at_test_has_no_meaning_for_whole_images():
    with pytest.raises(UserError, match="data.test_size must be empty where data.test is whole"):
        resolve("minivoc", "FT", [{"data": {"test": "whole", "test_size": 64}}], task="6-4")


# What reports say
WHOLE = {"test": {"images": "whole", "size": None}}


def test_reports_say_what_was_tested():
    crop = make_run("FT", pictures=False, test={"images": "crop", "size": 64})
    whole, old = make_run("FT", pictures=False, **WHOLE), make_run("FT", pictures=False)
    for run, test, words in (
        (crop, "crop", "the centre squares of the images, 64 pixels wide"),
        (whole, "whole", "whole images at their own resolution"),
        (old, "crop", "the centre squares of the images"),
    ):
        assert f"tested on {words})" in steps_text(run.metrics)
        assert f"Tested are {words}." in render([run], "html")
        assert results_table([run])["test"].tolist() == [test]
        assert ("whole images" in results_text([run])) is (test == "whole")
        assert ("whole images" in render([run], "md")) is (test == "whole")


def test_no_published_number_stands_beside_one_of_whole_images():
    assert voc_run("FT") and results_table([voc_run("FT")])["published_all"].notna().all()
    assert results_table([voc_run("FT", **WHOLE)])["published_all"].isna().all()


def test_runs_of_two_tests_do_not_share_a_table(tmp_path):
    from sparcl_lib.training.run_directory import RunDirectory

    for name, test in (("old", {}), ("whole", WHOLE)):
        run = make_run("MiB" if test else "FT", pictures=False, **test)
        RunDirectory(tmp_path / name).save_metrics(run.metrics)
    with pytest.raises(UserError, match="cannot share a table: their test differ; report them"):
        load_runs([tmp_path / "old", tmp_path / "whole"])
