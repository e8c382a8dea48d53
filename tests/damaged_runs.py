"""Checkpoints, metrics and kept runs, damaged at random: refused by name, or what they were.

    python tests/damaged_runs.py        200 cases and the table of docs/reliability.md

A run of two steps is damaged in one file at a time and read in the ways that read this file. A case
is fine if each way refuses it in one line that names the file, or gives what the undamaged run
gives. A pickle that would run code writes a file, which must not be there afterwards.
"""

import argparse
import io
import json
import pickle
import random
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, as a script

from tally import Tally

from sparcl_lib import load_run
from sparcl_lib.config import RunConfig, parse_settings, resolve
from sparcl_lib.data.minivoc import generate
from sparcl_lib.errors import UserError
from sparcl_lib.report import load_runs, render
from sparcl_lib.training import evaluate, train
from sparcl_lib.training.checkpoint import write_checkpoint

SEED = 16
Draw = random.Random


class Hostile:
    """Unpickled, it writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.file, "it ran", "utf-8")


# Damage to any file
def cut(content: bytes, draw: Draw) -> bytes:
    return content[: draw.randrange(len(content))]


def flip(content: bytes, draw: Draw) -> bytes:
    changed = bytearray(content)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def blank(content: bytes, draw: Draw) -> bytes:
    """A block of zero bytes, as a disk leaves them."""
    start, size = draw.randrange(len(content)), draw.choice((1, 16, 512, 4096))
    return content[:start] + bytes(min(size, len(content) - start)) + content[start + size :]


def longer(content: bytes, draw: Draw) -> bytes:
    return content + draw.randbytes(draw.choice((1, 100)))


def empty(content: bytes, draw: Draw) -> bytes:
    return b""


def noise(content: bytes, draw: Draw) -> bytes:
    return draw.randbytes(len(content))


def pickled(content: bytes, draw: Draw) -> bytes:
    return pickle.dumps(Hostile(TRACE), protocol=draw.choice((0, 2, 4)))


TRACE = Path("hostile.txt")  # in the working folder
ANY = (cut, cut, flip, flip, flip, blank, blank, longer, empty, noise, pickled)


# Damage to what a file says, saved as if it were right
def _saved(state: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "c.pt")
        write_checkpoint(state, file) if isinstance(state, dict) else torch.save(state, file)
        return file.read_bytes()


def other_state(content: bytes, draw: Draw) -> bytes:
    """A checkpoint with a right checksum, and one thing wrong in it."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    group = draw.choice(("model", "bank"))
    name = draw.choice(list(state[group]))
    tensor = state[group][name]
    wrong: Any = draw.choice((None, 3, "x", [], {}, float("nan"), torch.ones(2), -1, True))
    match draw.randrange(6):
        case 0:
            state[group][name] = torch.full(tensor.shape, draw.choice((torch.nan, torch.inf)))
        case 1:
            state[group][name] = torch.zeros((*tensor.shape, 2))
        case 2:
            del state[group][name]
        case 3:
            state["step"] = draw.choice((7, -1, "0", None, 0.5))
        case 4:
            state[draw.choice(("config", "network", "model", "bank", "confusion"))] = wrong
        case 5:
            del state[draw.choice(("config", "step", "model", "bank", "seconds"))]
    return _saved(state)


def hostile_archive(content: bytes, draw: Draw) -> bytes:
    """The archive of torch with another pickle in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(out, "w") as after:
        for entry in before.infolist():
            inner = before.read(entry)
            if entry.filename.endswith("data.pkl"):
                inner = pickle.dumps({"step": 0, "model": Hostile(TRACE)}, protocol=2)
            after.writestr(entry.filename, inner)
    return out.getvalue()


def hostile_state(content: bytes, draw: Draw) -> bytes:
    """With a right checksum."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    return _saved({**state, draw.choice(("config", "mechanisms", "more")): Hostile(TRACE)})


def other_json(content: bytes, draw: Draw) -> bytes:
    """Valid JSON with one value of another kind or number."""
    metrics = json.loads(content)
    place: Any = metrics
    while True:
        key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], (dict, list)) or not place[key] or draw.random() < 0.2:
            break
        place = place[key]
    wrong = (None, -1, 900.0, 1e308, "x", [], {}, float("nan"), True, [[["a"]]], "<script>")
    place[key] = draw.choice(wrong)
    return json.dumps(metrics).encode()


def other_arrays(content: bytes, draw: Draw) -> bytes:
    out = io.BytesIO()
    with np.load(io.BytesIO(content)) as stored:
        arrays = dict(stored)
    name = draw.choice(list(arrays))
    wrong = (arrays[name].astype(float), arrays[name][1:], np.array([Hostile(TRACE)]), np.uint8(3))
    np.savez(out, **{**arrays, name: draw.choice(wrong)}, allow_pickle=True)
    return out.getvalue()


@dataclass
class Kept:
    """A small run that nobody disturbed, and what it gives."""

    root: Path
    config: RunConfig
    run: Path
    report: str = ""
    steps: Any = None
    predictions: Any = None
    weights: list[Any] = field(default_factory=list)


def small_run(root: Path) -> Kept:
    """Trained here, in a second or two."""
    generate(root / "minivoc", train=40, val=4, size=32, progress=False)
    settings = ["optim.iterations=1", "data.batch_size=2", "data.workers=0", "data.size=32"]
    config = resolve(
        "minivoc", "MiB", [parse_settings(settings)], task="6-4", data_root=str(root / "minivoc")
    )
    kept = Kept(root, config, root / "run")
    train(config, kept.run, accelerator="cpu")
    kept.report, kept.predictions = reported(kept.run)
    kept.steps = evaluate(kept.run, accelerator="cpu")["steps"]
    kept.weights = [load_run(kept.run).model(step).state_dict() for step in (0, 1)]
    return kept


