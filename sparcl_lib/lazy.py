"""Public names of a package that are imported on first use, so that importing it stays cheap."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562).

    It goes where type checkers do not see it, which read ordinary imports instead: to them a
    misspelt name stays an error.

    Args:
        package: its `__name__`.
        homes: public name -> the module that defines it, in full.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return find
