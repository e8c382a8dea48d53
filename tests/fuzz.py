"""Settings, command lines, YAML and CSV files at random: accepted as they are meant, or refused.

    python tests/fuzz.py                        2,000 cases and the table of docs/reliability.md
    python tests/fuzz.py --only tables --case 7      one case again, and what it was

A case is known by its kind and number, and drawn from these alone. It runs in this process,
through `sparcl` as the shell calls it, in a folder of its own beside a small data set, a small
MiniVOC and a run; training, downloads and other processes are cut off where they would begin.
A case is fine if it ends within LIMIT, in status 0 and what was accepted reads back as what was
written, or in status 2 and one line; and if no file of the user's is another one then. (`data
check` and `env` may end in 1, which is their verdict.)
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, as a script

from custom_data import camvid_tree, describe
from tally import Tally

from sparcl_lib.cli import main
from sparcl_lib.cli.program import app
from sparcl_lib.config import all_settings, known_keys, parse_settings, read_config, resolve
from sparcl_lib.config.resolving import OPTIONS
from sparcl_lib.config.settings import to_plain
from sparcl_lib.data.acquiring import prepare
from sparcl_lib.data.minivoc import default_root, generate, generation
from sparcl_lib.errors import LossDiverged, UserError, printable
from sparcl_lib.experiments import ablation, comparison, pool, store, sweep
from sparcl_lib.experiments.store import RunStore
from sparcl_lib.method_table import METHODS
from sparcl_lib.tasks import MINIVOC_CLASSES
from sparcl_lib.training import runner, train

SEED = 16
LIMIT = 20
"""Seconds of a case on the processor; on the clock thirty times as many: machines are shared."""
CASES = 2000
STREETS = ("void", "road", "wall", "tree", "sky")
"""Classes of the small data set, by mask value; the first one is left out."""

NASTY = (
    "", " ", "~", "null", "yes", "-", "--", "-1", "0", "1", "1e3", "1e400", "-1e400", ".inf",
    "-.inf", ".nan", "0x10", "0o17", "1_000", "9" * 400, "9" * 5000, "2020-01-01", "2020-99-99",
    "a" * 300, "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "@SUM(1)",
    "\x1b[31mred\x1b[0m", "a\nb", "a\tb", "a\rb", "\0", "\x7f", "\u202eabc", "\u2028", "\ufeff",
    "e\u0301", "é", "Straße", "𝔘", "\udcff", "٣", "'", '"', "`", "$HOME", "%s", "{0}", "$1^{",
    "a,b", "a;b", "a: b", "[", "]", "[[", "{", "}", "{}", "[]", "*a", "&a [*a]",
    "!!python/object/apply:os.system [true]", "!!binary aa", "!!set {a}", "? [a]", "<<: {}",
    "background", "void", "disc", "../..", ".", "..", "nowhere", "nowhere.yaml",
    "a" * 300 + ".yaml", "%", "|", ">", "# no", "- - - -", "[1, 2", "{a: 1, a: 2}", "1:30",
    "1,5", "[.nan]", "[null]", "[true, 2]",
)  # fmt: skip


WRITTEN = ("home/", "case/out", "case/data/", "case/demo-results/")
"""What a case may write, below the world: --out, and what a command takes in its place."""


class Hung(BaseException):
    """A case that takes longer than LIMIT."""


@dataclass
class World:
    """The files that all cases see, and must leave as they are."""

    root: Path
    captured: list[Any] = field(default_factory=list)
    """What a case handed to the part that is cut off."""

    def __getattr__(self, name: str) -> Path:
        return self.root / name

    @property
    def case(self) -> Path:
        return self.root / "case"


Check = Callable[["Outcome"], str]
"""What is wrong with an outcome of status 0; empty if nothing."""


@dataclass
class Case:
    """A command line, the files it reads, and what must be true if it is accepted."""

    arguments: list[str]
    files: Mapping[str, bytes] = field(default_factory=dict)
    check: Check = lambda outcome: ""
    verdicts: tuple[int, ...] = ()
    """Statuses that are a verdict, and no mistake."""


@dataclass
class Outcome:
    status: int
    out: str
    error: str
    seconds: float
    escaped: str = ""


# The world
@contextmanager
def small_world(root: Path) -> Iterator[World]:
    """A world below a folder, in which this process is at home."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            patch.setenv(name, str(root / "home" / name))
        for name in ("SPARCL_STORE", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"):
            patch.delenv(name, raising=False)
        patch.setenv("TQDM_DISABLE", "1")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            world = _make_world(World(root))
        _cut_off(patch, world)
        world.case.mkdir()
        patch.chdir(world.case)
        yield world


def _make_world(world: World) -> World:
    generate(world.minivoc, train=40, val=20, progress=False)  # every class is in both
    default_root().parent.mkdir(parents=True)
    default_root().symlink_to(world.minivoc)  # MiniVOC without --data-root
    camvid_tree(world.streets, values=range(len(STREETS)))
    values = {name: value for value, name in enumerate(STREETS) if value}
    describe(world.streets, classes=values, void=[0], name="streets")
    (world.streets / "notes.txt").write_text("no image\n", "utf-8")
    config = resolve(
        "minivoc", "MiB", [parse_settings(["optim.iterations=1", "data.batch_size=4"])],
        task="6-4", data_root=str(world.minivoc),
    )  # fmt: skip
    train(config, world.run, accelerator="cpu")
    return world


def _cut_off(patch: pytest.MonkeyPatch, world: World) -> None:
    """Nothing is trained, fetched or generated at length, and no other process begins."""

    @contextmanager
    def launched(*_: Any, **__: Any) -> Iterator[Any]:
        raise typer.Exit(0)
        yield

    def write(draft: Path, settings: Mapping[str, int], *more: Any) -> None:
        if settings["train"] + settings["val"] > 60 or settings["size"] > 64:
            raise UserError("not generated here")
        _write(draft, settings, *more)

    def fetch(*_: Any, **__: Any) -> None:
        raise UserError("not fetched here")

    def run_all(configs: Any, *_: Any, **__: Any) -> None:
        world.captured.append(list(configs))
        raise typer.Exit(0)

    def not_trained(*_: Any, **__: Any) -> None:
        raise LossDiverged("not trained here")

    _write = generation._write
    patch.setattr(runner, "launched", launched)
    patch.setattr(generation, "_write", write)
    patch.setattr(prepare, "fetch", fetch)
    for module in (comparison, ablation):
        patch.setattr(module, "run_all", run_all)
    patch.setattr(sweep, "run_calls", lambda calls, *_, **__: {
        key: pool.attempt(call) for key, call in calls.items()})  # fmt: skip
    patch.setattr(RunStore, "fetch", not_trained)
    patch.setattr(sweep, "ended_well", lambda table: table["state"] == "complete")
    patch.setattr(store, "note_edits", lambda: None)  # which a checkout with edits would say


def snapshot(root: Path) -> dict[str, str]:
    """File -> checksum, without what a case may write."""
    found = {}
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root).as_posix()
        if place.startswith(WRITTEN) or path.is_symlink() or not path.is_file():
            continue
        if path.name in (".lock", ".sparcl.lock") and path.stat().st_size == 0:
            continue
        found[place] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


