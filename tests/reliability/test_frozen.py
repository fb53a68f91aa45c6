"""Every kind of worker is frozen once: it is noticed and replaced, the run goes on, and no byte changes."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segment.engines.interruptible import pulled
from segment.engines.ray_heartbeats import Heartbeat, HeartbeatMonitor, WorkerHealth
from segment.engines.ray_watchdog import Watchdog
from segment.errors import ModelError, SegmentError, StoreError
from segment.output.results import PartResult
from segment.pipeline.stall import UNKNOWN, StallTimeout
from tests.jobs import ray_engine, run_on, tree
from tests.reliability.arena import note
from tests.reliability.trouble import add_killer, assert_sound, street
from tests.runs import Place

# --- how long is too long ---------------------------------------------------------------------------------------------


def result(images: int, **seconds: float) -> PartResult:
    return PartResult("p", "s", images=images, seconds=seconds)  # type: ignore[arg-type]


def test_the_stall_timeout_follows_the_times_of_parts() -> None:
    stall_timeout = StallTimeout(None, images=1)
    assert stall_timeout.seconds == UNKNOWN
    stall_timeout.learn(result(4, read=0.5, decode=1.0, infer=2.0, encode=1.0, write=0.1))  # an image takes a second
    assert stall_timeout.seconds == 60.0  # no less: a busy machine is no stuck one
    stall_timeout.learn(result(4, infer=80.0))
    assert stall_timeout.seconds == 200.0
    stall_timeout.learn(result(4, infer=4.0))
    assert stall_timeout.seconds == 200.0  # the slowest counts
    stall_timeout.learn(result(4, read=30.0))
    assert stall_timeout.seconds == 300.0


def test_a_step_is_a_batch_or_a_whole_part() -> None:
    batches, parts = StallTimeout(None, images=8), StallTimeout(None, images=None)
    for stall_timeout in (batches, parts):
        stall_timeout.learn(result(64, infer=128.0))
    assert (batches.seconds, parts.seconds) == (160.0, 1280.0)


def test_loading_takes_its_time_or_what_the_user_allows() -> None:
    stall_timeout = StallTimeout(None, images=1)
    stall_timeout.learn(result(4, infer=80.0 * 40))
    assert (stall_timeout.seconds, stall_timeout.loading_seconds) == (8000.0, UNKNOWN)
    assert StallTimeout(None, images=1, device="tensorrt").loading_seconds == 1800.0
    assert [StallTimeout(fixed, images=1).loading_seconds for fixed in (2.5, 900.0)] == [UNKNOWN, 900.0]


def test_what_says_nothing_of_speed_is_not_learnt_from() -> None:
    stall_timeout = StallTimeout(None, images=1)
    stall_timeout.learn(PartResult("p", "s", images=2, skipped=True))
    stall_timeout.learn(PartResult("p", "s", failure="the store is away"))
    stall_timeout.learn(PartResult("p", "s"))
    assert stall_timeout.seconds == UNKNOWN
    assert StallTimeout(2.5, images=1).seconds == 2.5  # --stall-timeout goes over it


def test_the_monitor_tells_who_is_stuck_and_who_loads() -> None:
    monitor = HeartbeatMonitor()
    monitor.record("a", Heartbeat("node", 1, 0, loading=False))
    monitor.record("b", Heartbeat("node", 2, 0, loading=True))
    time.sleep(0.02)
    assert monitor.health(0.01, 60.0) == WorkerHealth(
        (("node", 1, 0.01, False),), steps=1, working=2, busy=True, waits=(), loads=1, loaded=0
    )
    monitor.record("a", Heartbeat("node", 1, 1, loading=False))
    assert monitor.health(0.01, 60.0).stuck == ()
    time.sleep(0.02)
    assert monitor.health(60.0, 0.01).stuck == (("node", 2, 0.01, True),)
    monitor.idle("b")
    monitor.idle("a")
    assert monitor.health(0.0, 0.0) == WorkerHealth((), steps=2, working=0, busy=False, waits=(), loads=1, loaded=1)


def test_the_monitor_counts_starts_and_replacements() -> None:
    monitor = HeartbeatMonitor()
    assert [monitor.count_start(work) for work in ("a", "b", "a", "a")] == [1, 1, 2, 3]
    monitor.record("x", Heartbeat("node", 1, 0, loading=True))
    monitor.record("y", Heartbeat("node", 2, 0, loading=True, replaces=True))
    monitor.record("y", Heartbeat("node", 2, 0, loading=True, replaces=True))
    monitor.record("z", Heartbeat("node", 2, 0, loading=False, replaces=True))
    assert monitor.health(60.0, 60.0).replaced == 1


def test_a_process_of_two_calls_is_one_worker() -> None:
    monitor = HeartbeatMonitor()
    for call in ("a", "b"):
        monitor.record(call, Heartbeat("node", 1, 0, loading=False))
    health = monitor.health(-1.0, -1.0)
    assert (health.stuck, health.working) == ((("node", 1, -1.0, False),), 1)


def test_who_waits_for_ray_is_neither_stuck_nor_busy() -> None:
    monitor = HeartbeatMonitor()
    for _ in range(3):
        monitor.record("a", Heartbeat("node", 1, 0, loading=False, waiting=True))
        time.sleep(0.02)
    health = monitor.health(0.05, 60.0)
    assert (health.stuck, health.steps, health.working, health.busy) == ((), 1, 1, False)


def test_the_process_that_follows_another_of_its_actor_takes_its_place() -> None:
    monitor = HeartbeatMonitor()
    monitor.record("actor", Heartbeat("node", 1, 5, loading=False))
    monitor.record("actor", Heartbeat("node", 2, 5, loading=True, replaces=True))
    health = monitor.health(-1.0, -1.0)
    assert (health.stuck, health.loads, health.replaced) == ((("node", 2, -1.0, True),), 1, 1)


def test_who_does_not_die_of_being_killed_is_told_three_times() -> None:
    monitor = HeartbeatMonitor()
    monitor.record("a", Heartbeat("node", 1, 0, loading=False))
    told = [monitor.health(-1.0, -1.0).stuck for _ in range(4)]
    assert told == [(("node", 1, -1.0, False),)] * 3 + [()]


# --- waiting with an end ----------------------------------------------------------------------------------------------


def for_ever() -> Iterator[int]:
    yield 1
    while True:
        time.sleep(0.01)


def test_a_wait_without_end_ends_with_the_trouble() -> None:
    trouble: list[SegmentError | None] = [None, None, StoreError("the head is gone")]
    values = pulled(for_ever(), lambda: trouble.pop(0))
    assert next(values) == 1
    with pytest.raises(StoreError, match="the head is gone"):
        next(values)
    assert not [thread for thread in threading.enumerate() if thread.name == "pull"]


def test_values_and_errors_come_through() -> None:
    def some() -> Iterator[int]:
        yield from range(200)
        raise ValueError("at the end")

    values = pulled(some(), lambda: None)
    assert [next(values) for _ in range(200)] == list(range(200))
    with pytest.raises(ValueError, match="at the end"):
        next(values)
    assert list(pulled(iter([]), lambda: None)) == []


def test_who_stops_early_ends_the_source_too() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from for_ever()
        finally:
            closed.set()

    values = pulled(source(), lambda: None)
    assert next(values) == 1
    values.close()  # type: ignore[attr-defined]
    assert closed.wait(5)


# --- on a cluster -----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_ray_workers(ray_cluster: Path) -> Iterator[Callable[[str], object]]:
    """Makes trouble in the workers of the cluster."""
    yield ray_cluster.write_text
    ray_cluster.unlink()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Six sound images, and one called a killer between them."""
    place = street(tmp_path)
    add_killer(place, "2-killer.png")
    place.run(output=str(tmp_path / "calm"))
    return place


