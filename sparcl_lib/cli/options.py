"""What several commands of `sparcl` take and print."""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sparcl_lib.errors import UserError, printable, shown

DataRoot = Annotated[
    str | None,
    typer.Option(help="Folder of the data; MiniVOC and a YAML file find their own."),
]
DATASET_HELP = "minivoc, minivoc20, voc, ade20k, or a YAML file for your own: docs/own_data.md."
TASK_HELP = "Name of a task, or a task file (YAML), whose `name:` (else the file's) is in results."
SETUP_HELP = "sequential, disjoint or overlapped."
Dataset = Annotated[str, typer.Option(help=DATASET_HELP)]
TaskName = Annotated[str, typer.Option(help=TASK_HELP)]
Setup = Annotated[str, typer.Option(help=SETUP_HELP)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="A setting, as in optim.lr=0.01 or method.variant=released; may be repeated."
    ),
]
ConfigFile = Annotated[Path | None, typer.Option(help="Settings in a YAML file.")]
BackboneWeights = Annotated[str | None, typer.Option(help="imagenet, none, or a state dict file.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1, max=256, help="Runs side by side of one thread; one per core, or GPU, if not given."
    ),
]
ClusterName = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS|FILE.yaml",
        help="Train on other machines: a dask scheduler, or jobs of SLURM and others "
        "(docs/cluster.md).",
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        help="A Python file with loss terms (@sparcl_lib.term), mechanisms or backbones of your "
        "own; may be repeated.",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        help="A method: how many points the others are above it, paired over seeds, with "
        "intervals.",
        metavar="METHOD",
    ),
]
Seeds = Annotated[str, typer.Option(help="Seeds, as in 0,1,2 or 0-2.")]
Step = Annotated[
    int,
    typer.Option(help="After which step, from 0; the last one if not given.", show_default=False),
]
Accelerator = Annotated[str, typer.Option(help="auto, cpu, gpu (Lightning Fabric).")]
Devices = Annotated[str, typer.Option(help="How many devices (of a machine), or auto.")]
Store = Annotated[
    Path | None,
    typer.Option(help="Folder of the runs, which several commands may share; OUT/runs if not."),
]


_RANGE = re.compile(r"\s*(\d+)-(\d+)\s*")
_LONGEST = 1000
"""Numbers of a range; of more somebody has mistyped."""


def numbers(text: str, option: str) -> list[int]:
    """0,1 -> [0, 1] and 0-2,7 -> [0, 1, 2, 7]."""
    found: list[int] = []
    try:
        for part in text.split(","):
            ends = _RANGE.fullmatch(part)
            first, last = map(int, ends.groups() if ends else (part, part))
            if not 0 <= last - first < _LONGEST:
                raise ValueError(part)
            found += range(first, last + 1)
    except ValueError:
        raise UserError(f"{option} {text}: expected numbers, as in 0,1 or 0-4") from None
    return found


def names(text: str, option: str) -> list[str]:
    """a,b -> ["a", "b"]."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UserError(f"{option} {text!r}: expected names with commas, as in a,b")
    return parts


def layers(
    config: Path | None, settings: list[str] | None, backbone_weights: str | None = None
) -> list[dict[str, Any]]:
    """Settings of a file, over them --backbone-weights, and those of --set over both.

    Raises UserError where the last two say different weights.
    """
    from sparcl_lib.plain import flatten, read_yaml

    read, said = ([read_yaml(config)] if config else []), given(settings)
    if backbone_weights is None:
        return [*read, said]
    weights = None if backbone_weights == "none" else backbone_weights
    if flatten(said).get("model.weights", weights) != weights:
        raise UserError("--backbone-weights and --set model.weights differ: give one of them")
    return [*read, {"model": {"weights": weights}}, said]


def given(settings: list[str] | None) -> dict[str, Any]:
    """What --set says, and a line on stderr for a key that is given two values."""
    from sparcl_lib.config import parse_settings
    from sparcl_lib.plain import flatten, merge

    known: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for setting in settings or []:
        one = parse_settings([setting])
        for key, value in flatten(one).items():
            if known.setdefault(key, value) != value:
                both = f"{shown(known[key])} and {shown(value)}"
                print(printable(f"--set {key} is {both}: the last one holds"), file=sys.stderr)
            known[key] = value
        nested = merge(nested, one)
    return nested


def end_with(errors: Sequence[str]) -> None:
    """Status 1 and a line for each run that failed."""
    for error in errors:
        print(f"sparcl: failed: {printable(error)}", file=sys.stderr)
    if errors:
        raise typer.Exit(1)


def spelled(name: str | None, known: Iterable[str]) -> str | None:
    """A name that is given in any case as it is known; as it is where it is not."""
    names = list(known)
    if name is None or name in names:
        return name
    return {n.lower(): n for n in names}.get(name.lower(), name)


def print_checks(checks: Sequence[tuple[bool, str]]) -> None:
    """A line each, OK or FAIL; status 1 if one failed."""
    print("\n".join(f"{'OK  ' if fine else 'FAIL'} {printable(text)}" for fine, text in checks))
    if not all(fine for fine, _ in checks):
        raise typer.Exit(1)
