"""Faults of the store, through the proxy: what may pass is survived, what is for good ends at once, with advice."""

import contextlib
import json
import logging
import multiprocessing
import pickle
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from segment.engines.pool import _log
from segment.engines.ray_cluster import HeadLost
from segment.engines.worker_main import ParentConnection
from segment.store.client import Store
from segment.store.filesystems import open_filesystem
from segment.store.retries import retry_log_filter
from tests.calls import logging_as_before
from tests.reliability.arena import QUICK, Arena, Ended, note, proxied
from tests.reliability.proxy import Action, Fault
from tests.reliability.servers import PLACES, restartable


def name_of(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def survive(
    arena: Arena, kind: str, output: str, *faults: Fault, flags: tuple[str, ...] = (), in_processes: bool = False
) -> Ended:
    """A run with these faults ends well at once, its output equal to the undisturbed run's."""
    run = arena.run if in_processes else arena.here
    with proxied(arena.server, *faults) as proxy:
        ended = run(output, proxy, *flags)
        done = time.monotonic()
    injected = sum(fault.injected for fault in faults)
    assert [fault for fault in faults if not fault.injected] == []
    assert ended.code == 0, ended.text
    arena.check(output)
    note(kind, injected, injected, done - max(fault.last_at for fault in faults))
    return ended


def each(action: Action, places: tuple[str, ...], times: int = 1, code: str = "InternalError") -> list[Fault]:
    return [Fault(action, method=PLACES[p][0], key=PLACES[p][1], times=times, code=code) for p in places]


EVERYWHERE = tuple(PLACES)
WITH_BODY_UP = tuple(place for place in PLACES if PLACES[place][0] == "PUT")
WITH_BODY_DOWN = tuple(place for place in PLACES if PLACES[place][0] == "GET")


# ---- what passes


@pytest.mark.parametrize("code", ["InternalError", pytest.param("SlowDown", marks=pytest.mark.slow)])
@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_5xx(code: str, times: int, arena: Arena) -> None:
    status = {"InternalError": 500, "SlowDown": 503}[code]
    faults = each("status", EVERYWHERE, times, code)
    kind, output = f"{status} {code}, {times} in a row", f"{code.lower()}-{times}"
    ended = survive(arena, kind, output, *faults, in_processes=True)
    kinds = re.findall(r"retrying to (read|write|list|look up) .*\(attempt \d+\): (\w+); more of this kind", ended.text)
    tenth = re.findall("retrying to .*; 10 of this kind so far", ended.text)
    assert len(kinds) == len(set(kinds)) >= 4, ended.text  # a line a kind, and another one for its tenth
    assert len(kinds) + len(tenth) == len(re.findall("warning: retrying to", ended.text)), ended.text
    (record,) = arena.files(output).glob("runs/*.json")
    counted = json.loads(record.read_text())["retries"]
    assert {"read", "write", "list", "look up"} <= counted.keys()  # the plan's, the parts'; not those of the last words
    assert f"{sum(counted.values())} requests to stores repeated" in ended.text
    injected = sum(fault.injected for fault in faults)
    assert injected - 2 * times <= sum(counted.values()) <= injected
    listed = ", ".join(f"{number} x {verb}" for verb, number in sorted(counted.items()))
    assert f"warning: requests to stores were repeated: {listed}" in ended.text


@pytest.mark.parametrize(
    ("action", "places", "kind"),
    [
        ("reset_before", EVERYWHERE, "connection reset before the request is applied"),
        ("reset_after", EVERYWHERE, "lost acknowledgement: reset after the request is applied"),
        ("half_up", WITH_BODY_UP, "half of a body up"),
        ("half_down", WITH_BODY_DOWN, "half of a body down"),
    ],
)
def test_broken_connections(action: Action, places: tuple[str, ...], kind: str, arena: Arena) -> None:
    survive(arena, kind, name_of(action), *each(action, places))


def test_a_flipped_bit_up_is_refused_by_the_store_and_sent_again(arena: Arena) -> None:
    survive(arena, "one bit flipped on the way up", "flip-up", *each("flip_up", WITH_BODY_UP))


def test_a_flipped_bit_down_is_caught_by_the_page_checksums(arena: Arena) -> None:
    places = ("plan read back", "masks read", "stats read")
    ended = survive(arena, "one bit flipped on the way down (our Parquet)", "flip-down", *each("flip_down", places))
    assert (
        ended.text.count("reading it again") >= 1
    )  # a bit may also hit what is not used, such as a mask while counts are read


def test_a_flipped_bit_in_an_input_is_not_always_caught(arena: Arena) -> None:
    """What is promised of inputs: nothing beyond what the image format or the transport checks (PNG's CRC, TLS).

    A PNG is checked: the run ends, with an error row that --retry-errors mends. A JPEG would decode to other pixels.
    """
    output = "flip-input"
    with proxied(arena.server, Fault("flip_down", method="GET", key=r"^/arena-in/.*tar", skip=4)) as proxy:
        ended = arena.here(output, proxy, "--max-error-rate=1")
    assert proxy.faults[0].injected == 1
    assert ended.code == 0, ended.text
    began = time.monotonic()
    again = arena.here(output, None, "--max-error-rate=1", "--retry-errors")
    assert again.code == 0, again.text
    arena.check(output)
    note("one bit flipped on the way down (an input PNG), then --retry-errors", 1, 1, time.monotonic() - began)


@pytest.mark.parametrize("action", [pytest.param("stall_before", marks=pytest.mark.slow), "stall_down"])
def test_a_stall_is_cut_off(action: Action, arena: Arena) -> None:
    places = ("input", "masks", "stats read") if action == "stall_before" else ("input", "stats read")
    quick = f"--storage-option=config_kwargs={json.dumps(QUICK)}"
    kind = "stall: no answer" if action == "stall_before" else "stall: half of an answer"
    survive(arena, kind, name_of(action), *each(action, places), flags=(quick,))


def test_time_outs_and_retries_are_ours_alone(arena: Arena, caplog: pytest.LogCaptureFixture) -> None:
    store = Store({**arena.server.options, "config_kwargs": {"read_timeout": 7}})
    filesystem, _ = open_filesystem("s3://arena-in/x", store._options)
    filesystem.connect()
    config = filesystem._s3._client_config if hasattr(filesystem._s3, "_client_config") else filesystem._s3.meta.config
    assert (config.connect_timeout, config.read_timeout) == (10, 7)  # the user's goes over ours
    assert filesystem.retries == 1
    fault = Fault("status", times=3, code="SlowDown")
    retry_log_filter.reset()
    with proxied(arena.server, fault) as proxy, caplog.at_level(logging.WARNING, "segment.store.client"):
        store = Store({**arena.server.options, "endpoint_url": proxy.url})
        assert store.list("s3://arena-in") != []
        assert (fault.injected, proxy.requests) == (3, 4)
        assert store.take_retries() == {"list": 3}
    assert len([record for record in caplog.records if "retrying to list" in record.message]) == 1


def test_the_server_is_killed_and_restarted(arena: Arena, tmp_path: Path) -> None:
    """kill -9 of the store in the middle of a PUT; it is back two seconds later."""
    with restartable(tmp_path / "s3", arena.server) as (server, restart):
        fault = Fault("call", method="PUT", key="/masks/", skip=1, call=lambda: restart(2.0))
        other = arena.elsewhere(server, tmp_path)
        with proxied(server, fault) as proxy:
            ended = other.run("restarted", proxy)
            done = time.monotonic()
        assert fault.injected == 1
        assert ended.code == 0, ended.text
        assert "retrying to" in ended.text
        other.check("restarted")
        note("store killed (-9), back after 2 s", 1, 1, done - fault.last_at)


# ---- what does not


@pytest.mark.slow
@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
@pytest.mark.parametrize("place", ["masks", "plan read back"])
@pytest.mark.timeout(900)
def test_5xx_for_ever(code: str, place: str, arena: Arena) -> None:
    output = f"for-ever-{name_of(place)}-{code.lower()}"
    status = {"InternalError": 500, "SlowDown": 503}[code]
    ended = fail(arena, output, Fault("status", *[None], *PLACES[place], times=None, code=code))  # type: ignore[arg-type]
    assert ended.code == 1, ended.text
    assert "the same command" in ended.text
    rerun(arena, f"{status} {code} for ever, then the store is well again", output)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("AccessDenied", "permission denied: check that the credentials are right"),
        pytest.param(
            "ExpiredToken",
            "the credentials have expired: renew them and run the same command again",
            marks=pytest.mark.slow,
        ),
        pytest.param("RequestTimeTooSkewed", "this machine's clock is wrong: set it", marks=pytest.mark.slow),
        pytest.param("NoSuchBucket", "there is no such bucket", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("place", ["input listing", "input", "masks"])
def test_refusals_end_the_run_at_once(code: str, advice: str, place: str, arena: Arena) -> None:
    output = f"refused-{name_of(place)}-{code.lower()}"
    fault = Fault("status", method=PLACES[place][0], key=PLACES[place][1], times=None, code=code)
    ended = fail(arena, output, fault)
    assert ended.code == 1, ended.text
    assert advice in ended.text
    assert "retrying to" not in ended.text
    assert "round 2" not in ended.text
    assert place != "masks" or "the same command resumes" in ended.text  # the others are met before there is a run
    assert fault.injected <= 3  # what was under way when the first refusal came
    rerun(arena, f"{code}, then the user follows the advice", output)


def fail(arena: Arena, output: str, fault: Fault) -> Ended:
    """A run that cannot end well ends in bounded time, in few words, without a secret."""
    with proxied(arena.server, fault) as proxy:
        ended = arena.here(output, proxy)
    assert fault.injected
    assert "Traceback" not in ended.text
    assert not (arena.files(output) / "_SUCCESS").exists()
    arena.check_secrets(output)
    return ended


def rerun(arena: Arena, kind: str, output: str) -> None:
    """The same command, the fault gone, completes what is missing."""
    began = time.monotonic()
    again = arena.here(output)
    assert again.code == 0, again.text
    arena.check(output)
    note(kind, 1, 1, time.monotonic() - began)


# ---- full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    made = subprocess.run(mount, capture_output=True, text=True, timeout=20, check=False)
    if made.returncode:
        pytest.skip(f"NO SMALL DISK: mounting a tmpfs is not permitted here ({made.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], timeout=20, check=False)


def fill(folder: Path) -> Path:
    """Leave no byte free."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def test_the_disk_of_a_local_output_is_full(small_disk: Path, arena: Arena) -> None:
    output = str(small_disk / "out")
    ballasts: list[Path] = []
    fault = Fault("call", method="GET", key=r"^/arena-in/.*tar", skip=4, call=lambda: ballasts.append(fill(small_disk)))
    with proxied(arena.server, fault) as proxy:
        ended = arena.here(output, proxy)
    assert fault.injected == 1
    assert ended.code == 1, ended.text
    assert "the disk is full" in ended.text
    assert "Traceback" not in ended.text
    ballasts[0].unlink()
    rerun(arena, "disk of a local output full, then there is room", output)


@pytest.mark.timeout(900)
@pytest.mark.slow  # the store says 500, so every part is tried for a while
def test_the_disk_of_the_server_is_full(small_disk: Path, arena: Arena, tmp_path: Path) -> None:
    with restartable(small_disk / "s3", arena.server) as (server, _):
        other = arena.elsewhere(server, tmp_path)
        ballasts: list[Path] = []
        fault = Fault("call", method="PUT", key="/masks/", skip=1, call=lambda: ballasts.append(fill(small_disk)))
        with proxied(server, fault) as proxy:
            ended = other.run("full", proxy)
        assert fault.injected == 1
        assert ended.code == 1, ended.text
        assert "Traceback" not in ended.text
        ballasts[0].unlink()
        rerun(other, "disk of the store full, then there is room", "full")


def sent_by_a_child(times: int) -> list[logging.LogRecord]:
    """What a worker process sends to its parent: set up here as there, and undone."""
    ours, theirs = multiprocessing.Pipe()
    with logging_as_before():
        ParentConnection(theirs).forward_logs()
        for _ in range(times):
            logging.getLogger("segment.store.client").warning(
                "retrying to %s", "read", extra={"kind": "read: SlowDown"}
            )
    theirs.close()
    sent = []
    with contextlib.suppress(EOFError):
        while True:
            sent.append(ours.recv())
    return sent


def test_repeats_in_worker_processes_are_counted_together_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    retry_log_filter.reset()
    records = [*sent_by_a_child(6), *sent_by_a_child(6)]
    assert [record.getMessage() for record in records] == ["retrying to read"] * 12
    for record in records:
        _log(record)
    assert [record.getMessage() for record in caplog.records] == [
        "retrying to read; more of this kind are counted",
        "retrying to read; 10 of this kind so far",
    ]


def test_the_error_of_a_lost_head_can_be_sent_between_processes() -> None:
    lost = HeadLost.after(30)
    again = pickle.loads(pickle.dumps(lost))
    assert (type(again), str(again)) == (HeadLost, str(lost))
    assert "has not answered for 30 s" in str(lost)
