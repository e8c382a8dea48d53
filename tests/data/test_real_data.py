"""Real photographs and masks, where the variable SPARCL_TEST_DATA names their folder."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from conftest import unpack_real_masks

from sparcl_lib.cli import main
from sparcl_lib.config import resolve
from sparcl_lib.data import open_source, partition, scan
from sparcl_lib.tasks import get_task
from sparcl_lib.training import train

FOLDER = os.environ.get("SPARCL_TEST_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="SPARCL_TEST_DATA names no folder of real data")
STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"
SETTINGS = STUDIES / "real_one_by_one" / "settings.yaml"
TASK = STUDIES / "real_two_at_once" / "task.yaml"


def test_split_of_the_full_masks_needs_no_photographs_and_reads_each_mask_once(
    tmp_path, masks_read, capsys
):
    unpack_real_masks(FOLDER, tmp_path)
    expected = {
        "overlapped": [9568, 487, 299, 491, 500, 548],
        "disjoint": [8437, 378, 299, 420, 500, 548],
    }
    for setup, counts in expected.items():
        command = ["split", "--dataset", "voc", "--data-root", str(tmp_path), "--task", "15-5s"]
        with pytest.raises(SystemExit, match="^0$"):
            main([*command, "--setup", setup])
        assert [len(v) for v in json.loads(capsys.readouterr().out).values()] == counts
        assert len(masks_read) == len(set(masks_read)) == 10_582


def test_the_subset_is_cut_as_its_document_says():
    source = open_source("voc", FOLDER)
    task = get_task("voc", str(TASK))
    presence = scan(source, "train", progress=False)
    counts = {
        setup: [len(ids) for ids in partition(presence, task, setup).values()]
        for setup in ("disjoint", "overlapped")
    }
    assert counts["disjoint"][1] == counts["overlapped"][1]
    assert counts["disjoint"][0] < counts["overlapped"][0]
    assert counts["disjoint"] == [2597, 560]


@pytest.mark.parametrize("method", ["SDR", "Joint"])
def test_real_photographs_train(method, tmp_path):
    small = {
        "data": {"size": 64, "batch_size": 4, "workers": 0},
        "optim": {"iterations": 3},
        "model": {"weights": str(Path(FOLDER, "weights", "mobilenet_v2_imagenet.pth"))},
    }
    overrides = [yaml.safe_load(SETTINGS.read_text("utf-8")), small]
    config = resolve("voc", method, overrides, task=str(TASK), setup="disjoint", data_root=FOLDER)
    metrics = train(config, tmp_path / "run", accelerator="cpu")
    assert metrics["steps"][-1]["miou_all"] > 0
    state = torch.load(tmp_path / "run" / "step-0" / "checkpoint.pt", weights_only=True)
    assert state["confusion"].sum() > 0
    assert all(torch.isfinite(v).all() for v in state["model"].values())
