"""From archives on a server, or from the user's own files, to trees that the loaders accept."""

import errno
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import published_data as data
import pytest
from conftest import PATIENCE
from filelock import FileLock
from local_server import LocalServer, running
from PIL import Image

from sparcl_lib.cli import main
from sparcl_lib.data import ade20k_source, checking, voc_source
from sparcl_lib.data.acquiring import layouts, prepare

ARCHIVES = {
    "VOC2012": ("VOCtrainval_11-May-2012.tar", data.voc_files),
    "SBD": ("benchmark.tgz", data.sbd_files),
    "ADE20K": ("ADEChallengeData2016.zip", data.ade_files),
}
TREE = "VOCdevkit/VOC2012"


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with running() as local:
        yield local


@pytest.fixture
def packed(tmp_path, server, monkeypatch) -> Path:
    """A folder with the three archives; the server has them, and the acquisitions believe it."""
    folder = tmp_path / "packed"
    for name, (file, files) in ARCHIVES.items():
        path = data.pack(folder / file, files())
        archive = data.described(path, server.serve(f"/{file}", path.read_bytes()))
        acquisition = replace(getattr(layouts, name), archive=archive)
        if name == "SBD":
            acquisition = replace(acquisition, needs=layouts.VOC2012)
        monkeypatch.setattr(layouts, name, acquisition)
    monkeypatch.setitem(checking.PUBLISHED, "voc", data.COUNTS)
    monkeypatch.setitem(checking.PUBLISHED, "ade20k", {"train": 3, "val": 2})
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(packed, root, capsys):
    """Call `sparcl data NAME --root ROOT ...`: (status, output, last line on stderr)."""

    def call(name: str, *arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["data", name, "--root", str(root), *map(str, arguments)])
        shown = capsys.readouterr()
        return stop.value.code or 0, shown.out, (shown.err.splitlines() or [""])[-1]

    return call


def content_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".sparcl.lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def read(path: Path) -> np.ndarray:
    with Image.open(path) as mask:
        assert mask.mode in ("P", "L")
        return np.array(mask)


def assert_augmented(root: Path) -> None:
    source = voc_source(root)
    assert source.ids("train") == tuple(data.TRAIN_AUG) and source.ids("val") == tuple(data.VAL)
    for split in ("train", "val"):
        for i in source.ids(split):
            mask = data.sbd_mask(i) if i in data.REST else data.voc_mask(i)
            assert (read(Path(source.mask(split, i))) == mask).all()
            assert source.photo(split, i)


def test_voc_from_nothing(run, root, server):
    status, out, _ = run("voc2012")
    assert status == 0, out
    source = voc_source(root)
    assert source.ids("train") == tuple(data.TRAIN) and source.ids("val") == tuple(data.VAL)
    assert content_of(root) == data.voc_files(), "the whole devkit, and no archive or remains"
    terms, *lines = out.splitlines()
    assert "Flickr's terms of use" in terms and {line[:4] for line in lines} == {"OK  "}
    copies = [line for line in lines if "there again, byte for byte, with another mask" in line]
    assert len(copies) == 2 and len(lines) == 8 + len(copies)  # each photograph here is one grey
    before = content_of(root)
    status, out, _ = run("voc2012")
    assert status == 0 and "already: nothing to do" in out
    assert content_of(root) == before and len(server.asked) == 1


def test_voc_then_sbd(run, root, server):
    assert run("voc2012")[0] == 0
    status, out, _ = run("sbd")
    assert status == 0, out
    assert_augmented(root)
    added = set(content_of(root)) - set(data.voc_files())
    masks = {f"{TREE}/SegmentationClassAug/{i}.png" for i in [*data.TRAIN_AUG, *data.VAL]}
    assert added == masks | {f"{TREE}/ImageSets/Segmentation/train_aug.txt"}
    with Image.open(root / TREE / "SegmentationClassAug/2008_01.png") as mask:
        assert mask.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert "OK   train: 5 images, as published" in out
    before = content_of(root)
    assert "nothing to do" in run("sbd")[1] and "nothing to do" in run("voc2012")[1]
    assert content_of(root) == before and len(server.asked) == 2


