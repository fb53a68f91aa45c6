"""The output is tried before anything is begun: what it cannot do is told in the first seconds, with its advice."""

import errno
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segment.errors import SegmentError, StoreError, StoreRefused, UsageError
from segment.runs.driver import run
from segment.runs.preflight import probe_output
from segment.store.bounds import MOST_BYTES
from segment.store.client import Entry, Store
from segment.store.retries import retry_log_filter
from tests.reliability.arena import note, proxied
from tests.reliability.proxy import Fault, FaultProxy
from tests.reliability.test_conditional_put import moto as moto
from tests.reliability.trouble import assert_sound, street
from tests.runs import Notes, Place
from tests.s3 import S3Server

PROBE = r"/_preflight-[0-9a-f]{16}"
SOON = 20.0  # seconds


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return street(tmp_path, 4)


def to_s3(place: Place, server: S3Server, proxy: FaultProxy, name: str, **changes: Any) -> dict[str, Any]:
    """Changes of the place's job that lead its output through a proxy."""
    options = {**server.options, "endpoint_url": proxy.url}
    return {"output": f"{server.bucket_url('preflight')}/{name}", "storage_options": options, **changes}


def refused(place: Place, kind: type[SegmentError] = SegmentError, /, **changes: Any) -> str:
    """Why a run is refused, which must be soon and before an image is read."""
    notes, began = Notes(), time.monotonic()
    with pytest.raises(kind) as caught:
        run(place.job(**changes), notes)
    assert time.monotonic() - began < SOON
    assert not any("images/s" in line or "workers" in line for line in notes.lines)
    return str(caught.value)


def left(server: S3Server, name: str) -> list[str]:
    return [entry.url for entry in Store(server.options).list(f"s3://preflight/{name}")]


# ---- what a store refuses


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_what_a_run_needs_and_may_not_do(method: str, place: Place, s3_server: S3Server) -> None:
    name = f"denied-{method.lower()}"
    fault = Fault("status", method=method, key=PROBE, times=None, code="AccessDenied")
    with proxied(s3_server, fault) as proxy:
        text = refused(place, StoreRefused, **to_s3(place, s3_server, proxy, name))
    assert text.startswith(f"s3://preflight/{name} cannot take the output of a run: could not ")
    assert "permission denied: check that the credentials are right" in text
    assert left(s3_server, name) == []
    note(f"preflight: {method} of the output refused", 1, 1, 0)


def test_a_listing_that_is_refused(place: Place, s3_server: S3Server) -> None:
    name = "denied-list"
    listing = Fault("status", method="GET", key=rf"prefix={name}/&", skip=1, times=None, code="AccessDenied")
    with proxied(s3_server, listing) as proxy:
        text = refused(place, StoreRefused, **to_s3(place, s3_server, proxy, name))
    assert "permission denied" in text
    assert left(s3_server, name) == []


