"""A process of its own tells what it does, whatever its libraries print, and however slow its reader is."""

import signal
import time

import pytest

from segment.errors import ModelError
from segment.models.sessions.apart_process import LOADING, Ended, Passing, run_apart
from tests.here import call_apart
from tests.reliability import calls_apart

GIVEN_UP = "the process that tried it did not load the model or run it on an image within 1 s"


@pytest.mark.parametrize("quantiser", ["onnxruntime", "nncf"])
def test_an_image_that_never_ends_is_given_up_within_a_quantiser(quantiser: str) -> None:
    """What a quantiser prints is redirected; the steps on its images are told all the same."""
    with pytest.raises(ModelError, match=GIVEN_UP):
        call_apart(calls_apart.steps_of_a_quantiser, quantiser, [30], note=print)


@pytest.mark.parametrize("quantiser", ["onnxruntime", "nncf"])
def test_each_image_gives_a_quantiser_its_seconds_again(quantiser: str, capfd: pytest.CaptureFixture[str]) -> None:
    """However many calibrate: here they take longer, together, than it may without them."""
    notes: list[str] = []
    call_apart(calls_apart.steps_of_a_quantiser, quantiser, [0.6] * 6, note=notes.append)
    assert notes == ["past them"]
    assert capfd.readouterr() == ("", "")


def test_what_a_library_prints_spoils_no_event(capfd: pytest.CaptureFixture[str]) -> None:
    notes: list[str] = []
    call_apart(calls_apart.prints, note=notes.append)
    assert notes == ["a note"]
    assert capfd.readouterr() == ("", "a library's remark, and one of its native code\n")


def test_a_note_that_waits_for_a_terminal_costs_a_step_no_time() -> None:
    """As by Ctrl-S, or a pipe that nobody reads: the step, of a second at most, has long ended."""
    assert call_apart(calls_apart.step_that_tells, note=lambda line: time.sleep(2)) == "innocent"


@pytest.mark.parametrize(
    ("loads", "seconds", "ended", "words"),
    [
        (0, 60, Ended(0), "ended with exit code 0; is the file damaged?"),
        (30, 60, Ended(-signal.SIGKILL, LOADING, 0.5), "did not load the model within 0 s, and was ended"),
        (30, 0.2, Ended(-signal.SIGKILL, "end", 0.2), "did not end within 0 s, and was ended"),
        ("x", 60, Ended(1), "ended with exit code 1; is the file damaged?"),
    ],
)
def test_how_a_process_ended_says_at_what_it_was_late(loads: object, seconds: float, ended: Ended, words: str) -> None:
    assert run_apart(calls_apart.__name__, loads, seconds) == ([], ended)
    assert f"{ended}{ended.likely_cause}" == words


def test_a_process_that_was_killed_may_have_wanted_memory() -> None:
    """Its file need not be damaged."""
    killed = Ended(-signal.SIGKILL)
    assert f"{killed}{killed.likely_cause}" == "ended by SIGKILL, as for want of memory"


def test_what_passes_is_told_from_a_line() -> None:
    notes: list[str] = []
    call_apart(calls_apart.passes, note=notes.append)
    assert [(type(line), line) for line in notes] == [(Passing, "1 of 2"), (str, "a line")]