def test_ade_from_nothing(run, root, server):
    status, out, _ = run("ade20k")
    assert status == 0, out
    source = ade20k_source(root)
    assert len(source.ids("train")) == 3 and len(source.ids("val")) == 2
    assert content_of(root) == data.ade_files()
    assert "non-commercial" in out and "OK   train: 3 images, as published" in out
    assert "nothing to do" in run("ade20k")[1] and len(server.asked) == 1


def test_archives_are_kept_on_request(run, root, packed):
    assert run("ade20k", "--keep-archives")[0] == 0
    name = "ADEChallengeData2016.zip"
    assert (root / "archives" / name).read_bytes() == (packed / name).read_bytes()


def test_an_archive_that_was_there_before_stays(run, root, packed, server):
    """One that the user had put there, or named by --from, was deleted as if it were a download."""
    mine = root / "archives" / "ADEChallengeData2016.zip"
    mine.parent.mkdir(parents=True)
    mine.write_bytes((packed / mine.name).read_bytes())
    status, out, _ = run("ade20k", "--from", mine)
    assert status == 0 and f"OK   {mine} was there before and stays; remove it if" in out
    shutil.rmtree(root / "ADEChallengeData2016")
    assert run("ade20k")[0] == 0 and not server.asked
    assert mine.read_bytes() == (packed / mine.name).read_bytes()


def test_dry_run_says_all_and_does_nothing(run, root, packed, server):
    (root / "archives").mkdir(parents=True)
    size = (packed / "benchmark.tgz").stat().st_size
    (root / "archives" / "benchmark.tgz.part").write_bytes(bytes(1500))
    status, out, _ = run("sbd", "--dry-run")
    assert status == 0 and not server.asked
    assert f"download benchmark.tgz, {size / 1000:.2f} kB, of which 1.50 kB are here" in out
    for part in (f"http://127.0.0.1:{server.server_port}/benchmark.tgz", "md5:", "free: ", "terms"):
        assert part in out
    assert set(content_of(root)) == {"archives/benchmark.tgz.part"}
    _, out, _ = run("ade20k", "--dry-run", "--from", packed)
    assert f"from {packed}" in out and "download" not in out


@pytest.mark.parametrize("form", ["archive", "folder with it", "tree", "tree above", "link"])
def test_voc_from_own_files(run, root, server, packed, tmp_path, form):
    mine = tmp_path / "mine"
    tree = data.spread(mine, data.voc_files()) / TREE
    (tmp_path / "link").symlink_to(tree)
    own = {
        "archive": packed / "VOCtrainval_11-May-2012.tar",
        "folder with it": packed,
        "tree": tree,
        "tree above": mine,
        "link": tmp_path / "link",
    }[form]
    before = content_of(own)
    status, out, _ = run("voc2012", "--from", own)
    assert status == 0, out
    expected = {n: c for n, c in content_of(root).items() if "SegmentationClassAug" not in n}
    expected.pop(f"{TREE}/ImageSets/Segmentation/train_aug.txt", None)
    assert expected == data.voc_files()
    assert content_of(own) == before and not server.asked
    assert "nothing to do" in run("voc2012", "--from", own)[1]


@pytest.mark.parametrize("form", ["archive", "dataset folder", "folder above"])
def test_sbd_from_own_files(run, root, server, packed, tmp_path, form):
    assert run("voc2012", "--from", packed / "VOCtrainval_11-May-2012.tar")[0] == 0
    mine = data.spread(tmp_path / "mine", data.sbd_files())
    own = {
        "archive": packed / "benchmark.tgz",
        "dataset folder": mine / "benchmark_RELEASE" / "dataset",
        "folder above": mine,
    }[form]
    status, out, _ = run("sbd", "--from", own)
    assert status == 0, out
    assert_augmented(root)
    assert not server.asked and not list(root.glob("**/*.mat"))