def test_a_store_with_other_checksums(place: Place, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """rclone, and others, answer a range with the checksum of the whole object; S3 clients compare it by default."""
    for variable in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"):
        monkeypatch.delenv(variable, raising=False)
    with proxied(s3_server) as proxy:
        assert run(place.job(**to_s3(place, s3_server, proxy, "checksums"))).complete
    note("preflight: a store whose checksums are others", 1, 1, 0)


def test_a_store_that_mends_itself_is_waited_for(place: Place, s3_server: S3Server) -> None:
    faults = [
        Fault("status", method="PUT", key=PROBE, times=2, code="SlowDown"),
        Fault("reset_after", method="GET", key=PROBE),
        Fault("half_up", method="PUT", key=PROBE, skip=2),
        Fault("status", method="DELETE", key=PROBE, code="InternalError"),
    ]
    with proxied(s3_server, *faults) as proxy:
        assert run(place.job(**to_s3(place, s3_server, proxy, "slow"))).complete
    assert not [url for url in left(s3_server, "slow") if "_preflight" in url]


# ---- what a run can do without


def test_a_role_that_may_not_delete(place: Place, s3_server: S3Server) -> None:
    """A run deletes nothing, so it goes on, and says what will not be possible; what needs it is refused at once."""
    name = "write-only"
    fault = Fault("status", method="(DELETE|POST)", times=None, code="AccessDenied")
    with proxied(s3_server, fault) as proxy:
        notes, changes = Notes(), to_s3(place, s3_server, proxy, name)
        assert run(place.job(**changes), notes).complete
        (told,) = [line for line in notes.warnings if "deleted" in line]
        assert told.startswith(
            f"nothing can be deleted in s3://preflight/{name}, so --update, --retry-errors and --veri"
        )
        assert "_preflight-" in told
        assert "permission denied" in told
        for flag in ("update", "retry_errors", "verify"):
            with pytest.raises(StoreRefused, match="need it, since"):
                run(place.job(**changes), **{flag: True})
    note("preflight: an output where nothing may be deleted", 1, 1, 0)


def test_a_store_without_conditional_writes(place: Place, moto: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    """Older S3 servers refuse the header. They are written to as those that ignore it, and it is told."""
    name = "unconditional"
    fault = Fault("status", method="PUT", head=r"^if-none-match: ?\*", times=None, code="NotImplemented")
    fault.head = r"(?m)" + fault.head
    with proxied(moto, fault) as proxy, caplog.at_level(logging.WARNING):
        assert run(place.job(**to_s3(place, moto, proxy, name))).complete
    assert fault.injected >= 3  # the probe's object, run.json, the plan
    assert "no conditional writes in this store: wrote without one" in caplog.text
    assert not [url for url in left(moto, name) if "_preflight" in url]


# ---- begun and finished runs


def test_a_finished_run_is_not_tried_again(place: Place, s3_server: S3Server) -> None:
    with proxied(s3_server) as proxy:
        changes = to_s3(place, s3_server, proxy, "finished")
        run(place.job(**changes))
        done = proxy.requests
        probes = [(method, target) for method, target in proxy.log if "_preflight" in target]
        assert [method for method, _ in probes if method in ("PUT", "DELETE")] == ["PUT", "DELETE"]
        assert len(probes) <= 5
        notes = Notes()
        run(place.job(**changes), notes)
        again = proxy.log[done:]
    assert any("complete already" in line for line in notes.lines)
    assert not [target for method, target in again if "_preflight" in target or method == "DELETE"]


def test_a_begun_run_is_tried_and_left_as_it_is(place: Place, s3_server: S3Server) -> None:
    broken = Fault("status", method="PUT", key="/masks/", skip=1, times=None, code="AccessDenied")
    with proxied(s3_server, broken) as proxy:
        changes = to_s3(place, s3_server, proxy, "begun")
        with pytest.raises(StoreRefused):
            run(place.job(**changes))
        before = {entry.url: entry.etag for entry in Store(s3_server.options).list("s3://preflight/begun")}
        broken.key = PROBE  # now the whole output refuses
        broken.skip = 0
        text = refused(place, StoreRefused, **changes)
        assert "cannot take the output of a run" in text
        assert {e.url: e.etag for e in Store(s3_server.options).list("s3://preflight/begun")} == before
    with proxied(s3_server) as proxy:
        assert run(place.job(**{**changes, **to_s3(place, s3_server, proxy, "begun")})).complete


def test_a_run_that_is_refused_later_leaves_nothing(place: Place) -> None:
    refused(place, UsageError, output=str(place.folder / "new" / "out"), weights=str(place.folder / "nowhere.onnx"))
    assert not (place.folder / "new").exists()


# ---- local outputs


def test_an_output_in_rays_copy_of_the_working_directory(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = place.folder / "runtime_resources" / "working_dir_files" / "_ray_pkg_4c211c88f1e82ece"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    text = refused(place, UsageError, output="out")
    assert text.startswith("the output out is in Ray's copy of the working directory, which Ray deletes after")
    assert list(copy.iterdir()) == []


@pytest.fixture
def mounted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of one's own with these options."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", str(folder)]
    made = subprocess.run(mount, capture_output=True, text=True, timeout=20, check=False)
    if made.returncode:
        pytest.skip(f"NO MOUNTS: mounting a tmpfs is not permitted here ({made.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], timeout=20, check=False)


@pytest.mark.parametrize("mounted", ["ro,size=1m"], indirect=True)
@pytest.mark.parametrize("below", ["", "out", "a/b/out"])
def test_a_read_only_file_system(below: str, mounted: Path, place: Place) -> None:
    output = mounted / below
    text = refused(place, StoreRefused, output=str(output))
    assert text.startswith(f"{output} cannot take the output of a run: ")
    assert "the file system is read-only" in text


@pytest.mark.parametrize("mounted", ["size=64k"], indirect=True)
def test_a_full_disk(mounted: Path, place: Place) -> None:
    with (mounted / "ballast").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                break
    text = refused(place, StoreRefused, output=str(mounted / "out"))
    assert "the disk is full" in text
    assert sorted(path.name for path in mounted.iterdir()) == ["ballast"]


def test_a_folder_that_may_not_be_written(place: Place) -> None:
    closed = place.folder / "closed"
    closed.mkdir(mode=0o555)
    was_root = os.geteuid() == 0
    if was_root:  # who may write everywhere
        for path in (place.folder, *place.folder.parents):
            path.chmod(path.stat().st_mode | 0o055)
            if path.name.startswith("pytest-of"):
                break
        os.seteuid(65534)
    try:
        with pytest.raises(StoreRefused, match=rf"{closed}/out cannot take .*: permission denied: check that you may"):
            probe_output(Store(), f"file://{closed}/out", deletes=False)
    finally:
        if was_root:
            os.seteuid(0)
    assert list(closed.iterdir()) == []


def test_a_file_where_a_folder_is_to_be(place: Place) -> None:
    (place.folder / "file").write_bytes(b"")
    text = refused(place, output=str(place.folder / "file" / "out"))
    assert text == f"the output {place.folder}/file/out: {place.folder}/file is a file, not a folder"


def test_a_file_system_without_hard_links(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert run(place.job()).complete
    assert_sound(place.output)
    store = Store()
    assert store.write_if_absent(f"file://{place.folder}/x", b"ours")
    assert not store.write_if_absent(f"file://{place.folder}/x", b"theirs")
    assert store.read(f"file://{place.folder}/x") == b"ours"
    assert not list(place.folder.glob(".x*"))


def test_a_web_server_takes_no_output(place: Place) -> None:
    text = refused(place, UsageError, output="http://127.0.0.1:9/out")
    assert "is on a web server, where nothing can be written" in text


# ---- the probe by itself


class Odd(Store):
    """A store that listens badly."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def read(
        self, url: str, start: int | None = None, stop: int | None = None, etag: str = "", most: int = MOST_BYTES
    ) -> bytes:
        if self.how == "vanishes":
            raise FileNotFoundError(url)
        data = super().read(url, start, stop, etag, most)
        return data[::-1] if self.how == "other bytes" else data

    def list_folder(self, prefix: str) -> list[Entry]:
        return [] if self.how == "not listed" else super().list_folder(prefix)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("vanishes", "cannot be read back"),
        ("other bytes", "does not return"),
        ("not listed", "is missing in the listing"),
    ],
)
def test_a_store_that_does_not_do_what_it_says(how: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=words):
        probe_output(Odd(how), f"file://{tmp_path}/a/out", deletes=False)
    if how != "vanishes":
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["memory", "local", "rclone", "moto"])
def test_it_leaves_nothing(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store, output = Store(), f"file://{tmp_path}/a/b/out"
    if where == "memory":
        output = f"memory://{tmp_path.name}"
    elif where in ("rclone", "moto"):
        server: S3Server = request.getfixturevalue("moto" if where == "moto" else "s3_server")
        store, output = Store(server.options), f"{server.bucket_url('probed')}/{tmp_path.name}"
    assert probe_output(store, output, deletes=True) == []
    assert store.list(output) == []
    assert list(tmp_path.iterdir()) == []
    if where == "local":
        (tmp_path / "a").mkdir()
        probe_output(store, output, deletes=True)
        assert [path.name for path in tmp_path.rglob("*")] == ["a"]


# ---- repeated requests


def test_a_repeated_look_up_names_the_cause_and_not_what_the_driver_makes_of_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segment.store.retries._ATTEMPTS", 2)
    retry_log_filter.reset()
    with caplog.at_level(logging.WARNING, "segment.store.client"), pytest.raises(StoreError, match="cannot be reached"):
        Store().exists("http://127.0.0.1:9/a.png")  # port `discard`: nothing listens; fsspec says "not found"
    assert [record.getMessage().split(": ")[-1] for record in caplog.records] == [
        "ClientConnectorError; more of this kind are counted"
    ]


def test_repeated_requests_are_told_a_line_a_kind(caplog: pytest.LogCaptureFixture) -> None:
    retry_log_filter.reset()
    logger = logging.getLogger("segment.store.client")
    with caplog.at_level(logging.WARNING, "segment.store.client"):
        for number in range(250):
            logger.warning("retrying to %s", number, extra={"kind": "read: SlowDown"})
        logger.warning("retrying to write", extra={"kind": "write: SlowDown"})
        logger.warning("no repeat")
    assert [record.getMessage() for record in caplog.records] == [
        "retrying to 0; more of this kind are counted",
        "retrying to 9; 10 of this kind so far",
        "retrying to 99; 100 of this kind so far",
        "retrying to write; more of this kind are counted",
        "no repeat",
    ]
