"""The scan of the masks and its cache."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_mask, make_voc_tree, save_mask, write_list
from PIL import Image

from sparcl_lib.data import Presence, Source, checksums, fingerprint, presence, scan, voc_source
from sparcl_lib.errors import UserError

MASKS = {"b": {1, 15}, "a": {20, 255}, "c": {0}, "v": {2}}


@pytest.fixture
def source(tmp_path) -> Source:
    return voc_source(make_voc_tree(tmp_path / "voc", MASKS, val=["v"], photos=False))


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the masks that a scan decodes."""
    names, read = [], presence.count_values
    monkeypatch.setattr(presence, "count_values", lambda p: names.append(Path(p).stem) or read(p))
    return names


def values(found: Presence) -> dict[str, set[int]]:
    return {i: set(np.flatnonzero(row)) for i, row in zip(found.ids, found.table, strict=True)}


def replace_mask(path: str, content: set[int]) -> None:
    """New content in a file of the same size, with a new time (as after an edit)."""
    before = os.stat(path)
    save_mask(Path(path), make_mask(content))
    assert os.stat(path).st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def test_from_sets():
    found = Presence.from_sets({"x": {1, 15}, "y": [255], "z": ()})
    assert values(found) == {"x": {1, 15}, "y": {255}, "z": set()}
    assert found.table.shape == (3, 256) and found.sizes is None
    for value in (-1, 256, "dog"):
        with pytest.raises(UserError, match=f"image 'x': {value!r} is no mask value 0 to 255"):
            Presence.from_sets({"x": {value}})


@pytest.mark.parametrize("threads", [1, 3])
def test_scan(source, threads, monkeypatch):
    monkeypatch.setattr("sparcl_lib.data.presence.cores", lambda: threads)
    found = scan(source, "train", progress=False)
    assert found.ids == ("b", "a", "c")
    assert values(found) == {"b": {0, 1, 15}, "a": {0, 20, 255}, "c": {0}}
    assert found.table.dtype == bool and found.sizes.tolist() == 3 * [[8, 6]]
    assert values(scan(source, "val", progress=False)) == {"v": {0, 2}}


def test_grey_and_one_bit_masks(source):
    Image.fromarray(make_mask({7})).save(source.mask("train", "a"))
    Image.new("1", (8, 6)).save(source.mask("train", "b"))
    found = values(scan(source, "train", progress=False))
    assert found["a"] == {0, 7} and found["b"] == {0}


def test_random_masks_against_numpy(tmp_path):
    random = np.random.default_rng(0)
    masks = {
        f"m{n:02}": random.integers(0, 21, random.integers(1, 9, 2), dtype=np.uint8)
        for n in range(40)
    }
    found = scan(voc_source(make_voc_tree(tmp_path, masks, photos=False)), "train", progress=False)
    assert values(found) == {image_id: set(np.unique(mask)) for image_id, mask in masks.items()}
    assert found.sizes.tolist() == [list(mask.shape[::-1]) for mask in masks.values()]


def test_second_scan_decodes_nothing(source, decoded):
    first = scan(source, "train", progress=False)
    assert sorted(decoded) == ["a", "b", "c"]
    again = scan(source, "train", progress=False)
    assert len(decoded) == 3
    assert again.ids == first.ids and (again.table == first.table).all()
    assert again.sizes.tolist() == first.sizes.tolist() and again.sizes.dtype == first.sizes.dtype


def test_changed_mask_is_read_again(source, decoded):
    scan(source, "train", progress=False)
    decoded.clear()
    replace_mask(source.mask("train", "b"), {1, 16})
    assert values(scan(source, "train", progress=False))["b"] == {0, 1, 16}
    assert decoded == ["b"]
    assert values(scan(source, "train", progress=False))["b"] == {0, 1, 16}
    assert decoded == ["b"]


