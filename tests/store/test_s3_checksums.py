"""Checksums that S3's clients get, as with ranges from rclone and older gateways, and those that they send."""

import base64
import hashlib
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from segment.errors import StoreError
from segment.store.client import Store

DATA = bytes(range(256)) * 20
# What S3 Express answers before it takes an object.
SESSION = b"""<CreateSessionResult><Credentials><SessionToken>t</SessionToken><SecretAccessKey>s</SecretAccessKey>
<AccessKeyId>a</AccessKeyId><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></CreateSessionResult>"""
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
        sent: names of the headers of each PUT of an object.
    """

    daemon_threads = True
    checksum = ("", "")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, bool]] = []
        self.sent: list[set[str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Gateway
    protocol_version = "HTTP/1.1"  # a client that sends a body waits for its "100 Continue"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.sent.append({name.lower() for name in self.headers})
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        wanted, asks = self.headers.get("Range", ""), self.headers.get("x-amz-checksum-mode") == "ENABLED"
        self.server.asked.append((wanted, asks))
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        body = DATA[int(found[1]) : int(found[2] or len(DATA)) + 1] if found else DATA
        body = SESSION if self.path.endswith("?session") else body
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


def store_of(gateway: Gateway, **config: object) -> Store:
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


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize(
    ("bucket", "config", "header"),
    [
        ("bucket", {}, "x-amz-checksum-crc32"),
        ("bucket", {"request_checksum_calculation": "when_supported"}, "x-amz-checksum-crc32"),
        ("bucket", {"request_checksum_calculation": "when_required"}, "content-md5"),
        ("bucket--use1-az4--x-s3", {"request_checksum_calculation": "when_required"}, ""),
    ],
)
def test_uploads_carry_one_checksum_that_the_store_knows(
    as_file: bool, bucket: str, config: dict[str, str], header: str, gateway: Gateway, tmp_path: Path
) -> None:
    """S3 Express refuses a Content-MD5; of what the client is told to send it nothing, its ETag is compared."""
    (tmp_path / "file").write_bytes(DATA)
    store_of(gateway, s3={"addressing_style": "path"}, **config).write(
        f"s3://{bucket}/object", tmp_path / "file" if as_file else DATA
    )
    (sent,) = gateway.sent
    assert {name for name in sent if name == "content-md5" or name.startswith("x-amz-checksum")} == {header} - {""}
