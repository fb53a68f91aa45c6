"""`Store.create` where the store honours `If-None-Match` (moto), and where it does not (rclone)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segment.store import Store
from tests.reliability.arena import Arena, note, proxied
from tests.reliability.arena import arena as arena
from tests.reliability.proxy import Fault
from tests.s3 import S3Server, free_port, wait_for


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server with S3's conditional writes and checksums; it keeps its objects in memory."""
    folder = tmp_path_factory.mktemp("moto")
    server = S3Server(f"http://127.0.0.1:{free_port()}", "testing", "testing", folder)
    log = folder / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", server.endpoint.rpartition(":")[2]]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env={**os.environ})
    try:
        wait_for(server.endpoint, process, log)
        server.bucket_url("made")
        yield server
    finally:
        process.terminate()
        process.wait(20)


def through(server: S3Server, url: str) -> Store:
    return Store({**server.options, "endpoint_url": url})


def test_the_first_writer_wins(moto: S3Server) -> None:
    store = Store(moto.options)
    assert store.create("s3://made/first", b"ours") == b"ours"
    assert store.create("s3://made/first", b"theirs") == b"ours"


def test_412_is_the_first_writers_win(moto: S3Server) -> None:
    """Both see nothing there; between our look and our PUT the other one writes."""
    other = Store(moto.options)
    race = Fault("call", method="PUT", key="/made/race", call=lambda: other.write("s3://made/race", b"the other's"))
    with proxied(moto, race) as proxy:
        assert through(moto, proxy.url).create("s3://made/race", b"ours") == b"the other's"
    assert race.injected == 1
    assert other.read("s3://made/race") == b"the other's"
    note("two drivers create one object (412)", 1, 1, 0)


@pytest.mark.parametrize("times", [1, 2])
def test_a_lost_acknowledgement_is_no_one_elses_win(times: int, moto: S3Server) -> None:
    """Our PUT is applied, its answer lost. Lost once: aiohttp sends it again by itself, and is told 412 for our own.

    Lost twice: our second try finds an object before it writes one.
    """
    lost = Fault("reset_after", method="PUT", key="/made/lost", times=times)
    with proxied(moto, lost) as proxy:
        assert through(moto, proxy.url).create(f"s3://made/lost-{times}", b"ours") == b"ours"
        puts = [target for method, target in proxy.log if method == "PUT"]
    assert (lost.injected, len(puts)) == (times, 2)
    note("lost acknowledgement of a conditional PUT", times, times, 0)


def test_damaged_on_the_way_it_is_mended(arena: Arena) -> None:
    flip = Fault("flip_up", method="PUT", key="/arena-out/created")
    with proxied(arena.server, flip) as proxy:
        assert through(arena.server, proxy.url).create("s3://arena-out/created", b"x" * 1000) == b"x" * 1000
    assert flip.injected == 1


def test_a_whole_run_on_moto(moto: S3Server, arena: Arena, tmp_path: Path) -> None:
    """Conditional writes, checksums of S3 clients' own choice, and a lost acknowledgement of plan and run.json."""
    here = arena.elsewhere(moto, tmp_path)
    faults = [Fault("reset_after", method="PUT", key=key) for key in ("run.json", "plan.parquet", "/masks/")]
    checksums = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")
    with proxied(moto, *faults) as proxy:
        ended = here.run("moto", proxy, **dict.fromkeys(checksums, "when_supported"))
    assert [fault.injected for fault in faults] == [1, 1, 1]
    assert ended.code == 0, ended.text
    store = Store(moto.options)
    written = {
        entry.url.removeprefix("s3://arena-out/moto/"): store.read(entry.url)
        for entry in store.list("s3://arena-out/moto")
    }
    assert {name: written.get(name) for name in arena.golden} == arena.golden
    note("lost acknowledgement of run.json, plan and masks on a store with conditional writes", 3, 3, 0)