def reported(run: Path) -> tuple[str, Any]:
    """The tables of a report, and the arrays of its pictures."""
    (found,) = runs = load_runs([run])
    tables = render(runs, "md") + render(runs, "csv") + json.dumps(found.metrics, sort_keys=True)
    return tables, found.predictions


Way = Callable[[Kept, Path], bool]
"""Read a run in one way: is it what the undamaged one is? Raises UserError."""


def by_report(kept: Kept, run: Path) -> bool:
    tables, predictions = reported(run)
    same = predictions.keys() == kept.predictions.keys()
    return tables == kept.report and same and all(
        np.array_equal(predictions[name], array) for name, array in kept.predictions.items()
    )  # fmt: skip


def by_loading(kept: Kept, run: Path) -> bool:
    loaded = load_run(run)
    return all(
        torch.equal(value, loaded.model(step).state_dict()[name])
        for step in (0, 1)
        for name, value in kept.weights[step].items()
    )


def by_configuration(kept: Kept, run: Path) -> bool:
    return bool(load_run(run).metrics["steps"] == kept.steps)


def by_evaluating(kept: Kept, run: Path) -> bool:
    return bool(evaluate(run, accelerator="cpu")["steps"] == kept.steps)


def by_resuming(kept: Kept, run: Path) -> bool:
    again = train(kept.config, run, resume=True, accelerator="cpu")
    return bool(again["steps"] == kept.steps) and by_loading(kept, run)


def by_starting_from(kept: Kept, run: Path) -> bool:
    other = run.parent / "other"
    try:
        train(kept.config, other, steps=[0], start_from=run, accelerator="cpu")
        return by_loading_first(kept, other)
    finally:
        shutil.rmtree(other, ignore_errors=True)


def by_loading_first(kept: Kept, run: Path) -> bool:
    found = load_run(run).model(0).state_dict()
    return all(torch.equal(value, found[name]) for name, value in kept.weights[0].items())


STATES = (*ANY, *[other_state] * 6, hostile_archive, hostile_state)
KINDS: dict[str, tuple[int, tuple[str, ...], Any, tuple[Way, ...]]] = {
    "checkpoints": (100, ("step-0/checkpoint.pt", "step-1/checkpoint.pt"), STATES,
                    (*[by_loading] * 4, by_evaluating, by_resuming, by_starting_from)),
    "metrics": (50, ("metrics.json",), (*ANY, *[other_json] * 8), (by_report, by_configuration)),
    "pictures": (25, ("step-1/predictions.npz",), (*ANY, *[other_arrays] * 4), (by_report,)),
    "settings of kept runs": (15, ("config.yaml",), ANY, (by_evaluating, by_resuming)),
    "swapped files": (10, ("step-0/checkpoint.pt", "step-1/checkpoint.pt", "metrics.json",
                           "step-1/predictions.npz", "config.yaml"), (),
                      (by_evaluating, by_report)),
}  # fmt: skip
"""Kind -> cases, files, damages, ways."""


def damage(kept: Kept, kind: str, number: int, run: Path) -> tuple[str, str]:
    """Damage the copy of a run in `run` in this case's way: the file and the kind of damage."""
    draw = Draw(f"{SEED} {kind} {number}")
    _, files, damages, _ = KINDS[kind]
    name = draw.choice(files)
    if not damages:
        other = draw.choice([file for file in files if file != name])
        shutil.copyfile(kept.run / other, run / name)
        return name, f"is {other}"
    change = damages[number % len(damages)]
    (run / name).write_bytes(change((run / name).read_bytes(), draw))
    return name, change.__name__


def outcome(kept: Kept, way: Way, run: Path, name: str) -> tuple[str, str]:
    """(refused, unharmed or fault), and what was said."""
    try:
        return ("unharmed", "") if way(kept, run) else ("fault", "another result")
    except UserError as error:
        line = str(error)
    except Exception as error:
        return "fault", f"{type(error).__name__}: {error}"
    named = Path(name).name in line or str(run) in line
    return ("refused", line) if named and line.isprintable() else ("fault", line)


def try_all(kept: Kept, kind: str, numbers: range) -> Tally:
    """Run these cases of a kind."""
    tally, ways = Tally(), KINDS[kind][3]
    run = kept.root / "damaged"
    for number in numbers:
        way = ways[number % len(ways)]
        shutil.copytree(kept.run, run)
        before = (kept.root / "minivoc" / "minivoc.json").read_bytes()
        name, change = damage(kept, kind, number, run)
        started = time.process_time()
        what, said = outcome(kept, way, run, name)
        seconds = time.process_time() - started
        if TRACE.exists():
            what, said = "fault", "a pickle ran"
            TRACE.unlink()
        assert (kept.root / "minivoc" / "minivoc.json").read_bytes() == before
        line = f"{kind} {number}: {name} {change}, {way.__name__}: {said}"
        tally.add(what, seconds, line if what == "fault" else "")
        shutil.rmtree(run)
    return tally


def run_from_shell() -> int:
    parser = argparse.ArgumentParser(description="Runs damaged at random.")
    parser.add_argument("--only", choices=KINDS)
    chosen = parser.parse_args()
    faults = []
    print("| kind | cases | refused by name | as undamaged | faults | seconds |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        kept = small_run(Path(folder).resolve())
        for kind in [chosen.only] if chosen.only else KINDS:
            t = try_all(kept, kind, range(KINDS[kind][0]))
            ended = (t.outcomes["refused"], t.outcomes["unharmed"])
            cells = (t.cases, *ended, len(t.faults), round(t.seconds))
            print(f"| {kind} | {' | '.join(map(str, cells))} |", flush=True)
            faults += t.faults
    print("\n".join(faults))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(run_from_shell())
