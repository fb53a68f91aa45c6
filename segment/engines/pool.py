"""A pool of worker processes: parts are given to whichever asks; one that dies or gets stuck is replaced.

No pool library does this. In loky and `concurrent.futures` one process that dies breaks the pool, and what all others
hold is lost. The processes of pebble read their work from one pipe under one lock: if one is killed or frozen while it
holds that, none gets work (noxdafox/pebble#163). None of them tells a slow process from a stuck one. So each process
has a socket of its own here, and one thread, which waits for none of them, decides about all.
"""

from __future__ import annotations

import logging
import pickle
import queue
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from segment.engines import Isolation
from segment.engines.child import NEXT, Child, Death, Heartbeat, Setup
from segment.engines.suspect import Suspect
from segment.errors import SegmentError, StoreError
from segment.inputs.discover import Part
from segment.output.results import PartResult
from segment.pipeline.stall import Patience, loading_seconds
from segment.pipeline.worker import failed
from segment.store import inflight

log = logging.getLogger("segment.engines.pool")

_TRIES = 3  # processes in a row that die before a first result: then it is no bad luck
_LOOK_SECONDS = 0.2


@dataclass(eq=False)
class _Member:
    """A process of the pool, and what is known of it.

    Attributes:
        child: the process.
        tries: processes that may die in a row until there is a result, this one included.
        is_loading: it has not asked for work yet.
        is_dismissed: it was told that there is no more work.
        asks: how often it asked and got no answer yet.
        held: parts that it got and that have not ended.
        suspect: the part that it does image by image.
        steps: that it says it has done.
        quiet: seconds without a sign that it gets on, as far as anybody listened.
    """

    child: Child
    tries: int
    is_loading: bool = True
    is_dismissed: bool = False
    asks: int = 0
    held: int = 0
    suspect: Suspect | None = None
    steps: int = -1
    quiet: float = 0.0

    def heard(self, message: object) -> None:
        """Note a sign of life; one that says that nothing was done since is no sign that it gets on."""
        if isinstance(message, Heartbeat):
            inflight.record_worker(self, message.waits)
            if message.steps == self.steps:
                return
            self.steps = message.steps
        self.quiet = 0.0


