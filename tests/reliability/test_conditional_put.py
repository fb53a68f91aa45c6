"""`Store.create` where the store honours `If-None-Match` (moto), and where it does not (rclone)."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segment.errors import StoreError
from segment.inputs.parts import Part
from segment.job import Settings
from segment.metrics import Confusion
from segment.models.sessions import Runtime
from segment.output.tables import ImageRow
from segment.pipeline.stages import Clock, Task
from segment.pipeline.worker import Worker
from segment.store import retries
from segment.store.client import Store
from tests.reliability.arena import Arena, note, proxied
from tests.reliability.proxy import Fault
from tests.runs import CARD, CLASSES, png, scene
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


@pytest.mark.parametrize("times", [1, 3])
def test_damaged_on_the_way_it_is_mended(times: int, arena: Arena) -> None:
    """However often: our own damaged object is not taken for that of another writer who was first."""
    name = f"created-{times}"
    flip = Fault("flip_up", method="PUT", key=f"/arena-out/{name}", times=times)
    with proxied(arena.server, flip) as proxy:
        assert through(arena.server, proxy.url).create(f"s3://arena-out/{name}", b"x" * 1000) == b"x" * 1000
    assert flip.injected == times


def test_what_is_damaged_on_the_way_is_never_there(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed before it compares would else leave it, and the next one would take it for committed."""
    monkeypatch.setattr(retries, "_ATTEMPTS", 1)
    flip = Fault("flip_up", method="PUT", key="/arena-out/killed", times=99)
    with proxied(arena.server, flip) as proxy, pytest.raises(StoreError):
        through(arena.server, proxy.url).write("s3://arena-out/killed", b"x" * 1000)
    assert flip.injected >= 1
    assert not through(arena.server, arena.server.endpoint).exists("s3://arena-out/killed")


def test_a_body_that_fails_the_clients_checksum_is_read_again(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers with the checksum that was sent with the object; clients compare it by default."""
    for name in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"):
        monkeypatch.setenv(name, "when_supported")
    flip = Fault("flip_down", method="GET", key="/made/summed")
    with proxied(moto, flip) as proxy:
        store = through(moto, proxy.url)
        store.write("s3://made/summed", b"x" * 1000)
        assert store.read("s3://made/summed") == b"x" * 1000
    assert flip.injected == 1
    assert [target for method, target in proxy.log if method == "GET"] == ["/made/summed"] * 2
    note("one bit flipped on the way down, from a store with checksums", 1, 1, 0)


# --- masks that a device may make otherwise the next time ------------------------------------------------------------


def gpu_worker(store: Store, output: str) -> Worker:
    """What commits on a GPU node: all of a worker but the model."""
    runtime, settings = Runtime("onnxruntime", "cuda", "f16", "1"), Settings(max_pixels=10**6, stall_timeout=60.0)
    task = Task(CARD, runtime, output, settings, store, batch_size=8, fingerprint="f")
    return Worker(task, None)


def rows(seed: int) -> list[ImageRow]:
    """The row of one image; another seed is another mask."""
    mask = scene(seed)[1]
    counts = Confusion.of(mask, mask, CLASSES)
    return [ImageRow("0.png", "s3://in/0.png", 0, (24, 32), None, png(mask), counts, 1.0, 1.0)]


PART = Part("abc-000000-000001", "in-00000-abc", "files", "s3://in", 1, "", 0, 1, -1, ())


def masks_url(worker: Worker) -> str:
    return worker.ledger.masks_url(PART.shard, PART.id)


@pytest.mark.parametrize("where", ["moto", "rclone", "local"])
def test_of_two_gpus_the_first_wins(where: str, moto: S3Server, s3_server: S3Server, tmp_path: Path) -> None:
    """Of two that come one after the other on any store, for each looks before it writes."""
    server = {"moto": moto, "rclone": s3_server}.get(where)
    output = f"{server.bucket_url('gpu')}/one-after-the-other" if server else f"file://{tmp_path}/out"
    worker = gpu_worker(Store(server.options if server else {}), output)
    first = worker.commit(PART, rows(1), Clock(), 0)
    kept = worker.task.store.read(masks_url(worker))
    second = worker.commit(PART, rows(2), Clock(), 0)
    assert [(r.skipped, r.failure, r.images) for r in (first, second)] == [(False, None, 1), (True, None, 1)]
    assert worker.task.store.read(masks_url(worker)) == kept
    stats = worker.ledger.finish_shard(PART.shard, [PART.id], CARD, "f")
    assert stats.confusion == first.confusion  # of what is there, not of what came last


def test_of_two_gpus_at_once_one_wins_where_the_store_decides(moto: S3Server) -> None:
    """Both see nothing there; between the look and the PUT of one the other writes: 412."""
    moto.bucket_url("gpu")
    other = gpu_worker(Store(moto.options), "s3://gpu/race")
    race = Fault("call", method="PUT", key="/gpu/race/masks/", call=lambda: other.commit(PART, rows(2), Clock(), 0))
    with proxied(moto, race) as proxy:
        ours = gpu_worker(through(moto, proxy.url), "s3://gpu/race").commit(PART, rows(1), Clock(), 0)
    assert (race.injected, ours.skipped, ours.failure) == (1, True, None)
    stats = other.ledger.finish_shard(PART.shard, [PART.id], CARD, "f")
    assert stats.confusion == rows(2)[0].confusion
    note("two GPUs commit one part (412)", 1, 1, 0)


@pytest.mark.parametrize("times", [1, 2])
def test_a_gpus_lost_acknowledgement_is_its_own_win(times: int, moto: S3Server) -> None:
    moto.bucket_url("gpu")
    lost = Fault("reset_after", method="PUT", key="/gpu/lost", times=times)
    with proxied(moto, lost) as proxy:
        worker = gpu_worker(through(moto, proxy.url), f"s3://gpu/lost-{times}")
        result = worker.commit(PART, rows(1), Clock(), 0)
    assert (lost.injected, result.skipped, result.failure, result.images) == (times, False, None, 1)
    note("lost acknowledgement of a GPU's conditional PUT", times, times, 0)


def test_a_cpu_writes_over_what_is_there(moto: S3Server) -> None:
    """The same bytes, or what is damaged: no condition is asked for."""
    moto.bucket_url("gpu")
    worker = gpu_worker(Store(moto.options), "s3://gpu/cpu")
    worker.task.store.write(masks_url(worker), b"damaged")
    cpu = Worker(dataclasses.replace(worker.task, runtime=Runtime("onnxruntime", "cpu", "f32", "1")), None)
    assert not cpu.commit(PART, rows(1), Clock(), 0).skipped
    assert cpu.ledger.finish_shard(PART.shard, [PART.id], CARD, "f").images == 1


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
