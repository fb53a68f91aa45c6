"""The retry policy of all requests: transient failures are retried, counted and logged."""

import errno
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import tenacity

from segment.errors import SegmentError
from segment.store import inflight
from segment.store.names import shown
from segment.store.request_errors import error_chain, is_absent, is_transient, store_error

log = logging.getLogger("segment.store.client")

_ATTEMPTS = 7
_CHECKSUM_ATTEMPTS = 3  # a flipped bit is transient; a store with other checksums fails every time
_DEADLINE = 180.0  # seconds after which no further attempt starts
T = TypeVar("T")


class _RetryLogFilter(logging.Filter):
    """Logs the first, tenth, hundredth ... retry of a kind: a store that is down fails hundreds of requests at once.

    A kind is a verb and a type of error. The process that writes the log counts the retries of all its workers, so
    the filter is disabled in worker processes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log a record; adds the number of its kind to the message."""
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
        """Pass every record unchanged, in a worker process whose records go to its parent."""
        log.removeFilter(self)

    def reset(self) -> None:
        """Restart the counts, for another run."""
        with self._lock:
            self._seen.clear()


retry_log_filter = _RetryLogFilter()
log.addFilter(retry_log_filter)


class Requests:
    """Sends requests to stores, retries and counts them. Thread-safe.

    Args:
        attempts: at most so many of each request; None: `_ATTEMPTS`.

    Attributes:
        calls: completed attempts, failed ones included.
        steps: these, and pieces of bodies that have arrived: a measure of progress for the stall timeout.
    """

    def __init__(self, attempts: int | None = None) -> None:
        self._lock, self._attempts = threading.Lock(), attempts or _ATTEMPTS
        self._retries: Counter[str] = Counter()
        self.calls = self.steps = 0

    def note_progress(self) -> None:
        """Count a piece of a body."""
        self.steps += 1

    def send(self, verb: str, url: str, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it succeeds, fails permanently or exceeds the limits of the policy.

        Raises:
            StoreError: no attempt succeeded; `StoreRefused` if the store refuses every request, `NoCredentials` if
                credentials are missing.
            FileNotFoundError: there is no such object.
        """

        handled = sys.exception()  # by whoever calls: no cause of what happens here

        def counted() -> T:
            try:
                return attempt()
            except Exception as error:
                _part_from(handled, error)
                raise
            finally:
                self.calls += 1
                self.steps += 1

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: is_transient(error, url)),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self._attempts),
                tenacity.stop_before_delay(_DEADLINE),
                _StopAfterChecksumErrors(),
            ),
            wait=tenacity.wait_exponential(multiplier=0.2, max=9) + tenacity.wait_random(0, 1),
            reraise=True,
            before_sleep=lambda state: self._note(verb, url, state, entry),
        )
        try:
            with inflight.request(verb, url) as entry:
                return retrying(counted)
        except SegmentError:
            raise
        except Exception as error:
            _part_from(handled, error)
            for cause in error_chain(error):  # fsspec's http wraps what it is told while it looks up
                if isinstance(cause, SegmentError):
                    raise cause from None
            if isinstance(error, FileNotFoundError) and is_absent(error):
                raise FileNotFoundError(errno.ENOENT, "there is no such object", shown(url)) from None
            raise store_error(verb, url, error) from None

    def _note(self, verb: str, url: str, state: tenacity.RetryCallState, entry: inflight.Request) -> None:
        found = state.outcome.exception() if state.outcome else None
        if isinstance(found, FileNotFoundError) and found.__cause__:  # fsspec's http raises it for any failed look-up
            found = found.__cause__
        error = type(found).__name__ if found else ""
        message, kind = "retrying to %s %s (attempt %d): %s", {"kind": f"{verb}: {error}"}
        log.warning(message, verb, shown(url), state.attempt_number, error, extra=kind)
        entry.failed(error)
        with self._lock:
            self._retries[verb] += 1

    def take_retries(self) -> dict[str, int]:
        """Return the number of retries since the last call, by verb."""
        with self._lock:
            taken, self._retries = dict(self._retries), Counter()
        return taken


class _StopAfterChecksumErrors(tenacity.stop.stop_base):
    """Stops after `_CHECKSUM_ATTEMPTS` attempts if the object's checksum is not the expected one."""

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        is_checksum = any(type(cause).__name__ == "FlexibleChecksumError" for cause in error_chain(error))
        return is_checksum and retry_state.attempt_number >= _CHECKSUM_ATTEMPTS


def _part_from(handled: BaseException | None, error: BaseException) -> None:
    """Cut the chain of an error before the one that was being handled when the request began."""
    for each in list(error_chain(error)):
        if handled is not None and each.__context__ is handled:
            each.__context__ = None
