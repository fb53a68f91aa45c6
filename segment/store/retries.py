"""The one retry policy: requests are sent again where that may help, and counted."""

from __future__ import annotations

import errno
import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import tenacity

from segment.errors import SegmentError
from segment.store import inflight
from segment.store.request_errors import chain, failure, is_absent, is_transient
from segment.store.urls import redact_url

log = logging.getLogger("segment.store.client")

_ATTEMPTS = 7
_CHECKSUM_ATTEMPTS = 3  # a bit may be flipped once; a store whose checksums are others stays so
_DEADLINE = 180.0  # seconds after which no further attempt begins
T = TypeVar("T")


class _RetryLogFilter(logging.Filter):
    """Lets the first, tenth, hundredth ... repeated request of a kind be told, whichever process it is from.

    A kind is what was asked for and how it failed. A store that is down fails hundreds of requests at once. Only the
    process that writes the log may count: one whose records are sent there must `disable` all of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to tell; adds how many of the kind there were."""
        kind = getattr(record, "kind", None)
        if kind is None:
            return True
        with self._lock:
            self._seen[kind] += 1
            number = self._seen[kind]
        if number == 1:
            record.msg = f"{record.msg}; more of this kind are counted"
        elif number % 10 == 0 and str(number).strip("0") == "1":
            record.msg = f"{record.msg}; {number} of this kind so far"
        else:
            return False
        return True

    def disable(self) -> None:
        """Let every record pass as it is, in a worker process: its parent counts those of all of them."""
        log.removeFilter(self)

    def reset(self) -> None:
        """Begin to count anew: another run begins."""
        with self._lock:
            self._seen.clear()


retry_log_filter = _RetryLogFilter()
log.addFilter(retry_log_filter)


class Requests:
    """Sends requests to stores, again where that may help, and counts them. Safe to share between threads.

    Attributes:
        calls: requests that ended, well or not, for those who watch whether somebody gets on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._retries: Counter[str] = Counter()
        self.calls = 0

    def send(self, verb: str, url: str, attempt: Callable[[], T]) -> T:
        """Make attempts until one succeeds, none can, or it has taken too long.

        Raises:
            StoreError: none succeeded; `StoreRefused` if no other request will fare better, `NoCredentials` if there
                are none to send with it.
            FileNotFoundError: there is no such object.
        """

        def counted() -> T:
            try:
                return attempt()
            finally:
                self.calls += 1

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: is_transient(error, url)),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(_ATTEMPTS), tenacity.stop_before_delay(_DEADLINE), _OtherChecksums()
            ),
            wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=10),
            reraise=True,
            before_sleep=lambda state: self._note(verb, url, state, entry),
        )
        try:
            with inflight.request(verb, url) as entry:
                return retrying(counted)
        except SegmentError:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and is_absent(error):
                raise FileNotFoundError(errno.ENOENT, "there is no such object", redact_url(url)) from None
            raise failure(verb, url, error) from None

    def _note(self, verb: str, url: str, state: tenacity.RetryCallState, entry: inflight.Request) -> None:
        found = state.outcome.exception() if state.outcome else None
        if isinstance(found, FileNotFoundError) and found.__cause__:  # what fsspec's http makes of any failed look-up
            found = found.__cause__
        error = type(found).__name__ if found else ""
        message, kind = "retrying to %s %s (attempt %d): %s", {"kind": f"{verb}: {error}"}
        log.warning(message, verb, redact_url(url), state.attempt_number, error, extra=kind)
        entry.failed(error)
        with self._lock:
            self._retries[verb] += 1

    def take_retries(self) -> dict[str, int]:
        """Return how often requests were repeated since the last call, by verb."""
        with self._lock:
            taken, self._retries = dict(self._retries), Counter()
        return taken


class _OtherChecksums(tenacity.stop.stop_base):
    """Stops where an object's checksum keeps being another one than the client expects."""

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        is_checksum = any(type(cause).__name__ == "FlexibleChecksumError" for cause in chain(error))
        return is_checksum and retry_state.attempt_number >= _CHECKSUM_ATTEMPTS
