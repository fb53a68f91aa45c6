"""The progress of a run: figures of the tally, and displays on a terminal, as lines, as JSON and in a notebook."""

import io
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from rich.console import Console

from segment.metrics import Confusion
from segment.output.results import STAGES, PartResult
from segment.progress import Tally, ticking
from segment.progress.display import view_of
from segment.progress.lines import JsonProgress, LoggedLines, PlainProgress
from segment.progress.terminal import TerminalProgress
from segment.store import inflight
from tests.calls import ROOT
from tests.reliability.trouble import street
from tests.runs import CARD


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that tests advance: `time.monotonic()` in seconds."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def result(number: int, **what: object) -> PartResult:
    return PartResult(str(number), "s", images=4, seconds={"read": 0.5, "infer": 1.5}, **what)  # type: ignore[arg-type]


def running(clock: list[float], results: int = 60, every: float = 1.0) -> Tally:
    """Return the tally of a resumed run of 2000 images, 1000 of them done before: two workers, four images a second."""
    tally = Tally(
        CARD, images=2000, done=1000, resumed=1000, workers=2, title="street · ray · openvino cpu f32", started=clock[0]
    )
    classes = len(CARD.classes)
    confusion = Confusion(np.vstack([np.eye(classes, dtype=np.int64), np.zeros((1, classes), np.int64)]))
    for number in range(results):
        clock[0] += every
        tally.add(result(number, confusion=confusion))
    return tally


def test_rates_and_eta_after_a_resume_are_of_this_attempt_and_of_the_whole_run(clock: list[float]) -> None:
    tally = running(clock)
    assert (tally.done, tally.resumed) == (1240, 1000)
    assert tally.rate == pytest.approx(4.0)  # without the thousand images of earlier attempts
    assert tally.rate_now == pytest.approx(4.0)
    assert tally.eta == pytest.approx((2000 - 1240) / 4.0)  # for all remaining images
    assert tally.busy() == pytest.approx(dict(zip(STAGES, (0.25, 0, 0.75, 0, 0), strict=True)))
    assert tally.miou == pytest.approx(1.0)
    assert ("mIoU", "100.00 % (new)") in view_of(tally).facts
    assert "mIoU 100.00 % of the new ones" in tally.line()
    assert ("errors", "0 (new)") in view_of(tally).facts
    assert "of the new ones, 0 new errors" in tally.line()


def test_shares_are_of_a_pool_that_has_grown_too(clock: list[float]) -> None:
    tally = running(clock)
    inflight.record_workers(4, ())
    try:
        assert tally.busy()["infer"] == pytest.approx(1.5 / 4)
        inflight.record_workers(1, ())  # the other workers are idle, but their work counts
        assert tally.busy()["infer"] == pytest.approx(1.5 / 2)
    finally:
        inflight.record_workers(None, ())


@pytest.fixture
def heard() -> Iterator[Callable[[dict[str, float]], None]]:
    """Tells what the workers of a pool have begun, by part."""
    yield lambda begun: inflight.record_workers(2, (), begun)
    inflight.record_workers(None, ())


def test_images_count_before_their_part_is_committed(
    clock: list[float], heard: Callable[[dict[str, float]], None]
) -> None:
    """A large image counts by its share of tiles."""
    tally = Tally(CARD, images=8, done=0, resumed=0, workers=2, started=clock[0])
    clock[0] += 10  # the workers start
    tally.tick()
    assert not tally.has_begun
    heard({"0": 0.5})
    tally.tick()
    assert tally.has_begun
    assert (tally.done, tally.begun, tally.percent, tally.eta) == (0, 0.5, 6, None)
    assert tally.line() == "0/8 images (6 %), 0 errors"
    clock[0] += 5
    heard({"0": 2.0, "1": 1.0})
    tally.tick()
    assert (tally.done, tally.begun, tally.percent) == (0, 3, 38)
    assert (tally.rate, tally.rate_now, tally.eta) == (0.5, 0.5, 10)  # the start of the workers does not count
    assert tally.line() == "0/8 images (38 %), 3 more segmented, 0.5 images/s, ETA 0:10, 0 errors"
    assert ("images", "0 + 3 of 8") in view_of(tally).facts


def test_what_is_committed_counts_once_whatever_heartbeats_say(
    clock: list[float], heard: Callable[[dict[str, float]], None]
) -> None:
    tally = Tally(CARD, images=8, done=0, resumed=0, workers=2, started=clock[0])
    heard({"0": 4.0, "1": 1.0})
    tally.tick()
    clock[0] += 1
    tally.add(result(0))
    assert (tally.done, tally.begun) == (4, 1)
    tally.tick()  # before its worker has sent another heartbeat
    assert (tally.done, tally.begun) == (4, 1)
    heard({})  # the worker of the other part has died: the bar does not run back
    clock[0] += 1
    tally.tick()
    assert (tally.done, tally.begun) == (4, 1)
    tally.add(result(1))
    assert (tally.done, tally.begun, tally.percent) == (8, 0, 100)


