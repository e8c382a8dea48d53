"""docs/own_data.md keeps its word: its files are read and its commands run, in its order."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from custom_data import QUICK, camvid_tree, save_pair, street_mask

from sparcl_lib.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text("utf-8")
COLOURS = np.array([[128, 128, 128], [128, 0, 0], [64, 0, 64], [128, 64, 128], [0, 0, 0]], np.uint8)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def commands(block: str) -> list[list[str]]:
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def sparcl(capsys, command: list[str]) -> tuple[int, str, str]:
    assert command[0] == "sparcl"
    more = QUICK if command[1] == "train" else []
    with pytest.raises(SystemExit) as stop:
        main([*command[1:], *more])
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("sparcl:")]
    return stop.value.code or 0, captured.out, "\n".join(errors)


def test_the_walk_through(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    camvid_tree(Path("camvid"))
    camvid, streets, longer, *_ = blocks("yaml")
    Path("camvid/camvid.yaml").write_text(camvid, "utf-8")
    Path("camvid/streets.yaml").write_text(streets, "utf-8")
    check, counts, disjoint, train, later, _ = map(commands, blocks("sh"))

    (status, out, _), (_, index, _) = [sparcl(capsys, command) for command in check]
    assert status == 0 and "OK   train: 6 masks decode, with values 0 in 6, 1 in 6" in out
    assert "train: 6 images; sky 6, building 6" in index and "background" not in index
    status, out, _ = sparcl(capsys, counts[0])
    assert status == 0 and [line.partition(", ")[0] for line in out.splitlines()] == [
        f"step {k}: 6 images" for k in range(3)
    ]
    assert out.splitlines()[1].endswith("6 images, car, pedestrian")
    status, _, errors = sparcl(capsys, disjoint[0])
    assert status == 2 and "step 0 of task 'streets' (disjoint) has no image" in errors

    *trains, report = train
    for command in trains:
        assert sparcl(capsys, command)[::2] == (0, "")
    metrics = json.loads(Path("runs/mib/metrics.json").read_text("utf-8"))
    assert metrics["dataset"] == "camvid" and metrics["images"] == {"0": 6, "1": 6, "2": 6}
    last = metrics["steps"][-1]
    assert last["class_iou"]["background"] is None and len(last["class_iou"]) == 12
    assert last["miou_all"] == last["miou_all_no_bg"] is not None
    assert metrics["label_policy"]["border"] == "ignore"
    status, out, _ = sparcl(capsys, report)
    assert status == 0 and "| camvid | streets | overlapped | MiB |" in out

    monkeypatch.chdir("/")
    before = (tmp_path / "runs/mib/metrics.json").read_text("utf-8")
    status, _, errors = sparcl(capsys, ["sparcl", "evaluate", str(tmp_path / "runs/mib")])
    assert (status, errors) == (0, "")
    assert (tmp_path / "runs/mib/metrics.json").read_text("utf-8") == before

    monkeypatch.chdir(tmp_path)
    described = camvid.replace("bicyclist]", "bicyclist, marking]").replace("void: 11\n", "")
    assert len(described.splitlines()) < len(camvid.splitlines())
    Path("camvid/camvid.yaml").write_text(described, "utf-8")
    Path("camvid/longer.yaml").write_text(longer, "utf-8")
    assert sparcl(capsys, later[0])[::2] == (0, "")
    metrics = json.loads(Path("runs/mib/metrics.json").read_text("utf-8"))
    assert metrics["classes"][-1] == ["marking"] and len(metrics["steps"]) == 4


def test_the_table_of_files(tmp_path, capsys):
    description, (table,) = blocks("yaml")[3], blocks("csv")
    (tmp_path / "streets.yaml").write_text(description, "utf-8")
    for name in ("train", "val"):
        (tmp_path / f"{name}.csv").write_text(table, "utf-8")
    rows = [line.split(",") for line in table.splitlines()[1:]]
    for n, (image, mask, _) in enumerate(rows):
        save_pair(tmp_path / image, tmp_path / mask, street_mask(n, range(12)))
    command = ["sparcl", "split", "--dataset", str(tmp_path / "streets.yaml"), "--task", "offline"]
    status, out, _ = sparcl(capsys, command)
    assert status == 0 and json.loads(out) == {"0": sorted(row[2] for row in rows)}


def test_masks_in_colours(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for n in range(3):
            mask = COLOURS[street_mask(n + 10 * len(split), range(5))]
            save_pair(
                Path(f"coloured/{split}/{n}.png"), Path(f"coloured/{split}annot/{n}.png"), mask
            )
    Path("coloured/coloured.yaml").write_text(blocks("yaml")[4], "utf-8")
    convert, check = commands(blocks("sh")[5])
    status, out, _ = sparcl(capsys, convert)
    assert (status, out) == (0, "use it with --dataset converted/dataset.yaml\n")
    status, out, _ = sparcl(capsys, check)
    assert status == 0 and "OK   val: 3 masks decode, with values 1 in 3, 2 in 3, 3 in" in out
