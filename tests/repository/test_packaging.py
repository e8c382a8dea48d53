"""The two lists of dependencies, the make targets and the files of the house agree."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WANTED = {"torch", "torchvision", "jupyterlab", "matplotlib", "seaborn", "ipywidgets", "pandas"}


def test_environment_file_names_python_and_installs_the_package_with_all_its_extras():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = content["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    (line,) = pip["pip"]
    extras = re.fullmatch(r"--editable \.\[(.+)\]", line).group(1).split(",")
    assert sorted(extras) == sorted(PROJECT["optional-dependencies"])


def test_make_installs_the_same_extras():
    (extras,) = re.findall(r"--editable '\.\[(.+)\]'", (ROOT / "Makefile").read_text())
    assert sorted(extras.split(",")) == sorted(PROJECT["optional-dependencies"])


def test_every_dependency_is_bounded_and_says_who_needs_it():
    lines = [line for line in (ROOT / "pyproject.toml").read_text().splitlines() if ">=" in line]
    requirements = [line for line in lines if line.startswith("    ")]
    assert len(requirements) >= 15
    for line in requirements:
        assert re.fullmatch(r'    "[a-z0-9-]+>=[\d.]+,<\d+", +# \S.*', line), line
    names = {re.match(r'    "([a-z0-9-]+)', line).group(1) for line in requirements}
    assert names >= WANTED


def test_importing_the_package_and_its_torch_free_rooms_loads_no_torch():
    code = (
        "import sys, sparcl_lib, sparcl_lib.tasks, sparcl_lib.data, sparcl_lib.cli;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_tracked_file_names_a_path_of_one_machine_or_an_index_host():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in listed.stdout.split()]
    if not files:  # an unpacked archive has no git
        files = [p for p in ROOT.rglob("*.py") if ".venv" not in p.parts]
    pattern = re.compile(r"(?<![\w./-])/(?:work|root|home/\w+|farm)/|pypi\.org/simple|--index-url")
    text = (".py", ".md", ".yml", ".yaml", ".toml", ".cfg", ".csv", ".json", ".ipynb", ".html")
    guilty = [
        path.name
        for path in files
        if path.suffix in text and path != Path(__file__) and pattern.search(path.read_text())
    ]
    assert guilty == []
