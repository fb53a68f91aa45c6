"""Attempts at a run: which of them go on, and what a second one at the same time is told."""

import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from segment.errors import StoreError, UsageError
from segment.output.attempts import AttemptWriter, _started, read_attempts
from segment.output.ledger import Ledger
from segment.store.client import Store
from tests.calls import Call
from tests.runs import Place


@pytest.fixture
def sleeper() -> Iterator[int]:
    """The number of another process, which is alive."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def attempt(ledger: Ledger, **facts: Any) -> str:
    """Write the record of an attempt that has not ended, as a driver with these facts would have; return its name.

    Without the time of its start, unless that is given, as a version before wrote it.
    """
    AttemptWriter(ledger, engine="local", workers=1)
    name = read_attempts(ledger)[-1].name
    path = Path(ledger.url("runs", f"{name}.json").removeprefix("file://"))
    written = json.loads(path.read_text())
    del written["started"]
    path.write_text(json.dumps({**written, **facts}))
    return name


def test_what_goes_on_is_told_by_its_process(tmp_path: Path, sleeper: int, gone: int) -> None:
    ledger = Ledger(Store(), f"file://{tmp_path}")
    later = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)).isoformat()
    expected: dict[str, bool | None] = {}
    expected[attempt(ledger, pid=sleeper, began=later)] = True
    expected[attempt(ledger, pid=sleeper, began="2020-01-01T00:00:00+00:00")] = False  # the number is another's by now
    expected[attempt(ledger, pid=gone, began=later)] = False
    expected[attempt(ledger, pid=os.getpid(), began=later)] = None
    expected[attempt(ledger, pid=sleeper, began=later, host="elsewhere")] = None
    expected[attempt(ledger, pid=sleeper, began=later, pid_namespace=7)] = None
    expected[attempt(ledger, pid="many", began=later)] = False
    (tmp_path / "runs" / "99990101T000000.000000Z-damaged.json").write_text("{")
    expected["99990101T000000.000000Z-damaged"] = None
    AttemptWriter(ledger, engine="local", workers=1).close({}, {})
    found = {one.name: one.goes_on for one in read_attempts(ledger)}
    (ended,) = found.keys() - expected.keys()
    assert found == {**expected, ended: False}


def test_a_driver_that_nobody_waits_for_is_gone(tmp_path: Path) -> None:
    """As in a container whose first process waits for no child."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    ledger = Ledger(Store(), f"file://{tmp_path}")
    started = _started(process.pid)
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    attempt(ledger, pid=process.pid, started=started)
    attempt(ledger, pid=process.pid)
    assert [one.goes_on for one in read_attempts(ledger)] == [False, False]
    process.wait()


def test_a_driver_of_another_user_is_not_taken_for_dead(
    tmp_path: Path, sleeper: int, gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where /proc hides the processes of others (hidepid) only a signal tells that there is one of its number."""
    place = Place(tmp_path)
    place.add("a.png", 1)
    place.run()
    for file in place.output.rglob("*.parquet"):
        file.unlink()
    (place.output / "_SUCCESS").unlink()
    (record,) = (place.output / "runs").iterdir()

    def refuse(*_: object) -> None:
        raise PermissionError

    def deny(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(psutil.Process, "status", deny)
    for pid in (gone, sleeper):
        record.write_text(json.dumps({**json.loads(record.read_text()), "pid": pid}))
        (one,) = read_attempts(Ledger(Store(), f"file://{place.output}"))
        assert one.goes_on is None
        with pytest.raises(UsageError, match=r"another run is starting at .*, or was killed"):
            place.run(mask_size="model")


def test_a_clock_that_is_set_makes_no_driver_another_process(
    tmp_path: Path, sleeper: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times of processes follow the clock (psutil adds the boot time, which moves with it); ticks since boot do not."""
    ledger = Ledger(Store(), f"file://{tmp_path}")
    started = _started(sleeper)
    assert started is not None
    assert started >= (_started(os.getpid()) or 0)
    now = datetime.datetime.now(datetime.UTC).isoformat()
    expected = {
        attempt(ledger, pid=sleeper, began=now, started=started): True,
        attempt(ledger, pid=sleeper, began=now, started=started - 1): False,
        attempt(ledger, pid=sleeper, began=now, started="long ago"): False,
    }
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: time.time() + 3600)
    assert {one.name: one.goes_on for one in read_attempts(ledger)} == expected


def test_a_second_run_and_the_status_name_the_first(segment: Call, tmp_path: Path, sleeper: int) -> None:
    place = Place(tmp_path)
    place.add("a.png", 1)
    place.run()
    (place.output / "_SUCCESS").unlink()
    next(place.output.glob("stats/*")).unlink()
    next(place.output.glob("masks/*/*")).unlink()
    ledger = Ledger(Store(), f"file://{place.output}")
    now = datetime.datetime.now(datetime.UTC)
    attempt(ledger, pid=sleeper, began=(now + datetime.timedelta(seconds=60)).isoformat())
    (running,) = [one for one in read_attempts(ledger) if one.goes_on]
    assert segment("status", str(place.output)).out.splitlines()[-1] == (
        f"2 attempts: at work since {running.driver_in_words}"
    )
    assert f"UTC on {running.facts['host']} (process {sleeper})" in running.driver_in_words
    (line,) = [line for line in place.run().warnings if "another `segment run`" in line]
    assert line.startswith(f"another `segment run` is at work on this output, since {running.driver_in_words}")


def test_a_run_with_other_settings_is_told_which_one_is_at_work(tmp_path: Path, sleeper: int) -> None:
    place = Place(tmp_path)
    place.add("a.png", 1)
    place.run()
    for file in [place.output / "_SUCCESS", *place.output.glob("stats/*"), *place.output.glob("masks/*/*")]:
        file.unlink()
    ledger = Ledger(Store(), f"file://{place.output}")
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    attempt(ledger, pid=sleeper, began=later.isoformat())
    (running,) = [one for one in read_attempts(ledger) if one.goes_on]
    with pytest.raises(UsageError, match="with other settings, since ") as refused:
        place.run(mask_size="model")
    assert running.driver_in_words in str(refused.value)


def test_a_run_that_was_killed_before_its_first_commit_is_told(tmp_path: Path, gone: int) -> None:
    place = Place(tmp_path)
    place.add("a.png", 1)
    place.run()
    for file in place.output.rglob("*.parquet"):
        file.unlink()
    (place.output / "_SUCCESS").unlink()
    (record,) = (place.output / "runs").iterdir()
    record.write_text(json.dumps({**json.loads(record.read_text()), "pid": gone}))
    with pytest.raises(UsageError, match=r"settings, was killed before its first commit: delete .*run\.json"):
        place.run(mask_size="model")
    record.write_text(json.dumps({**json.loads(record.read_text()), "host": "elsewhere"}))
    with pytest.raises(UsageError, match=r"another run is starting at .*, or was killed"):
        place.run(mask_size="model")


def test_a_run_that_may_go_on_elsewhere_is_named_while_it_is_the_last(
    tmp_path: Path, gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(Store(), f"file://{tmp_path}")
    attempt(ledger, host="elsewhere")
    (line,) = AttemptWriter(ledger).others()
    assert line.startswith("warning: another `segment run` may be at work on this output, since ")
    attempt(ledger, pid=gone)
    second = AttemptWriter(ledger)
    assert second.others() == []

    def refuse(*_: object) -> None:
        raise StoreError("the store is away")

    monkeypatch.setattr(Store, "list", refuse)
    assert second.others() == []
