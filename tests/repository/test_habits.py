"""The files by which others work with us: workflows, forms, hooks, constraints, changelog."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sparcl_lib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(
    set((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) - {GITHUB / "ISSUE_TEMPLATE/config.yml"}
)
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
CHANGES = re.findall(
    r"^## (\S+)(?: – (\S+))?$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
)


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", WORKFLOWS),
        ("github-issue-forms", FORMS),
        ("github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
        ("citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_files_follow_the_schema_of_their_kind(schema, files):
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, *files], capture_output=True, text=True)
    assert files and done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_may_only_read_gives_up_in_time_and_calls_targets_that_exist(file):
    workflow = yaml.safe_load(file.read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        runs = [step["run"] for step in job["steps"] if "run" in step]
        asked = {target for run in runs for target in re.findall(r"make ([\w-]+)", run)}
        assert runs and asked <= TARGETS


def test_the_workflows_cover_every_python_that_is_declared():
    workflow = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text("utf-8"))
    tested = workflow["jobs"]["library"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: "
    declared = [c.removeprefix(prefix) for c in PROJECT["classifiers"] if c.startswith(prefix)]
    assert tested == declared
    low, high = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert tested == [f"3.{minor}" for minor in range(int(low), int(high))]


def test_ci_installs_with_the_constraints_and_the_fresh_install_without():
    ci, weekly = (
        (GITHUB / "workflows" / f"{name}.yml").read_text("utf-8") for name in ("ci", "weekly")
    )
    assert "CONSTRAINTS: constraints.txt" in ci and "CONSTRAINTS" not in weekly
    assert "export CONSTRAINTS=constraints.txt" in (ROOT / ".ci" / "run").read_text("utf-8")
    assert "--constraint $(CONSTRAINTS)" in (ROOT / "Makefile").read_text("utf-8")


def test_the_constraints_pin_every_dependency_within_its_range():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()[1:]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pins = {canonicalize_name(name): version for name, version in (x.split("==") for x in lines)}
    extras = PROJECT["optional-dependencies"].values()
    everything = [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]
    requirements = [Requirement(text) for text in everything]
    for requirement in (r for r in requirements if r.name != PROJECT["name"]):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_hooks_run_modules_of_the_environment():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    (local,) = config["repos"]
    assert local["repo"] == "local"
    assert {hook["id"] for hook in local["hooks"]} >= {"ruff", "ruff-format", "mypy"}
    for hook in local["hooks"]:
        assert hook["language"] == "system" and hook["entry"].startswith("python -m ")


def test_the_version_is_said_once_and_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert PROJECT["version"] == sparcl_lib.__version__ == str(citation["version"])
    assert citation["date-released"] == dict(CHANGES)[PROJECT["version"]]


def test_the_changelog_ends_with_this_version():
    released = [(version, day) for version, day in CHANGES if version != "Unreleased"]
    assert [version for version, _ in CHANGES[1:]] == [v for v, _ in released][-len(CHANGES) + 1 :]
    assert released[0][0] == PROJECT["version"]
    order = [Version(version) for version, _ in released]
    assert order == sorted(order, reverse=True)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", day) for _, day in released)


# A slow or loaded machine is no fault: what is read, parsed or imported is counted in place of it.
CLOCKS = r"\b(process_time|perf_counter|monotonic|timeit|os\.times)\b|[<>]=? *\w*seconds\b"
SHORT = r"communicate\(timeout=\d|subprocess\.run\(.*timeout=\d|join\(timeout=\d"


@pytest.mark.parametrize("text", ["a = time.process_time()", "p.communicate(timeout=60)"])
def test_a_bound_on_time_is_found(text):
    assert re.search(f"{CLOCKS}|{SHORT}", text)


def test_no_test_fails_because_a_machine_is_slow():
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        if file != Path(__file__) and "lab" not in file.parts:  # a browser waits in its own way
            found = re.search(f"{CLOCKS}|{SHORT}", file.read_text("utf-8"))
            assert not found, f"{file}: {found[0]}"
