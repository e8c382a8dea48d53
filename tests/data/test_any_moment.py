"""Ctrl-C at any line and a full disk at any write: nothing half done, the same command goes on."""

import builtins
import errno
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import published_data as data
import pytest
from conftest import PATIENCE

from sparcl_lib.cli import main
from sparcl_lib.data import checking, voc_source
from sparcl_lib.data.acquiring import layouts

CODE = str(Path(checking.__file__).parent)
TREE = "VOCdevkit/VOC2012"
MOMENTS = 30
FEW = 3  # Python itself swallows what interrupts the clean-up of a generator
# Python may be interrupted between opening a file and entering its `with`.
IGNORE_LEAKS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    monkeypatch.setattr(layouts, "SBD", replace(layouts.SBD, needs=layouts.VOC2012))
    monkeypatch.setitem(checking.PUBLISHED, "voc", data.COUNTS)


@pytest.fixture
def voc(tmp_path) -> Path:
    return data.pack(tmp_path / "VOCtrainval_11-May-2012.tar", data.voc_files())


@pytest.fixture
def sbd(tmp_path) -> Path:
    return data.pack(tmp_path / "benchmark.tgz", data.sbd_files())


def run(name: str, root: Path, own: Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["data", name, "--root", str(root), "--from", str(own)])
    return stop.value.code or 0


def content_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".sparcl.lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def lines_of(work: Callable[[], int], stop_at: int | None = None) -> tuple[int, int]:
    """(lines of sparcl_lib/data that ran in this thread, status), with Ctrl-C at one of them."""
    seen = itertools.count()
    last = 0

    def trace(frame, event, _):
        nonlocal last
        if not frame.f_code.co_filename.startswith(CODE):
            return None
        if event == "line":
            last = next(seen)
            if last == stop_at:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        status = work()
    finally:
        sys.settrace(before)
    return last, status