def test_what_is_committed_counts_once_while_no_new_heartbeat_comes(
    clock: list[float], heard: Callable[[dict[str, float]], None]
) -> None:
    """The monitor of a cluster may be silent for longer than results take to come; a failed part is run again."""
    tally = Tally(CARD, images=12, done=0, resumed=0, workers=2, started=clock[0])
    heard({"0": 4.0, "1": 4.0})
    tally.tick()
    tally.add(result(0))
    tally.add(result(1, failure="the worker died"))
    for _ in range(60):
        clock[0] += 1
        tally.tick()
    assert (tally.done, tally.begun) == (4, 4)  # the failed one is in work again
    tally.add(result(1))
    for _ in range(60):
        clock[0] += 1
        tally.tick()
    assert (tally.done, tally.begun) == (8, 0)
    heard({"2": 1.0})
    tally.tick()
    assert (tally.done, tally.begun) == (8, 1)


def test_a_part_that_two_workers_have_counts_as_far_as_the_first_of_them_is(clock: list[float]) -> None:
    inflight.record_worker("a", None, {"0": 3.0})
    inflight.record_worker("b", None, {"0": 1.0, "1": 2.0})
    try:
        assert inflight.begun() == {"0": 3.0, "1": 2.0}
    finally:
        for worker in "ab":
            inflight.record_worker(worker, None)
    assert inflight.begun() == {}


def test_a_run_that_stands_still_says_so(clock: list[float]) -> None:
    tally = running(clock)
    clock[0] += 60
    assert tally.rate_now == 0
    assert tally.rate == pytest.approx(240 / 120)
    clock[0] += 600
    assert tally.eta is None


def test_parts_that_another_driver_commits_count_over_the_time_that_passes(clock: list[float]) -> None:
    tally = Tally(CARD, images=8, done=0, resumed=0, workers=1, started=clock[0])
    for number in range(2):
        clock[0] += 1.0
        tally.add(result(number, skipped=True))
    assert (tally.done, tally.rate) == (8, pytest.approx(4.0))


def test_the_rate_counts_the_work_on_the_first_parts_too(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: clock[0] + 1e9)
    tally = Tally(CARD, images=64, done=0, resumed=0, workers=4, started=clock[0])
    clock[0] += 10  # the workers start
    for number in range(16):  # four parts at once take 8 s each, and a result arrives 8 s late
        began = 1e9 + 1010 + number // 4 * 8
        clock[0] = 1010 + number // 4 * 8 + 16
        tally.add(result(number, began=began, ended=began + 8))
    assert tally.first_at == 1010
    assert tally.rate == pytest.approx(64 / 32)  # as the report counts; 60 / 16 if counted from the first result


def test_the_first_part_may_be_the_last_one_heard_of(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: clock[0] + 1e9)
    tally = Tally(CARD, images=8, done=0, resumed=0, workers=2, started=clock[0])
    for began, ended in ((1003, 1005), (1001, 1011)):
        clock[0] = ended + 0.5
        tally.add(result(1, began=1e9 + began, ended=1e9 + ended))
    assert tally.rate == pytest.approx(8 / 10)


def test_a_host_whose_clock_is_wrong_does_not_move_the_start(clock: list[float]) -> None:
    for skew in (-1e6, 1e6):
        tally = Tally(CARD, images=8, done=0, resumed=0, workers=1, started=clock[0])
        clock[0] += 20
        began = time.time() + skew - 5
        tally.add(result(1, began=began, ended=began + 5))
        assert tally.first_at is not None
        assert tally.started <= tally.first_at <= clock[0] - 5
        assert tally.rate > 0


def test_a_hundred_percent_are_all(clock: list[float]) -> None:
    tally = Tally(CARD, images=2000, done=1999, resumed=0, workers=1, started=clock[0])
    assert tally.line().startswith("1,999/2,000 images (99 %)")
    assert "99 %" in drawn(tally, 80)
    tally.done = 2000
    assert tally.line().startswith("2,000/2,000 images (100 %)")
    assert Tally(CARD, images=0, done=0, resumed=0, workers=1).percent == 100


def test_parts_that_take_longer_than_now_have_a_rate(clock: list[float]) -> None:
    tally = running(clock, results=5, every=40.0)
    clock[0] += 25  # the last result is 25 s old, the one before 65 s
    assert tally.rate_now == pytest.approx(4 / 65)
    assert tally.eta == pytest.approx((2000 - 1020) / (20 / 225))


@pytest.mark.parametrize("width", [120, 80, 60, 40, 20])
def test_the_display_fits_any_width(width: int, clock: list[float]) -> None:
    tally = running(clock)
    text = drawn(tally, width)
    assert all(len(line) <= width for line in text.splitlines())
    words = " ".join(text.split())
    for fact in ("1,240 of 2,000", "4.0, mean 4.0", "3:10", "100.00 %"):
        assert fact in words or width < 40, words
    with inflight.request("write", "s3://bucket/masks/a.parquet") as request:
        clock[0] += 21
        request.failed("ReadTimeoutError")
        told = drawn(tally, width)
    assert all(len(line) <= width for line in told.splitlines())
    assert "the store has not answered for 21 s: retrying to write" in " ".join(told.split())
    assert "the store" not in drawn(tally, width)