class Pool:
    """Runs parts in worker processes.

    Args:
        setup: what each process is to be.
        size: how many processes.
        isolation: `none`: a process gets the next part before one is done, and its death takes all of them along.
            `part`: one part at a time. `image`: one image at a time, and one that kills two processes becomes an error
            row.
        spares: processes that are started already; the pool closes them.
    """

    def __init__(self, setup: Setup, size: int, isolation: Isolation, spares: Iterable[Child] = ()) -> None:
        self._task = setup.task
        self._setup = pickle.dumps(setup)  # once for all of them
        self._size = size
        self._isolation = isolation
        self._stall = Patience(
            setup.task.settings.stall_timeout, None if isolation == "image" else setup.task.batch_size
        )
        self._inbox: queue.SimpleQueue[tuple[_Member, Any]] = queue.SimpleQueue()
        self._members: list[_Member] = []
        self._put_back: deque[Part | Suspect] = deque()
        self._spares = list(spares)
        self._looked = time.monotonic()

    def run(self, parts: Iterable[Part]) -> Generator[PartResult]:
        """Yield the results of parts as they end, in any order; none for what a process took along when it died.

        Raises:
            SegmentError: a process raised it, and no other will fare better.
        """
        self._parts = iter(parts)
        try:
            for _ in range(self._size):
                yield from self._start(_TRIES)
            self._close_spares()
            while self._members:
                yield from self._hear()
                yield from self._replace_stuck()
        finally:
            self._close_spares()
            for member in self._members:
                member.child.leave(at_once=member.is_loading)  # which may take long, and holds nothing
            while self._members:
                self._remove(self._members[-1])

    # --- what is to be done -------------------------------------------------------------------------------------------

    def _take(self) -> Part | Suspect | None:
        if self._put_back:
            return self._put_back.popleft()
        part = next(self._parts, None)
        return Suspect(part) if part and self._isolation == "image" else part

    def _is_left(self) -> bool:
        if not self._put_back and (work := self._take()) is not None:
            self._put_back.append(work)
        return bool(self._put_back)

    def _feed(self, member: _Member) -> None:
        """Answer a process that asks for work; in isolation not before it has done what it holds."""
        while member.asks and not (member.held and self._isolation != "none"):
            member.asks -= 1
            work = self._take()
            if work is None:
                member.is_dismissed = True
                member.child.send(None)
                continue
            member.held += 1
            if isinstance(work, Suspect):
                member.suspect = work
                member.child.send(work.begin())
            else:
                member.child.send(work)

    # --- what processes say -------------------------------------------------------------------------------------------

    def _hear(self) -> Iterator[PartResult]:
        """Take one message, if one comes soon."""
        try:
            member, message = self._inbox.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return
        if member not in self._members:
            return  # it is buried
        if isinstance(message, SegmentError):
            raise message
        if isinstance(message, logging.LogRecord):
            _log(message)
            return
        if message is None:
            yield from self._ended(member)
            return
        member.heard(message)
        if message == NEXT:
            member.is_loading = False
            member.asks += 1
        elif isinstance(message, PartResult):
            yield self._noted(member, message)
        elif not isinstance(message, Heartbeat) and member.suspect:
            member.suspect.take(message)
            if member.suspect.is_done:
                yield self._noted(member, member.suspect.commit(self._task))
        self._feed(member)

    def _noted(self, member: _Member, result: PartResult) -> PartResult:
        member.tries, member.suspect = _TRIES, None
        member.held -= 1
        if self._isolation != "image":  # which tells no times
            self._stall.learn(result)
        return result

    # --- how processes end --------------------------------------------------------------------------------------------

    def _replace_stuck(self) -> Iterator[PartResult]:
        """Replace processes that do not get on. Time in which this one stood still itself does not count."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, 2 * _LOOK_SECONDS), now
        loading = max(self._stall.seconds, loading_seconds(self._task.runtime.device))
        for member in list(self._members):
            member.quiet += passed
            limit = loading if member.is_loading else self._stall.seconds
            if member.quiet > limit:
                member.child.kill()
                yield from self._bury(member, Death(f"a worker process did nothing for {limit:.0f} s and was killed"))

    def _ended(self, member: _Member) -> Iterator[PartResult]:
        if member.is_dismissed and not member.held:
            self._remove(member)
        else:
            yield from self._bury(member, member.child.death())

    def _bury(self, member: _Member, death: Death) -> Iterator[PartResult]:
        """Note that a process died, and put another one into its place."""
        self._remove(member)
        if member.suspect:
            member.suspect.blame(death)
            if member.suspect.is_done:
                yield member.suspect.commit(self._task)
            else:
                self._put_back.append(member.suspect)
        elif member.is_loading:
            death = replace(death, words=f"{death.words} while it loaded the model")
            log.warning("%s", death.words)
        else:
            log.warning("%s: what it held is left for the next round", death.words)
        is_of_its_part = self._isolation != "none" and not member.is_loading
        yield from self._start(member.tries - (not is_of_its_part), death)

    def _start(self, tries: int, death: Death | None = None) -> Iterator[PartResult]:
        """Start a process if there is work. After too many deaths in a row the reason is the failure of a part."""
        while tries and self._is_left():
            try:
                member = _Member(self._spares.pop() if self._spares else Child(self._task.runtime.name), tries)
            except OSError as error:
                tries, death = tries - 1, Death(f"a worker process could not be started ({error.strerror})")
            else:
                self._join(member)
                return
        if death and (work := self._take()):
            yield failed(work.part if isinstance(work, Suspect) else work, StoreError(death.words))

    def _join(self, member: _Member) -> None:
        self._members.append(member)
        member.child.begin(self._setup, lambda message: self._inbox.put((member, message)))

    def _remove(self, member: _Member) -> None:
        self._members.remove(member)
        inflight.record_worker(member, None)
        member.child.close()

    def _close_spares(self) -> None:
        while self._spares:
            self._spares.pop().close(at_once=True)


def _log(record: logging.LogRecord) -> None:
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
