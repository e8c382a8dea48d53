"""A JupyterLab over a folder, and Chromium to look at it."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def _serve(
    folder: Path, env: Mapping[str, str] | None = None, command: Sequence[str] = ()
) -> Iterator[str]:
    """The address of a JupyterLab with this folder as root. env: the environment, if another.
    command: what starts it, if it is not a plain JupyterLab."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    plain = (sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}")
    whole = [
        *(command or plain), "--no-browser", "--allow-root", f"--port={port}",
        "--expose-app-in-browser", "--IdentityProvider.token=",
        "--LabApp.news_url=None", "--ServerApp.disable_check_xsrf=True",
    ]  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    with (folder.parent / f"{folder.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(whole, env=env, stdout=log, stderr=log)
        try:
            _wait_for(address, process)
            yield address
        finally:
            process.terminate()
            process.wait(20)


def _wait_for(address: str, process: subprocess.Popen) -> None:
    for _ in range(240):
        assert process.poll() is None, "JupyterLab ended"
        try:
            urllib.request.urlopen(f"{address}/api", timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("JupyterLab did not answer within two minutes")


@pytest.fixture(scope="session")
def serve():
    """serve(folder): a JupyterLab with this folder as root, as a context with its address."""
    return _serve


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="make test-lab installs it")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt install chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()
