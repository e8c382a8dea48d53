"""Which code trains, and a digest of it.

The rule: every module of the package counts, but for the rooms that only ask for runs, keep them,
show them or fetch data (`ASIDE`); nothing that counts may import one of those, which a test
checks. What acts through the configuration (`CONFIGURED`, and the recipes, which are no code) or
through the data's checksum is in a run's key anyway.
"""

from functools import cache
from pathlib import Path

from sparcl_lib.digests.statements import text_digest

PACKAGE = Path(__file__).parents[1]
ASIDE = frozenset(
    {
        "__init__.py",
        "__main__.py",
        "api.py",
        "bench",
        "cli",
        "course",
        "data/acquiring",
        "data/checking.py",
        "demo.py",
        "environment.py",
        "experiments",
        "exporting.py",
        "label_files.py",
        "latent_space.py",
        "prediction.py",
        "published",
        "report",
        "reproduction",
        "revision",
        "run.py",
        "viz",
    }
)
"""Files and folders of the package that do not count."""
CONFIGURED = frozenset({"method_table.py"})
"""Files whose rows become the settings of a run."""


def files_that_train(package: Path = PACKAGE) -> dict[str, Path]:
    """Every module that counts, by its path in the package, in order. Hidden files and folders do
    not: editors and Jupyter keep copies in them."""
    found = (file.relative_to(package) for file in package.rglob("*.py"))
    shown = (path for path in found if not any(part.startswith(".") for part in path.parts))
    paths = {path.as_posix(): package / path for path in shown}
    return {name: paths[name] for name in sorted(paths) if not _is_aside(name)}


def _is_aside(name: str) -> bool:
    return name in ASIDE | CONFIGURED or any(
        parent.as_posix() in ASIDE for parent in Path(name).parents
    )


@cache
def training_code_digest() -> str:
    """Of every byte of the files that count, comments too, when it is first asked for: fast."""
    return text_digest(repr([(n, file.read_bytes()) for n, file in files_that_train().items()]))
