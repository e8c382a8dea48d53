"""`pytest notebooks --nbval`: cells with a tolerance are compared by it, all others strictly.

Progress bars are compared by nobody: a run that is kept shows none. nbval kills its kernels, which
then leave their temporary files: those lie in a folder that is removed at the end.
"""

import os
import tempfile
from functools import partial
from typing import Any

from nbformat import NotebookNode

from sparcl_lib.course.comparison import Tolerance, adopt_outputs, tolerance_of


def pytest_configure(config: Any) -> None:
    place = tempfile.TemporaryDirectory(prefix="sparcl-kernels-", ignore_cleanup_errors=True)
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = place.name  # for kernels: pytest itself knows its own place by now

    def remove() -> None:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before
        place.cleanup()

    config.add_cleanup(remove)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        cell = getattr(item, "cell", None)  # nbval's items have one
        if cell:
            item.compare_outputs = partial(_compare, item, item.compare_outputs, tolerance_of(cell))


def _compare(
    item: Any, strictly: Any, tolerance: Tolerance | None, new: list[NotebookNode],
    kept: list[NotebookNode], skip_compare: tuple[str, ...] | None = None,
) -> bool:  # fmt: skip
    """nbval's own comparison, of what is left when numbers within the tolerance are adopted."""
    adopted = adopt_outputs(kept, new, tolerance, item.sanitize)
    agree: bool = strictly(adopted, kept, skip_compare)
    return agree
