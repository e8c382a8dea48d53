"""Downloads from a server that cuts, lies, dawdles and refuses."""

import errno
import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PATIENCE
from local_server import LocalServer, running
from torchvision.datasets import sbd as torchvision_sbd
from torchvision.datasets import voc as torchvision_voc

from sparcl_lib.data.acquiring import archives, fetch
from sparcl_lib.data.acquiring.archives import Archive
from sparcl_lib.data.acquiring.fetch import RetryPolicy
from sparcl_lib.errors import UserError

CONTENT = random.Random(0).randbytes(300_001)
HASTY = RetryPolicy(attempts=3, pause=0.001, timeout=PATIENCE)


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with running() as local:
        yield local


def archive_at(*urls: str, content: bytes = CONTENT, exact: bool = True) -> Archive:
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Archive("file.tar", urls, checksum, len(content), len(content), exact)


def get(archive: Archive, folder: Path) -> bytes:
    path = fetch.fetch(archive, folder, HASTY, progress=False)
    assert [p.name for p in folder.iterdir()] == ["file.tar"], "no part is left"
    return path.read_bytes()


def ranges(server: LocalServer) -> list[str | None]:
    return [asked for _, asked in server.asked]


def test_a_file_comes_once(server, tmp_path):
    archive = archive_at(server.serve("/a", CONTENT))
    folder = tmp_path / "new" / "folder"
    assert get(archive, folder) == CONTENT
    assert get(archive, folder) == CONTENT
    assert server.asked == [("/a", None)]


def test_a_cut_connection_is_resumed_where_it_was_cut(server, tmp_path):
    archive = archive_at(server.serve("/a", CONTENT, ["cut", "cut"]))
    assert get(archive, tmp_path) == CONTENT
    half = len(CONTENT) // 2
    assert ranges(server) == [None, f"bytes={half}-", f"bytes={half + (half + 1) // 2}-"]


def test_headway_counts_more_than_failures(server, tmp_path):
    archive = archive_at(server.serve("/a", CONTENT, ["cut"] * 8))
    assert get(archive, tmp_path) == CONTENT
    assert len(server.asked) == 9 > HASTY.attempts


def test_a_stream_that_ends_early_without_a_word_is_resumed(server, tmp_path):
    archive = archive_at(server.serve("/a", CONTENT, ["vanish"]))
    assert get(archive, tmp_path) == CONTENT
    assert ranges(server) == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_server_that_ignores_ranges_sends_all_again(server, tmp_path):
    archive = archive_at(server.serve("/a", CONTENT, ["cut", "no range"]))
    assert get(archive, tmp_path) == CONTENT
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [404, 403, 410])
def test_what_is_not_there_is_looked_for_at_the_next_address(server, tmp_path, status):
    faults = itertools.repeat(status)
    archive = archive_at(server.serve("/a", CONTENT, faults), server.serve("/b", CONTENT))
    assert get(archive, tmp_path) == CONTENT
    assert [path for path, _ in server.asked] == ["/a", "/b"]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_passing_error_is_waited_out_ever_longer(server, tmp_path, status, monkeypatch):
    pauses = []
    monkeypatch.setattr(fetch.time, "sleep", pauses.append)
    archive = archive_at(server.serve("/a", CONTENT, [status, status]))
    assert get(archive, tmp_path) == CONTENT
    assert pauses == [HASTY.pause, 2 * HASTY.pause]


