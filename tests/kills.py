"""Commands killed at random moments, then given again: the result is that of an undisturbed one.

    python tests/kills.py                 40 kills and the table of docs/reliability.md
    python tests/kills.py --times 200     1,400, twenty minutes

Each command is run once undisturbed, in a process forked from this one, which has imported all that
it needs: so the moment, drawn over the time that this took, falls into its work. SIGKILL, SIGTERM
and SIGINT take turns. After the kill the same command must end in status 0, and what it leaves must
be the same: networks, prototypes, numbers and pictures to the last bit, pages and folders byte for
byte; seconds alone may differ. What was stopped by SIGTERM or SIGINT says so in one line.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import optuna
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, as a script

from tally import Tally

from sparcl_lib import training as training_room
from sparcl_lib.cli import main
from sparcl_lib.data.minivoc import generate
from sparcl_lib.experiments import comparison
from sparcl_lib.experiments import store as store_module
from sparcl_lib.experiments import sweep as sweep_module
from sparcl_lib.plain import flatten
from sparcl_lib.progress import tqdm
from sparcl_lib.report import page

SEED = 16
LONGEST = 120
"""Seconds that a command may take."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
IMPORTED = (matplotlib, optuna, comparison, page, sweep_module, training_room)
"""What would take seconds in each process."""
SETTINGS = [
    part
    for setting in ("optim.iterations=3", "data.batch_size=2", "data.workers=0", "data.size=32")
    for part in ("--set", setting)
]


@dataclass
class Place:
    """Where one command is run: data that it reads, and a folder that is its own."""

    root: Path

    @property
    def minivoc(self) -> Path:
        return self.root / "minivoc"

    @property
    def finished(self) -> Path:
        """A run that training left, if the command needs one."""
        return self.root / "finished"

    @property
    def own(self) -> Path:
        return self.root / "own"

    @property
    def base(self) -> list[str]:
        return ["--dataset", "minivoc", "--data-root", str(self.minivoc), "--accelerator", "cpu"]


# What a command leaves
def tensors(file: Path) -> str:
    """Checksum of all that a checkpoint holds, but for its seconds."""
    state = torch.load(file, weights_only=True)
    digest = hashlib.sha256()
    for name, value in sorted(flatten(state).items(), key=lambda pair: pair[0]):
        if name != "seconds":
            content = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value)
            digest.update(f"{name} {content!r}".encode())
    return digest.hexdigest()


def content(file: Path, own: Path) -> str:
    """What of a file must be the same."""
    if file.name == "checkpoint.pt":
        return tensors(file)
    text = file.read_bytes()
    if file.name == "metrics.json":
        metrics = json.loads(text)
        return json.dumps({k: v for k, v in metrics.items() if k not in ("seconds", "sha256")})
    if file.suffix == ".csv":
        table = pd.read_csv(file)
        return table.drop(columns="seconds", errors="ignore").to_csv()
    return hashlib.sha256(text.replace(str(own).encode(), b"OWN")).hexdigest()


PASSED_OVER = ("events.out", ".lock", "out.journal", "report.html", ".draft-")
"""Logs with times, locks, pages that show seconds (`report --format html` shows none), and what a
killed writer leaves for a day."""


def left(own: Path) -> dict[str, str]:
    """Every file that a command left, but for those with times in them."""
    files = [path for path in sorted(own.rglob("*")) if path.is_file()]
    return {
        path.relative_to(own).as_posix(): content(path, own)
        for path in files
        if not any(part in path.relative_to(own).as_posix() for part in PASSED_OVER)
    }


# The commands
def training(place: Place) -> list[str]:
    return ["train", *place.base, "--task", "6-4", "--method", "SDR", "--resume",
            "--out", str(place.own / "run"), *SETTINGS]  # fmt: skip


def evaluation(place: Place) -> list[str]:
    run = place.own / "run"
    if not run.exists():
        shutil.copytree(place.finished, run)
    return ["evaluate", str(run), "--accelerator", "cpu"]


def index(place: Place) -> list[str]:
    return ["data", "index", "--dataset", "minivoc", "--root", str(place.minivoc)]


def generation(place: Place) -> list[str]:
    return ["data", "minivoc", "--root", str(place.own / "minivoc"), "--train", "150", "--val", "9",
            "--size", "32"]  # fmt: skip


def report(place: Place) -> list[str]:
    return ["report", str(place.finished), "--format", "html", "--out", str(place.own / "r.html")]


def store(place: Place) -> list[str]:
    return ["compare", *place.base, "--tasks", "6-4", "--methods", "FT,MiB", "--jobs", "1",
            "--out", str(place.own / "out"), *SETTINGS]  # fmt: skip


def sweep(place: Place) -> list[str]:
    space = place.root / "space.yaml"
    space.write_text("optim.lr[1]: {low: 0.001, high: 0.1, log: true}\n", "utf-8")
    return ["sweep", *place.base, "--task", "6-4", "--method", "FT", "--space", str(space),
            "--trials", "2", "--jobs", "1", "--storage", str(place.own / "out.journal"),
            "--out", str(place.own / "out"), *SETTINGS]  # fmt: skip


