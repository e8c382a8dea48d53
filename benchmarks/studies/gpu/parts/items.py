"""One item after the other, each with a result file of its own, until the time is up."""

import gc
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Job:
    """What a part is called with."""

    out: Path
    """Folder of the result files."""
    work: Path
    """Folder of runs and data: not small, worth keeping where there is a second call."""
    device: str
    """cuda, or cpu to try the script."""
    until: float
    """When to stop, as time.time() counts."""
    tiny: bool
    """Smallest sizes, to see it run."""
    only: str = ""
    """A share of the part: the setup of `correct`."""
    data_root: Path | None = None
    """A VOC2012 tree with photographs."""
    weights: Path | None = None
    """State dict of an ImageNet MobileNetV2."""

    def file(self, name: str) -> Path:
        return self.out / f"{name}.json"

    def left(self) -> float:
        """Seconds."""
        return self.until - time.time()

    def item(self, name: str, seconds: float, measure: Callable[[], Any]) -> None:
        """Measure what has no result file yet, if so many seconds are left; an error is a result.

        It is kept with its traceback and stops nothing.
        """
        if self.file(name).exists():
            return
        if self.left() < seconds and not self.tiny:
            say(f"{name}: no time left")
            return
        began = time.perf_counter()
        try:
            found = {"result": measure()}
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        found["seconds"] = round(time.perf_counter() - began, 2)
        draft = self.out / f"{name}.draft"
        draft.write_text(json.dumps(found, indent=1), "utf-8")
        draft.replace(self.file(name))
        say(f"{name}: {found.get('error', 'done')[:300]} ({found['seconds']} s)")
        if self.device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
