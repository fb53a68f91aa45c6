"""Stores that answer a range with the checksum of the whole object, as rclone and older gateways do."""

import base64
import hashlib
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from segment.errors import StoreError
from segment.store.client import Store

DATA = bytes(range(256)) * 20
CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "sha1": lambda data: hashlib.sha1(data).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
}


class Gateway(ThreadingHTTPServer):
    """An S3 gateway with one object, `s3://bucket/object`.

    Attributes:
        checksum: header and value that come with every answer to a client that asks for one.
        asked: for each GET its range, and whether it asked for a checksum.
    """

    daemon_threads = True
    checksum = ("", "")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, bool]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        wanted, asks = self.headers.get("Range", ""), self.headers.get("x-amz-checksum-mode") == "ENABLED"
        self.server.asked.append((wanted, asks))
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        body = DATA[int(found[1]) : int(found[2] or len(DATA)) + 1] if found else DATA
        self.send_response(206 if found else 200)
        if asks:
            self.send_header(*self.server.checksum)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    for name in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"):
        monkeypatch.delenv(name, raising=False)  # as users have it
    with Gateway() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def store_of(gateway: Gateway, **config: str) -> Store:
    options = {"endpoint_url": f"http://127.0.0.1:{gateway.server_port}", "key": "k", "secret": "s"}
    return Store({**options, "config_kwargs": config} if config else options)


def checksum(name: str, data: bytes) -> tuple[str, str]:
    return f"x-amz-checksum-{name}", base64.b64encode(CHECKSUMS[name](data)).decode()


@pytest.mark.parametrize("name", CHECKSUMS)
@pytest.mark.parametrize("config", [{}, {"response_checksum_validation": "when_supported"}])
def test_ranges_are_read_without_a_setting(name: str, config: dict[str, str], gateway: Gateway) -> None:
    gateway.checksum = checksum(name, DATA)
    store = store_of(gateway, **config)
    assert store.read("s3://bucket/object", 100, 4000) == DATA[100:4000]
    assert store.read("s3://bucket/object", 100) == DATA[100:]
    file = store.open("s3://bucket/object", block_size=512, size=len(DATA))
    file.seek(3000)
    assert file.read(700) == DATA[3000:3700]
    assert not any(asks for _, asks in gateway.asked)
    assert store.read("s3://bucket/object") == DATA  # whole, its checksum is compared
    assert gateway.asked[-1] == ("", True)


@pytest.mark.usefixtures("no_waiting")
def test_a_whole_object_that_is_damaged_on_its_way_is_still_noticed(gateway: Gateway) -> None:
    gateway.checksum = checksum("crc32", DATA[:-1] + b"x")
    with pytest.raises(StoreError, match="this store's checksums are not those that S3 clients expect"):
        store_of(gateway).read("s3://bucket/object")
    assert gateway.asked == [("", True)] * 3


def test_who_wants_no_checksums_at_all_gets_none(gateway: Gateway) -> None:
    gateway.checksum = checksum("crc32", b"other")
    store = store_of(gateway, response_checksum_validation="when_required")
    assert store.read("s3://bucket/object") == DATA
    assert gateway.asked == [("", False)]
