"""The pool of actors on CPUs: more workers than room, workers that do not load, and a driver that stands still."""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.jobs import ray_engine, run_on
from tests.reliability.test_cluster import await_masks, check, said, start
from tests.reliability.trouble import add_killer, assert_sound, street
from tests.runs import Notes, Place

pytestmark = pytest.mark.ray


@pytest.fixture
def in_ray_workers(ray_cluster: Path) -> Iterator[Callable[[str], object]]:
    """Makes trouble in the workers of the cluster."""
    yield ray_cluster.write_text
    ray_cluster.unlink(missing_ok=True)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Sound images in parts of two, and what an undisturbed run writes, in `calm`."""
    place = street(tmp_path, images=16)
    place.run(output=str(tmp_path / "calm"))
    return place


def assert_cpus_are_free() -> None:
    """Assert that the workers of a run have ended with it, or soon after."""
    import ray

    until = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
        assert time.monotonic() < until, ray.available_resources()
        time.sleep(0.2)


@pytest.mark.usefixtures("ray_cluster")
def test_of_a_pool_that_the_cluster_has_no_room_for_some_work_and_none_is_left(place: Place) -> None:
    notes = Notes()
    report = run_on(ray_engine(workers=(1, 12)), place.job(), notes)
    assert (report.complete, report.total.images) == (True, 16)
    assert not [line for line in notes.lines if line.startswith("round ")]
    check(place)
    assert_cpus_are_free()


@pytest.mark.slow
def test_workers_that_wait_for_room_take_none_from_the_next_round(
    tmp_path: Path, in_ray_workers: Callable[[str], object]
) -> None:
    place = street(tmp_path)
    for seed, name in enumerate(("1-killer.png", "4-killer.png")):
        add_killer(place, name, 7 + seed)
    in_ray_workers("die")
    report = run_on(ray_engine(workers=(1, 4)), place.job())
    assert (report.complete, report.total.images, report.total.errors) == (True, 8, 2)
    assert_sound(place.output)
    assert_cpus_are_free()


@pytest.mark.slow  # a minute; on Ray, by being segmented: test_quarantine.py, by being read: there and test_given_up.py
def test_a_part_that_kills_by_being_read_is_begun_a_few_times_and_harms_no_other(
    tmp_path: Path, in_ray_workers: Callable[[str], object]
) -> None:
    """Ray runs it again without end; it is read ahead of others, too."""
    place = street(tmp_path)
    add_killer(place, "3-killer.png")
    in_ray_workers("read")
    notes = Notes()
    report = run_on(ray_engine(workers=(1, 1)), place.job(), notes)
    assert (report.complete, report.total.images, report.total.errors) == (True, 7, 2)  # all of its part
    assert [line for line in notes.lines if line.startswith("round ")] == [
        "round 2: 1 part left, one by one",
        "round 3: 1 part left, image by image",
    ]
    assert_sound(place.output)


@pytest.mark.slow
def test_a_worker_that_hangs_while_it_loads_but_lives_is_replaced(
    place: Place,
    in_ray_workers: Callable[[str], object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hung = place.folder / "hung"
    in_ray_workers(f"load-hang={hung}")
    monkeypatch.setattr("segment.pipeline.stall.UNKNOWN", 6.0)
    with caplog.at_level(logging.WARNING, "segment.engines.ray"):
        report = run_on(ray_engine(workers=(1, 1)), place.job())
    assert hung.exists()
    assert report.complete
    assert "it is replaced" in caplog.text
    check(place)


@pytest.mark.slow
def test_a_driver_that_stands_still_for_a_while_blames_no_worker(place: Place) -> None:
    """Ctrl-Z and fg: nobody listened to the workers, who went on."""
    started = start(place, "slow=0.5", engine="ray", workers="1", stall_timeout="4")
    await_masks(place, 1, started)
    started[0].send_signal(signal.SIGSTOP)
    time.sleep(9)
    started[0].send_signal(signal.SIGCONT)
    code, text = said(started)
    assert code == 0, text
    assert "replaced" not in text
    assert "died" not in text
    check(place)