COMMANDS: dict[str, tuple[int, Callable[[Place], list[str]]]] = {
    "training": (10, training),
    "evaluation": (5, evaluation),
    "index": (4, index),
    "generation": (5, generation),
    "report": (4, report),
    "store (compare)": (6, store),
    "sweep": (6, sweep),
}
"""What is killed -> how often, and the command."""


def _child(arguments: list[str], out: Path, begins: Any) -> None:
    """The command in a process of its own, on one thread, its words in files.

    begins: an event that is set then."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(out / f"{number}.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        setattr(sys, name, open(number, "w", buffering=1, encoding="utf-8"))  # noqa: SIM115
    torch.set_num_threads(1)
    # tqdm's own is shared with the process that forked this one: killed in it, both would wait.
    tqdm.set_lock(threading.RLock())
    store_module.note_edits = lambda: None  # a line that a checkout with edits has more
    begins.set()
    main(arguments)


@dataclass
class Done:
    status: int | None
    said: str
    errors: str
    seconds: float


def run(place: Place, arguments: list[str], kill: tuple[float, int] | None = None) -> Done:
    """Run a command; kill: after so many seconds, with this signal."""
    context = multiprocessing.get_context("fork")
    begins = context.Event()
    process = context.Process(target=_child, args=(arguments, place.root, begins))
    process.start()
    begins.wait(LONGEST)
    started = time.monotonic()
    if kill is not None:
        process.join(kill[0])
        if process.is_alive():
            os.kill(process.pid, kill[1])
    process.join(LONGEST)
    if process.is_alive():
        process.kill()
        process.join()
        return Done(None, "", f"longer than {LONGEST} s", LONGEST)
    said, errors = ((place.root / f"{n}.txt").read_text("utf-8") for n in (1, 2))
    return Done(process.exitcode, said, errors, time.monotonic() - started)


def begin(place: Place, cache: Path) -> None:
    """Nothing is there of the command, not even what it keeps in the cache."""
    for folder in (place.own, cache):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)


def fault_of_the_killed(done: Done, kind: int) -> str:
    if kind == signal.SIGKILL:
        return "" if done.status == -signal.SIGKILL else f"status {done.status}"
    said = done.errors.replace("\r", "\n").splitlines()
    lines = [line for line in said if "sparcl: interrupted" in line or "sparcl: terminated" in line]
    fine = done.status == 128 + kind and len(lines) == 1 and "Traceback" not in done.errors
    return "" if fine else f"status {done.status}: {done.errors[-900:]}"


def try_all(place: Place, name: str, numbers: range, cache: Path) -> tuple[Tally, float]:
    """Kill a command at these moments, drawn from their numbers; and its seconds undisturbed."""
    command = COMMANDS[name][1]
    begin(place, cache)
    whole = run(place, command(place))
    if whole.status:
        raise RuntimeError(f"{name} fails undisturbed: {whole.errors}")
    wanted, tally = _result(place, name, whole), Tally()
    for number in numbers:
        draw, kind = random.Random(f"{SEED} {name} {number}"), SIGNALS[number % len(SIGNALS)]
        for attempt in range(1, 9):  # until it was not over before the signal
            begin(place, cache)
            moment = draw.uniform(0.01, whole.seconds * 0.9) / attempt
            killed = run(place, command(place), (moment, kind))
            if killed.status != 0:
                break
        fault = fault_of_the_killed(killed, kind)
        again = run(place, command(place))
        found = _result(place, name, again)
        if again.status != 0:
            fault = fault or f"again: status {again.status}: {again.errors[-900:]}"
        elif found != wanted:
            names = {*found[1], *wanted[1]}
            other = sorted(n for n in names if found[1].get(n) != wanted[1].get(n))
            fault = fault or f"another result: {other or found[0]}"
        line = f"{name} {number}, {signal.Signals(kind).name} after {moment:.2f} s: {fault}"
        tally.add("another" if fault else "same", again.seconds, line if fault else "")
    return tally, whole.seconds


def _result(place: Place, name: str, done: Done) -> tuple[str, dict[str, str]]:
    """What was said, but of a sweep, whose table has seconds, and what was left."""
    return "" if name == "sweep" else done.said, left(place.own)


def make_place(root: Path) -> Place:
    """Data, and a run that is finished."""
    place = Place(root)
    generate(place.minivoc, train=40, val=4, size=32, progress=False)
    place.own.mkdir()
    arguments = training(place)
    done = run(place, arguments)
    if done.status:
        raise RuntimeError(done.errors)
    (place.own / "run").rename(place.finished)
    return place


def run_from_shell() -> int:
    parser = argparse.ArgumentParser(description="Commands killed at random moments.")
    parser.add_argument("--only", choices=COMMANDS)
    parser.add_argument("--times", type=int, help="How often each is killed, in place of its own.")
    chosen = parser.parse_args()
    faults: list[Any] = []
    print("| what | kills | the same result after | faults | seconds undisturbed |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder).resolve() / "cache"
        os.environ["XDG_CACHE_HOME"] = str(cache)
        place = make_place(Path(folder).resolve() / "place")
        for name in [chosen.only] if chosen.only else COMMANDS:
            times = chosen.times or COMMANDS[name][0]
            t, seconds = try_all(place, name, range(times), cache)
            cells = (name, t.cases, t.outcomes["same"], len(t.faults), f"{seconds:.1f}")
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
            faults += t.faults
    print("\n".join(faults))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(run_from_shell())
