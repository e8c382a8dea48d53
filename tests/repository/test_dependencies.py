"""What is imported is declared where it is needed, and nothing else is; extras can be left out."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sparcl_lib.cli import main
from sparcl_lib.environment import check_environment

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWNERS = importlib.metadata.packages_distributions()
# A room of sparcl_lib and the extra without which it does not import.
NEEDS = {
    "course": "course",
    "data/acquiring": "data",
    "experiments/cluster": "cluster",
    "experiments/feature_table": "course",
    "experiments/sweep": "search",
    "experiments/worker": "cluster",
    "exporting": "export",
    "latent_space": "course",
    "report/order_sections": "report",
    "report/page": "report",
    "report/sections": "report",
    "viz": "report",
}
# Rooms whose pages and pictures are the point of the module; they import those above.
COMMANDS_WITH_PAGES = ("demo", "experiments/ablation", "experiments/comparison")
# Imported by nobody, but run, or loaded by another package.
RUN = {"tensorboard", "jupyterlab", "ruff", "mypy", "types-pyyaml", "pre-commit"}
RUN |= {"pre-commit-hooks", "check-jsonschema", "coverage", "pytest-xdist"}
RUN |= {"myst-nb", "sphinx-book-theme", "sphinx-copybutton", "sphinx-design", "ziamath", "bokeh"}


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements} - {"sparcl-lib"}


def brings(extra: str) -> set[str]:
    """What an extra installs, that of the extras it names included."""
    others = [Requirement(text).extras for text in EXTRAS[extra] if text.startswith("sparcl-lib")]
    return names(EXTRAS[extra]).union(*(brings(name) for more in others for name in more))


BASE, ALL = names(PROJECT["dependencies"]), names(PROJECT["dependencies"]) | brings("dev")


def modules(path: Path) -> Iterator[str]:
    """First parts of what a file imports, anywhere in it but for the eyes of type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for block in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if getattr(block.test, "id", "") == "TYPE_CHECKING":
            block.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant))


def imported(files: Iterable[Path]) -> dict[str, set[str]]:
    """Distribution -> the files that import it. A module that nobody installed is its own name."""
    beside = [path.stem for room in ("tests", "docs/site") for path in (ROOT / room).glob("*.py")]
    studies = ROOT / "benchmarks/studies"
    of_studies = [file.parent.name for file in studies.glob("*/*/__init__.py")]
    of_studies += [file.stem for file in studies.glob("*/*.py")]  # one may call another
    ours = {"sparcl_lib", *beside, *of_studies}
    found: dict[str, set[str]] = {}
    for path in files:
        for module in set(modules(path)) - set(sys.stdlib_module_names) - ours:
            for owner in set(OWNERS.get(module, [module])):
                found.setdefault(canonicalize_name(owner), set()).add(str(path.relative_to(ROOT)))
    return found


def test_the_library_imports_what_it_declares_where_it_needs_it():
    for path in sorted((ROOT / "sparcl_lib").rglob("*.py")):
        place = path.relative_to(ROOT / "sparcl_lib").as_posix()
        extras = [extra for room, extra in NEEDS.items() if place.startswith(room)]
        allowed = BASE.union(*map(brings, extras))
        assert not set(imported([path])) - allowed, place


def test_tests_chapters_and_studies_import_what_is_declared():
    rooms = ("tests", "notebooks/sources", "benchmarks", "data_scripts", "docs/site")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    found = imported(path for path in files if "lab" not in path.parts)  # make test-lab installs
    assert len(files) > 50 and not {name: found[name] for name in set(found) - ALL}


def test_what_is_declared_is_imported():
    rooms = ("sparcl_lib", "tests", "notebooks/sources", "benchmarks", "docs/site")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert ALL - set(imported(files)) == RUN


