"""A read ends at its bound of bytes and at its deadline, whatever the server declares and sends."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from segment.errors import NotAFile, StoreError, TooManyBytes, TooSlow
from segment.inputs.loose.file_reads import read_files
from segment.inputs.parts import UNKNOWN, Member, Part, Span
from segment.inputs.references import read_references
from segment.job import InputOptions, read_job_file
from segment.models.card import load_card
from segment.store.client import Store
from segment.store.scope import Scope
from tests.runs import png, scene

MOST = 1 << 20
SMALL = png(scene(1)[0])
MIB = bytes(1 << 20)


class Stranger:
    """An http server that sends what it likes; the path says what."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._done = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=self._listening.accept()[:1], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while request := connection.recv(4096):
                method, path = request.split(b" ", 2)[:2]
                self._send(connection, path.decode(), head=method == b"HEAD")

    def _send(self, connection: socket.socket, path: str, *, head: bool) -> None:
        begin = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"
        if path == "/small":
            connection.sendall(begin + f"Content-Length: {len(SMALL)}\r\n\r\n".encode() + (b"" if head else SMALL))
        elif head:
            connection.sendall(begin + (b"Content-Length: 100\r\n\r\n" if "lies" in path else b"\r\n"))
            connection.close()
        elif path == "/other-range":
            connection.sendall(b"HTTP/1.1 206 OK\r\nContent-Length: 5\r\nContent-Range: bytes 90-94/100\r\n\r\n01234")
        elif path == "/declared":
            connection.sendall(begin + b"Content-Length: 3000000000\r\n\r\n")
            self._done.wait()
        elif path == "/silent":
            self._done.wait()
        elif "drip" in path:
            connection.sendall(begin + b"Content-Length: 1000\r\n\r\n")
            while not self._done.wait(0.05):
                connection.sendall(b"x")
        elif "headers" in path:
            while not self._done.wait(0.05):
                connection.sendall(b"X" if begin is None else begin)
                begin = None
        elif "chunks" in path:
            connection.sendall(begin + b"Transfer-Encoding: chunked\r\n\r\n")
            while not self._done.is_set():
                connection.sendall(b"100000\r\n" + MIB + b"\r\n")
        else:  # endless, without a length
            connection.sendall(begin + b"\r\n")
            while not self._done.is_set():
                connection.sendall(MIB)

    def close(self) -> None:
        self._done.set()
        self._listening.close()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    server = Stranger()
    yield server
    server.close()


@pytest.mark.parametrize("path", ["endless", "chunks", "endless-lies", "declared"])
def test_a_body_without_end_is_not_transferred(stranger: Stranger, path: str) -> None:
    with pytest.raises(TooManyBytes, match=rf"could not read http://127\S+/{path}: it has more than {MOST} bytes"):
        Store().read(f"{stranger.url}/{path}", most=MOST)


@pytest.mark.parametrize("path", ["drip", "drip-lies", "headers"])
def test_a_body_that_drips_is_given_up(stranger: Stranger, path: str) -> None:
    store, began = Store(seconds=1.0), time.monotonic()
    with pytest.raises(TooSlow, match=r"not all of it came within 1 s \(--stall-timeout allows more\)"):
        store.read(f"{stranger.url}/{path}")
    assert time.monotonic() - began < 10
    assert store.calls == 1
    assert store.steps > 2 or path == "headers"  # a slow read is progress


