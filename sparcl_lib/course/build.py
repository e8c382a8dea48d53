"""Make the notebooks: every source rendered, executed and saved with its outputs.

    python -m sparcl_lib.course.build [NUMBER ...] [--retrain] [--keep-times]

Runs that are not kept yet are trained, made small and put into `shipped/`; the notebook is then
executed again with those, which is what readers and CI see. --retrain starts from nothing and
measures how long that takes. --keep-times leaves the times that readers are told as they are, for a
machine that is busy with other things.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import torch
from nbclient import NotebookClient
from nbformat import NotebookNode

from sparcl_lib.course.chapter import (
    NOTEBOOKS,
    Chapter,
    Times,
    duration,
    header,
    read_chapters,
    read_times,
    render,
    times_file,
)
from sparcl_lib.course.lab import ONE_THREAD
from sparcl_lib.course.output import is_live
from sparcl_lib.course.runs import CACHE_VARIABLE, SHIPPED, USES_VARIABLE
from sparcl_lib.progress import tqdm
from sparcl_lib.training.run_directory import RunDirectory, config_text
from sparcl_lib.writing import write_text

# The same when outputs are saved and checked (Makefile): one thread, so one order of sums.
FIXED_ENVIRONMENT = {
    **ONE_THREAD,
    "PYTHONHASHSEED": "0",
    "IPYKERNEL_CELL_NAME": "<cell>",
}
CELL_TIMEOUT = 600
_TABLE_START, _TABLE_END = "<!-- chapters -->", "<!-- end of chapters -->"


def execute(notebook: NotebookNode, folder: Path, extra: dict[str, str]) -> float:
    """Run all cells in place with the fixed environment; returns seconds from start to end."""
    before = dict(os.environ)
    os.environ.update(FIXED_ENVIRONMENT | extra)
    started = time.perf_counter()
    try:
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(
            notebook, timeout=CELL_TIMEOUT, resources=resources, coalesce_streams=True
        ).execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return time.perf_counter() - started


def clean_outputs(notebook: NotebookNode) -> None:
    """Leave what a page can show: no widget views (their state is not saved), no progress bars."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran: another time in every build
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not is_live(output)]


def make(
    chapters: list[Chapter], chosen: Sequence[Chapter], retrain: bool, keep_times: bool = False
) -> None:
    """Execute the chosen chapters and save them, their runs, the times and the index."""
    times = read_times()
    if retrain and list(chosen) == chapters:
        shutil.rmtree(SHIPPED, ignore_errors=True)
    used: set[str] = set()
    for chapter in tqdm(chosen, "chapters"):
        known = times.get(chapter.name)
        place = chapters.index(chapter)
        notebook, measured = make_one(chapters, place, retrain, known, used)
        times[chapter.name] = known if known and keep_times else measured
        notebook.cells[0].source = header(chapters, place, times[chapter.name])
        nbformat.write(notebook, chapter.notebook)
        _write_times(times)
        write_index(chapters, times)
    if list(chosen) == chapters:
        remove_unused(used)


def make_one(
    chapters: list[Chapter], place: int, retrain: bool, known: Times | None, used: set[str]
) -> tuple[NotebookNode, Times]:
    """The executed notebook and how long it took; its runs are shipped and added to `used`."""
    empty = known.empty if known else None
    with tempfile.TemporaryDirectory() as folder:
        uses = Path(folder, "uses.jsonl")
        extra = {USES_VARIABLE: str(uses)}
        if retrain:
            empty = execute(
                render(chapters, place, None),
                NOTEBOOKS,
                {**extra, CACHE_VARIABLE: str(Path(folder, "runs"))},
            )
            ship(uses, used)
            empty = empty if uses.is_file() else None  # nothing to train
        notebook = render(chapters, place, None)
        shipped = execute(notebook, NOTEBOOKS, extra)
        if ship(uses, used):  # what readers see comes from the runs as they are shipped
            notebook = render(chapters, place, None)
            shipped = execute(notebook, NOTEBOOKS, {})
    clean_outputs(notebook)
    return notebook, Times(shipped=round(shipped, 1), empty=empty and round(empty, 1))