def test_no_pause_is_longer_than_a_minute(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(fetch.time, "sleep", pauses.append)
    archive = archive_at(server.serve("/a", CONTENT, [503] * 9))
    fetch.fetch(archive, tmp_path, RetryPolicy(attempts=10, pause=1), progress=False)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_an_error_that_stays_ends_in_one_line_with_every_address(server, tmp_path):
    urls = [
        server.serve("/a", CONTENT, itertools.repeat(500)),
        server.serve("/b", CONTENT, itertools.repeat(404)),
        server.serve("/c", CONTENT, itertools.repeat("page")),
    ]
    with pytest.raises(UserError) as caught:
        get(archive_at(*urls), tmp_path)
    text = str(caught.value)
    assert "\n" not in text and "--from FILE" in text
    for url, reason in zip(urls, ("500", "404 Not Found", "a web page"), strict=True):
        assert f"{url} ({reason}" in text
    assert [path for path, _ in server.asked] == ["/a"] * HASTY.attempts + ["/b", "/c"]


def test_nobody_listens(tmp_path):
    with running() as gone:
        url = gone.serve("/a", CONTENT)
    with pytest.raises(UserError, match=r"cannot be reached.*0 bytes are kept"):
        get(archive_at(url), tmp_path)


def test_wrong_bytes_are_thrown_away_and_the_next_address_asked(server, tmp_path):
    lies = server.serve("/a", CONTENT, itertools.repeat("wrong"))
    assert get(archive_at(lies, server.serve("/b", CONTENT)), tmp_path) == CONTENT
    assert server.asked == [("/a", None), ("/b", None)]
    with pytest.raises(UserError, match=r"\(sha256 \w+ instead of \w+\). 0 bytes are kept"):
        get(archive_at(lies), tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def test_a_spoilt_part_costs_one_more_download_not_the_address(server, tmp_path):
    archive = archive_at(server.serve("/a", CONTENT))
    fetch.part_of(archive, tmp_path).write_bytes(b"rubbish of an earlier run")
    assert get(archive, tmp_path) == CONTENT
    assert ranges(server) == ["bytes=25-", None]


@pytest.mark.parametrize("content", [CONTENT + b"!", bytes(len(CONTENT))])
def test_a_part_as_long_as_the_file_is_verified_before_it_is_thrown_away(server, tmp_path, content):
    archive = archive_at(server.serve("/a", CONTENT))
    fetch.part_of(archive, tmp_path).write_bytes(content)
    assert get(archive, tmp_path) == CONTENT
    assert ranges(server) == [None]


def test_a_whole_part_needs_no_server(tmp_path):
    archive = archive_at("http://127.0.0.1:9/none")
    fetch.part_of(archive, tmp_path).write_bytes(CONTENT)
    assert get(archive, tmp_path) == CONTENT


def test_416_means_that_the_part_is_whole_or_wrong(server, tmp_path):
    whole = archive_at(server.serve("/a", CONTENT), exact=False)
    fetch.part_of(whole, tmp_path).write_bytes(CONTENT)
    assert get(whole, tmp_path) == CONTENT
    wrong = archive_at(server.serve("/b", CONTENT, [416]))
    (tmp_path / "b").mkdir()
    fetch.part_of(wrong, tmp_path / "b").write_bytes(CONTENT[:1000])
    assert get(wrong, tmp_path / "b") == CONTENT
    size = len(CONTENT)
    assert server.asked == [("/a", f"bytes={size}-"), ("/b", "bytes=1000-"), ("/b", None)]


def test_416_to_a_request_without_a_range_is_final(server, tmp_path):
    with pytest.raises(UserError, match="416"):
        get(archive_at(server.serve("/a", CONTENT, itertools.repeat(416))), tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("fault", ["page", "longer", "other range", 404])
def test_an_address_with_something_else_leaves_the_part_alone(server, tmp_path, fault):
    bad = server.serve("/a", CONTENT, ["cut", *itertools.repeat(fault, 9)])
    with pytest.raises(UserError):
        get(archive_at(bad), tmp_path)
    half = len(CONTENT) // 2
    assert fetch.part_of(archive_at(bad), tmp_path).read_bytes() == CONTENT[:half]
    assert get(archive_at(server.serve("/b", CONTENT)), tmp_path) == CONTENT
    assert server.asked[-1] == ("/b", f"bytes={half}-")


def test_another_size_is_refused_before_a_byte_is_written(server, tmp_path):
    with pytest.raises(UserError, match="a file of 300002 bytes instead of 300001"):
        get(archive_at(server.serve("/a", CONTENT, ["longer"])), tmp_path)
    assert not list(tmp_path.iterdir())


def test_slow_is_fine_and_silent_is_not(server, tmp_path):
    slow, half_a_second = server.serve("/a", CONTENT, ["slow"]), replace(HASTY, timeout=0.5)
    path = fetch.fetch(archive_at(slow), tmp_path / "a", half_a_second)  # it takes two
    assert path.read_bytes() == CONTENT
    silent = server.serve("/b", CONTENT, itertools.repeat("silent"))
    with pytest.raises(UserError, match="no answer in time"):
        fetch.fetch(archive_at(silent), tmp_path / "b", replace(HASTY, attempts=1, timeout=0.1))


def test_a_redirect_keeps_the_range(server, tmp_path):
    server.serve("/b", CONTENT, ["cut"])
    archive = archive_at(server.serve("/a", b"", itertools.repeat("to /b")))
    assert get(archive, tmp_path) == CONTENT
    half = f"bytes={len(CONTENT) // 2}-"
    assert server.asked == [("/a", None), ("/b", None), ("/a", half), ("/b", half)]


def test_a_redirect_that_goes_round_is_left_for_the_next_address(server, tmp_path):
    round_and_round = server.serve("/a", b"", itertools.repeat("to /a"))
    archive = archive_at(round_and_round, server.serve("/b", CONTENT))
    assert get(archive, tmp_path) == CONTENT
    with pytest.raises(UserError, match=r"/a \(TooManyRedirects\)"):
        get(archive_at(round_and_round), tmp_path / "alone")


def test_a_compression_declared_as_encoding_is_not_undone(server, tmp_path):
    import gzip

    packed = gzip.compress(CONTENT)
    archive = archive_at(server.serve("/a", packed, ["encoded"]), content=packed)
    assert get(archive, tmp_path) == packed


def test_a_file_of_the_name_with_other_content_is_not_touched(server, tmp_path):
    archive = archive_at(server.serve("/a", CONTENT))
    (tmp_path / "file.tar").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"file.tar has 4 bytes instead of 300001: delete it"):
        get(archive, tmp_path)
    assert (tmp_path / "file.tar").read_bytes() == b"mine" and not server.asked


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way", "utf-8")
    with pytest.raises(UserError, match="cannot use .*file"):
        get(archive_at("http://127.0.0.1:9/"), tmp_path / "file" / "folder")


def test_interrupted_then_resumed(server, tmp_path, monkeypatch):
    archive = archive_at(server.serve("/a", CONTENT))

    class Interrupting(fetch.tqdm):
        def update(self, n: int = 1) -> None:
            super().update(n)
            if self.n > 100_000:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "tqdm", Interrupting)
        with pytest.raises(KeyboardInterrupt):
            fetch.fetch(archive, tmp_path, HASTY)
    kept = fetch.part_of(archive, tmp_path).read_bytes()
    assert len(kept) > 100_000 and CONTENT.startswith(kept)
    assert get(archive, tmp_path) == CONTENT
    assert ranges(server) == [None, f"bytes={len(kept)}-"]


def test_a_full_disk_then_space(server, tmp_path, monkeypatch):
    archive = archive_at(server.serve("/a", CONTENT))
    opened = Path.open

    def open_small(path: Path, mode: str = "r"):
        file = opened(path, mode)
        if path.suffix == ".part" and mode in ("ab", "wb"):
            return SmallDisk(file, room=100_000)
        return file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_small)
        with pytest.raises(UserError, match="the disk of .* is full: free some space and run"):
            fetch.fetch(archive, tmp_path, HASTY, progress=False)
    kept = fetch.part_of(archive, tmp_path).stat().st_size
    assert kept == 65536
    assert get(archive, tmp_path) == CONTENT
    assert ranges(server)[-1] == "bytes=65536-"


