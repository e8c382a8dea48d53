"""The licences of what the library is made with, from the metadata of what is installed.

python tests/licences.py > docs/licences.md
"""

import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
_HEAD = """# Licences of the dependencies

SPARCL is under the [Apache License 2.0](../LICENSE). Below: what `pyproject.toml` asks for, in the
version of `constraints.txt`, with the licence that each package states, and who needs it: training
(`library`) or an extra. The page is made from the metadata of the installed packages:

```sh
python tests/licences.py > docs/licences.md
```

| package | version | licence | needed by |
|---|---|---|---|"""


def direct() -> dict[str, list[str]]:
    """Package -> library, or the extras that ask for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"library": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, list[str]] = {}
    for group, texts in groups.items():
        for name in (canonicalize_name(Requirement(text).name) for text in texts):
            if name != project["name"]:
                found.setdefault(name, []).append(group)
    return dict(sorted(found.items()))


def licence(name: str) -> str:
    """By its expression (PEP 639), its classifiers, or its first line of text."""
    about = importlib.metadata.metadata(name)
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in about.get_all("Classifier") or ()
        if text.startswith("License ::") and text != "License :: OSI Approved"
    ]
    written = (about.get("License") or "").strip().splitlines()
    return ", ".join(classifiers) or (written[0][:60] if written else "not stated")


def page() -> str:
    """The page as it is committed."""
    lines = [_HEAD]
    for name, groups in direct().items():
        version = re.sub(r"\+.*", "", importlib.metadata.version(name))  # 2.14.1+cpu
        lines.append(f"| {name} | {version} | {licence(name)} | {', '.join(groups)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page())
