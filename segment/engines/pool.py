"""A pool of worker processes: each asks for parts, and one that dies or gets stuck is replaced.

No pool library does this. In loky and `concurrent.futures` one process that dies breaks the pool, and the work of all
others is lost. The processes of pebble read their work from one pipe under one lock; if one is killed or frozen while
it holds the lock, none gets work (noxdafox/pebble#163). None of them tells a slow process from a stuck one. Here each
process has a socket of its own, and one thread, which never waits for a process, makes all decisions.
"""

import logging
import pickle
import queue
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from typing import Any

from segment.engines import Isolation
from segment.engines.pool_member import Member
from segment.engines.suspect import RowGroup, StuckImages, Suspect, row_group_of
from segment.engines.worker_process import NEXT, Heartbeat, ProcessExit, Setup, WorkerProcess
from segment.errors import SegmentError, StoreError
from segment.inputs.parts import Part
from segment.output.results import PartResult
from segment.pipeline.part_results import failed
from segment.pipeline.stall import StallTimeout
from segment.store import inflight
from segment.store.names import count

log = logging.getLogger("segment.engines.pool")

_MAX_DEATHS = 3  # of processes in a row without a result: more are no accident
# Of processes that had parts of one row group; alone with its part, one may have died of an image.
_MAX_GROUP_DEATHS = {"none": 1, "part": 2}
_POLL_SECONDS = 0.2  # between two checks for stuck processes


