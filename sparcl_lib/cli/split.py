"""`sparcl split`: which images each step trains on, by rule or from published lists."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparcl_lib.cli.options import DataRoot, Dataset, Setup, TaskName
from sparcl_lib.errors import UserError, first_few, number_of, printable
from sparcl_lib.writing import csv_text

if TYPE_CHECKING:
    from sparcl_lib.data import Presence, Source

Steps = dict[int, list[str]]


def split(
    dataset: Dataset,
    task: TaskName,
    setup: Setup = "disjoint",
    data_root: DataRoot = None,
    format: Annotated[str, typer.Option(help="json, csv, txt or counts, if printed.")] = "json",
    published: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="DIR",
            help="Check lists, train-0.npy or .txt, say how "
            "they differ from the rule; to train on them: --set data.splits=DIR.",
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a list per step here.")
    ] = None,
    form: Annotated[
        str, typer.Option("--as", help="txt: ids; npy: positions in the training list.")
    ] = "txt",
) -> None:
    """Print or write the images of every step, or check lists; needs masks and id lists only."""
    from sparcl_lib.data import lists, open_source, partition, scan
    from sparcl_lib.data.remarks import class_remarks, list_remarks
    from sparcl_lib.plain import is_yaml
    from sparcl_lib.tasks import check_setup
    from sparcl_lib.tasks.classes import unknown_name

    formats = [*_WRITERS, "counts"]
    for kind, name, known in (("format", format, formats), ("list format", form, lists.FORMS)):
        if name not in known:
            raise unknown_name(kind, name, known)
    check_setup(setup)
    source = open_source(dataset, data_root)
    chosen = source.task(task)
    presence = scan(source, "train")
    remarks = list_remarks(source, published=not is_yaml(task))
    if published is None:
        steps = partition(presence, chosen, setup)
    else:
        steps = lists.read_lists(published, presence, chosen)
        print("\n".join(lists.describe(steps, presence, chosen, setup)))
    if export is not None:
        for file in lists.write_lists(steps, presence.ids, export, form):
            print(f"{file}: sha256 {lists.file_checksum(file)}")
    for line in [*remarks, *class_remarks(presence, steps, _tested(source), chosen)]:
        print(f"sparcl: {line}", file=sys.stderr)
    if published is None and export is None:
        names = {k: first_few([chosen.classes[c] for c in chosen.steps[k]]) for k in steps}
        print(_counts(steps, names) if format == "counts" else _WRITERS[format](steps))
    else:
        print(f"all steps: sha256 {lists.split_checksum(steps)}")


def _tested(source: "Source") -> "Presence | None":
    """What the test images of one's own data show, if their masks are there; None without."""
    from sparcl_lib.data import scan

    try:
        return scan(source, "val") if source.files else None
    except UserError:
        return None


def _json(steps: Steps) -> str:
    return json.dumps({str(step): ids for step, ids in steps.items()})


def _csv(steps: Steps) -> str:
    import pandas as pd

    rows = [(step, image_id) for step, ids in steps.items() for image_id in ids]
    return csv_text(pd.DataFrame(rows, columns=["step", "id"])).rstrip("\n")


def _txt(steps: Steps) -> str:
    return "\n".join(f"{k} {printable(i)}" for k, ids in steps.items() for i in ids)


def _counts(steps: Steps, names: dict[int, str]) -> str:
    return "\n".join(
        f"step {k}: {number_of(len(ids), 'image')}, {names[k]}" for k, ids in steps.items()
    )


_WRITERS = {"json": _json, "csv": _csv, "txt": _txt}