# Running a case
def sparcl(arguments: list[str]) -> Outcome:
    """What `sparcl` says in this process; Hung after LIMIT."""
    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    out, error = io.StringIO(), io.StringIO()
    started, escaped, status = time.process_time(), "", 0

    def hung(*_: Any) -> None:
        raise Hung

    before = {number: signal.signal(number, hung) for number in timers}
    for number, timer in timers.items():
        signal.setitimer(timer, LIMIT if number == signal.SIGPROF else 30 * LIMIT)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            main(arguments)
    except SystemExit as stop:
        status = stop.code or 0
    except Hung:
        status, escaped = -1, f"longer than {LIMIT} s"
    except BaseException:
        status, escaped = -1, traceback.format_exc()
    finally:
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
    seconds = time.process_time() - started
    return Outcome(status, out.getvalue(), error.getvalue(), seconds, escaped)


EXCEPTIONS = tuple(
    f"sparcl: {name.__name__}" for name in (TypeError, ValueError, KeyError, AttributeError,
                                            IndexError, OverflowError, RecursionError, MemoryError)
)  # fmt: skip


def fault_of(case: Case, outcome: Outcome) -> str:
    """What is wrong with an outcome; empty if nothing."""
    if outcome.escaped:
        return outcome.escaped
    if outcome.status == 0:
        try:
            return case.check(outcome)
        except Exception:  # what was accepted is nothing that the check could read
            return f"accepted, and not understood: {traceback.format_exc()}"
    if outcome.status in case.verdicts:
        return ""
    if outcome.status != 2:
        return f"status {outcome.status}: {outcome.error}"
    # A note on a key that was given twice may come first.
    lines = outcome.error.splitlines(keepends=True)
    line = "".join(said for said in lines if not said.startswith("--set ")).removesuffix("\n")
    if not line.startswith("sparcl: ") or not line.isprintable() or len(line) > 2100:
        return f"not one line: {outcome.error!r}"
    return f"the words of Python: {line}" if line.startswith(EXCEPTIONS) else ""


