"""What could let somebody in: shells, pickles, YAML that makes objects; and whose work this is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from licences import direct, licence

ROOT = Path(__file__).parents[2]
OURS = ("sparcl_lib", "data_scripts", "docs", "benchmarks")
FORBIDDEN = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "eval",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open",
    "yaml.unsafe_load", "yaml.full_load", "tempfile.mktemp", "pandas.read_pickle", "pd.read_pickle",
}  # fmt: skip
SAFE = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "np.lib.format.read_array": ("allow_pickle", False),
}
"""Function -> the argument that it must state."""
MARKING = ("exec",)
"""Answers of exercises are programs: sparcl_lib.course.marking runs them in another process."""


def dangers(tree: ast.AST) -> Iterator[str]:
    """Calls that run or unpack what somebody else wrote."""
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        name = ast.unparse(node.func)
        stated = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        if name in FORBIDDEN or name in MARKING:
            yield name
        if stated.get("shell", False) is not False:
            yield f"{name} with a shell"
        if name in SAFE and stated.get(SAFE[name][0], "not stated") is not SAFE[name][1]:
            yield f"{name} without {SAFE[name][0]}={SAFE[name][1]}"
        if name == "yaml.load" and "Loader" not in ast.unparse(node.args[-1]):
            yield "yaml.load without a loader"


@pytest.mark.parametrize("folder", OURS)
def test_nothing_that_users_write_reaches_a_shell_or_is_unpickled(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {}
    for path in files:
        names = set(dangers(ast.parse(path.read_text("utf-8"))))
        if path.name == "marking.py":
            names -= set(MARKING)
        if names:
            found[path.relative_to(ROOT).as_posix()] = names
    assert found == {}


@pytest.mark.parametrize(
    ("code", "danger"),
    [
        ("subprocess.run('ls', shell=True)", "subprocess.run with a shell"),
        ("subprocess.run('ls', shell=chosen)", "subprocess.run with a shell"),
        ("os.system('ls')", "os.system"),
        ("torch.load(f)", "torch.load without weights_only=True"),
        ("torch.load(f, weights_only=False)", "torch.load without weights_only=True"),
        ("torch.load(f, weights_only=True)", None),
        ("np.load(f)", "np.load without allow_pickle=False"),
        ("pickle.load(f)", "pickle.load"),
        ("yaml.load(f)", "yaml.load without a loader"),
        ("yaml.load(f, SafeLoader)", None),
        ("model.eval()", None),
        ("exec(code)", "exec"),
    ],
)
def test_a_danger_is_seen(code, danger):
    assert list(dangers(ast.parse(code))) == ([danger] if danger else [])


def test_every_direct_dependency_is_in_the_table_of_licences():
    page = (ROOT / "docs" / "licences.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([a-z0-9-]+) \| [\d.]+ \| (.+?) \|", page, re.MULTILINE))
    assert rows.keys() == direct().keys()
    assert "not stated" not in rows.values()
    assert rows["pyyaml"] == licence("pyyaml"), "the command makes what is committed"


def test_each_week_the_dependencies_are_audited():
    weekly = (ROOT / ".github" / "workflows" / "weekly.yml").read_text("utf-8")
    assert "pip-audit" in weekly and "--requirement constraints.txt" in weekly