KINDS = {
    "a CPU worker, at an image": ("freeze", {"workers": (1, 1)}),
    "a GPU worker, at an image": ("freeze", {"split": True}),
    "a task that reads": ("read-freeze", {"split": True}),
    "a task that writes": ("write-freeze", {"split": True}),
    "a worker that loads the model": ("load-freeze", {"workers": (1, 1)}),
    "the actor of the heartbeats": ("monitor-freeze", {"split": True}),
}


@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if "reads" in k else pytest.mark.slow) for k in KINDS])
def test_a_frozen_process_is_replaced(
    kind: str,
    place: Place,
    in_ray_workers: Callable[[str], object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trouble, engine = KINDS[kind]
    frozen = place.folder / "frozen"
    in_ray_workers(f"{trouble}={frozen}")
    monkeypatch.setattr("segment.pipeline.stall.UNKNOWN", 15.0)  # for loading
    monkeypatch.setattr("segment.engines.ray_heartbeats._ANSWER_SECONDS", 10.0)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "segment.engines.ray"):
        report = run_on(ray_engine(**engine), place.job(stall_timeout=3))
    assert frozen.exists()
    assert (report.complete, report.total.images, report.total.errors) == (True, 7, 0)
    assert "it is replaced" in caplog.text
    assert tree(place.output) == tree(place.folder / "calm")
    assert_sound(place.output)
    note(f"SIGSTOP of {kind}", 1, 1, time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.ray
def test_a_model_that_kills_whoever_loads_it_ends_the_run(
    place: Place, in_ray_workers: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_ray_workers("load")
    monkeypatch.setattr("segment.engines.ray_watchdog._LOADS", 2)
    with pytest.raises(StoreError, match=r"\d workers began to load the model and none was done: they die of it"):
        run_on(ray_engine(workers=(1, 1)), place.job())
    in_ray_workers("")
    assert run_on(ray_engine(workers=(1, 1)), place.job()).complete
    assert tree(place.output) == tree(place.folder / "calm")


@pytest.mark.slow
@pytest.mark.ray
def test_workers_that_are_never_heard_of_end_the_run(
    place: Place, ray_cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one GPU is somebody else's: Ray Data would wait for it for ever."""
    import ray

    assert ray_cluster
    holder = ray.remote(num_gpus=1, num_cpus=0)(HeartbeatMonitor).remote()
    ray.get(holder.idle.remote("nobody"))
    monkeypatch.setattr("segment.engines.ray_watchdog._SILENCE_SECONDS", 8.0)
    try:
        with pytest.raises(StoreError, match="no worker of the Ray cluster has done anything for"):
            run_on(ray_engine(workers=(1, 1), split=True), place.job())
    finally:
        ray.kill(holder)


@pytest.mark.parametrize(
    ("health", "restarted", "silence"),
    [
        (WorkerHealth((), 0, 0, False, (), 0, 0), False, 60.0),
        (WorkerHealth((), 1, 1, False, (), 0, 0), False, 0.0),  # a step
        (WorkerHealth((), 0, 1, True, (), 0, 0), False, 0.0),  # one long step
        (WorkerHealth((), 0, 0, False, (), 0, 0, replaced=-2), True, 60.0),  # its counts began anew
    ],
)
def test_silence_is_counted_while_nobody_works(
    health: WorkerHealth, restarted: bool, silence: float, caplog: pytest.LogCaptureFixture
) -> None:
    watchdog: Any = object.__new__(Watchdog)
    watchdog._stall_timeout, watchdog._done = StallTimeout(None, None), threading.Event()
    watchdog._health, watchdog._worker_silence = WorkerHealth((), 0, 0, False, (), 0, 0), 60.0
    watchdog._monitor = SimpleNamespace(health=lambda seconds, loading: health)
    watchdog._check_workers()
    assert (watchdog._worker_silence, caplog.text) == (silence, "")
    assert restarted == (health.replaced < 0)


@pytest.mark.parametrize("loading", [False, True])
def test_only_who_is_stuck_while_it_loads_blames_the_model(loading: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a GPU that compiles for half an hour, readers may be stuck at a store; in quarantine nobody loads."""
    monkeypatch.setattr("segment.engines.ray_watchdog._kill_on", lambda *_: None)
    stuck = tuple(("node", pid, 60.0, loading) for pid in (1, 2))
    watchdog: Any = object.__new__(Watchdog)
    watchdog._stall_timeout, watchdog._done, watchdog._workers = StallTimeout(None, None), threading.Event(), 2
    watchdog._asked_at, watchdog._worker_silence, watchdog._head_silence = time.monotonic(), 0.0, 0.0
    watchdog._health = WorkerHealth((), 0, 0, False, (), 0, 0)
    watchdog._monitor = SimpleNamespace(health=lambda *_: WorkerHealth(stuck, 0, 2, True, (), 1, 0))
    watchdog._check_workers()
    assert isinstance(watchdog.trouble(), ModelError) == loading


def test_a_driver_that_stood_still_does_not_blame_the_head() -> None:
    watchdog: Any = object.__new__(Watchdog)
    watchdog._workers, watchdog._health = 1, WorkerHealth((), 0, 0, False, (), 0, 0)
    watchdog._stall_timeout = StallTimeout(None, None)
    watchdog._asked_at, watchdog._worker_silence, watchdog._head_silence = time.monotonic() - 3600, 0.0, 0.0
    assert watchdog.trouble() is None


def test_a_head_that_does_not_answer_ends_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog: Any = object.__new__(Watchdog)
    watchdog._workers, watchdog._health = 1, WorkerHealth((), 0, 0, False, (), 0, 0)
    watchdog._stall_timeout = StallTimeout(None, None)
    watchdog._asked_at, watchdog._worker_silence, watchdog._head_silence = time.monotonic(), 0.0, 50.0
    told = watchdog.trouble()
    assert isinstance(told, StoreError)
    assert str(told).startswith("the head of the Ray cluster (its control service, GCS) has not answered for 50 s")
    assert "the same command resumes the run" in str(told)
