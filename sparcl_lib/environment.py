"""Is this installation complete? The ranges are those that the package itself declares."""

import importlib.metadata
import os
import sys
from pathlib import Path

import platformdirs
from packaging.requirements import Requirement

DISTRIBUTION = "sparcl-lib"


def check_environment() -> list[tuple[bool, str]]:
    """(fine, text) for Python, every declared requirement, the device and the folders we write."""
    lines = [(sys.version_info >= (3, 11), f"Python {sys.version.split()[0]}")]
    lines += [_check_requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or []]
    lines.append(_check_device())
    for what, folder in (
        ("MiniVOC", platformdirs.user_data_path("sparcl", appauthor=False)),
        ("mask index", platformdirs.user_cache_path("sparcl", appauthor=False)),
    ):
        lines.append(_check_folder(what, folder))
    return lines


def _check_requirement(text: str) -> tuple[bool, str]:
    requirement = Requirement(text)
    extra = str(requirement.marker).split('"')[1] if requirement.marker else None
    suffix = f" (extra {extra})" if extra else ""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False, f"{requirement.name} is missing{suffix}: pip install '{text.split(';')[0]}'"
    fine = requirement.specifier.contains(version, prereleases=True)
    wanted = "" if fine else f", needs {requirement.specifier}"
    return fine, f"{requirement.name} {version}{suffix}{wanted}"


def _check_device() -> tuple[bool, str]:
    try:
        import torch
    except Exception as error:  # a broken install fails in many ways
        return False, f"torch does not import: {error}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return True, f"device: {device}, {os.cpu_count()} cores"


def _check_folder(what: str, folder: Path) -> tuple[bool, str]:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    return os.access(existing, os.W_OK), f"{what} folder {folder} can be written"
