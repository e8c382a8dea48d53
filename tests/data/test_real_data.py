"""Real photographs and masks, where the variable SPARCL_TEST_DATA names their folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import unpack_real_masks

from sparcl_lib.config import resolve
from sparcl_lib.data import open_source, partition, scan
from sparcl_lib.tasks import get_task
from sparcl_lib.training import train

FOLDER = os.environ.get("SPARCL_TEST_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="SPARCL_TEST_DATA names no folder of real data")
STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"
SETTINGS = STUDIES / "real_one_by_one" / "settings.yaml"
TASK = STUDIES / "real_two_at_once" / "task.yaml"


def processor_seconds() -> float:
    """Of all subprocesses so far: what else runs on the machine does not count."""
    spent = os.times()
    return spent.children_user + spent.children_system


def test_split_of_the_full_masks_needs_no_photographs_and_is_instant_the_second_time(tmp_path):
    unpack_real_masks(FOLDER, tmp_path)
    seconds, outputs = [], []
    for setup in ("overlapped", "disjoint"):
        command = [sys.executable, "-m", "sparcl_lib", "split", "--dataset", "voc"]
        command += ["--data-root", str(tmp_path), "--task", "15-5s", "--setup", setup]
        began = processor_seconds()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(processor_seconds() - began)
        outputs.append({k: len(v) for k, v in json.loads(done.stdout).items()})
    assert list(outputs[0].values()) == [9568, 487, 299, 491, 500, 548]
    assert list(outputs[1].values()) == [8437, 378, 299, 420, 500, 548]
    assert seconds[0] < 60
    assert seconds[1] < 1.5  # the whole process; below 1 s on an idle machine


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
