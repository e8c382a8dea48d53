"""One trained network, tested on centre squares and on whole images.

    python benchmarks/studies/whole_images/whole_images.py RUN --data-root DIR

RUN: a run directory of sparcl train, which stays as it is. Writes results.csv beside this file: a
row per test and class of the last step, with the pixels that were tested and the IoU in percent.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from sparcl_lib import load_run
from sparcl_lib.data.masks import count_values
from sparcl_lib.labels import VOID
from sparcl_lib.metrics import class_iou
from sparcl_lib.run import Run
from sparcl_lib.training.devices import make_fabric
from sparcl_lib.training.evaluation import confusion_matrix
from sparcl_lib.training.workspace import Workspace, open_workspace

TESTS: dict[str, dict[str, Any]] = {
    "squares of 128": {"test_size": 128},
    "squares of 160": {"test_size": 160},
    "squares of 192": {"test_size": 192},
    "whole": {"test": "whole", "test_size": None},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--data-root", required=True)
    given = parser.parse_args()
    run = load_run(given.run)
    print_shares(open_workspace(dataclasses.replace(run.config, data_root=given.data_root)))
    rows = [row for name in TESTS for row in tested(run, given.data_root, name)]
    pd.DataFrame(rows).round(2).to_csv(Path(__file__).with_name("results.csv"), index=False)


def print_shares(workspace: Workspace) -> None:
    """What of the test images lies in their centre squares."""
    ids = workspace.evaluation_ids[workspace.learned.num_steps - 1]
    sizes = [workspace.evaluation_sizes[i] for i in ids]
    share = sum(min(size) ** 2 for size in sizes) / sum(width * height for width, height in sizes)
    print(f"{100 * share:.1f} % of the pixels of {len(sizes)} images are in their centre squares")


def tested(run: Run, data_root: str, name: str) -> list[dict[str, Any]]:
    """A row per class."""
    data = dataclasses.replace(run.config.data, **TESTS[name])
    workspace = open_workspace(dataclasses.replace(run.config, data=data, data_root=data_root))
    step, fabric = workspace.learned.num_steps - 1, make_fabric(accelerator="cpu")
    batches = workspace.evaluation_batches(step, device=fabric.device)
    confusion = confusion_matrix(
        fabric, run.model(), batches, len(run.classes), name, workspace.tests_whole
    )
    ious, pixels = class_iou(confusion), confusion.sum(axis=1).tolist()
    in_masks = labelled_pixels(workspace, step)
    print(f"{name}: {sum(pixels):,} pixels of {in_masks:,} in the masks; {ious.mean():.1f} mIoU")
    return [
        {"test": name, "class": label, "pixels": count, "iou": iou}
        for label, count, iou in zip(run.classes, pixels, ious, strict=True)
    ]


def labelled_pixels(workspace: Workspace, step: int) -> int:
    """Of the masks of all test images, as they are stored."""
    masks = (workspace.source.mask("val", i) for i in workspace.evaluation_ids[step])
    return sum(int(count_values(mask)[0][:VOID].sum()) for mask in masks)


if __name__ == "__main__":
    main()
