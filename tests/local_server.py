"""An HTTP server on this machine that misbehaves on request."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Fault = int | str


class LocalServer(ThreadingHTTPServer):
    """Serves bytes by path; each request for a path takes the next of its faults, then none.

    A number is a status. ``cut`` ends the connection halfway, ``vanish`` does so without having
    told a length, ``no range`` ignores that a range was asked, ``other range`` sends another one,
    ``wrong`` and ``longer`` send other bytes, ``page`` a web page, ``silent`` headers alone,
    ``slow`` a dribble, ``encoded`` names the compression of the file as an encoding, and
    ``to PATH`` redirects.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Iterator[Fault]] = {}
        self.asked: list[tuple[str, str | None]] = []
        """(path, Range header) of every request."""

    def serve(self, path: str, content: bytes, faults: Iterable[Fault] = ()) -> str:
        """The address of a file from now on."""
        self.files[path], self.faults[path] = content, iter(faults)
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: LocalServer

    def do_GET(self) -> None:  # noqa: RET503
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        fault = next(self.server.faults[self.path], "")
        content, start = self.server.files[self.path], 0
        if isinstance(fault, int):
            return self.send_error(fault)
        if fault.startswith("to "):
            return self._head(302, {"Location": fault[3:], "Content-Length": "0"})
        if fault == "page":
            return self._send(200, b"<html>", {"Content-Type": "text/html; charset=utf-8"})
        if fault in ("wrong", "longer"):
            content = bytes(len(content) + (fault == "longer"))
        if asked and fault != "no range":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
        body, headers = content[start:], {"Content-Length": str(len(content) - start)}
        if start:
            first = start + 1 if fault == "other range" else start
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if fault == "vanish":
            del headers["Content-Length"]
        if fault == "encoded":
            headers["Content-Encoding"] = "x-gzip"
        self._send(206 if start else 200, body, headers, fault)

    def _send(self, status: int, body: bytes, headers: dict[str, str], fault: str = "") -> None:
        self._head(status, headers)
        if fault == "silent":
            time.sleep(2)
        elif fault == "slow":
            step = max(1, len(body) // 40)
            for begin in range(0, len(body), step):
                self.wfile.write(body[begin : begin + step])
                time.sleep(0.05)
        else:
            self.wfile.write(body[: len(body) // 2] if fault in ("cut", "vanish") else body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Not on the test's stderr."""


@contextmanager
def running() -> Iterator[LocalServer]:
    """A server while the block lasts."""
    server = LocalServer()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            server.shutdown()
        thread.join()
        server.server_close()
