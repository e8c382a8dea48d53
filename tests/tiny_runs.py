"""Runs of seconds on a tiny MiniVOC, and the command in a process of its own."""

import subprocess
import sys

from sparcl_lib.config import RunConfig, parse_settings, resolve


def tiny(root: str, *settings: str, method: str = "FT", seed: int = 0) -> RunConfig:
    """Of the data in `root`, with images of 32 pixels; later settings win."""
    quick = ["optim.iterations=2", "data.size=32", "data.batch_size=4", *settings]
    return resolve(
        "minivoc", method, [parse_settings(quick)], task="6-4", data_root=root, seed=seed
    )


def sparcl(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sparcl_lib", *map(str, arguments)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
