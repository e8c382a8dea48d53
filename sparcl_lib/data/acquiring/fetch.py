"""One published file from the first address that delivers it: resumed, retried, verified.

What has come lies in ``NAME.part`` beside the place of the file; ``NAME`` itself appears only with
the right size and checksum.
"""

import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3

from sparcl_lib.data.acquiring.archives import Archive
from sparcl_lib.data.acquiring.disk import format_bytes, write_error
from sparcl_lib.errors import UserError
from sparcl_lib.progress import tqdm

_BLOCK = 1 << 16
_LONGEST_PAUSE = 60.0
_RETRIED = (408, 425, 429)  # the only statuses 4xx after which another request makes sense


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long an address is tried."""

    attempts: int = 5
    """Failures in a row without a new byte before the next address is tried."""
    pause: float = 1.0
    """Seconds after the first of them; doubled by each further one."""
    timeout: float = 60.0
    """Seconds without a byte that count as a failure."""


class _Failed(Exception):
    """An address did not deliver."""

    def __init__(self, reason: str, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting  # asking this address again is of no use


class _WrongBytes(_Failed):
    """All has come, and it is not the file."""


def fetch(
    archive: Archive, folder: Path, retries: RetryPolicy = RetryPolicy(), progress: bool = True
) -> Path:
    """Path of the verified file in `folder`, downloaded if it is not there.

    An interrupted call is gone on with by the next one, from any address.

    Raises:
        UserError: no address delivers, the disk is full or not writable, or the file that is there
            is another one.
    """
    final, part = folder / archive.name, part_of(archive, folder)
    try:
        if final.exists():
            _verify(archive, final)
            return final
        folder.mkdir(parents=True, exist_ok=True)
        _from_any_address(archive, part, retries, progress)
        os.replace(part, final)
    except _WrongBytes as wrong:
        raise UserError(f"{final} has {wrong}: delete it and run the same command again") from None
    except OSError as error:
        raise write_error(error, folder) from error
    return final


def part_of(archive: Archive, folder: Path) -> Path:
    """Where the bytes lie that have come so far."""
    return folder / f"{archive.name}.part"


def _from_any_address(archive: Archive, part: Path, retries: RetryPolicy, progress: bool) -> None:
    problems = []
    for url in archive.urls:
        try:
            return _from_address(url, archive, part, retries, progress)
        except _Failed as failed:
            problems.append(f"{url} ({failed})")
    raise UserError(
        f"cannot download {archive.name}: {'; '.join(problems)}. "
        f"{format_bytes(_size(part))} are kept: run the same command again later, "
        "or get the file by other means and add --from FILE"
    )


def _from_address(
    url: str, archive: Archive, part: Path, retries: RetryPolicy, progress: bool
) -> None:
    """Complete and verify `part`, asking again as long as that may help."""
    mixed = _size(part) > 0  # bytes that this address did not send: suspected first
    failures = 0
    while True:
        before = _size(part)
        try:
            if not archive.exact or before < archive.size:
                _receive(url, archive, part, retries.timeout, progress)
            return _verify(archive, part)
        except _WrongBytes:
            part.unlink()
            if not mixed:
                raise
            mixed = False
            continue
        except _Failed as failed:
            failures = 1 if _size(part) > before else failures + 1
            if failed.lasting or failures >= retries.attempts:
                raise
        time.sleep(min(retries.pause * 2 ** (failures - 1), _LONGEST_PAUSE))


def _receive(url: str, archive: Archive, part: Path, timeout: float, progress: bool) -> None:
    """Append to `part` what an address sends; returns when it says that this was all."""
    offset = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            if response.status_code == 416 and offset:
                return  # there is nothing after our bytes: they are all, or wrong
            start = _first_byte(response, archive, offset)
            _save(response, archive, part, start, progress)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _Failed(_reason(error, _size(part))) from error
    if archive.exact and _size(part) < archive.size:
        raise _Failed(f"connection cut after {format_bytes(_size(part))}")


def _first_byte(response: requests.Response, archive: Archive, offset: int) -> int:
    """Position in the file of the first byte that comes: `offset`, or 0 if ranges are ignored."""
    status, headers = response.status_code, response.headers
    if status not in (200, 206):
        lasting = 400 <= status < 500 and status not in _RETRIED
        raise _Failed(f"{status} {response.reason}".strip(), lasting)
    if headers.get("Content-Type", "").startswith("text/html"):
        raise _Failed("a web page instead of the file", lasting=True)
    start, total = 0, headers.get("Content-Length", "")
    if status == 206:
        content_range = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if not content_range or int(content_range[1]) != offset:
            raise _Failed("another range than was asked for", lasting=True)
        start, total = offset, content_range[2]
    # Before a byte is written: what we have must not be lost to a page that is not the file.
    if archive.exact and total.isdecimal() and int(total) != archive.size:
        raise _Failed(f"a file of {total} bytes instead of {archive.size}", lasting=True)
    return start


def _save(
    response: requests.Response, archive: Archive, part: Path, start: int, progress: bool
) -> None:
    bar = tqdm(
        desc=archive.name,
        initial=start,
        total=archive.size,
        unit="B",
        unit_scale=True,
        disable=not progress,
    )
    with part.open("ab" if start else "wb") as file, bar:
        # As it came: some hosts declare a .tgz as an encoding of its own.
        for block in response.raw.stream(_BLOCK, decode_content=False):
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())  # on the disk before it gets its name


def _verify(archive: Archive, path: Path) -> None:
    """Raise _WrongBytes unless size and checksum are those of the archive."""
    size = _size(path)
    if archive.exact and size != archive.size:
        raise _WrongBytes(f"{size} bytes instead of {archive.size}", lasting=True)
    algorithm, _, wanted = archive.checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != wanted:
        raise _WrongBytes(f"{algorithm} {found} instead of {wanted}", lasting=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception, size: int) -> str:
    """The exceptions of requests quote whole objects; the kind is what helps."""
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return f"no answer in time, {format_bytes(size)} received"
    if isinstance(error, (urllib3.exceptions.ProtocolError, requests.ConnectionError)):
        return f"cannot be reached or cut the connection, {format_bytes(size)} received"
    return type(error).__name__
