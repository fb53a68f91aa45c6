"""Signals end a run with 128 + their number, and the same command again completes it."""

import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.calls import ROOT, Call
from tests.reliability.trouble import assert_sound, command, environment, masks, street
from tests.runs import Place

HEARS_HANGUP = ("env", "--default-signal=HUP")  # also where the tests run under `nohup`


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return street(tmp_path)


@contextmanager
def running(place: Place, trouble: str, *before: str) -> Iterator[subprocess.Popen[str]]:
    """A run that is in the middle: its first part is committed."""
    process = subprocess.Popen(
        [*HEARS_HANGUP, *before, *command(place)],
        cwd=ROOT,
        env=os.environ | environment(trouble),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_masks(place, process)
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_masks(place: Place, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 60
    while not masks(place.output):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
    ids=lambda value: str(value),
)
def test_a_run_that_is_stopped_is_completed_by_the_same_command(
    place: Place, number: signal.Signals, code: int, segment: Call
) -> None:
    with running(place, "slow=0.5") as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "")
    told = "stopped; committed parts stay, the same command resumes the run"
    assert err.splitlines()[-1:] == [told] or code == -9
    assert "Traceback" not in err
    before = masks(place.output)
    assert 0 < len(before) < 3
    assert not (place.output / "_SUCCESS").exists()
    again = segment(*place.flags())
    assert again.code == 0
    assert f"resuming: {2 * len(before)} of 6 images are committed already" in again.err
    calm = place.folder / "calm"
    place.run(output=str(calm))
    assert masks(place.output) == masks(calm)
    assert before.items() <= masks(place.output).items()
    assert_sound(place.output)


def test_a_second_signal_ends_at_once(place: Place) -> None:
    with running(place, "slow=0.5") as process:
        os.kill(process.pid, signal.SIGSTOP)  # so that both come at once
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGCONT)
        _, err = process.communicate(timeout=10)
    assert process.returncode in (130, 143)
    assert "stopped;" not in err  # it did not get so far
    assert "Traceback" not in err


def test_under_nohup_a_hangup_is_ignored(place: Place) -> None:
    """`nohup` lets a command begin with SIGHUP ignored."""
    with running(place, "slow=0.5", "nohup") as process:
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert_sound(place.output)


def test_a_terminal_that_is_closed_ends_the_run(place: Place) -> None:
    """The kernel sends SIGHUP to all processes of the terminal, and whatever is written to it fails from then on."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*HEARS_HANGUP, "setsid", "--ctty", *command(place, workers="2")],
        cwd=ROOT, env=os.environ | environment("slow=0.5"), stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    reader = threading.Thread(target=drain, args=(ours,), daemon=True)
    reader.start()
    try:
        wait_for_masks(place, process)
        os.close(ours)
        assert process.wait(40) == 128 + signal.SIGHUP
    finally:
        process.kill()
        process.wait()
    assert not (place.output / "_SUCCESS").exists()
    place.run()
    assert_sound(place.output)


def drain(terminal: int) -> None:
    """Read what is shown, or the run would wait for room."""
    with suppress(OSError):
        while os.read(terminal, 4096):
            pass
