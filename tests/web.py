"""A real web server on loopback, with the faults that real ones have."""

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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
        busy: so many answers are a 503.
        short: so many answers hold half of the bytes that are asked for, and say so.
        to: where a redirect leads; `""` for none.
    """

    body: bytes
    status: int = 200
    ranges: bool = True
    head: bool = True
    drops: int = 0
    stop_after: int = -1
    busy: int = 0
    short: int = 0
    to: str = ""


PLANTED = "0f1e2d3c"  # begins every signature, and is to be found nowhere


@dataclass
class Web:
    """The server: put pages in, read the requests that came.

    Attributes:
        url: `http://127.0.0.1:<port>`.
        pages: by path, such as `/model.onnx`.
        requests: `(method, path with query, Range header or "")` of every request so far.
        etags: whether answers have them.
        signed: whether every page wants a signature, as S3 checks those of GET: none, another or an expired one is
            answered with 403, and so is HEAD.
        generation: of the signatures that hold now.
        gate: while it is closed (cleared) GET requests for images wait.
    """

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    etags: bool = False
    signed: bool = False
    generation: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def sign(self, path: str) -> str:
        """The URL of a page, signed for now."""
        return f"{self.url}{path}{'&' if '?' in path else '?'}{self._query(path)}"

    def _query(self, path: str) -> str:
        words = hashlib.sha256(f"{self.generation} {path}".encode()).hexdigest()
        return (
            f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={PLANTED}KEY%2F2026%2Fus-east-1%2Fs3%2Faws4_request"
            f"&X-Amz-Date={PLANTED}{self.generation}&X-Amz-Expires=900&X-Amz-SignedHeaders=host"
            f"&X-Amz-Signature={PLANTED}{words}"
        )

    def expire(self) -> None:
        """No URL that was signed so far holds any more."""
        self.generation += 1

    def admits(self, target: str) -> bool:
        """Whether a request carries the signature of its path that holds now."""
        path, _, query = target.partition("?")
        own = "&".join(item for item in query.split("&") if item and not item.startswith("X-Amz-"))
        path = f"{path}?{own}" if own else path
        wanted = self._query(path).rpartition("=")[2]
        return not self.signed or query.rpartition("X-Amz-Signature=")[2].partition("&")[0] == wanted

    def put(self, path: str, body: bytes, **how: Any) -> str:
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
    site.gate.set()
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
        if self.command == "GET" and self.path.partition("?")[0].endswith((".png", ".jpg")):
            self.site.gate.wait()
        with self.site.lock:
            self.site.requests.append((self.command, self.path, wanted))
            pages, (path, _, query) = self.site.pages, self.path.partition("?")
            own = "&".join(item for item in query.split("&") if not item.startswith(("X-Amz-", "token=")))
            page = pages.get(f"{path}?{own}") or pages.get(path, Page(b"not found", 404))
            status, drop = self._fate(page)
            if self.site.signed and (self.command == "HEAD" or not self.site.admits(self.path)):
                page, status, drop = Page(b"forbidden"), 403, False
        body = page.body
        start, stop = 0, len(body)
        if status == 200 and page.ranges and (found := re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)):
            start, stop = int(found[1]), min(int(found[2]) + 1, len(body))
            status = 206 if start < stop else 416
        if self.command == "GET" and status == 206 and page.short:
            page.short -= 1
            stop = (start + stop) // 2
        part = body[start:stop]
        self.send_response(status)
        self.send_header("Content-Length", str(len(part)))
        if self.site.etags and status in (200, 206):
            self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
        if page.to:
            self.send_header("Location", page.to)
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
        if page.busy:
            page.busy -= 1
            return 503, False
        page.stop_after -= 1
        drop = page.drops > 0
        page.drops -= drop
        return page.status, drop

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""
