"""What all runs of an experiment share, and where they are kept."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparcl_lib.config import OPTIONS, RunConfig, parse_settings, resolve
from sparcl_lib.errors import UserError, shown
from sparcl_lib.experiments.store import RunStore, make_store
from sparcl_lib.methods import method_name
from sparcl_lib.plain import flatten, read_yaml
from sparcl_lib.training import check_devices, train
from sparcl_lib.training.devices import gpus_there

if TYPE_CHECKING:
    from sparcl_lib.experiments.cluster import Cluster


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method under a name of its own, with settings of its own."""

    name: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)


def read_variants(path: str | Path) -> list[Variant]:
    """Variants from a YAML file of rows as in `random start: {method: MiB, set: [KEY=VALUE, ...]}`.

    Raises UserError naming the file and the row that is not like this.
    """
    rows = read_yaml(path)
    if not rows:
        raise UserError(f"{path} has no row: give one, as random start: {{method: MiB, set: []}}")
    return [_read_variant(path, str(name), row) for name, row in rows.items()]


def _read_variant(path: str | Path, name: str, row: Any) -> Variant:
    expected = "{method: MiB, set: [method.classifier_init=random]}"
    if not isinstance(row, Mapping) or not set(row) <= {"method", "set"}:
        raise UserError(f"{path}, {name}: expected {expected}, got {shown(row)}")
    settings = row.get("set", [])
    if not isinstance(settings, list):
        raise UserError(f"{path}, {name}: set is a list, as in {expected}, got {shown(settings)}")
    try:
        plain = parse_settings(map(str, settings))
        for key in plain.keys() & OPTIONS.keys():
            raise UserError(f"{key}={plain[key]} would be ignored: give the option {OPTIONS[key]}")
        return Variant(name=name, method=method_name(str(row.get("method", name))), settings=plain)
    except UserError as error:
        raise UserError(f"{path}, {name}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class RunBase:
    """Data, task and settings of an experiment; method, seed and the rest vary."""

    dataset: str
    task: str
    setup: str = "disjoint"
    data_root: str | None = None
    overrides: tuple[Mapping[str, Any], ...] = ()
    """Nested settings laid over the recipe, the later ones winning."""

    def __post_init__(self) -> None:
        """Raises UserError for settings that would give every method the same name."""
        for layer in map(flatten, self.overrides):
            if "method.name" in layer:
                raise UserError(
                    f"method.name={shown(layer['method.name'])} would name every method alike: "
                    f"leave it out (sparcl compare --variants FILE.yaml gives rows names of their "
                    f"own)"
                )

    def config(self, method: str | Variant, seed: int, *more: Mapping[str, Any]) -> RunConfig:
        """The configuration of one run; more: settings over all others.

        Unless said otherwise, a run reads its images itself: other runs keep the cores busy.
        """
        fixed = {"task": self.task, "setup": self.setup, "data_root": self.data_root}
        if isinstance(method, Variant):
            more = (method.settings, {"method": {"name": method.name}}, *more)
            method = method.method
        config = resolve(self.dataset, method, [*self.overrides, *more], **fixed, seed=seed)
        if config.data.workers is None and not config.data.cache:
            data = dataclasses.replace(config.data, workers=0)
            config = dataclasses.replace(config, data=data)
        return config


def open_store(
    folder: str | Path, accelerator: str = "cpu", cluster: "Cluster | None" = None
) -> RunStore:
    """The runs in a folder; new ones on one device of Lightning Fabric's accelerator, of this
    machine or of a cluster's workers: side by side one a GPU, or one a core, unless jobs are given.

    Raises UserError for an accelerator that is not there, or a folder that cannot be made.
    """
    roots = (make_store(Path(folder)),)
    if cluster is not None:
        return cluster.store(roots, accelerator)
    check_devices({"accelerator": accelerator})
    fit = partial(train, accelerator=accelerator, devices=1)
    return RunStore(roots, fit, usual_jobs=gpus_there(accelerator) or None)


def unique(values: Iterable[Any]) -> list[Any]:
    """Each value once, in order of coming."""
    return list(dict.fromkeys(values))
