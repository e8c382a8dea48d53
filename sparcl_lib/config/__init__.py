"""The configuration of a run: typed settings, where they come from, and which count for what."""

from sparcl_lib.config.first_step import (
    Setting,
    all_settings,
    first_step_difference,
    first_step_settings,
    settings_difference,
)
from sparcl_lib.config.keys import check_keys, known_keys
from sparcl_lib.config.resolving import OPTIONS, parse_settings, resolve, with_absolute_paths
from sparcl_lib.config.settings import (
    CONTENT,
    MEASURED,
    DataConfig,
    ModelConfig,
    OptimConfig,
    Precision,
    RunConfig,
    read_config,
    to_plain,
)
from sparcl_lib.fields import at_step

__all__ = [
    "CONTENT",
    "MEASURED",
    "OPTIONS",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "Precision",
    "RunConfig",
    "Setting",
    "all_settings",
    "at_step",
    "check_keys",
    "first_step_difference",
    "first_step_settings",
    "known_keys",
    "parse_settings",
    "read_config",
    "resolve",
    "settings_difference",
    "to_plain",
    "with_absolute_paths",
]
