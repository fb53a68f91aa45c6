"""Progress as lines: plain ones for logs, JSON for programs, warnings only for quiet runs."""

import datetime
import io
import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TextIO

from segment.progress.display import Progress
from segment.progress.tally import Tally
from segment.store import inflight
from segment.store.foreign_text import on_terminal

log = logging.getLogger("segment.progress.lines")

_INTERVAL = 10.0  # seconds between lines
_STOPPING = "stopping: parts in progress are finished or abandoned; a second signal ends at once"


def _print(line: str, stream: TextIO | None) -> None:
    """Print a line, safe for a terminal. A stream that is full, closed or not there at all does not fail the run."""
    if stream is not None:  # else `print` would take stdout
        with suppress(OSError, ValueError):
            print(on_terminal(line), file=stream, flush=True)


class QuietProgress(Progress):
    """Shows warnings only."""

    def note(self, message: str) -> None:
        if message.startswith("warning:"):
            _print(message, sys.stderr)


class LogProgress(Progress):
    """Logs notes and warnings, for programs that no person watches."""

    def note(self, message: str) -> None:
        is_warning = message.startswith("warning: ")
        log.log(logging.WARNING if is_warning else logging.INFO, "%s", on_terminal(message.removeprefix("warning: ")))


class PlainProgress(Progress):
    """Shows one line at the first result, then one every ten seconds, and one at the end."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream: TextIO | None = stream or sys.stderr
        self._last = -math.inf
        self._tally: Tally | None = None
        self._said = ""  # of the tally, in its last line
        self._lock = threading.Lock()

    def note(self, message: str) -> None:
        _print(message, self._stream)

    def download(self, name: str, done: int, total: int) -> None:
        if self._is_due() or done == total:
            self._show_download(name, done, total)

    def _show_download(self, name: str, done: int, total: int) -> None:
        of = f" of {total / 1e6:.1f}" if total >= 0 else ""
        self.note(f"fetching {name}: {done / 1e6:.1f}{of} MB")

    def begin(self, tally: Tally) -> None:
        self._tally, self._said = tally, ""
        self._last = -math.inf

    def update(self, tally: Tally) -> None:
        if self._is_due():
            self._show(tally)

    def tick(self) -> None:
        tally, request = self._tally, inflight.slow_request()
        started = tally is not None and tally.has_begun
        if (started or request) and self._is_due():
            if request:
                self._show_wait(request)
            if tally is not None and started:
                self._show(tally)

    def _show(self, tally: Tally) -> None:
        self._said = tally.line()
        self.note(self._said)

    def _show_wait(self, request: inflight.Request) -> None:
        self.note(request.message())

    def _is_due(self) -> bool:
        with self._lock:
            if time.monotonic() - self._last < _INTERVAL:
                return False
            self._last = time.monotonic()
            return True

    def stopping(self) -> None:
        self.note(_STOPPING)

    def end(self, tally: Tally) -> None:
        self._tally = None
        if tally.line() != self._said:
            self._show(tally)


class JsonProgress(PlainProgress):
    """Shows the same as JSON, one object per line on stderr; jobs/README.md documents the fields.

    Every object has `time` (ISO 8601, UTC) and `event`: `note`, `warning`, `phase`, `download`, `progress`, `waiting`,
    `stopping`, `end`, `error`, or `log` for the output of libraries. With `quiet`, only `warning`, `end`, `error` and
    `log` are written.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        super().__init__(stream)
        self._events = {"warning", "end", "error", "log"} if quiet else None

    def note(self, message: str) -> None:
        kind, _, words = message.partition(": ")
        is_warning = kind == "warning"
        self._write("warning" if is_warning else "note", message=words if is_warning else message)

    def phase(self, words: str) -> None:
        self._write("phase", message=words)

    def _show_download(self, name: str, done: int, total: int) -> None:
        self._write("download", name=name, bytes_done=done, bytes_total=total if total >= 0 else None)

    def _show(self, tally: Tally) -> None:
        self._write("progress", **_facts(tally))

    def _show_wait(self, request: inflight.Request) -> None:
        self._write(
            "waiting", message=request.message(), verb=request.verb, url=request.url,
            seconds=round(request.seconds(), 1), failures=request.failures, reason=request.reason or None,
        )  # fmt: skip

    def stopping(self) -> None:
        self._write("stopping", message=_STOPPING)

    def end(self, tally: Tally) -> None:
        self._tally = None
        self._write("end", **_facts(tally))

    def failed(self, message: str, exit_code: int) -> None:
        self._write("error", message=message, exit_code=exit_code)

    def log(self, line: str) -> None:
        """Write a line that a library printed."""
        self._write("log", message=line)

    def _write(self, event: str, **fields: object) -> None:
        if self._events is None or event in self._events:
            _print(json_line(event, **fields), self._stream)


def json_line(event: str, **fields: object) -> str:
    """Return one line of a JSON log: `time`, `event`, and the fields of the event."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "event": event, **fields}, ensure_ascii=False)


class LoggedLines(io.TextIOBase):
    """A text stream that passes on its lines; as stdout and stderr it keeps a log pure JSON.

    Args:
        log: called with each line.
        stream: the stream that this one replaces; its file descriptor is returned by `fileno`.
    """

    encoding = "utf-8"

    def __init__(self, log: Callable[[str], None], stream: TextIO) -> None:
        self._log, self._stream = log, stream
        self._partial = threading.local()  # the unfinished line of each thread

    def write(self, text: str) -> int:
        *lines, rest = (getattr(self._partial, "text", "") + text).splitlines(keepends=True) or [""]
        if rest.endswith(("\n", "\r")):
            lines, rest = [*lines, rest], ""
        self._partial.text = rest
        for line in lines:
            self._emit(line)
        return len(text)

    def finish(self) -> None:
        """Pass on the unfinished line of this thread."""
        self._emit(getattr(self._partial, "text", ""))

    def _emit(self, line: str) -> None:
        if line.strip():
            self._log(line.rstrip())

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()


@contextmanager
def only_json(progress: JsonProgress) -> Iterator[None]:
    """Write all output of this process within the block (warnings, loggers, libraries) as events of a JSON log."""
    out, err = LoggedLines(progress.log, sys.stdout), LoggedLines(progress.log, sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            out.finish()
            err.finish()


def _facts(tally: Tally) -> dict[str, object]:
    return {
        "model": tally.card.name,
        "images": tally.images,
        "estimated": tally.is_estimate,
        "done": tally.done,
        "begun": round(tally.begun, 3),
        "resumed": tally.resumed,
        "errors": dict(tally.errors),
        "parts_to_retry": tally.failures,
        "rate": round(tally.rate_now, 3),
        "rate_mean": round(tally.rate, 3),
        "eta_seconds": None if tally.eta is None else round(tally.eta, 1),
        "miou": None if tally.miou is None else round(tally.miou, 6),
        "busy": {stage: round(share, 4) for stage, share in tally.busy().items()},
        "workers": inflight.workers() or tally.workers,
    }