class SmallDisk:
    """A file on a disk with little room."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def write(self, block: bytes) -> None:
        self.room -= len(block)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.file.write(block)

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def test_the_bar_shows_rate_and_remaining_time(server, tmp_path, capsys):
    fetch.fetch(archive_at(server.serve("/a", CONTENT, ["slow"])), tmp_path)
    shown = capsys.readouterr().err
    assert "file.tar" in shown and "300k/300k" in shown and "B/s]" in shown and "<00:0" in shown


TABLE = [value for value in vars(archives).values() if isinstance(value, Archive)]


@pytest.mark.parametrize("archive", TABLE, ids=lambda archive: archive.name)
def test_the_table_of_files_is_sound(archive):
    algorithm, _, digest = archive.checksum.partition(":")
    assert len(digest) == 2 * hashlib.new(algorithm).digest_size and int(digest, 16)
    assert len(set(archive.urls)) == len(archive.urls) >= 2
    assert all(url.startswith("http") and url.endswith("/" + archive.name) for url in archive.urls)
    assert archive.unpacked >= archive.size > 900_000_000
    assert len(TABLE) == 3


def test_the_table_is_what_torchvision_and_the_readme_say():
    """Names and checksums: the addresses that torchvision names change with its releases."""
    assert archives.VOC2012_TRAINVAL.name == torchvision_voc.DATASET_YEAR_DICT["2012"]["filename"]
    assert archives.SBD_BENCHMARK.checksum == f"md5:{torchvision_sbd.SBDataset.md5}"
    readme = (Path(__file__).parents[2] / "data_scripts" / "README.md").read_text("utf-8")
    for archive in TABLE:
        (row,) = (line for line in readme.splitlines() if line.startswith(f"| `{archive.name}`"))
        assert archive.checksum.replace(":", " `") in row and archive.urls[0] in row
        assert f"{archive.size:,} bytes" in row or not archive.exact