@pytest.mark.parametrize("command", ["voc2012", "sbd"])
def test_finished_masks_in_a_zip(run, root, server, tmp_path, command):
    own = data.pack(tmp_path / "SegmentationClassAug.zip", data.augmented_files())
    if command == "sbd":
        assert run("voc2012")[0] == 0
    status, out, _ = run(command, "--from", own)
    assert status == 0, out
    assert_augmented(root)
    assert [path for path, _ in server.asked] == ["/VOCtrainval_11-May-2012.tar"]
    before = content_of(root)
    assert run(command, "--from", own)[1].count("nothing to do") == (2 if command[0] == "v" else 1)
    assert content_of(root) == before


def test_masks_and_lists_alone_are_enough_for_splits(run, root, server, tmp_path):
    own = data.pack(tmp_path / "SegmentationClassAug.zip", data.augmented_files())
    lists = {f"{n}.txt": data.lines(ids) for n, ids in (("train", data.TRAIN), ("val", data.VAL))}
    data.spread(tmp_path / "voc_lists", lists)
    command = ("voc2012", "--from", own, "--from", tmp_path / "voc_lists", "--partial")
    status, out, _ = run(*command)
    assert status == 0 and not server.asked, out
    source = voc_source(root)
    assert source.ids("train") == tuple(data.TRAIN_AUG) and source.ids("val") == tuple(data.VAL)
    assert not (root / TREE / "JPEGImages").exists()
    before = content_of(root)
    assert run(*command)[0] == 0 and content_of(root) == before
    # Later the photographs: what was missing comes, what was there stays.
    status, out, _ = run("voc2012")
    assert status == 0, out
    assert_augmented(root)
    assert set(content_of(root)) == set(before) | set(data.voc_files())


def test_a_part_of_a_tree(run, root, tmp_path):
    files = {n: c for n, c in data.voc_files().items() if "2007_02" not in n}
    files[f"{TREE}/ImageSets/Segmentation/train.txt"] = data.lines(["2007_01"])
    own = data.spread(tmp_path / "mine", files)
    status, out, _ = run("voc2012", "--from", own)
    assert status == 1 and "FAIL train: 1 images, but 2 are published" in out
    assert "FAIL Pascal VOC2012 is not put into" in out and content_of(root) == {}
    status, out, _ = run("voc2012", "--from", own, "--partial")
    assert status == 0, out
    assert voc_source(root).ids("train") == ("2007_01",)


def test_own_lists_of_another_name_and_finished_masks_in_a_tree(run, root, tmp_path):
    files = data.voc_files()
    files |= {f"{TREE}/{n}": c for n, c in data.augmented_files().items() if n[0] == "S"}
    order = [*reversed(data.TRAIN_AUG)]
    files[f"{TREE}/ImageSets/Segmentation/trainaug.txt"] = data.lines(order)
    status, out, _ = run("voc2012", "--from", data.spread(tmp_path / "mine", files))
    assert status == 0, out
    assert voc_source(root).ids("train") == tuple(order), "the user's own list is kept"


def test_a_broken_file_of_the_user_is_named_and_nothing_is_put_in_place(run, root, tmp_path):
    files = data.augmented_files()
    files["SegmentationClassAug/2008_02.png"] = files["SegmentationClassAug/2008_02.png"][:40]
    files["SegmentationClassAug/2008_03.png"] = data.png(np.full((9, 12), 77, np.uint8))
    files["SegmentationClassAug/2008_01.png"] = data.png(np.zeros((9, 13), np.uint8))
    own = data.pack(tmp_path / "SegmentationClassAug.zip", files)
    status, out, _ = run("voc2012", "--from", own)
    assert status == 1
    for text in ("2008_02.png is no image", "2008_03.png holds 77 ", "mask .*2008_01.png is 13x9"):
        assert re.search(f"^FAIL .*{text}", out, re.MULTILINE), out
    assert set(content_of(root)) == set(data.voc_files())
    assert voc_source(root).ids("train") == tuple(data.TRAIN)


def test_sbd_is_not_downloaded_before_voc_is_there(run, root, server):
    status, _, error = run("sbd")
    assert status == 2 and f"run sparcl data voc2012 --root {root} first" in error
    assert not server.asked and content_of(root) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "nowhere"], "--from nowhere does not exist"),
        (["--from", "EMPTY"], "holds nothing of Pascal VOC2012; name VOCtrainval_11-May-2012.tar"),
        (["--partial"], "add --from FILE_OR_FOLDER"),
        (["--from", "BROKEN"], "broken.tar is damaged or no tar or zip"),
    ],
)
def test_mistakes(run, server, tmp_path, arguments, message):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "broken.tar").write_text("no tar", "utf-8")
    made = {"EMPTY": tmp_path / "EMPTY", "BROKEN": tmp_path / "broken.tar"}
    status, _, error = run("voc2012", *(made.get(a, a) for a in arguments))
    assert status == 2 and message in error and not server.asked