def test_an_undeclared_import_is_found(tmp_path, monkeypatch):
    (tmp_path / "module.py").write_text(
        "def f():\n    from idna import encode\n    import torch\n", "utf-8"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert set(imported([tmp_path / "module.py"])) - ALL == {"idna"}


def run_without(blocked: Iterable[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run code as if these distributions were away, and ours declared what pyproject does."""
    gone = {canonicalize_name(name) for name in blocked}
    away = {m for m, own in OWNERS.items() if {canonicalize_name(o) for o in own} & gone}
    lines = [*PROJECT["dependencies"]]
    lines += [f'{text}; extra == "{extra}"' for extra, more in EXTRAS.items() for text in more]
    before = f"""
import importlib.metadata as metadata, sys
from packaging.utils import canonicalize_name
found = metadata.distribution
def distribution(name):
    if canonicalize_name(name) in {gone!r}:
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.distribution, metadata.requires = distribution, lambda name: {lines!r}
for module in {sorted(away)!r}:
    sys.modules[module] = None
"""
    return subprocess.run(
        [sys.executable, "-c", before + code], capture_output=True, text=True, cwd=ROOT
    )


def test_a_loss_needs_little():
    done = run_without(
        ALL - {"torch", "numpy", "pyyaml"},
        "import sparcl_lib.losses, sparcl_lib.prototypes, torch\n"
        "bank = sparcl_lib.prototypes.PrototypeBank(3, 4)\n"
        "labels = torch.zeros(1, 2, 2, dtype=torch.int64)\n"
        "bank.update(torch.ones(1, 4, 2, 2), labels)\n"
        "print(bank.counts.tolist())",
    )
    assert (done.returncode, done.stdout) == (0, "[4, 0, 0]\n"), done.stderr


def test_without_extras_all_but_their_rooms_imports():
    library = ROOT / "sparcl_lib"
    kept = []
    for path in sorted(library.rglob("*.py")):
        place = path.relative_to(library).as_posix()
        if not place.startswith((*NEEDS, *COMMANDS_WITH_PAGES)) and path.stem != "__main__":
            name = place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            kept.append(f"sparcl_lib.{name}" if name != "__init__" else "sparcl_lib")
    assert {"sparcl_lib.training.runner", "sparcl_lib.report.tables"} <= set(kept)
    done = run_without(ALL - BASE, f"import {', '.join(kept)}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "extra"), [("demo", "report"), ("data voc2012", "data"), ("data sbd", "data")]
)
def test_a_command_whose_extra_is_missing_says_so_in_a_line(command, extra):
    asked = f"from sparcl_lib.cli import main\nmain({command.split()!r})"
    done = run_without(ALL - BASE, asked)
    advice = rf"sparcl: \w+ is not installed: pip install 'sparcl-lib\[{extra}\]'\n"
    assert done.returncode == 2 and re.fullmatch(advice, done.stderr), done.stderr


def test_without_a_needed_package_a_command_says_so_in_a_line():
    asked = "from sparcl_lib.cli import main\nmain(['env'])"
    done = run_without(["platformdirs"], asked)
    advice = "sparcl: platformdirs is not installed: pip install sparcl-lib\n"
    assert (done.returncode, done.stderr) == (2, advice)


def test_a_checkout_that_is_not_installed_says_how_to():
    asked = (
        "def requires(name):\n    raise metadata.PackageNotFoundError(name)\n"
        "metadata.requires = requires\nfrom sparcl_lib.cli import main\nmain(['env'])"
    )
    done = run_without(["platformdirs"], asked)
    advice = (
        "sparcl: platformdirs is not installed, and neither is sparcl-lib, which brings it: "
        "pip install --editable . in its checkout\n"
    )
    assert (done.returncode, done.stderr) == (2, advice)


def test_a_module_that_nobody_declares_is_a_fault_of_ours(monkeypatch):
    def broken() -> None:
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")

    monkeypatch.setattr("sparcl_lib.environment.check_environment", broken)
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        main(["env"])


def test_the_environment_tells_extras_from_what_is_needed(monkeypatch):
    lines = ["numpy>=1", "absent-a>=1", "numpy>=1000", 'numpy>=1; extra == "with"',
             'absent-b>=1; extra == "without"', 'absent-c>=1; extra == "without"',
             'numpy>=1000; extra == "old"', 'sparcl-lib[with]; extra == "all"']  # fmt: skip
    monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
    python, needed, absent, old, *extras = check_environment()
    assert python[0] and needed[0] and needed[1].startswith("numpy ")
    assert absent == (False, "absent-a is missing: pip install sparcl-lib")
    assert not old[0] and old[1].endswith("needs >=1000")
    assert extras[0][0] and extras[0][1].startswith("extra with: numpy ")
    advice = "pip install 'sparcl-lib[without]'"
    assert extras[1] == (True, f"extra without is not installed (absent-b, absent-c): {advice}")
    assert not extras[2][0] and extras[2][1].startswith("extra old: numpy ")
    assert extras[3][1].startswith(("device", "torch"))