def run_case(world: World, case: Case, before: Mapping[str, str]) -> tuple[Outcome, str]:
    """What became of a case, and what is wrong with it."""
    world.captured.clear()
    for name, content in case.files.items():
        (world.case / name).parent.mkdir(parents=True, exist_ok=True)
        (world.case / name).write_bytes(content)
    wanted = {**before, **{f"case/{name}": hashlib.sha256(content).hexdigest()
                           for name, content in case.files.items()}}  # fmt: skip
    outcome = sparcl(case.arguments)
    fault = fault_of(case, outcome)
    now = snapshot(world.root)
    if now != wanted:
        changed = {n for n in {*now, *wanted} if now.get(n) != wanted.get(n)}
        fault = fault or f"files that are others now: {sorted(changed)}"
    for path in world.case.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return outcome, fault


# What is drawn
Draw = random.Random
SIMPLE = (
    "0",
    "1",
    "2",
    "0.5",
    "1e-3",
    "true",
    "null",
    "[0.01, 0.001]",
    "[1, 2]",
    "conv",
    "mean",
    "exact",
)


def damaged(text: str, draw: Draw, most: int = 3) -> bytes:
    """A text after none to a few accidents, as bytes."""
    for _ in range(draw.randint(0, most)):
        place, length = draw.randint(0, len(text)), draw.choice((1, 1, 3, 20))
        lines = text.split("\n")
        match draw.randint(0, 8):
            case 0:
                text = text[:place] + text[place + length :]
            case 1:
                text = text[:place] + text[place : place + length] * 2 + text[place + length :]
            case 2:
                text = text[:place] + draw.choice(NASTY) + text[place:]
            case 3:
                draw.shuffle(lines)
                text = "\n".join(lines)
            case 4:
                lines.insert(draw.randint(0, len(lines)), draw.choice(lines))
                text = "\n".join(lines)
            case 5:
                words = [w for w in text.replace(",", " ").split() if w.strip("[]{}:-")] or ["x"]
                text = text.replace(draw.choice(words).strip("[]{},"), draw.choice(NASTY), 1)
            case 6:
                text = text[:place]
            case 7:
                text = text.replace("\n", draw.choice(("\r\n", "\r", "\n\n")))
            case 8:
                text = draw.choice(("\ufeff", "---\n", "%YAML 1.1\n---\n", "# \n", "\t")) + text
    encoding = draw.choices(("utf-8", "utf-8-sig", "utf-16", "cp1252"), (20, 2, 1, 1))[0]
    content = text.encode(encoding, "replace" if encoding == "cp1252" else "surrogatepass")
    if draw.random() < 0.04:
        content = (
            content[: len(content) // 2]
            + bytes([draw.randrange(256)])
            + content[len(content) // 2 :]
        )
    return content


FINE = (
    ("optim.lr", "[0.02, 5e-3]"), ("optim.epochs", "3"), ("data.size", "48"), ("seed", "7"),
    ("data.scale", "[0.25, 1]"), ("data.scale", "null"), ("data.cache", "true"),
    ("data.workers", "0"), ("model.head", "conv"), ("model.weights", "~"), ("optim.power", "1"),
    ("model.weights", "größe.pt"), ("method.terms.ce.weight", "2"), ("method.name", "größe"),
    ("method.terms.kd.weight", "1e-1"), ("class_order", "[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]"),
)  # fmt: skip
"""Settings with values that all methods accept."""


def value(draw: Draw) -> str:
    """The text of a setting's value."""
    if draw.random() < 0.6:
        return draw.choice(SIMPLE)
    if draw.random() < 0.3:
        return str(
            draw.choice((-1, 1))
            * draw.choice((1, 10, 63, 64, 65, 4096, 4097, 2**31, 2**63, 10**12))
        )
    return draw.choice(NASTY)


def key(draw: Draw) -> str:
    keys = known_keys()
    if draw.random() < 0.85:
        return draw.choice(keys)
    chosen = draw.choice((*keys, *OPTIONS, "optim", "method", "content"))
    return draw.choice(
        (chosen[:-1], f"{chosen}.x", chosen.upper(), f".{chosen}", draw.choice(NASTY), chosen)
    )


def setting(draw: Draw) -> str:
    return f"{key(draw)}{draw.choices(('=', '', ' = ', '=='), (30, 1, 1, 1))[0]}{value(draw)}"


def sets(draw: Draw, most: int = 3) -> list[str]:
    return [part for _ in range(draw.randint(0, most)) for part in ("--set", setting(draw))]


# What was accepted reads back as what was written
def leaves(plain: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(plain, dict) and plain:
        for name, inner in plain.items():
            yield from leaves(inner, (*at, *name.strip().split(".")))
    else:
        yield ".".join(at), plain


def same(written: Any, found: Any) -> bool:
    if isinstance(found, (list, tuple)):
        items = written if isinstance(written, list) and written else [written]
        return len(items) == len(found) and all(map(same, items, found))
    if isinstance(found, bool) or isinstance(written, bool) or written is None:
        return found is written
    if isinstance(found, float):
        return float(written) == found
    return type(found) is type(written) and found == written


def read_back(config: Any, layers: list[Any]) -> str:
    """What of the layers, the last one winning, a configuration says otherwise."""
    again = read_config(yaml.safe_load(yaml.safe_dump(to_plain(config), sort_keys=False)))
    if again != config:
        return "config.yaml is another configuration"
    wanted: dict[str, Any] = {}
    for layer in layers:
        for name, written in leaves({k: v for k, v in layer.items() if k != "content"}):
            for other in list(wanted):
                if other.startswith(f"{name}.") or name.startswith(f"{other}."):
                    del wanted[other]
            wanted[name] = written
    known = all_settings(config)
    variant = any(name == "method.variant" for name in wanted)
    for name, written in wanted.items():
        if written == {} or name == "method.variant":
            continue
        if name.startswith(("method.terms.", "model.head", "model.batch_norm")) and variant:
            continue  # a variant moves them
        if name in OPTIONS and written is None:
            continue
        found = known[name].value if name in known else None
        if name in ("data.splits", "model.weights", "data_root") and isinstance(found, str):
            absolute = found == "imagenet" or os.path.abspath(os.path.expanduser(written)) == found
            if not absolute:
                return f"{name} is {found!r}, written as {written!r}"
        elif name == "method.name":
            if found != printable(written):
                return f"{name} is {found!r}, written as {written!r}"
        elif not same(written, found):
            return f"{name} is {found!r}, written as {written!r}"
    return ""


def train_case(world: World, draw: Draw, files: Mapping[str, bytes], chosen: list[str]) -> Case:
    """`sparcl train` up to the resolved configuration, which must say what files and --set say."""
    method = draw.choice(list(METHODS))
    arguments = [
        "train",
        "--dataset",
        "minivoc",
        "--data-root",
        str(world.minivoc),
        "--task",
        "6-4",
        "--method",
        method,
        "--out",
        "out",
        "--accelerator",
        "cpu",
    ]
    for name in files:
        arguments += ["--config", name]

    def check(outcome: Outcome) -> str:
        file = world.case / "out" / "config.yaml"
        if not file.is_file():
            return "no config.yaml was written"
        config = read_config(yaml.safe_load(file.read_text("utf-8")))
        layers = [yaml.safe_load(content.decode("utf-8")) for content in files.values()]
        for text in chosen[1::2]:
            name, _, written = text.partition("=")
            layers.append({name.strip(): yaml.safe_load(written)})
        return read_back(config, layers)

    return Case([*arguments, *chosen], files, check)


def settings_case(world: World, draw: Draw) -> Case:
    return train_case(world, draw, {}, sets(draw, 4))


def config_case(world: World, draw: Draw) -> Case:
    """Nested, dotted or both."""
    plain: dict[str, Any] = {}
    for _ in range(draw.randint(1, 4)):
        name, text = key(draw), value(draw)
        if draw.random() < 0.9:  # else few files are accepted as a whole
            name, text = draw.choice(FINE)
        try:
            written = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            written = text
        place = plain
        parts = name.split(".")
        cut = draw.randint(0, len(parts) - 1)
        for part in parts[:cut]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                break
        else:
            place[".".join(parts[cut:])] = written
    try:
        text = yaml.safe_dump(plain, default_flow_style=draw.random() < 0.3, allow_unicode=True)
    except (ValueError, yaml.YAMLError):  # thousands of digits
        text = repr(list(plain))
    return train_case(
        world,
        draw,
        {"settings.yaml": damaged(text, draw, 1)},
        sets(draw, 1) if draw.random() < 0.3 else [],
    )


def commands() -> Iterator[tuple[list[str], list[Any]]]:
    """Every command with its parameters, but for those of the course that make and open pages."""

    def walk(command: Any, names: list[str]) -> Iterator[tuple[list[str], list[Any]]]:
        if not hasattr(command, "commands"):
            yield names, command.params
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, [*names, name])

    for names, params in walk(typer.main.get_command(app), []):
        if names not in (["course", "lab"], ["course", "make"], ["course", "start"]):
            yield names, params


def word(world: World, draw: Draw, name: str) -> str:
    """A value for a parameter of this name, mostly a good one."""
    if name in ("out", "root", "store", "storage", "export"):  # what is written stays in the case
        return draw.choice(
            ("out", "out/a", "out\x1b[31m", "out é", "out$1^{", "out" + "a" * 300, "out.csv")
        )
    good: dict[str, tuple[Any, ...]] = {
        "dataset": ("minivoc", world.streets / "data.yaml", "voc", "ade20k", "minivoc20"),
        "task": ("6-4", "6-1", "offline", "15-1", world.case / "task.yaml"),
        "tasks": ("6-4", "6-4,6-1", "offline"),
        "method": ("FT", "MiB", "mib", "Joint", "SDR", "FT,MiB"),
        "methods": ("FT,MiB", "Joint", "SDR"),
        "setup": ("disjoint", "overlapped", "sequential"),
        "setups": ("disjoint", "overlapped,disjoint"),
        "data_root": (world.minivoc, world.streets, "nowhere"),
        "steps": ("all", "0", "0,1", "1", "1,0", "7"),
        "seeds": ("0", "0,1", "1,1", "2147483647", "2147483648"),
        "settings": (setting(draw),),
        "config": (world.run / "config.yaml", world.case / "settings.yaml"),
        "plugins": (world.case / "plugin.py", world.streets / "notes.txt"),
        "run": (world.run, world.streets),
        "runs": (world.run, world.run, world.streets),
        "start_from": (world.run, world.streets),
        "images": (world.streets / "val/0001TP_000000.png", world.streets / "notes.txt"),
        "accelerator": ("cpu", "auto", "gpu", "tpu"),
        "devices": ("1", "2", "auto", "0", "100000"),
        "backbone_weights": ("none", "imagenet", world.run / "step-0" / "checkpoint.pt"),
        "format": ("md", "csv", "html", "json", "txt", "counts"),
        "form": ("txt", "npy"),
        "published": (world.minivoc, world.streets, "nowhere"),
        "variants": (world.case / "variants.yaml",),
        "space": (world.case / "space.yaml",),
        "terms": ("ce", "kd", "ce,kd", "matching,attraction"),
        "trials": ("1", "2"),
        "jobs": ("1", "2", "0"),
        "step": ("-1", "0", "1", "2", "-3"),
        "files": (world.streets / "notes.txt", world.streets, "nowhere"),
        "train": ("1", "8", "0", "-1", "1000000"),
        "val": ("1", "4", "0", "400001"),
        "size": ("32", "64", "31", "1000000000"),
        "seed": ("0", "1", "-1", "4294967296"),
        "prefix": ("optim", "optim.lr", "method.terms.kd", "x"),
        "folder": (world.streets, world.run, "nowhere"),
        "numbers": ("00", "03", "99"),
        "seconds": ("1", "0", "nan"),
    }  # fmt: skip
    return (
        str(draw.choice(good[name])) if name in good and draw.random() < 0.8 else draw.choice(NASTY)
    )


def command_case(world: World, draw: Draw) -> Case:
    names, params = draw.choice(list(commands()))
    arguments, positional = list(names), []
    for param in params:
        required = param.required and draw.random() < 0.97
        if param.name == "help" or not (required or draw.random() < 0.4):
            continue
        if getattr(param, "is_flag", False):
            arguments.append(param.opts[0])
            continue
        several = param.multiple or param.nargs == -1
        for _ in range(draw.randint(1, 3) if several else 1):
            text = word(world, draw, param.name)
            if param.param_type_name == "argument":
                positional.append(text)
            else:
                arguments += [param.opts[0], text]
    if draw.random() < 0.04:
        arguments.insert(draw.randint(0, len(arguments)), draw.choice(NASTY))
    files = {
        "task.yaml": damaged(task_text(draw), draw, 1),
        "settings.yaml": damaged("optim: {lr: 0.01}\ndata.size: 32\n", draw, 1),
        "variants.yaml": damaged(variants_text(draw), draw, 1),
        "space.yaml": damaged(space_text(draw), draw, 1),
        "plugin.py": damaged("import sparcl_lib\nx = 1\n", draw, 1),
    }
    verdicts = (1,) if names in (["data", "check"], ["env"]) or names[0] == "data" else ()
    return Case([*arguments, *positional], files, verdicts=verdicts)


def task_text(draw: Draw) -> str:
    names = list(MINIVOC_CLASSES[1:])
    draw.shuffle(names)
    cuts = sorted(draw.sample(range(1, 10), draw.randint(1, 3)))
    steps = [names[a:b] for a, b in zip([0, *cuts], cuts)]
    entries = [
        [MINIVOC_CLASSES.index(n) if draw.random() < 0.2 else n for n in step] for step in steps
    ]
    content: dict[str, Any] = {"steps": entries}
    if draw.random() < 0.5:
        content["name"] = draw.choice(("mine", "größe", *NASTY))
    if draw.random() < 0.3:
        content["unused"] = draw.choice(("background", "ignore", "void"))
    if draw.random() < 0.2:
        content["dataset"] = draw.choice(("minivoc", "voc"))
    try:
        return yaml.safe_dump(content, allow_unicode=True)
    except yaml.YAMLError:
        return f"steps: {entries}\n"


def shown_in(file: Path) -> set[int]:
    return set(np.unique(np.asarray(Image.open(file))).tolist())


def by_rule(
    shown: Mapping[str, set[int]], steps: list[list[int]], setup: str
) -> dict[str, list[str]]:
    """The rule of the setups again, by sets."""
    found = {}
    for k, step in enumerate(steps):
        later = {c for more in steps[k + 1 :] for c in more} if setup != "overlapped" else set()
        found[str(k)] = sorted(
            i for i, values in shown.items() if values & set(step) and not values & later
        )
    return found


def task_case(world: World, draw: Draw) -> Case:
    content, setup = (
        damaged(task_text(draw), draw),
        draw.choice(("disjoint", "overlapped", "sequential")),
    )

    def check(outcome: Outcome) -> str:
        written = yaml.safe_load(content.decode("utf-8"))["steps"]
        steps = [
            [MINIVOC_CLASSES.index(c) if isinstance(c, str) else c for c in step]
            for step in written
        ]
        masks = world.minivoc / "SegmentationClassAug"
        ids = (
            (world.minivoc / "ImageSets" / "Segmentation" / "train_aug.txt")
            .read_text("utf-8")
            .split()
        )
        wanted = by_rule({i: shown_in(masks / f"{i}.png") for i in ids}, steps, setup)
        return "" if json.loads(outcome.out) == wanted else "other images than by the rule"

    arguments = [
        "split",
        "--dataset",
        "minivoc",
        "--data-root",
        str(world.minivoc),
        "--task",
        "task.yaml",
        "--setup",
        setup,
    ]
    return Case(arguments, {"task.yaml": content}, check)


def description(world: World, draw: Draw) -> dict[str, Any]:
    """Of the small data set, with absolute folders."""
    names = list(STREETS[1:])
    values: Any = {name: place + 1 for place, name in enumerate(names)}
    if draw.random() < 0.4:
        values[draw.choice(("Straße", "=cmd", "<b>", *NASTY))] = draw.choice(
            (7, [7, 8], 255, -1, "x", 300)
        )
    if draw.random() < 0.3:
        values = ["nothing", *names]
    content: dict[str, Any] = {"classes": values}
    for split in ("train", "val"):
        content[split] = {
            "photos": str(world.streets / split),
            "masks": str(world.streets / f"{split}annot"),
        }
    if not isinstance(values, list):
        content["void"] = draw.choice(([0], 0, [0, 9], [0, 255]))
    if draw.random() < 0.4:
        content["name"] = draw.choice(("mine", "voc", *NASTY))
    return content


def dumped(content: Any) -> str:
    try:
        return yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    except yaml.YAMLError:
        return repr(content)


def counts_of(written: Mapping[str, Any], masks: Mapping[str, Path]) -> str:
    """What `data index` must print of a split: how many images show each class."""
    entry = written["classes"]
    values = (
        {n: v if isinstance(v, list) else [v] for n, v in entry.items()}
        if isinstance(entry, dict)
        else {n: [place] for place, n in enumerate(entry)}
    )
    shown = [shown_in(mask) for mask in masks.values()]
    counts = {
        n: sum(bool(s & set(v)) for s in shown) for n, v in values.items() if n != "background"
    }
    return f"{len(masks)} images; " + ", ".join(f"{n} {count}" for n, count in counts.items())


def data_case(world: World, draw: Draw) -> Case:
    content = damaged(dumped(description(world, draw)), draw, 2)

    def check(outcome: Outcome) -> str:
        written = yaml.safe_load(content.decode("utf-8"))
        wanted = []
        for split in ("train", "val"):
            folder = Path(os.path.join(world.case, written[split]["masks"]))
            masks = {file.stem: file for file in folder.glob("*.png")}
            wanted.append(f"{split}: {counts_of(written, masks)}")
        return "" if outcome.out.splitlines() == wanted else f"{outcome.out} in place of {wanted}"

    return Case(["data", "index", "--dataset", "data.yaml"], {"data.yaml": content}, check)


def table_case(world: World, draw: Draw) -> Case:
    """The training images as a table, with the columns, marks and names of people."""
    mark = draw.choice((",", ",", ";", "\t"))
    columns = draw.choice((["image", "mask"], ["image", "mask", "id"], ["id", "mask", "image"]))
    rows = []
    for number in range(draw.randint(1, 6)):
        name = f"0001TP_{number:06d}.png"
        cells = {
            "image": str(world.streets / "train" / name),
            "mask": str(world.streets / "trainannot" / name),
            "id": draw.choice((f"a{number}", f"é{number}", f"=cmd{number}")),
        }
        rows.append([cells[column] for column in columns])
    text = io.StringIO()
    csv.writer(text, delimiter=mark, lineterminator="\n").writerows([columns, *rows])
    table = damaged(text.getvalue(), draw, 2)
    written = {**description(world, Draw(1)), "train": {"pairs": "pairs.csv"}}

    def check(outcome: Outcome) -> str:
        lines = table.decode("utf-8-sig")
        first = lines.splitlines()[0]
        delimiter = max(",;\t", key=first.count)
        found = list(csv.DictReader(io.StringIO(lines, newline=""), delimiter=delimiter))
        masks = {str(n): world.case / row["mask"].strip() for n, row in enumerate(found)}
        wanted = f"train: {counts_of(written, masks)}"
        return (
            "" if outcome.out.splitlines()[0] == wanted else f"{outcome.out} in place of {wanted}"
        )

    files = {"data.yaml": dumped(written).encode(), "pairs.csv": table}
    return Case(["data", "index", "--dataset", "data.yaml"], files, check)


def variants_text(draw: Draw) -> str:
    rows = {}
    for number in range(draw.randint(1, 3)):
        name = draw.choice((f"row {number}", f"größe {number}", *NASTY))
        chosen = [setting(draw) if draw.random() < 0.3 else "=".join(draw.choice(FINE))]
        rows[name] = {"method": draw.choice(list(METHODS)), "set": chosen[: draw.randint(0, 1)]}
    return dumped(rows)


def variants_case(world: World, draw: Draw) -> Case:
    content = damaged(variants_text(draw), draw, 1)

    def check(outcome: Outcome) -> str:
        written = yaml.safe_load(content.decode("utf-8"))
        (configs,) = world.captured
        if len(configs) != len(written):
            return f"{len(written)} rows, {len(configs)} runs"
        for (name, row), config in zip(written.items(), configs, strict=True):
            layers = [
                {k.strip(): yaml.safe_load(v)}
                for k, _, v in (str(s).partition("=") for s in row.get("set", []))
            ]
            if not any(
                "method.name" in dict(leaves(layer)) for layer in layers
            ) and config.method.name != printable(name):
                return f"row {name!r} is called {config.method.name!r}"
            if problem := read_back(config, [*layers, {"method.name": name}]):
                return problem
        return ""

    return Case(
        [
            "compare",
            "--dataset",
            "minivoc",
            "--data-root",
            str(world.minivoc),
            "--tasks",
            "6-4",
            "--variants",
            "variants.yaml",
            "--out",
            "out",
        ],
        {"variants.yaml": content},
        check,
    )


SPACES: dict[str, tuple[Any, ...]] = {
    "optim.lr": ({"low": 0.001, "high": 0.1, "log": True}, [0.1, 0.2]),
    "optim.lr[1]": ({"low": 0.001, "high": 0.1, "log": True}, [0.01]),
    "optim.momentum": ({"low": 0, "high": 0.9}, [0.5]),
    "data.batch_size": ({"low": 2, "high": 4, "whole": True}, [4, 8]),
    "model.head": (["conv", "aspp"],),
    "method.terms.kd.weight": ({"low": 0.5, "high": 30, "log": True},),
    "method.classifier_init": (["random", "mib"], ["mib"]),
}
"""Good ranges and choices."""
BAD_ROWS: tuple[Any, ...] = (
    [[1, 2]], [None], [{}], [], {"low": 1}, {"low": 0.1, "high": float("inf")}, "x", 3, [True, "a"],
    {"low": 2, "high": 1}, {"low": -1, "high": 1, "log": True}, {"low": -1e308, "high": 1e308},
    {"low": 0.2, "high": 0.3, "whole": True}, {"low": 1, "high": 10**30, "whole": True},
)  # fmt: skip
BAD_PLACES = ("optim.momentum[1]", "optim.lr[99999999999]", "optim.iterations[0]", "seed[0]")


def space_text(draw: Draw) -> str:
    rows: dict[str, Any] = {}
    for _ in range(draw.randint(1, 3)):
        name = draw.choice(list(SPACES))
        row = draw.choice(SPACES[name])
        if draw.random() < 0.15:
            name = draw.choice((*BAD_PLACES, key(draw)))
        if draw.random() < 0.15:
            row = draw.choice(BAD_ROWS)
        rows[name] = row
    if draw.random() < 0.3:
        method = draw.choice(("MiB", "mib", "FT", "x"))
        rows["methods"] = {method: {"method.terms.kd.weight": {"low": 1, "high": 2}}}
    return dumped(rows)


def space_case(world: World, draw: Draw) -> Case:
    content = damaged(space_text(draw), draw, 1)

    def check(outcome: Outcome) -> str:
        """Each trial's settings lie in the ranges that the file gives."""
        written = yaml.safe_load(content.decode("utf-8"))
        methods = written.pop("methods", None) or {}
        for name, rows in methods.items():
            written |= (rows or {}) if name.lower() == "mib" else {}
        with (world.case / "out" / "trials.csv").open(encoding="utf-8", newline="") as file:
            trials = list(csv.DictReader(file))
        if len(trials) != 2:
            return f"{len(trials)} trials in place of 2"
        for trial in trials:
            chosen = dict(part.partition("=")[::2] for part in shlex.split(trial["settings"]))
            for name, row in written.items():
                place = int(name[:-1].rpartition("[")[2]) if name.endswith("]") else None
                found = yaml.safe_load(chosen[name.partition("[")[0]])
                found = found if place is None else found[place]
                if isinstance(row, dict):
                    low, high = float(row["low"]), float(row["high"])
                    if not low - abs(low) / 1000 <= float(found) <= high + abs(high) / 1000:
                        return f"{name} is {found}, not in {row}"
                elif found not in row:
                    return f"{name} is {found}, none of {row}"
        return ""

    return Case(
        [
            "sweep",
            "--dataset",
            "minivoc",
            "--data-root",
            str(world.minivoc),
            "--task",
            "6-4",
            "--method",
            "MiB",
            "--space",
            "space.yaml",
            "--trials",
            "2",
            "--storage",
            "out.journal",
            "--out",
            "out",
        ],
        {"space.yaml": content},
        check,
    )


KINDS: dict[str, Callable[[World, Draw], Case]] = {
    "settings": settings_case,
    "command lines": command_case,
    "config files": config_case,
    "task files": task_case,
    "data files": data_case,
    "tables": table_case,
    "variants": variants_case,
    "spaces": space_case,
}


def drawn(world: World, kind: str, number: int, seed: int = SEED) -> Case:
    """The case of this kind and number, always the same."""
    return KINDS[kind](world, Draw(f"{seed} {kind} {number}"))


def fuzz(world: World, kind: str, numbers: range, seed: int = SEED) -> Tally:
    """Run these cases of a kind."""
    tally, before = Tally(), snapshot(world.root)
    for number in numbers:
        case = drawn(world, kind, number, seed)
        outcome, fault = run_case(world, case, before)
        ends = {2: "refused", **dict.fromkeys((0, *case.verdicts), "accepted")}
        line = f"{kind} {number}: {' '.join(case.arguments)!r}: {fault}" if fault else ""
        tally.add(ends.get(outcome.status, f"status {outcome.status}"), outcome.seconds, line)
    return tally


def table(tallies: Mapping[str, Tally]) -> str:
    """The table of docs/reliability.md."""
    lines = ["| kind | cases | accepted | refused in one line | faults | seconds | slowest case |"]
    lines.append("|---|---|---|---|---|---|---|")
    for kind, t in tallies.items():
        ended = (t.outcomes["accepted"], t.outcomes["refused"])
        numbers = (t.cases, *ended, len(t.faults), round(t.seconds))
        cells = [kind, *map(str, numbers), f"{t.slowest:.1f} s"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def run_from_shell() -> int:
    parser = argparse.ArgumentParser(
        description="Settings, command lines, YAML and CSV files at random."
    )
    parser.add_argument("--cases", type=int, default=CASES, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--case", type=int, help="this one of --only")
    chosen = parser.parse_args()
    tallies = {}
    with tempfile.TemporaryDirectory() as folder, small_world(Path(folder).resolve()) as world:
        for kind in [chosen.only] if chosen.only else KINDS:
            numbers = (
                range(chosen.cases // len(KINDS))
                if chosen.case is None
                else range(chosen.case, chosen.case + 1)
            )
            tallies[kind] = fuzz(world, kind, numbers, chosen.seed)
            if chosen.case is not None:
                case = drawn(world, kind, chosen.case, chosen.seed)
                print(
                    case.arguments,
                    dict(case.files),
                    run_case(world, case, snapshot(world.root)),
                    sep="\n",
                )
    print(table(tallies))
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    print("\n".join(faults))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(run_from_shell())
