"""JupyterLab on a working copy: the repository as root, so that all links work."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sparcl_lib.course.copies import INDEX

_SETTINGS = Path(__file__).parent / "lab_config"
"""Read by JupyterLab beside the settings of the machine: Markdown is shown and not edited."""


def lab_command(folder: Path, *options: str) -> list[str]:
    """What opens JupyterLab on the index of a working copy. options: further ones of Jupyter."""
    return [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={folder.resolve().parent}",
        f"--LabApp.default_url=/lab/tree/{folder.name}/{INDEX}",
        *options,
    ]


def lab_environment() -> dict[str, str]:
    """This process's environment, with the settings of the course before those of the machine."""
    paths = filter(None, [str(_SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH")])
    return {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(paths)}


def open_lab(folder: Path, options: Sequence[str] = ()) -> int:
    """Run JupyterLab until it is closed; returns its exit status."""
    return subprocess.run(lab_command(folder, *options), env=lab_environment()).returncode
