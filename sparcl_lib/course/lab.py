"""JupyterLab on a working copy: the repository as root, so that all links work."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from sparcl_lib.course.copies import INDEX

_SETTINGS = Path(__file__).parent / "lab_config"
"""Read by JupyterLab beside the settings of the machine: Markdown is shown and not edited."""

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Of the environment, where the user does not say otherwise: with it the outputs were saved, and
several threads of a small network crawl on a busy machine, for each layer waits for the last."""

WORKSPACES = ".workspaces"
"""Folder of a working copy: which tabs were open. Git leaves it alone, as it does the copy."""


def lab_command(folder: Path, *options: str) -> list[str]:
    """What opens JupyterLab on the index of a working copy. options: further ones of Jupyter."""
    return [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={folder.resolve().parent}",
        f"--LabApp.default_url=/lab/tree/{quote(folder.resolve().name)}/{INDEX}",
        *options,
    ]


def lab_environment(folder: Path, place: Path | None = None) -> dict[str, str]:
    """This process's environment, with the settings of the course before those of the machine.

    Open tabs are remembered in the working copy: JupyterLab's own place for them is the user's
    home, and would open here what was left open elsewhere. Kernels have one thread. place: where
    they put temporary files, if not where all do.
    """
    paths = filter(None, [str(_SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH")])
    changed = {
        "JUPYTER_CONFIG_PATH": os.pathsep.join(paths),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder.resolve() / WORKSPACES),
    }
    return {**ONE_THREAD, **os.environ, **changed, **({"TMPDIR": str(place)} if place else {})}


def open_lab(folder: Path, options: Sequence[str] = ()) -> int:
    """Run JupyterLab until it is closed; returns its exit status.

    A kernel that is killed cannot remove its temporary files, so they go with JupyterLab.
    """
    with tempfile.TemporaryDirectory(prefix="sparcl-lab-", ignore_cleanup_errors=True) as place:
        command = lab_command(folder, *options)
        process = subprocess.Popen(command, env=lab_environment(folder, Path(place)))
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # JupyterLab gets it too: it asks, and ends its kernels
                continue