def ship(uses: Path, used: set[str]) -> bool:
    """Copy what a notebook used into `shipped/`, small; whether anything was new there."""
    lines = uses.read_text("utf-8").splitlines() if uses.is_file() else []
    news = []
    for line in map(json.loads, lines):
        whole = line["whole"]
        news += [_ship_one(Path(line[place]), whole) for place in ("run", "first")]
        used |= {Path(line["run"]).name, Path(line["first"]).name}
    return any(news)


def _ship_one(path: Path, whole: bool) -> bool:
    """Config, metrics and logs of a run, and with `whole` its networks; True if any was new.

    Step 0 stays as it is, because later steps may start from it; other networks are only looked
    at, in half precision. Nothing that training alone needs is kept.
    """
    target, new = SHIPPED / path.name, False
    directory = RunDirectory(path)
    files = [directory.config_file, directory.metrics_file, *path.glob("logs/step-*/metrics.csv")]
    checkpoints = [
        file for file in path.glob("step-*/checkpoint.pt")
        if whole and (path.name.startswith("first-") or file.parent.name != "step-0")
    ]  # fmt: skip
    for file in filter(Path.is_file, [*files, *checkpoints]):
        place = target / file.relative_to(path)
        if not place.exists():
            new = True
            place.parent.mkdir(parents=True, exist_ok=True)
            if file in checkpoints:
                torch.save(slim(torch.load(file, weights_only=True)), place)
            elif file == directory.config_file:  # without the folder of this machine
                write_text(place, config_text(directory.config(), directory.content()))
            else:
                shutil.copyfile(file, place)
    return new


def slim(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without what only training needs, in half precision if no step follows."""
    kept = {k: v for k, v in checkpoint.items() if k not in ("optimizer", "rng")}
    if checkpoint["step"] > 0 or checkpoint["config"]["method"].get("joint"):
        kept["model"] = {
            name: value.half() if value.is_floating_point() else value
            for name, value in kept["model"].items()
        }
    return kept


def remove_unused(used: set[str]) -> None:
    """Delete shipped runs that no notebook asks for."""
    for path in SHIPPED.glob("*"):
        if path.name not in used:
            shutil.rmtree(path)


def _write_times(times: dict[str, Times]) -> None:
    rows = [{"chapter": n, "shipped": t.shipped, "empty": t.empty} for n, t in times.items()]
    pd.DataFrame(rows).sort_values("chapter").to_csv(times_file(), index=False)


def write_index(chapters: list[Chapter], times: dict[str, Times]) -> None:
    """The table of chapters in notebooks/README.md."""
    readme = NOTEBOOKS / "README.md"
    before, _, rest = readme.read_text("utf-8").partition(_TABLE_START)
    after = rest.partition(_TABLE_END)[2]
    table = index_table(chapters, times)
    readme.write_text(f"{before}{_TABLE_START}\n{table}\n{_TABLE_END}{after}", "utf-8")


def index_table(chapters: list[Chapter], times: dict[str, Times]) -> str:
    """The chapters as a table in Markdown."""
    lines = ["| chapter | ends with | reading | running | all runs anew |", "|---|---|---|---|---|"]
    for c in chapters:
        known = times.get(c.name)
        running = duration(known.shipped) if known else "not measured"
        empty = duration(known.empty) if known and known.empty else "no runs"
        title = f"[{c.number} {c.meta.title}]({c.notebook.name})"
        further = f" + {c.meta.further_minutes}" if c.meta.further_minutes else ""
        reading = f"{c.meta.reading_minutes}{further} min"
        lines.append(f"| {title} | {c.meta.ends_with} | {reading} | {running} | {empty} |")
    return "\n".join(lines)


def main() -> None:
    """The command; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("number", nargs="*", help="chapters, such as 01; all if none is given")
    parser.add_argument("--retrain", action="store_true", help="start without any kept run")
    parser.add_argument("--keep-times", action="store_true", help="do not state new times")
    arguments = parser.parse_args()
    chapters = read_chapters(NOTEBOOKS / "sources")
    wanted = arguments.number or [chapter.number for chapter in chapters]
    chosen = [chapter for chapter in chapters if chapter.number in wanted]
    missing = set(wanted) - {chapter.number for chapter in chosen}
    if missing:
        parser.error(f"no chapter {', '.join(sorted(missing))} in {NOTEBOOKS / 'sources'}")
    make(chapters, chosen, arguments.retrain, arguments.keep_times)


if __name__ == "__main__":
    main()
