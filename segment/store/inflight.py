"""Requests in flight and workers at work, process-wide, for whatever shows the progress of a run.

`request` registers every request of this process. Engines record the reports of their worker processes with
`record_workers` or `record_worker`.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from segment.store.names import shown

SLOW_AFTER = 10.0  # seconds after which a request in flight is shown to the user


@dataclass
class Request:
    """One request to a store, with its retries.

    Attributes:
        verb: `read`, `write`, `list`, ...
        url: of the object, without secrets.
        since: `time.monotonic()` of its start, in seconds.
        reason: type of the last failure; `""` before the first.
    """

    verb: str
    url: str
    since: float
    failures: int = 0
    reason: str = ""

    def failed(self, reason: str) -> None:
        """Record a failed attempt, before the next one."""
        self.failures += 1
        self.reason = reason

    def seconds(self) -> float:
        """Return the seconds since its start."""
        return time.monotonic() - self.since

    def message(self) -> str:
        """Describe the request to the user."""
        what, seconds = f"{self.verb} {self.url}", f"{self.seconds():.0f} s"
        if not self.failures:
            return f"waiting for the store: to {what} has taken {seconds} so far"
        silent = any(word in self.reason for word in ("Timeout", "Connect", "Disconnect"))
        trouble = "has not answered" if silent else "has answered with errors"
        return f"the store {trouble} for {seconds}: retrying to {what} ({self.reason}, attempt {self.failures + 1})"


RequestAge = tuple[float, Request]  # seconds in flight, as another process can use it: clocks differ; and the request

_lock = threading.Lock()
_here: dict[int, Request] = {}
# Requests, and images segmented by part in work (`Worker.begun`); by worker, or those of all under None.
_reported: dict[object, tuple[list[Request], Mapping[str, float]]] = {}
_NOTHING: Mapping[str, float] = {}
_workers: int | None = None


@contextmanager
def request(verb: str, url: str) -> Iterator[Request]:
    """Register a request for the duration of the block."""
    entry = Request(verb, shown(url), time.monotonic())
    with _lock:
        _here[id(entry)] = entry
    try:
        yield entry
    finally:
        with _lock:
            del _here[id(entry)]


def oldest_request() -> RequestAge | None:
    """Return the oldest request of this process, for a report to another process; None if there is none."""
    with _lock:
        found = min(_here.values(), key=lambda entry: entry.since, default=None)
    return (found.seconds(), found) if found else None


def slow_request() -> Request | None:
    """Return the oldest request of this process and of the workers if it is older than `SLOW_AFTER`, else None."""
    with _lock:
        reported = [entry for entries, _ in _reported.values() for entry in entries]
        found = min((*_here.values(), *reported), key=lambda entry: entry.since, default=None)
    return found if found and found.seconds() > SLOW_AFTER else None


def workers() -> int | None:
    """Return the number of workers at work; None if no engine has recorded it."""
    return _workers


def begun() -> dict[str, float]:
    """Return how many images of each part in work are segmented, as far as the workers have said it."""
    with _lock:
        return merged(begun for _, begun in _reported.values())


def merged(begun: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return what several workers have begun; a part that two of them have counts as far as the first of them is."""
    parts: dict[str, float] = {}
    for of_worker in begun:
        for part, images in of_worker.items():
            parts[part] = max(images, parts.get(part, 0.0))
    return parts


def record_workers(workers: int | None, requests: Iterable[RequestAge], begun: Mapping[str, float] = _NOTHING) -> None:
    """Record the state of all workers: how many are at work, the oldest request of each, and what is begun."""
    global _workers
    _workers = workers
    _record(None, requests, begun)


def record_worker(worker: object, oldest: RequestAge | None, begun: Mapping[str, float] = _NOTHING) -> None:
    """Record the oldest request of one worker, None if it has none, and what it has begun."""
    _record(worker, () if oldest is None else (oldest,), begun)


def _record(worker: object, requests: Iterable[RequestAge], begun: Mapping[str, float]) -> None:
    entries = [_local(age) for age in requests]
    with _lock:
        _reported.pop(worker, None)
        if entries or begun:
            _reported[worker] = entries, begun


def _local(age: RequestAge) -> Request:
    """Convert another process's request to this process's clock."""
    seconds, entry = age
    return Request(entry.verb, entry.url, time.monotonic() - seconds, entry.failures, entry.reason)