def spread_over(total: int) -> list[int]:
    return sorted({total * n // MOMENTS for n in range(MOMENTS)})


@IGNORE_LEAKS
def test_ctrl_c_at_any_line_of_a_new_tree(tmp_path, voc, capsys):
    total, status = lines_of(lambda: run("voc2012", tmp_path / "whole", voc))
    whole = content_of(tmp_path / "whole")
    assert status == 0 and total > 500 and whole == data.voc_files()
    capsys.readouterr()
    stopped = 0
    for moment in spread_over(total):
        root = tmp_path / str(moment)
        _, status = lines_of(lambda root=root: run("voc2012", root, voc), moment)
        found = content_of(root / TREE)
        assert len(found) in ((0, len(whole)) if status == 130 else (len(whole),)), moment
        said = "sparcl: interrupted; the same" in capsys.readouterr().err
        assert status in (0, 130) and said == (status == 130), moment
        stopped += said
        assert run("voc2012", root, voc) == 0
        assert content_of(root) == whole and not list(root.glob(".unpacking*")), moment
    assert stopped >= MOMENTS - FEW


def as_it_was_or_augmented(root: Path) -> bool:
    """Is what a loader sees the old tree, or the new one with every mask?"""
    source = voc_source(root)
    masks = [source.mask(split, i) for split in ("train", "val") for i in source.ids(split)]
    wanted = data.TRAIN if source.split("train").listing.name == "train.txt" else data.TRAIN_AUG
    return source.ids("train") == tuple(wanted) and all(map(os.path.exists, masks))


@IGNORE_LEAKS
def test_ctrl_c_at_any_line_of_an_addition(tmp_path, voc, sbd):
    def with_voc(name: str) -> Path:
        data.spread(tmp_path / name, data.voc_files())
        return tmp_path / name

    total, status = lines_of(lambda: run("sbd", with_voc("whole"), sbd))
    whole = content_of(tmp_path / "whole")
    assert status == 0 and total > 500
    stopped = 0
    for moment in spread_over(total):
        root = with_voc(str(moment))
        _, status = lines_of(lambda root=root: run("sbd", root, sbd), moment)
        assert status in (0, 130) and as_it_was_or_augmented(root), moment
        stopped += status == 130
        assert set(data.voc_files()) <= set(content_of(root)) <= set(whole), moment
        assert run("sbd", root, sbd) == 0
        assert content_of(root) == whole, moment
    assert stopped >= MOMENTS - FEW


@contextmanager
def room_for(writes: float, root: Path):
    """A disk on which only so many files and folders can still be made below `root`."""
    made = itertools.count()

    def checked(original: Callable, target: int, is_write: Callable = lambda *a: True) -> Callable:
        def call(*arguments, **options):
            path = arguments[target]
            below = isinstance(path, (str, Path)) and str(path).startswith(str(root))
            if below and is_write(*arguments) and next(made) >= writes:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            return original(*arguments, **options)

        return call

    def writes_to(file, mode="r", *_) -> bool:
        return bool(set(mode) & set("wxa+"))

    with pytest.MonkeyPatch.context() as patch:
        opened = checked(open, 0, writes_to)
        for module in (io, builtins):
            patch.setattr(module, "open", opened)
        patch.setattr(os, "mkdir", checked(os.mkdir, 0))
        patch.setattr(os, "replace", checked(os.replace, 1))
        yield lambda: next(made)


@pytest.mark.parametrize("name", ["voc2012", "sbd"])
def test_a_full_disk_at_any_write(tmp_path, voc, sbd, capsys, name):
    own = {"voc2012": voc, "sbd": sbd}[name]
    start = data.voc_files() if name == "sbd" else {}

    def prepared(place: str) -> Path:
        (tmp_path / place).mkdir()
        return data.spread(tmp_path / place, start)

    with room_for(float("inf"), prepared("whole")) as made:
        assert run(name, tmp_path / "whole", own) == 0
        total = made()
    whole = content_of(tmp_path / "whole")
    assert total > 20
    for writes in spread_over(total):
        root = prepared(str(writes))
        with room_for(writes, root):
            status = run(name, root, own)
        error = capsys.readouterr().err.splitlines()[-1]
        assert status == 2 and "is full: free some space and run the same command again" in error
        assert as_it_was_or_augmented(root) if start else not content_of(root / TREE)
        assert run(name, root, own) == 0 and content_of(root) == whole, writes


DRIVER = """
import json, signal, sys
from sparcl_lib.cli import main
# Suites started in the background inherit that it is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from sparcl_lib.data import checking
checking.PUBLISHED["voc"] = json.loads(sys.argv[1])
main(["data", "voc2012", "--root", sys.argv[2], "--from", sys.argv[3]])
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("stage", ["unpacking", "checking"])
def test_a_real_signal(tmp_path, kind, stage):
    """Threads decode while files are checked; a killed process cannot clean up behind itself."""
    more = {f"{TREE}/Annotations/{n}.xml": bytes(10_000) for n in range(3000)}
    files = data.voc_files() | (more if stage == "unpacking" else {})
    ids = [*data.TRAIN, *(f"2010_{n:05}" for n in range(2000))] if stage == "checking" else []
    for i in ids[len(data.TRAIN) :]:
        files[f"{TREE}/JPEGImages/{i}.jpg"] = files[f"{TREE}/JPEGImages/2007_01.jpg"]
        files[f"{TREE}/SegmentationClass/{i}.png"] = files[f"{TREE}/SegmentationClass/2007_01.png"]
    if ids:
        files[f"{TREE}/ImageSets/Segmentation/train.txt"] = data.lines(ids)
    counts = {"train.txt": len(ids) or 2, "val.txt": 2}
    own, root = data.pack(tmp_path / "own.tar", files), tmp_path / "data"
    command = [sys.executable, "-c", DRIVER, json.dumps(counts), str(root), str(own)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    seen = ""
    while process.poll() is None and stage not in seen:
        seen += process.stderr.read(1)
    process.send_signal(kind)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == (130 if kind == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors and not (root / TREE).exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert content_of(root) == files