class Pool:
    """Runs parts in worker processes.

    Args:
        isolation: `none`: a process gets its next part before it has finished one; if it dies, both are lost.
            `part`: one part at a time. `image`: one image at a time, and one that kills two processes becomes an error
            row.
        spares: processes that are already started; the pool closes them.
        unreadable: row groups that killed whoever read them, and how; the pool adds to them.
        stuck: images whose decoding has no end; the pool adds to them.

    The other parts of a row group at which processes died are left for the next round, and in the last round a row
    group that kills by being read is error rows: it costs some processes in all, and not some for each of its parts.
    So is the part of an image whose decoding has no end, and that image an error row then: it costs one stall timeout.
    """

    def __init__(
        self,
        setup: Setup,
        size: int,
        isolation: Isolation,
        spares: Iterable[WorkerProcess] = (),
        unreadable: dict[RowGroup, ProcessExit] | None = None,
        stuck: StuckImages | None = None,
    ) -> None:
        self._task = setup.task
        self._setup = pickle.dumps(setup)  # once for all processes
        self._size = size
        self._isolation = isolation
        self._stall_timeout = StallTimeout(
            setup.task.settings.stall_timeout,
            None if isolation == "image" else setup.task.batch_size,
            setup.task.runtime.device,
        )
        self._inbox: queue.SimpleQueue[tuple[Member, Any]] = queue.SimpleQueue()
        self._members: set[Member] = set()
        self._returned: deque[Part | Suspect] = deque()
        self._spares = list(spares)
        self._unreadable = {} if unreadable is None else unreadable
        self._stuck = {} if stuck is None else stuck
        self._died: Counter[RowGroup | None] = Counter()  # processes, by the row groups that they had
        self._condemned: list[Suspect] = []
        self._polled_at = time.monotonic()

    def run(self, parts: Iterable[Part]) -> Generator[PartResult]:
        """Yield results as parts end, in any order; parts of a process that died have none.

        Raises SegmentError: a process raised it, and every other one would.
        """
        self._parts = iter(parts)
        try:
            for _ in range(self._size):
                yield from self._start(_MAX_DEATHS)
            self._close_spares()
            while self._members or self._condemned:
                while self._condemned:
                    yield self._condemned.pop().commit(self._task)
                if self._members:
                    yield from self._receive()
                    yield from self._replace_stuck()
        finally:
            self._close_spares()
            for member in self._members:
                member.process.disconnect(at_once=member.is_loading)  # loading may take long, and nothing is lost
            for member in list(self._members):
                self._remove(member)

    # --- work ---------------------------------------------------------------------------------------------------------

    def _next_work(self) -> Part | Suspect | None:
        if self._returned:
            return self._returned.popleft()
        for part in self._parts:
            group = row_group_of(part)
            if self._isolation != "image":
                if part.id not in self._stuck and self._died[group] < _MAX_GROUP_DEATHS[self._isolation]:
                    return part
            else:
                suspect = Suspect(part, self._stuck.get(part.id, ()))
                if group not in self._unreadable:
                    return suspect
                suspect.condemn(self._unreadable[group])
                self._condemned.append(suspect)
        return None

    def _has_work(self) -> bool:
        if not self._returned and (work := self._next_work()) is not None:
            self._returned.append(work)
        return bool(self._returned)

    def _assign(self, member: Member) -> None:
        """Answer requests for work; in isolation not before the process has finished its part."""
        while member.requests and not (member.parts and self._isolation != "none"):
            member.requests -= 1
            work = self._next_work()
            if work is None:
                member.is_dismissed = True
                member.process.send(None)
                continue
            member.parts.append(work.part if isinstance(work, Suspect) else work)
            if isinstance(work, Suspect):
                member.suspect = work
                member.process.send(work.begin())
            else:
                member.process.send(work)

    # --- messages -----------------------------------------------------------------------------------------------------

    def _receive(self) -> Iterator[PartResult]:
        """Handle one message, if one comes within `_POLL_SECONDS`."""
        try:
            member, message = self._inbox.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            return
        if member not in self._members:
            return  # it was replaced meanwhile
        if isinstance(message, SegmentError):
            raise message
        if isinstance(message, logging.LogRecord):
            _log(message)
            return
        if message is None:
            yield from self._handle_exit(member)
            return
        member.note_progress(message)
        if message == NEXT:
            member.is_loading, self._stall_timeout.has_loaded = False, True
            member.requests += 1
        elif isinstance(message, PartResult):
            yield self._finish(member, message)
        elif not isinstance(message, Heartbeat) and member.suspect:
            member.suspect.take(message)
            if member.suspect.is_done:
                yield self._finish(member, member.suspect.commit(self._task))
        self._assign(member)

    def _finish(self, member: Member, result: PartResult) -> PartResult:
        member.tries, member.suspect = _MAX_DEATHS, None
        member.parts = [part for part in member.parts if part.id != result.part]
        if self._isolation != "image":  # whose results have no times
            self._stall_timeout.learn(result)
        return result

    # --- ends of processes --------------------------------------------------------------------------------------------

    def _replace_stuck(self) -> Iterator[PartResult]:
        """Replace processes that make no progress. Raises ModelError: the model takes too long to load."""
        now, timeout = time.monotonic(), self._stall_timeout
        if (passed := now - self._polled_at) < _POLL_SECONDS:
            return
        self._polled_at = now
        for member in list(self._members):
            member.pass_time(min(passed, 2 * _POLL_SECONDS))
            limit = timeout.loading_seconds if member.is_loading else timeout.seconds
            if member.idle_seconds > limit:
                member.process.kill()
                if member.is_loading:
                    timeout.give_up_load(member)
                if error := timeout.load_error:
                    raise error
                message = f"a worker process did nothing for {limit:.0f} s and was killed"
                yield from self._replace(member, ProcessExit(message, stuck_at=member.stuck_at()))

    def _handle_exit(self, member: Member) -> Iterator[PartResult]:
        if member.is_dismissed and not member.parts:
            self._remove(member)
        else:
            yield from self._replace(member, member.process.exit())

    def _replace(self, member: Member, end: ProcessExit) -> Iterator[PartResult]:
        """Remove a process that died, and start another one."""
        self._remove(member)
        groups = {group for part in member.parts if (group := row_group_of(part))}
        self._died.update(groups)
        if end.stuck_at:
            part, index = end.stuck_at
            self._stuck.setdefault(part, set()).add(index)
        if member.suspect:
            member.suspect.blame(end)
            if member.suspect.is_unreadable:
                self._unreadable |= dict.fromkeys(groups, end)
            if member.suspect.is_done:
                yield member.suspect.commit(self._task)
            else:
                self._returned.append(member.suspect)
        elif member.is_loading:
            end = replace(end, message=f"{end.message} while it loaded the model")
            log.warning("%s", end.message)
        else:
            log.warning("%s: its parts are left for the next round", end.message)
        is_of_its_part = self._isolation != "none" and not member.is_loading
        yield from self._start(member.tries - (not is_of_its_part), end)

    def _start(self, tries: int, end: ProcessExit | None = None) -> Iterator[PartResult]:
        """Start a process if there is work; without tries left, fail a part, and say how the last process ended."""
        while tries and self._has_work():
            try:
                process = self._spares.pop() if self._spares else WorkerProcess(self._task.runtime.name)
            except OSError as error:
                tries, end = tries - 1, ProcessExit(f"a worker process could not be started ({error.strerror})")
                if self._members:
                    log.warning("%s: the run goes on with %s", end.message, count(len(self._members), "process"))
                    return
            else:
                self._add(Member(process, tries))
                return
        if end and (work := self._next_work()):
            yield failed(work.part if isinstance(work, Suspect) else work, StoreError(end.message))

    def _add(self, member: Member) -> None:
        self._members.add(member)
        member.process.load(self._setup, lambda message: self._inbox.put((member, message)))

    def _remove(self, member: Member) -> None:
        self._members.remove(member)
        inflight.record_worker(member, None)
        member.process.close()

    def _close_spares(self) -> None:
        while self._spares:
            self._spares.pop().close(at_once=True)


def _log(record: logging.LogRecord) -> None:
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