def test_no_network_says_what_to_do(run, root, server):
    server.faults["/ADEChallengeData2016.zip"] = itertools.repeat(404)
    status, _, error = run("ade20k")
    assert status == 2 and "404 Not Found" in error and "--from FILE" in error
    assert not list(root.glob("ADE*"))


def test_too_little_space_is_said_before_a_byte_comes(run, root, server, monkeypatch):
    monkeypatch.setattr(prepare, "free_bytes", lambda folder: 100)
    status, _, error = run("ade20k")
    assert status == 2 and "has 100 bytes: free some space or name another --root" in error
    size = layouts.ADE20K.archive.size  # as many again are needed to unpack it
    monkeypatch.setattr(prepare, "free_bytes", lambda folder: 2 * size - 1)
    status, _, error = run("ade20k")
    assert status == 2 and " more, to come and to be unpacked, but the disk of" in error
    assert not server.asked
    monkeypatch.setattr(prepare, "free_bytes", lambda folder: 2 * size)
    assert run("ade20k")[0] == 0


def test_a_missing_file_is_put_back_and_the_rest_left(run, root):
    assert run("voc2012", "--keep-archives")[0] == 0
    gone, mine = root / TREE / "JPEGImages/2007_01.jpg", root / TREE / "JPEGImages/2009_01.jpg"
    before = gone.read_bytes()
    gone.unlink()
    mine.write_bytes(b"changed by the user")
    status, out, _ = run("voc2012")
    assert status == 0, out
    assert gone.read_bytes() == before and mine.read_bytes() == b"changed by the user"


def test_a_tree_with_other_lists_is_not_mixed_with_the_new_one(run, root, server):
    own_list = root / TREE / "ImageSets/Segmentation/train.txt"
    data.spread(root, {f"{TREE}/ImageSets/Segmentation/train.txt": data.lines(["mine"])})
    status, _, error = run("voc2012")
    assert status == 2 and "train.txt lists other images than the new one" in error
    assert own_list.read_bytes() == data.lines(["mine"])
    assert {n.partition("/")[0] for n in content_of(root)} == {"VOCdevkit", "archives"}
    assert not (root / TREE / "JPEGImages").exists()


GOES_ON = "sparcl: interrupted; the same command goes on from here"
STAGES = ["unpack", "check", "_install", "_discard"]


def break_at(name: str, error: BaseException, half: bool) -> pytest.MonkeyPatch:
    """Make a stage of the work raise, after having done it where that makes a difference."""
    original = getattr(prepare, name)

    def broken(*arguments: object, **options: object) -> object:
        if half:
            original(*arguments, **options)
        raise error

    patch = pytest.MonkeyPatch()
    patch.setattr(prepare, name, broken)
    return patch


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_at_any_stage_leaves_a_state_from_which_the_same_command_goes_on(
    run, root, server, stage, half
):
    patch = break_at(stage, KeyboardInterrupt(), half)
    status, _, error = run("voc2012")
    patch.undo()
    assert status == 130 and error.startswith(GOES_ON)
    tree = {n for n in content_of(root) if not n.startswith("archives/")}
    assert tree in (set(), set(data.voc_files())), "all or nothing"
    assert not list(root.glob(".unpacking*"))
    status, out, _ = run("voc2012")
    assert status == 0, out
    assert len(server.asked) == 1, "what was downloaded is not downloaded again"
    kept = {n for n in content_of(root) if not n.startswith("archives/")}
    assert kept == set(data.voc_files())


