"""What goes on at this moment, process-wide like a log: requests that wait for a store, workers at work.

Every request enters itself here. An engine whose workers are other processes enters what these say of theirs, so that
whoever shows a run asks one place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from segment.store.urls import redact_url

SLOW_AFTER = 10.0  # seconds that a request may take before a user is told


@dataclass
class Request:
    """One request to a store, with its retries.

    Attributes:
        verb: `read`, `write`, `list`, ...
        url: of the object, without secrets.
        since: `time.monotonic()` when it began.
        failures: attempts that failed.
        reason: type of the last failure; `""` before there is one.
    """

    verb: str
    url: str
    since: float
    failures: int = 0
    reason: str = ""

    def failed(self, reason: str) -> None:
        """An attempt failed, another will be made."""
        self.failures += 1
        self.reason = reason

    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.since

    def message(self) -> str:
        """What to tell a user of it."""
        what, seconds = f"{self.verb} {self.url}", f"{self.seconds():.0f} s"
        if not self.failures:
            return f"waiting for the store: to {what} has taken {seconds} so far"
        silent = any(word in self.reason for word in ("Timeout", "Connect", "Disconnect"))
        trouble = "has not answered" if silent else "has answered with errors"
        return f"the store {trouble} for {seconds}: retrying to {what} ({self.reason}, attempt {self.failures + 1})"


RequestAge = tuple[float, Request]  # a request to a store, and the seconds that it had taken when this was told

_lock = threading.Lock()
_open: dict[int, Request] = {}
_elsewhere: list[Request] = []
_heard: dict[object, Request] = {}
_workers: int | None = None


@contextmanager
def request(verb: str, url: str) -> Iterator[Request]:
    """Enter a request for as long as it lasts."""
    entry = Request(verb, redact_url(url), time.monotonic())
    with _lock:
        _open[id(entry)] = entry
    try:
        yield entry
    finally:
        with _lock:
            del _open[id(entry)]


def oldest_request() -> RequestAge | None:
    """The request of this process that has waited longest, as another process is told of it."""
    with _lock:
        found = min(_open.values(), key=lambda entry: entry.since, default=None)
    return (found.seconds(), found) if found else None


def slow_request() -> Request | None:
    """The request that has waited longest, here or in a worker, if that is longer than `SLOW_AFTER`."""
    with _lock:
        found = min((*_open.values(), *_elsewhere, *_heard.values()), key=lambda entry: entry.since, default=None)
    return found if found and found.seconds() > SLOW_AFTER else None


def workers() -> int | None:
    """Workers at work now; None where nobody counts."""
    return _workers


def record_workers(workers: int | None, requests: Iterable[RequestAge]) -> None:
    """Enter what workers elsewhere said last: how many are at work, and the oldest request of each with its seconds."""
    global _workers
    entries = [_here(*told) for told in requests]
    with _lock:
        _workers = workers
        _elsewhere[:] = entries


def record_worker(worker: object, waits: RequestAge | None) -> None:
    """Enter what one worker elsewhere said last: its oldest request with its seconds; None where it waits for none."""
    with _lock:
        if waits is None:
            _heard.pop(worker, None)
        else:
            _heard[worker] = _here(*waits)


def _here(seconds: float, told: Request) -> Request:
    """By this process's clock, a request that another one told of."""
    return Request(told.verb, told.url, time.monotonic() - seconds, told.failures, told.reason)
