"""The two lists of dependencies, the make targets and the files of the house agree."""

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
WANTED = {"torch", "torchvision", "jupyterlab", "matplotlib", "seaborn", "ipywidgets", "pandas"}


def closure(extra: str) -> set[str]:
    """The extra and those that it names."""
    named = [re.match(r"sparcl-lib\[(.+)\]", line) for line in EXTRAS[extra]]
    others = [name for match in named if match for name in match[1].split(",")]
    return {extra}.union(*map(closure, others))


def test_environment_file_names_python_and_installs_the_package_with_all_its_extras():
    content = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *conda, pip = content["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert pip["pip"] == ["--editable .[dev]"] and closure("dev") == set(EXTRAS)


@pytest.mark.parametrize("file", ["Makefile", "README.md"])
def test_what_else_installs_names_the_same_extra(file):
    assert re.findall(r"--editable '\.\[(.+)\]'", (ROOT / file).read_text("utf-8")) == ["dev"]


def test_every_dependency_is_bounded_and_says_who_needs_it():
    lines = [
        line for line in (ROOT / "pyproject.toml").read_text("utf-8").splitlines() if ">=" in line
    ]
    requirements = [line for line in lines if line.startswith("    ")]
    assert len(requirements) >= 15
    for line in requirements:
        assert re.fullmatch(r'    "[a-z0-9-]+>=[\d.]+,<\d+", +# \S.*', line), line
    names = {re.match(r'    "([a-z0-9-]+)', line).group(1) for line in requirements}
    assert names >= WANTED


def test_an_editable_install_shows_its_types():
    """By a path: type checkers do not follow the hook that setuptools writes otherwise."""
    site = Path(sysconfig.get_path("purelib"))
    files = list(site.glob("__editable__*sparcl_lib*"))
    if not files:
        pytest.skip("the package is not installed as editable")
    assert [file.read_text("utf-8").strip() for file in files] == [str(ROOT)]


def test_importing_the_package_and_its_torch_free_rooms_loads_no_torch():
    code = (
        "import sys, sparcl_lib, sparcl_lib.tasks, sparcl_lib.data, sparcl_lib.cli.program;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_training_loads_no_package_that_it_does_not_train_with():
    """More than a second of the time to the first update. Fabric imports torchmetrics if it can."""
    code = (
        "import sys; sys.modules['torchmetrics'] = None; import sparcl_lib.training;"
        "print(*{'pandas', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


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
        if path.suffix in text
        and path != Path(__file__)
        and pattern.search(path.read_text("utf-8"))
    ]
    assert guilty == []


def test_no_tracked_file_but_a_table_is_above_a_megabyte():
    """The page of the comparison was: every picture in it twice, one form for a telephone."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in listed.stdout.splitlines()]
    large = [p.name for p in files if p.is_file() and p.stat().st_size > 1_000_000]
    assert [name for name in large if not name.endswith(".csv")] == []


def test_a_clone_leaves_room_for_the_photographs_in_what_a_lent_gpu_takes():
    """64 MiB a call: the real photographs, 46 MiB with their masks, and all that is tracked."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in listed.stdout.splitlines()]
    assert sum(p.stat().st_size for p in files if p.is_file()) <= (64 - 46) * 2**20


def test_the_page_of_the_package_needs_nothing_beside_it():
    page = (ROOT / PROJECT["readme"]).read_text("utf-8")
    assert not re.findall(r"\]\((?!https://)", page)
    assert set(re.findall(r"sparcl-lib\[(\w+)\]", page)) <= set(EXTRAS)
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    scope: dict = {}
    exec(example, scope)
    assert scope["student"].grad.abs().sum() > 0


def test_the_wheel_says_that_it_is_typed_and_leaves_the_runs_of_the_course_out():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    patterns = tools["package-data"]["sparcl_lib"]
    library = ROOT / "sparcl_lib"
    taken = {path for pattern in patterns for path in library.glob(pattern)}
    files = [path for path in library.rglob("*") if path.is_file()]
    data = {path for path in files if path.suffix not in (".py", ".pyc")}
    runs = {path for path in data if (library / "course" / "shipped") in path.parents}
    assert runs and taken & data == data - runs and library / "py.typed" in taken
    assert tools["packages"]["find"]["namespaces"] is False  # else folders of data are packages
