"""What all runs of an experiment share, and where they are kept."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sparcl_lib.config import RunConfig, resolve
from sparcl_lib.experiments.store import RunStore
from sparcl_lib.training import train


@dataclass(frozen=True, kw_only=True)
class RunBase:
    """Data, task and settings of an experiment; method, seed and the rest vary."""

    dataset: str
    task: str
    setup: str = "disjoint"
    data_root: str | None = None
    overrides: tuple[Mapping[str, Any], ...] = ()
    """Nested settings laid over the recipe, the later ones winning."""

    def config(self, method: str, seed: int, *more: Mapping[str, Any]) -> RunConfig:
        """The configuration of one run; more: settings over all others.

        Unless said otherwise, a run reads its images itself: other runs keep the cores busy, and
        what is drawn would depend on the number of loader processes.
        """
        fixed = {"task": self.task, "setup": self.setup, "data_root": self.data_root}
        config = resolve(self.dataset, method, [*self.overrides, *more], **fixed, seed=seed)
        if config.data.workers is None and not config.data.cache:
            data = dataclasses.replace(config.data, workers=0)
            config = dataclasses.replace(config, data=data)
        return config


def open_store(folder: str | Path, accelerator: str = "cpu") -> RunStore:
    """The runs in a folder; new ones on one device of Lightning Fabric's accelerator."""
    return RunStore((Path(folder),), partial(train, accelerator=accelerator, devices=1))


def unique(values: Iterable[Any]) -> list[Any]:
    """Each value once, in order of coming."""
    return list(dict.fromkeys(values))
