"""Archives that want to write where they should not, and those that are simply broken."""

import errno
import io
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from sparcl_lib.data.acquiring import unpack as module
from sparcl_lib.data.acquiring.unpack import copy, is_archive, names, unpack
from sparcl_lib.errors import UserError

FILES = {
    "top/a.txt": b"a" * 10,
    "top/deep/b.png": random.Random(1).randbytes(5000),
    "__MACOSX/top/._a.txt": b"litter",
    "top/._b.png": b"litter",
    "top/.DS_Store": b"litter",
}
WANTED = {name: content for name, content in FILES.items() if content != b"litter"}


def make_tar(path: Path, files: Mapping[str, bytes] = FILES, extra: tuple = ()) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return path


def make_zip(path: Path, files: Mapping[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def make(path: Path, files: Mapping[str, bytes] = FILES) -> Path:
    return (make_zip if path.suffix == ".zip" else make_tar)(path, files)


def everything(name: str) -> str:
    return name


def open_up(archive: Path, folder: Path, limit: int = 10**6) -> dict[str, bytes]:
    unpack(archive, folder, everything, limit, progress=False)
    return content_of(folder)


def content_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def inner(tmp_path) -> Path:
    """A folder in a folder, so that whatever leads out is seen by the outer one."""
    return tmp_path / "outer" / "inner"


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.zip"])
def test_files_come_out_and_litter_does_not(tmp_path, inner, name):
    archive = make(tmp_path / name)
    assert is_archive(archive) and set(names(archive)) == set(WANTED)
    assert open_up(archive, inner) == WANTED


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.zip"])
def test_place_decides_where_a_file_goes(tmp_path, inner, name):
    renamed = {"top/deep/b.png": "masks/b.png"}
    unpack(make(tmp_path / name), inner, renamed.get, 10**6, progress=False)
    assert content_of(inner) == {"masks/b.png": FILES["top/deep/b.png"]}


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_needless_dots_are_taken_away(tmp_path, inner, name):
    assert open_up(make(tmp_path / name, {"./top//./c": b"c"}), inner) == {"top/c": b"c"}


def test_a_folder_and_a_name_without_suffix(tmp_path, inner):
    archive = make_tar(tmp_path / "download", {"a": b"1"}, extra=(special("d", tarfile.DIRTYPE),))
    assert is_archive(archive) and open_up(archive, inner) == {"a": b"1"}
    assert not is_archive(tmp_path) and not is_archive(tmp_path / "missing.zip")


OUT = ["/etc/sparcl", "../up", "a/../../up", "a/..", "..", "a\\..\\b", "C:evil", "//host/x"]


@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".zip"])
@pytest.mark.parametrize("name", OUT)
def test_a_name_that_leads_out_is_refused(tmp_path, inner, suffix, name):
    archive = make(tmp_path / f"a{suffix}", {"good": b"1", name: b"bad"})
    with pytest.raises(UserError, match="not safe to unpack: .* leads out of the folder"):
        open_up(archive, inner)
    assert content_of(tmp_path / "outer") in ({"inner/good": b"1"}, {})
    with pytest.raises(UserError, match="not safe"):
        list(names(archive))


def test_what_is_not_wanted_is_looked_at_as_well(tmp_path, inner):
    archive = make_tar(tmp_path / "a.tar", {"../up": b"bad"})
    with pytest.raises(UserError, match="not safe"):
        unpack(archive, inner, lambda name: None, 10**6, progress=False)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "info",
    [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.SYMTYPE, "good"),
        special("hard", tarfile.LNKTYPE, "good"),
        special("pipe", tarfile.FIFOTYPE),
        special("disk", tarfile.BLKTYPE),
        special("tty", tarfile.CHRTYPE),
        special("sparse", tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda info: info.name,
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, inner, info):
    archive = make_tar(tmp_path / "a.tar", {"good": b"1"}, extra=(info,))
    with pytest.raises(UserError, match="is a link or a device"):
        open_up(archive, inner)
    assert content_of(inner) == {"good": b"1"}


def test_a_file_behind_a_link_never_gets_there(tmp_path, inner):
    """The classic: a link out of the folder, then a file through it."""
    link = special("way", tarfile.SYMTYPE, str(tmp_path))
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("way/owned"))
    with pytest.raises(UserError, match="link"):
        open_up(archive, inner)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, inner, kind):
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="is a link or a device"):
        open_up(tmp_path / "a.zip", inner)


