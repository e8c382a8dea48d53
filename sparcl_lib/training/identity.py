"""What a run's numbers depend on, as plain data without a path: kept runs are found by it.

Settings that stand at their default are left out, so that a new setting, whose default is what was
before, moves no key; a default that changes is a new training revision.
"""

from typing import Any, NamedTuple

from sparcl_lib.config import RunConfig, all_settings, first_step_settings
from sparcl_lib.data import open_source
from sparcl_lib.data.lists import file_checksum, list_files
from sparcl_lib.plain import as_plain
from sparcl_lib.tasks import get_task
from sparcl_lib.training.content import content_to_plain, read_content


class Identity(NamedTuple):
    """Settings, and the contents of the files that they name."""

    run: dict[str, Any]
    """What the whole run depends on."""
    first: dict[str, Any]
    """What its step 0 depends on: runs that agree on it share one step 0."""


def read_identity(config: RunConfig) -> Identity:
    """The identity of a run. Raises UserError when the data are not there."""
    contents = _contents(config)
    settings = {
        key: as_plain(setting.value)
        for key, setting in all_settings(config).items()
        if setting.acts not in ("by content", "never") and not setting.is_default
    }
    first = as_plain(first_step_settings(config, defaults=False))
    return Identity({"settings": settings, **contents}, {"settings": first, **contents})


def _contents(config: RunConfig) -> dict[str, Any]:
    source = open_source(config.dataset, config.data_root)
    task = get_task(source.name, config.task, order=config.class_order, classes=source.classes)
    found = content_to_plain(read_content(config, source, task))
    if config.data.splits is None:
        return found
    lists = list_files(config.data.splits)
    return {**found, "lists": {str(step): file_checksum(file) for step, file in lists.items()}}
