"""Where the files of a run lie now: they may have been moved since it was trained."""

import dataclasses
from pathlib import Path

from sparcl_lib.config import RunConfig, with_absolute_paths
from sparcl_lib.errors import UserError
from sparcl_lib.plain import is_yaml
from sparcl_lib.training.run_directory import RunDirectory


def find_places(
    directory: RunDirectory, dataset: str | None = None, data_root: str | None = None
) -> RunConfig:
    """A run's configuration with the paths of today.

    In order: what is given; where the configuration says; where it lies if it was moved together
    with the run; for the YAML file of a data set, a file of its name in `data_root`.

    Args:
        directory: the run.
        dataset: the YAML file that describes the data, if it lies elsewhere now.
        data_root: the folder of the data, if it lies elsewhere now.

    Raises:
        UserError: the description of the data set is nowhere, or `dataset` is of another kind.
    """
    config = directory.config()
    if dataset is not None and not (is_yaml(dataset) and is_yaml(config.dataset)):
        if dataset != config.dataset:
            raise UserError(
                f"{directory.path} was trained on {config.dataset}, not {dataset}: leave --dataset "
                "out, or name the YAML file of its data"
            )
        dataset = None
    data, moved = config.data, directory.moved_along
    if data.splits is not None:
        data = dataclasses.replace(data, splits=moved(data.splits))
    found = dataclasses.replace(
        config,
        dataset=dataset or _dataset_file(config.dataset, directory, data_root),
        task=moved(config.task) if is_yaml(config.task) else config.task,
        data_root=data_root or (None if config.data_root is None else moved(config.data_root)),
        data=data,
    )
    return with_absolute_paths(found)


def _dataset_file(dataset: str, directory: RunDirectory, data_root: str | None) -> str:
    if not is_yaml(dataset):
        return dataset
    beside = [] if data_root is None else [str(Path(data_root).expanduser() / Path(dataset).name)]
    for path in (directory.moved_along(dataset), *beside):
        if Path(path).is_file():
            return path
    raise UserError(
        f"{dataset}, the data set of {directory.path}, is not there any more: name it with "
        f"--dataset FILE.yaml, or its folder with --data-root"
    )
