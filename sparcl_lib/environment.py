"""Is this installation complete? The ranges are those that the package itself declares."""

import importlib.metadata
import os
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sparcl_lib.cores import cores
from sparcl_lib.stops import stops_come_out

DISTRIBUTION = "sparcl-lib"


def check_environment() -> list[tuple[bool, str]]:
    """(fine, text) for Python, every declared requirement, the device and the folders we write.

    An extra that is not installed is fine, and its line says how to get it.
    """
    import platformdirs  # here: `missing_package` serves where this is what is missing

    lines = [(sys.version_info >= (3, 11), f"Python {sys.version.split()[0]}")]
    for extra, requirements in declared().items():
        if extra is None:
            lines += [_check_requirement(requirement) for requirement in requirements]
        else:
            lines.append(_check_extra(extra, requirements))
    lines.append(_check_device())
    for what, folder in (
        ("MiniVOC", platformdirs.user_data_path("sparcl", appauthor=False)),
        ("mask index", platformdirs.user_cache_path("sparcl", appauthor=False)),
    ):
        lines.append(_check_folder(what, folder))
    return lines


def declared() -> dict[str | None, list[Requirement]]:
    """Extra -> what it asks for of others; None: what the package always needs."""
    found: dict[str | None, list[Requirement]] = {}
    for requirement in map(Requirement, importlib.metadata.requires(DISTRIBUTION) or []):
        extra = str(requirement.marker).split('"')[1] if requirement.marker else None
        if canonicalize_name(requirement.name) != DISTRIBUTION:  # an extra may name others
            found.setdefault(extra, []).append(requirement)
    return found


def missing_package(module: str) -> str | None:
    """What to do about a module that is not there, in one line; None if nobody declares it."""
    try:
        found = declared()
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path, and no more
        return (
            f"{module} is not installed, and neither is {DISTRIBUTION}, which brings it: "
            "pip install --editable . in its checkout"
        )
    for extra, requirements in found.items():
        if canonicalize_name(module) in {canonicalize_name(r.name) for r in requirements}:
            return f"{module} is not installed: {_install(extra)}"
    return None


def _install(extra: str | None) -> str:
    return f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install {DISTRIBUTION}"


def _check_requirement(requirement: Requirement) -> tuple[bool, str]:
    version = _version(requirement)
    if version is None:
        return False, f"{requirement.name} is missing: {_install(None)}"
    fine = requirement.specifier.contains(version, prereleases=True)
    wanted = "" if fine else f", needs {requirement.specifier}"
    return fine, f"{requirement.name} {version}{wanted}"


def _check_extra(extra: str, requirements: list[Requirement]) -> tuple[bool, str]:
    missing = [requirement.name for requirement in requirements if not _version(requirement)]
    if missing:
        return True, f"extra {extra} is not installed ({', '.join(missing)}): {_install(extra)}"
    checks = [_check_requirement(requirement) for requirement in requirements]
    return all(fine for fine, _ in checks), f"extra {extra}: {'; '.join(t for _, t in checks)}"


def _version(requirement: Requirement) -> str | None:
    try:
        return importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_device() -> tuple[bool, str]:
    try:
        with stops_come_out():
            import torch
    except Exception as error:  # a broken install fails in many ways
        return False, f"torch does not import: {error}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return True, f"device: {device}, {cores()} cores"


def _check_folder(what: str, folder: Path) -> tuple[bool, str]:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if os.access(existing, os.W_OK):
        return True, f"{what} folder {folder} can be written"
    return False, f"{what} folder {folder} cannot be written: permit writing in {existing}"
