"""A real web server on loopback, with the faults that real ones have."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Page:
    """One file of the server, and how it is served.

    Attributes:
        body: the file.
        status: HTTP status of every answer.
        ranges: whether range requests are honoured.
        head: whether HEAD is.
        drops: so many answers break off in the middle of their body, with the connection.
        stop_after: answers to GET before the server starts to fail with 503; -1: never.
    """

    body: bytes
    status: int = 200
    ranges: bool = True
    head: bool = True
    drops: int = 0
    stop_after: int = -1


@dataclass
class Web:
    """The server: put pages in, read the requests that came.

    Attributes:
        url: `http://127.0.0.1:<port>`.
        pages: by path, such as `/model.onnx`.
        requests: `(method, path with query, Range header or "")` of every request so far.
    """

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, path: str, body: bytes, **how: int) -> str:
        """Add a page and return its URL."""
        self.pages[path] = Page(body, **how)
        return self.url + path

    def fetched(self, path: str) -> list[str]:
        """Return the Range headers of the GET requests for a path."""
        return [r for method, target, r in self.requests if method == "GET" and target.partition("?")[0] == path]


@pytest.fixture
def web() -> Iterator[Web]:
    """An empty web server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    site = Web(f"http://127.0.0.1:{server.server_port}")
    server.site = site  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer in one packet: in two, the second waits 40 ms for the first

    @property
    def site(self) -> Web:
        return self.server.site  # type: ignore[attr-defined, no-any-return]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        wanted = self.headers.get("Range", "")
        with self.site.lock:
            self.site.requests.append((self.command, self.path, wanted))
            page = self.site.pages.get(self.path.partition("?")[0], Page(b"not found", 404))
            status, drop = self._fate(page)
        body = page.body
        start, stop = 0, len(body)
        if status == 200 and page.ranges and (found := re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)):
            start, stop = int(found[1]), min(int(found[2]) + 1, len(body))
            status = 206 if start < stop else 416
        part = body[start:stop]
        self.send_response(status)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part[: len(part) // 2] if drop else part)
        if drop:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _fate(self, page: Page) -> tuple[int, bool]:
        """Return the status, and whether the connection breaks in the middle of the body."""
        if self.command == "HEAD":
            return (page.status if page.head else 405), False
        if page.stop_after == 0:
            return 503, False
        page.stop_after -= 1
        drop = page.drops > 0
        page.drops -= drop
        return page.status, drop

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""