def test_ctrl_c_between_two_files_of_an_addition(run, root, monkeypatch):
    """The lists come last: until then the loaders see the old tree."""
    assert run("voc2012")[0] == 0
    replaced, moved = os.replace, []

    def replace_three(source: Path, target: Path) -> None:
        if "SegmentationClassAug" in str(target):
            moved.append(target)
            if len(moved) > 3:
                raise KeyboardInterrupt
        replaced(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(prepare.os, "replace", replace_three)
        assert run("sbd")[0] == 130
    assert voc_source(root).ids("train") == tuple(data.TRAIN)
    assert voc_source(root).split("train").masks.name == "SegmentationClass"
    assert run("sbd")[0] == 0
    assert_augmented(root)


@pytest.mark.parametrize("stage", STAGES[:3])
def test_a_full_disk_at_any_stage(run, root, server, stage):
    full = OSError(errno.ENOSPC, "No space left on device")
    patch = break_at(stage, full, half=stage != "_install")
    status, _, error = run("voc2012")
    patch.undo()
    assert status == 2 and "is full: free some space and run the same command again" in error
    assert set(content_of(root)) == {"archives/VOCtrainval_11-May-2012.tar"}
    assert run("voc2012")[0] == 0 and len(server.asked) == 1


def test_what_a_killed_run_left_is_cleared_away(run, root):
    (root / ".unpacking-voc2012" / "JPEGImages").mkdir(parents=True)
    (root / ".unpacking-voc2012" / "JPEGImages" / "half.jpg").write_bytes(b"half")
    assert run("voc2012")[0] == 0
    assert content_of(root) == data.voc_files()


def test_two_at_once_are_told_apart(run, root):
    root.mkdir()
    with FileLock(root / ".sparcl.lock"):
        status, _, error = run("voc2012")
    assert status == 2 and "another sparcl is at work in" in error
    assert run("voc2012")[0] == 0


DRIVER = """
import json, signal, sys
from dataclasses import replace
from sparcl_lib.cli import main
# Suites started in the background inherit that it is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from sparcl_lib.data import checking
from sparcl_lib.data.acquiring import layouts
from sparcl_lib.data.acquiring.archives import Archive
archive = Archive(**json.loads(sys.argv[1]))
layouts.VOC2012 = replace(layouts.VOC2012, archive=archive)
checking.PUBLISHED["voc"] = json.loads(sys.argv[2])
main(["data", "voc2012", "--root", sys.argv[3]])
"""


def test_sigint_in_the_middle_of_a_download(packed, root, server):
    files = data.voc_files() | {f"{TREE}/Annotations/large.xml": bytes(10**6)}
    path = data.pack(packed / "VOCtrainval_11-May-2012.tar", files)
    url = server.serve(f"/{path.name}", path.read_bytes(), ["slow"])
    archive = data.described(path, url)
    told = json.dumps({**vars(archive), "urls": list(archive.urls)})
    command = [sys.executable, "-c", DRIVER, told, json.dumps(data.COUNTS), str(root)]
    part = root / "archives" / f"{archive.name}.part"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not (part.exists() and part.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(GOES_ON)
    size = part.stat().st_size
    assert 0 < size < archive.size
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert server.asked == [(f"/{path.name}", None), (f"/{path.name}", f"bytes={size}-")]
    assert content_of(root) == files


def test_a_wrong_count_of_train_aug_is_found_before_it_is_used(run, root, packed, tmp_path):
    assert run("voc2012")[0] == 0
    files = data.sbd_files()
    files["benchmark_RELEASE/dataset/val.txt"] = data.lines(["2008_02"])
    status, out, _ = run("sbd", "--from", data.pack(tmp_path / "own.tgz", files))
    assert status == 1 and "FAIL train: 4 images, but 5 are published" in out
    assert not (root / TREE / "SegmentationClassAug").exists()


@pytest.mark.parametrize(
    "script",
    ["get_voc2012", "get_sbd", "get_ade20k", "make_minivoc", "check_data", "build_index"],
)
def test_scripts_are_the_commands(script):
    path = Path(__file__).parents[2] / "data_scripts" / f"{script}.py"
    assert len(path.read_text("utf-8").splitlines()) < 12
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True)
    name = re.search(r'main\(\["data", "(\w+)"', path.read_text("utf-8"))[1]
    assert done.returncode == 0 and f"Usage: sparcl data {name}" in done.stdout
