"""Data sets by name, as the command line and configurations give them."""

import os
from pathlib import Path

from sparcl_lib.data.minivoc import EDITIONS, ensure_minivoc
from sparcl_lib.data.sources.custom import custom_source
from sparcl_lib.data.sources.source import Source, ade20k_source, voc_source
from sparcl_lib.errors import UserError
from sparcl_lib.plain import is_yaml
from sparcl_lib.tasks.classes import DATASET_CLASSES, unknown_name


def open_source(
    dataset: str | Path, data_root: str | Path | None = None, progress: bool = True
) -> Source:
    """The data set of this name under data_root; MiniVOC is generated on first use.

    Args:
        dataset: ``minivoc``, ``minivoc20``, ``voc``, ``ade20k``, or a YAML file as in
            `custom_source`.
        data_root: folder that holds it; for a YAML file, where its relative paths start.
        progress: show a bar while MiniVOC is generated.

    Raises:
        UserError: unknown name; a folder that is missing or not laid out as expected; a mistake in
            the YAML file.
    """
    if isinstance(dataset, Path):
        dataset = str(dataset)
    if not isinstance(dataset, str):
        raise unknown_name("data set", dataset, [*DATASET_CLASSES, "FILE.yaml"])
    if dataset in EDITIONS:
        root = ensure_minivoc(data_root, progress, EDITIONS[dataset])
        return voc_source(root, name=dataset, classes=DATASET_CLASSES[dataset])
    if is_yaml(dataset):
        return custom_source(Path(os.path.expanduser(dataset)), data_root)
    builders = {"voc": voc_source, "ade20k": ade20k_source}
    if dataset not in builders:
        raise unknown_name("data set", dataset, [*DATASET_CLASSES, "FILE.yaml"])
    if data_root is None:
        raise UserError(
            f"data set {dataset} needs --data-root, the folder that holds it; sparcl data gets it"
        )
    return builders[dataset](data_root)