@pytest.mark.parametrize("name", ["a.tgz", "a.zip"])
def test_a_bomb_is_refused_before_it_goes_off(tmp_path, inner, name):
    archive = make(tmp_path / name, {"small": b"1", "bomb": bytes(20_000_000), "later": b"1"})
    assert archive.stat().st_size < 50_000
    with pytest.raises(UserError, match=r"holds more than it should \(20.00 MB in 2 files"):
        open_up(archive, inner, limit=1_000_000)
    assert content_of(inner) == {"small": b"1"}


def test_many_files_are_a_bomb_as_well(tmp_path, inner, monkeypatch):
    monkeypatch.setattr(module, "_MOST_MEMBERS", 3)
    with pytest.raises(UserError, match="in 4 files"):
        open_up(make_tar(tmp_path / "a.tar", {f"f{n}": b"" for n in range(9)}), inner)
    assert len(content_of(inner)) == 3


def test_a_zip_that_lies_about_a_size_gets_no_more_than_it_declared(tmp_path, inner):
    archive = make_zip(tmp_path / "a.zip", {"bomb": bytes(5_000_000)})
    told = struct.pack("<L", 5_000_000)
    archive.write_bytes(archive.read_bytes().replace(told, struct.pack("<L", 1000)))
    with pytest.raises(UserError, match="damaged"):
        open_up(archive, inner, limit=10_000)
    assert sum(len(content) for content in content_of(inner).values()) <= 1000


def test_a_tar_that_lies_about_a_size_is_damaged(tmp_path, inner):
    info = tarfile.TarInfo("f")
    info.size = 900_000
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(1000))
    with pytest.raises(UserError, match="damaged"):
        open_up(tmp_path / "a.tar", inner)


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.zip"])
def test_a_truncated_archive_is_damaged(tmp_path, inner, name):
    archive = make(tmp_path / name)
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(UserError, match=f"{name} is damaged or no tar or zip .*get it again"):
        open_up(archive, inner)


def test_a_flipped_bit_in_a_zip_is_noticed(tmp_path, inner):
    archive = make_zip(tmp_path / "a.zip")
    content = bytearray(archive.read_bytes())
    content[content.index(FILES["top/deep/b.png"][100:200])] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        open_up(archive, inner)


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_a_web_page_saved_as_an_archive(tmp_path, inner, name):
    (tmp_path / name).write_text("<html>not found</html>", "utf-8")
    with pytest.raises(UserError, match="damaged or no tar or zip"):
        open_up(tmp_path / name, inner)


def test_a_file_that_comes_twice_is_refused(tmp_path, inner):
    unpack(make_tar(tmp_path / "a.tar", {"x/one": b"1"}), inner, everything, 99, progress=False)
    with pytest.raises(UserError, match="one comes twice, again in .*b.tar"):
        open_up(make_tar(tmp_path / "b.tar", {"x/one": b"2"}), inner)
    assert content_of(inner) == {"x/one": b"1"}


def test_a_full_disk(tmp_path, inner, monkeypatch):
    def full(read, write, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.shutil, "copyfileobj", full)
    with pytest.raises(UserError, match="the disk of .*inner is full"):
        open_up(make_tar(tmp_path / "a.tar"), inner)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way", "utf-8")
    with pytest.raises(UserError, match="cannot use"):
        open_up(make_tar(tmp_path / "a.tar"), tmp_path / "file")


def tree(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_copy_leaves_the_originals(tmp_path, inner):
    mine = tree(tmp_path / "mine")
    before = content_of(mine)
    copy(mine, inner, everything, progress=False)
    assert content_of(inner) == {f"mine/{name}": content for name, content in WANTED.items()}
    assert content_of(mine) == before
    assert set(names(mine)) == {f"mine/{name}" for name in WANTED}


def test_copy_follows_links_but_not_for_ever(tmp_path, inner):
    mine = tree(tmp_path / "mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "far").write_text("far", "utf-8")
    (mine / "link").symlink_to(tmp_path / "other")
    (mine / "round").symlink_to(mine)
    copy(mine, inner, everything, progress=False)
    assert set(content_of(inner)) == {f"mine/{name}" for name in (*WANTED, "link/far")}


def test_copy_of_one_file_and_of_two_for_one_place(tmp_path, inner):
    (tmp_path / "a.txt").write_text("a", "utf-8")
    copy(tmp_path / "a.txt", inner, everything, progress=False)
    assert content_of(inner) == {"a.txt": b"a"}
    with pytest.raises(UserError, match=r"a.txt is a second file for a.txt: give one of them"):
        copy(tmp_path / "a.txt", inner, everything, progress=False)
    assert content_of(inner) == {"a.txt": b"a"}