def overwrite(path: str, other: str) -> None:
    """A file of the same size in its place, with its modification time: `cp -p`, rsync."""
    before, content = os.stat(path), Path(other).read_bytes()
    now = before
    while now.st_ctime_ns == before.st_ctime_ns:  # a file system's clock goes by milliseconds
        Path(path).write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        now = os.stat(path)
    assert (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_mask_of_the_same_size_and_time_is_read_again(decoded, tmp_path):
    """Swapped classes under the old time of modification: evaluation went from 0.3 to 0.0."""
    source = voc_source(make_voc_tree(tmp_path / "voc", MASKS, val=["v"]))
    before = fingerprint(source)
    scan(source, "train", progress=False)
    decoded.clear()
    save_mask(tmp_path / "other.png", make_mask({2, 15}))
    overwrite(source.mask("train", "b"), str(tmp_path / "other.png"))
    assert values(scan(source, "train", progress=False))["b"] == {0, 2, 15}
    assert decoded == ["b"]
    assert fingerprint(source) != before


def test_a_photograph_of_the_same_size_and_time_is_read_again(tmp_path):
    source = voc_source(make_voc_tree(tmp_path / "voc", MASKS, val=["v"]))
    pixels = np.zeros((6, 8, 3), np.uint8)
    photo = source.photo("train", "a")
    Image.fromarray(pixels).save(photo, "BMP")
    Image.fromarray(pixels + 9).save(tmp_path / "other", "BMP")
    before = fingerprint(source)
    overwrite(photo, str(tmp_path / "other"))
    assert fingerprint(source) != before


def test_a_hard_link_costs_one_more_reading_and_changes_nothing(source, decoded, tmp_path):
    first = scan(source, "train", progress=False)
    decoded.clear()
    mask = Path(source.mask("train", "b"))
    before = mask.stat().st_ctime_ns
    while mask.stat().st_ctime_ns == before:
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").hardlink_to(mask)
    for _ in range(2):
        assert values(scan(source, "train", progress=False)) == values(first)
        assert decoded == ["b"]


def test_what_an_earlier_version_kept_is_not_trusted(source, own_cache, decoded):
    """Its caches knew sizes and modification times alone."""
    scan(source, "train", progress=False)
    (kept,) = (own_cache / "sparcl").iterdir()
    assert kept.name.startswith("presence-v3-") and checksums.CACHE_VERSION == 2
    kept.rename(kept.with_name(kept.name.replace("-v3-", "-v2-")))
    decoded.clear()
    scan(source, "train", progress=False)
    assert len(decoded) == 3


def test_changed_list(source, decoded):
    scan(source, "train", progress=False)
    decoded.clear()
    listing = source.split("train").listing
    write_list(listing, ["v", "a"])
    found = scan(source, "train", progress=False)
    assert found.ids == ("v", "a") and values(found) == {"v": {0, 2}, "a": {0, 20, 255}}
    assert decoded == ["v"]
    write_list(listing, ["a"])
    assert values(scan(source, "train", progress=False)) == {"a": {0, 20, 255}}


def test_deleted_mask(source):
    scan(source, "train", progress=False)
    Path(source.mask("train", "b")).unlink()
    with pytest.raises(UserError, match="mask .*b.png of id 'b' is missing; add it, or take"):
        scan(source, "train", progress=False)


def test_trees_do_not_share_a_cache(source, tmp_path):
    scan(source, "train", progress=False)
    other = voc_source(make_voc_tree(tmp_path / "other", {"b": {3}}, photos=False))
    assert values(scan(other, "train", progress=False)) == {"b": {0, 3}}
    assert values(scan(source, "train", progress=False))["b"] == {0, 1, 15}


@pytest.mark.parametrize("damage", [b"", b"PK not a zip", "half"])
def test_damaged_cache_is_replaced(source, own_cache, decoded, damage):
    first = scan(source, "train", progress=False)
    (kept,) = (own_cache / "sparcl").iterdir()
    content = kept.read_bytes()
    kept.write_bytes(content[: len(content) // 2] if damage == "half" else damage)
    assert values(scan(source, "train", progress=False)) == values(first)
    assert len(decoded) == 6
    scan(source, "train", progress=False)
    assert len(decoded) == 6


def test_unwritable_cache_is_one_warning(source, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert values(scan(source, "train", progress=False))["c"] == {0}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "every call scans the masks" in lines[0]


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"a": 1}', b"half"])
def test_files_are_read_once_for_the_fingerprint(tmp_path, own_cache, monkeypatch, damage):
    source = voc_source(make_voc_tree(tmp_path / "voc", MASKS, val=["v"]))
    read = []

    def checksum(path: Path) -> str:
        read.append(path.name)
        return file_checksum(path)

    file_checksum = checksums.file_checksum
    monkeypatch.setattr(checksums, "file_checksum", checksum)
    first = fingerprint(source)
    files = sorted(read)
    assert len(files) == 8 and fingerprint(source) == first and sorted(read) == files
    (kept,) = (own_cache / "sparcl").iterdir()
    kept.write_bytes(kept.read_bytes()[:50] if damage == b"half" else damage)
    assert fingerprint(source) == first and sorted(read) == sorted(2 * files)
    Path(source.photo("train", "a")).touch()
    assert fingerprint(source) == first and sorted(read) == sorted([*2 * files, "a.jpg"])


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    source = voc_source(make_voc_tree(tmp_path / "voc", MASKS, val=["v"]))
    photo = Path(source.photo("train", "a"))
    photo.unlink()
    photo.mkdir()
    with pytest.raises(UserError, match=r"a\.jpg cannot be read \(Is a directory\); restore it"):
        fingerprint(source)
    photo.rmdir()
    with pytest.raises(UserError, match="photograph .*a.jpg .*is missing"):
        fingerprint(source)


def test_progress_on_stderr(source, capsys):
    scan(source, "train")
    shown = capsys.readouterr()
    assert "scanning masks" in shown.err and shown.out == ""
    scan(source, "train")
    assert capsys.readouterr().err == ""


def test_value_that_is_no_class(source, own_cache):
    replace_mask(source.mask("train", "b"), {1, 37})
    message = r"mask .*b.png holds value 37, but 'voc' has classes 0 to 20 and 255 for borders"
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            scan(source, "train", progress=False)
    replace_mask(source.mask("train", "b"), {1, 3})
    assert values(scan(source, "train", progress=False))["b"] == {0, 1, 3}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_masks_that_are_no_class_indices(source, mode):
    Image.new(mode, (8, 6)).save(source.mask("train", "b"))
    with pytest.raises(UserError, match=rf"mask .*b.png is a {mode} image; save it as an 8-bit"):
        scan(source, "train", progress=False)


def test_broken_masks(source):
    path = Path(source.mask("train", "b"))
    random = np.random.default_rng(0)
    save_mask(path, random.integers(0, 21, (60, 80), dtype=np.uint8))
    whole = path.read_bytes()
    for length in (0, 5, 20, 40, 900, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="mask .*b.png .*; restore it$") as caught:
            scan(source, "train", progress=False)
        assert "\n" not in str(caught.value)


def test_scan_in_a_plain_script(source, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from sparcl_lib.data import scan, voc_source\n"
        "print(scan(voc_source(sys.argv[1]), 'train').ids)\n"
        "print('torch' in sys.modules, 'pandas' in sys.modules)\n",
        "utf-8",
    )
    command = [sys.executable, script, source.root]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "('b', 'a', 'c')\nFalse False\n"
