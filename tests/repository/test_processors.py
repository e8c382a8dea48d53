"""`make test` in each of the environments whose last digits differ, one of them in CI each time."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
PROCESSORS = re.search(r"^PROCESSORS := (.+)$", MAKEFILE, re.M).group(1).split()

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def commands(processor: str) -> str:
    """What `make test` would do there, a line each, with every environment made anew."""
    # Of the make that runs us:
    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "VENV", "PYTHON", "WORKERS"}
    environment = {name: text for name, text in os.environ.items() if name not in outer}
    made = subprocess.run(
        ["make", "--dry-run", "--always-make", "test"],
        cwd=ROOT, env=environment | {"SPARCL_TEST_PROCESSOR": processor},
        capture_output=True, text=True,
    )  # fmt: skip
    return (made.stdout + made.stderr).replace("\\\n", "")


SAID = {
    "own": " .venv/bin/python -m pytest notebooks",
    "sse41": "ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41 .venv/bin/python -m pytest",
    "avx2": "ATEN_CPU_CAPABILITY=avx2 DNNL_MAX_CPU_ISA=AVX2 .venv/bin/python -m pytest",
    "threads": "OMP_NUM_THREADS=2 .venv/bin/python -m pytest",
    "oldest": ".venv-oldest/bin/python -m pytest",
}


def test_every_processor_is_known():
    assert list(SAID) == PROCESSORS


@pytest.mark.parametrize("processor", PROCESSORS)
def test_unit_tests_and_notebooks_run_there(processor):
    lines = [line for line in commands(processor).splitlines() if "-m pytest" in line]
    units, notebooks = lines
    assert SAID[processor].removesuffix(" notebooks").strip() in units
    assert SAID[processor] in notebooks and "pytest notebooks --nbval" in notebooks
    workers = "0" if processor == "threads" else "2"  # each on one thread, or one on two
    assert all(f"--numprocesses {workers} " in line for line in lines)
    assert "OMP_NUM_THREADS=1 " in units and "OMP_NUM_THREADS=1 " in notebooks


def test_the_oldest_are_those_that_the_package_allows():
    allowed = dict(
        re.findall(r'"(torch|torchvision)>=([\d.]+),', (ROOT / "pyproject.toml").read_text("utf-8"))
    )
    (install,) = [line for line in commands("oldest").splitlines() if "--editable" in line]
    assert install.endswith(f"torch=={allowed['torch']} torchvision=={allowed['torchvision']}")
    (install,) = [line for line in commands("own").splitlines() if "--editable" in line]
    assert "torch==" not in install


def test_github_takes_one_at_each_push_and_all_of_them_every_week():
    push, week = (
        yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))["jobs"]
        for name in ("ci.yml", "weekly.yml")
    )
    assert [job for job in push.values() if {"run": ".ci/run"} in job["steps"]]
    (job,) = [job for job in week.values() if "strategy" in job]
    assert job["strategy"]["matrix"]["processor"] == PROCESSORS
    assert job["env"]["SPARCL_TEST_PROCESSOR"] == "${{ matrix.processor }}"
    assert {"run": "make test"} in job["steps"]


def test_another_name_is_refused():
    assert "SPARCL_TEST_PROCESSOR is sse4; valid: own sse41" in commands("sse4")


def test_ci_takes_one_of_them_and_says_which(tmp_path):
    """The whole script, with a `make` that only tells what it was asked."""
    (tmp_path / "make").write_text(
        '#!/bin/sh\necho "make $* for $SPARCL_TEST_PROCESSOR"\n', "utf-8"
    )
    (tmp_path / "make").chmod(0o755)
    environment = dict(os.environ) | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("SPARCL_TEST_PROCESSOR", None)
    first, second = (
        subprocess.run([ROOT / ".ci" / "run"], env=environment, capture_output=True, text=True)
        for _ in range(2)
    )
    assert first.stdout == second.stdout and first.returncode == 0, first.stderr
    name = re.search(r"^make test for (\w+)$", first.stdout, re.M).group(1)
    assert name in PROCESSORS and f"SPARCL_TEST_PROCESSOR={name}" in first.stdout


@pytest.mark.parametrize(("processor", "checked"), [("own", 1), ("avx2", 1), ("oldest", 0)])
def test_ci_checks_lint_and_types_before_it_tests(tmp_path, processor, checked):
    (tmp_path / "make").write_text('#!/bin/sh\necho "make $*"\n', "utf-8")
    (tmp_path / "make").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SPARCL_TEST_PROCESSOR": processor,
    }
    done = subprocess.run([ROOT / ".ci" / "run"], env=environment, capture_output=True, text=True)
    called = [line for line in done.stdout.splitlines() if line.startswith("make c")]
    assert called == ["make check"] * checked and done.stdout.endswith("make test\n")