def drawn(tally: Tally, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, no_color=True)
    progress = TerminalProgress(console)
    progress._tally = tally
    with console.capture() as capture:
        console.print(progress._draw())
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capture.get())


def test_without_colour_there_is_none(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    progress = TerminalProgress(console)
    progress._tally = running(clock)
    with console.capture() as capture:
        console.print(progress._draw())
    codes = {code for found in re.findall(r"\x1b\[([0-9;]*)m", capture.get()) for code in found.split(";")}
    assert codes <= {"", "0", "1", "2"}  # plain, bold, dim


def test_json_lines_are_objects_with_the_fields_that_the_readme_names(clock: list[float]) -> None:
    stream = io.StringIO()
    progress = JsonProgress(stream)
    tally = running(clock)
    progress.note("warning: a thing")
    progress.phase("listing the input")
    progress.begin(tally)
    progress.update(tally)
    progress.update(tally)  # within ten seconds
    with inflight.request("read", "s3://bucket/a"):
        clock[0] += 15
        progress.tick()
    progress.end(tally)
    progress.failed("it broke", 1)
    progress.log("a library's line")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == [
        "warning", "phase", "progress", "waiting", "progress", "end", "error", "log",
    ]  # fmt: skip
    assert events[3] | {"time": ""} == {
        "time": "", "event": "waiting", "verb": "read", "url": "s3://bucket/a", "seconds": 15.0, "failures": 0,
        "reason": None, "message": "waiting for the store: to read s3://bucket/a has taken 15 s so far",
    }  # fmt: skip
    readme = (ROOT / "jobs" / "README.md").read_text(encoding="utf-8")
    for event in events:
        assert f"`{event['event']}`" in readme
        assert [name for name in event if f"`{name}`" not in readme] == []


class Gone(io.TextIOBase):
    """A stream whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("kind", [PlainProgress, JsonProgress])
def test_a_stream_that_fails_breaks_no_run_off(kind: type[PlainProgress], clock: list[float]) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (Gone(), closed):
        progress = kind(stream)
        tally = running(clock)
        progress.note("warning: a thing")
        progress.begin(tally)
        progress.update(tally)
        progress.end(tally)


def test_what_others_print_becomes_an_event_a_line_each_threads_own() -> None:
    stream = io.StringIO()
    lines = LoggedLines(JsonProgress(stream).log, sys.stderr)
    lines.write("begun")
    other = threading.Thread(target=lambda: print("of a thread", file=lines))
    other.start()
    other.join()
    print(" and ended", file=lines)
    print("two\r\nlines\n\n", file=lines)
    lines.write("without an end")
    lines.finish()
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {event["event"] for event in events} == {"log"}
    assert [event["message"] for event in events] == [
        "of a thread",
        "begun and ended",
        "two",
        "lines",
        "without an end",
    ]


def test_lines_go_on_while_no_result_comes(clock: list[float]) -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    tally = running(clock)
    progress.begin(tally)
    for _ in range(25):
        clock[0] += 1
        progress.tick()
    assert stream.getvalue().count("1,240/2,000 images (62 %)") == 3
    progress.begin(tally)
    progress.update(tally)
    progress.end(tally)  # which has no more to say
    assert stream.getvalue().count("1,240/2,000 images (62 %)") == 4


def test_a_download_of_unknown_size_shows_what_came_and_ends_with_the_next_phase(clock: list[float]) -> None:
    stream = io.StringIO()
    PlainProgress(stream).download("a.onnx", 1_500_000, -1)
    assert stream.getvalue() == "fetching a.onnx: 1.5 MB\n"
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    progress = TerminalProgress(console)
    try:
        progress.download("a.onnx", 1_500_000, -1)
        progress.phase("listing the input")
        with console.capture() as capture:
            console.print(progress._draw())
    finally:
        progress.close()
    assert "fetching" not in capture.get()
    assert "listing the input" in capture.get()


def test_ticking_ends_with_its_block() -> None:
    ticks: list[int] = []
    with ticking(lambda: ticks.append(1), seconds=0.01):
        deadline = time.monotonic() + 10
        while not ticks and time.monotonic() < deadline:
            time.sleep(0.01)
    seen = len(ticks)
    time.sleep(0.05)
    assert 0 < seen == len(ticks)


def test_a_notebook_shows_one_output_that_is_replaced(tmp_path: Path) -> None:
    place = street(tmp_path)
    code = f"""
from segment import Job, run
from segment.progress import console_progress
progress = console_progress()
print(type(progress).__name__)
report = run(Job(input={str(place.images)!r}, output={str(place.output)!r}, labels={str(place.labels)!r},
                 model={str(place.card_path)!r}, weights={str(place.weights_path)!r}, engine="local"), progress)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120).execute()
    outputs = notebook.cells[0].outputs
    shown = [output.data["text/html"] for output in outputs if output.output_type == "display_data"]
    assert len(shown) == 1
    assert "6 of 6" in shown[0]
    assert "value='1.0000'" in shown[0]
    assert "NotebookProgress" in "".join(output.text for output in outputs if output.output_type == "stream")
