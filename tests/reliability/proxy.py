"""A proxy in front of an S3 server that counts requests and fails on cue.

    with FaultProxy(server.endpoint) as proxy:
        fault = proxy.add(Fault("status", method="PUT", key="/masks/", times=3, code="SlowDown"))
        ...                                   # a client that is led to proxy.url
        assert fault.injected == 3

Requests are forwarded byte for byte, the Host header too, so signatures stay valid: the client signs for the proxy's
address, and a server that is asked under another name than its own does not mind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal
from urllib.parse import unquote, urlsplit

Action = Literal[
    "kill_before",  # SIGKILL the victim; the request is not forwarded
    "kill_after",  # SIGKILL the victim when the server has answered; the answer is not passed on
    "status",  # answer in the server's place
    "reset_before",  # reset the connection; the request is not forwarded
    "reset_after",  # reset the connection when the server has answered: a lost acknowledgement
    "half_up",  # the server gets half of the body and a closed connection, the client a reset
    "half_down",  # the client gets half of the body and a closed connection
    "flip_up",  # one bit of the body is another one when it reaches the server
    "flip_down",  # one bit of the body is another one when it reaches the client
    "stall_before",  # nothing is forwarded and nothing answered
    "stall_down",  # half of the body comes, then nothing more
    "call",  # call `Fault.call`, then forward
]
_STATUS_OK = re.compile(rb"HTTP/1.1 20[06] ")
_STATUS_OF = {
    "SlowDown": (503, "Please reduce your request rate."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "AccessDenied": (403, "Access Denied"),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "ExpiredToken": (400, "The provided token has expired."),
    "NotImplemented": (501, "A header you provided implies functionality that is not implemented."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the current time is too large."),
}


@dataclass(frozen=True)
class Request:
    """What a client sent.

    Attributes:
        number: 1 for the first request of all.
        method: `GET`.
        target: `/bucket/key?query`, decoded.
        head, body: as they came; the head ends with an empty line.
    """

    number: int
    method: str
    target: str
    head: bytes
    body: bytes


@dataclass
class Fault:
    """What to do to which requests.

    Attributes:
        action: what to do.
        at: only to the request of this number.
        method, key: only to requests whose method and whose target match these regular expressions.
        head: only to requests whose head matches this regular expression, whatever its case.
        skip: matching requests to let through first.
        times: how often; None for ever.
        code: S3's name of the error that `status` answers with.
        call: what `call` calls, in a thread of its own; the request waits for it.
        injected: how often it was done.
        last_at: `time.monotonic()` when it was done last.
    """

    action: Action
    at: int | None = None
    method: str = ""
    key: str = ""
    head: str = ""
    skip: int = 0
    times: int | None = 1
    code: str = "InternalError"
    call: Callable[[], None] | None = None
    injected: int = 0
    last_at: float = 0.0

    def applies(self, request: Request) -> bool:
        """Whether this request is to fail; counts it if so."""
        if self.at is not None and request.number != self.at:
            return False
        if not re.search(self.method, request.method) or not re.search(self.key, request.target):
            return False
        if not re.search(self.head, request.head.decode("latin-1"), re.IGNORECASE):
            return False
        if self.times is not None and self.injected >= self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.injected += 1
        self.last_at = time.monotonic()
        return True


class _Broken(Exception):
    """The connection to the client is to be reset."""


@dataclass
class FaultProxy:
    """A TCP proxy for HTTP/1.1 on loopback, in a thread of its own.

    Attributes:
        upstream: `http://host:port` of the server.
        victim: pid of the process that `kill_before` and `kill_after` kill.
        log: method and target of every request.
        faults: the first one that applies is done.
    """

    upstream: str
    victim: int = 0
    log: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    port: int = field(init=False, default=0)

    @property
    def url(self) -> str:
        """What clients are to take for the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> int:
        """How many came so far."""
        return len(self.log)

    def add(self, fault: Fault) -> Fault:
        """Do this from now on."""
        self.faults.append(fault)
        return fault

    def __enter__(self) -> FaultProxy:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="fault-proxy", daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
            writer.close()
        except (_Broken, OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; return whether another one may follow."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        headers = _headers(head)
        if headers.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
            head = re.sub(rb"(?im)^expect:[^\r\n]*\r\n", b"", head)
        body = await _read_body(reader, headers)
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        self.log.append((method, unquote(target)))
        request = Request(len(self.log), method, unquote(target), head, body)
        fault = next((fault for fault in self.faults if fault.applies(request)), None)
        answer = await self._answer(request, fault)
        writer.write(answer)
        await writer.drain()
        if fault and fault.action == "half_down" and _STATUS_OK.match(answer):
            raise _Broken
        if fault and fault.action == "stall_down" and _STATUS_OK.match(answer):
            await asyncio.sleep(3600)
        return b"connection: close" not in answer.partition(b"\r\n\r\n")[0].lower()

    async def _answer(self, request: Request, fault: Fault | None) -> bytes:
        action = fault.action if fault else None
        if fault and fault.call:
            await asyncio.to_thread(fault.call)
        if action == "kill_before":
            os.kill(self.victim, signal.SIGKILL)
            raise _Broken
        if action == "reset_before":
            raise _Broken
        if action == "stall_before":
            await asyncio.sleep(3600)
        if fault and action == "status":
            return _error(fault.code, request.method)
        body = request.body
        if action == "half_up":
            await self._send_half(request)
            raise _Broken
        if action == "flip_up":
            body = _flipped(body)
        head, answer = await self._forward(request.head, body, request.method)
        if fault and action in ("flip_down", "half_down", "stall_down") and not _STATUS_OK.match(head):
            fault.injected -= 1  # an error page is no object: wait for one
            return head + answer
        if action == "kill_after":
            os.kill(self.victim, signal.SIGKILL)
            raise _Broken
        if action == "reset_after":
            raise _Broken
        if action == "flip_down":
            answer = _flipped(answer)
        if action in ("half_down", "stall_down"):
            answer = answer[: len(answer) // 2]
        return head + answer

    async def _forward(self, head: bytes, body: bytes, method: str) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection(*self._address(), limit=1 << 20)
        try:
            writer.write(head + body)
            await writer.drain()
            answer = await reader.readuntil(b"\r\n\r\n")
            status = int(answer.split(b" ", 2)[1])
            bare = method == "HEAD" or status in (204, 304)
            return answer, b"" if bare else await _read_body(reader, _headers(answer))
        finally:
            writer.close()

    async def _send_half(self, request: Request) -> None:
        _, writer = await asyncio.open_connection(*self._address())
        writer.write(request.head + request.body[: len(request.body) // 2])
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    def _address(self) -> tuple[str, int]:
        parts = urlsplit(self.upstream)
        return parts.hostname or "", parts.port or 80


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Read a body as it is on the wire, chunks and all."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        raw = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            raw += line + await reader.readexactly(size + 2)
            if size == 0:
                return raw
    return await reader.readexactly(int(headers.get("content-length", "0")))


def _flipped(body: bytes) -> bytes:
    place = len(body) // 4  # of a small Parquet file, the footer takes half
    return body[:place] + bytes([body[place] ^ 0x10]) + body[place + 1 :] if body else body


def _error(code: str, method: str) -> bytes:
    status, message = _STATUS_OF[code]
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + (b"" if method == "HEAD" else body.encode())