def test_silence_is_trouble_that_is_tried_again(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment.store.retries._ATTEMPTS", 2)
    store = Store(seconds=0.4)
    with pytest.raises(StoreError, match="could not read"):
        store.read(f"{stranger.url}/silent")
    assert store.take_retries() == {"read": 1}


@pytest.mark.parametrize("start", [0, 7])
def test_a_range_is_bounded_by_itself(stranger: Stranger, start: int) -> None:
    with pytest.raises(Exception, match="ignores byte ranges"):
        Store().read(f"{stranger.url}/endless", start, start + 50)


def test_an_answer_that_says_to_be_another_range_is_none(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment.store.retries._ATTEMPTS", 2)
    store = Store()
    assert store.read(f"{stranger.url}/other-range", 90, 95) == b"01234"
    for start in (0, 9, 900):
        with pytest.raises(StoreError, match="received another range"):
            store.read(f"{stranger.url}/other-range", start, start + 5)
    assert store.take_retries() == {"read": 3}


def test_bounds_are_no_limit_for_what_fits(stranger: Stranger, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345678")
    for url in (f"{stranger.url}/small", f"file://{tmp_path}/a"):
        data = Store().read(url)
        assert Store().read(url, most=len(data)) == data
        with pytest.raises(TooManyBytes):
            Store().read(url, most=len(data) - 1)


@pytest.mark.parametrize("name", ["/dev/zero", "/proc/self/smaps"])
def test_local_files_without_a_size_are_not_opened(name: str) -> None:
    with pytest.raises(NotAFile):
        Store().read(f"file://{name}", most=1000)


def test_cards_and_job_files_are_small(tmp_path: Path) -> None:
    with (tmp_path / "a.toml").open("wb") as file:
        file.truncate(5 << 20)
    for read in (load_card, read_job_file):
        with pytest.raises(StoreError, match="it has more than 4194304 bytes"):
            read(str(tmp_path / "a.toml"))  # type: ignore[operator]


def within(stranger: Stranger) -> Store:
    """A store for which the stranger's server is the input."""
    return Store(seconds=1.0, scope=Scope((stranger.url,)))


def test_a_read_that_is_given_up_is_a_fault_of_its_own_row(stranger: Stranger) -> None:
    """Images and labels of strangers: the others of the part are read."""
    urls = {name: Span(f"{stranger.url}/{name}", 0, UNKNOWN) for name in ("small", "endless", "drip")}
    pairs = [("small", "small"), ("endless", "small"), ("drip", None), ("small", "drip"), ("small", "endless")]
    members = tuple(
        Member(f"{number}", urls[image], urls[label] if label else None) for number, (image, label) in enumerate(pairs)
    )
    part = Part("p", "s", "files", stranger.url, 0, "", 0, len(members), -1, members)
    read = read_files(part, InputOptions(max_image_bytes=MOST), within(stranger))
    assert [sample.fault for sample in read] == [None, "too_many_bytes", "too_slow", "label_too_slow", "too_many_bytes"]
    assert [sample.image for sample in read] == [SMALL, b"", b"", SMALL, b""]
    assert read[0].label == SMALL


def test_references_of_a_table_are_bounded_likewise(stranger: Stranger) -> None:
    wanted = {"small": SMALL, "endless": "too_many_bytes", "chunks": "too_many_bytes", "drip": "too_slow"}
    assert read_references(wanted, f"{stranger.url}/a.parquet", within(stranger), MOST) == wanted


def test_a_bound_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(SMALL)
    assert Store().read_given(f"file://{tmp_path}/a", most=1 << 45) == SMALL
    assert Store().read(f"file://{tmp_path}/a", most=1 << 45) == SMALL


class Cloud(AsyncFileSystem):  # type: ignore[misc]
    """A store as Google's and Azure's: it refuses any range of an empty object."""

    protocol = "cloud"
    sent: ClassVar[list[int]] = []

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        if path == "bucket/none":
            raise FileNotFoundError(path)
        data = MIB[: await self._size(path)]
        if start is not None and start >= len(data):
            raise OSError("416: the requested range cannot be satisfied")
        self.sent.append(len(data[start:end]))
        return data[start:end]

    async def _info(self, path: str, **_: object) -> dict[str, object]:
        return {"name": path, "size": await self._size(path), "type": "file"}

    async def _size(self, path: str) -> int:
        return {"bucket/large": len(MIB), "bucket/small": 100, "bucket/empty": 0}[path]


def test_an_answer_that_is_no_http_costs_no_more_than_its_words() -> None:
    """Its text is a part of the error; looking for URLs in it took hours."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_answer, args=(server, b"x" * 200_000), daemon=True).start()
        with pytest.raises(StoreError, match="Bad status line") as caught:
            Store().read(f"http://127.0.0.1:{server.getsockname()[1]}/a.png", most=1000)
    assert len(str(caught.value)) < 500


def _answer(server: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        while True:
            with server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(data)


@pytest.mark.parametrize("protocol", ["cloud", "memory"])
def test_other_drivers_transfer_no_more_than_the_bound(protocol: str) -> None:
    fsspec.register_implementation("cloud", Cloud, clobber=True)
    if protocol == "memory":
        fsspec.filesystem("memory").pipe({"/bucket/large": MIB, "/bucket/small": MIB[:100], "/bucket/empty": b""})
    store, Cloud.sent[:] = Store(), []
    with pytest.raises(TooManyBytes):
        store.read(f"{protocol}://bucket/large", most=1000)
    assert Cloud.sent == ([1001] if protocol == "cloud" else [])
    assert [len(store.read(f"{protocol}://bucket/{name}", most=1000)) for name in ("small", "empty")] == [100, 0]
    assert len(store.read(f"{protocol}://bucket/large", 10, 30)) == 20
    assert store.read_if_exists(f"{protocol}://bucket/none") is None
