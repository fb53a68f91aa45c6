"""Rounds: run what is not committed, look at what is, run the rest again.

An engine's run is best effort: a worker that dies takes what it holds along, and what the engine says may be
less than what is committed. So the ledger is asked after each round. The second runs part by part, the third image by
image, so that what kills workers ends as an error row and takes nothing else along.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from segment.engines import Engine, Isolation
from segment.errors import InputChanged, StoreError, StoreRefused
from segment.models.weights import Weights
from segment.output.attempts import Timings, was_killed
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.output.remarks import remark_lines
from segment.output.results import PartResult
from segment.pipeline.stages import Task
from segment.progress import Progress, Tally, clock_time, ticking
from segment.runs.error_limits import refuse_hopeless
from segment.runs.forecast import forecast
from segment.store.names import count
from segment.store.request_errors import RESUMABLE

_ROUNDS: tuple[Isolation, ...] = ("none", "part", "image")
_TELL_AFTER = 30.0  # seconds of work after which the rate is told once, with what is to come
_FAILURES_IN_A_ROW = 5  # so many parts failing with none succeeding between: the store or the input is gone


@dataclass
class Rounds:
    """One attempt at a plan.

    Attributes:
        task, weights: what engines are given.
        plan: the frozen plan, whole.
        ledger: what is committed.
        progress: who watches.
        error_limit: error rows that this attempt may make.
    """

    task: Task
    weights: Weights
    plan: Plan
    ledger: Ledger
    progress: Progress
    error_limit: float
    _has_told: bool = field(default=False, init=False)

    def run(self, engine: Callable[[], Engine]) -> bool:
        """Run until every part is committed; `engine` is called only if one is not.

        Returns:
            Whether there was anything to do.

        Raises:
            StoreError: parts are left after the last round, or nothing succeeds any more.
            TooManyErrors: more error rows than the limit, or no label can be used.
        """
        committed = self.ledger.committed(self.plan)
        pending = self.plan.without(committed)
        if not len(pending):
            state = "complete" if self.ledger.is_complete() else "committed"
            self.progress.note(f"{state} already: {count(self.plan.images, 'image')}, nothing to do")
            return False
        self.ledger.take_back_success()  # somebody has deleted masks of a run that was complete
        running = engine()
        tally = self._tally(pending, running)
        rounds = self._rounds(running)
        expected = forecast(self.task, self.weights, pending, running, tally.workers)
        self.progress.note(expected.words())
        timings = Timings(
            self.ledger,
            engine=running.name,
            device=self.task.runtime.device,
            workers=min(tally.workers, len(pending)),
            images=pending.images,
            expected_memory=expected.memory,
        )
        self.progress.begin(tally)
        try:
            with (
                ticking(lambda: running.publish(tally)),
                ShardBooks(self.ledger, self.task, self.plan, committed) as books,
            ):
                for number, isolation in enumerate(rounds, 1):
                    self._round(running, pending, number, isolation, tally, timings, books)
                    pending = pending.without(self.ledger.committed(pending) | tally.changed.keys())
                    if not len(pending):
                        break
        except StoreRefused as error:
            told = f"{error}. What is committed stays; when that is mended, the same command resumes."
            raise type(error)(told) from None
        finally:
            tally.retries.update(self.ledger.store.take_retries())
            running.publish(tally, ended=True)
            timings.close(tally.retries, tally.remarks)  # first, for a display may fail: its terminal may be gone
            if tally.retries:
                kinds = ", ".join(f"{number} x {kind}" for kind, number in sorted(tally.retries.items()))
                self.progress.note(f"warning: requests to stores were repeated: {kinds}")
            for line in remark_lines(tally.remarks):
                self.progress.note(f"warning: {line}")
            self.progress.end(tally)
        if tally.changed and not len(pending):
            raise InputChanged(
                f"{count(len(tally.changed), 'part')} of {len(self.plan)} cannot be done, all others are committed: "
                f"{next(iter(tally.changed.values()))}"
            )
        if not len(pending):
            return True
        reason = (tally.last_failure or "their workers died").removesuffix(RESUMABLE).rstrip(".")
        raise StoreError(
            f"{len(pending)} of {count(len(self.plan), 'part')} not committed after {count(len(rounds), 'round')}: "
            f"{reason}. What is committed stays; "
            "the same command resumes the run."
        )

    @contextmanager
    def _told_of_a_stop(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            raise
        except BaseException:  # a signal: the workers may take their time
            self.progress.stopping()
            raise

    def _rounds(self, engine: Engine) -> Sequence[Isolation]:
        """The local engine's workers may be threads: a part that kills one kills all, so after that it is careful."""
        if engine.name == "local" and was_killed(self.ledger):
            self.progress.note("the last attempt was killed: this one works in child processes")
            return _ROUNDS[1:]
        return _ROUNDS

    def _tally(self, pending: Plan, engine: Engine) -> Tally:
        done = self.plan.images - pending.images
        if done:
            self.progress.note(f"resuming: {done} of {self.plan.images} images are committed already")
        runtime = self.task.runtime
        workers = engine.workers(runtime.device)
        self.progress.note(
            f"{self.task.card.name} on {engine.name}: {workers} x {runtime.name} {runtime.version}, "
            f"{runtime.device}, {runtime.precision}"
        )
        title = f"{self.task.card.name} · {engine.name} · {runtime.name} {runtime.device} {runtime.precision}"
        return Tally(self.task.card, self.plan.images, done, done, workers, title)

    def _tell_rate_once(self, tally: Tally) -> None:
        if tally.first_at is None or time.monotonic() - tally.first_at < _TELL_AFTER or self._has_told:
            return
        self._has_told = True
        if tally.eta is not None and tally.done < tally.images:
            self.progress.note(f"measured: {tally.rate:.1f} images/s, {clock_time(tally.eta)} to go")

    def _round(
        self,
        engine: Engine,
        pending: Plan,
        number: int,
        isolation: Isolation,
        tally: Tally,
        timings: Timings,
        books: ShardBooks,
    ) -> None:
        if number > 1:
            how = "image by image" if isolation == "image" else "one by one"
            tally.failures = 0
            self.progress.note(f"round {number}: {count(len(pending), 'part')} left, {how}")
        failures = 0
        results = engine.run(self.task, self.weights, pending, isolation=isolation)
        with closing(results), self._told_of_a_stop():
            for result in results:
                timings.add(result, number)
                tally.add(result)
                self.progress.update(tally)
                self._tell_rate_once(tally)
                books.enter(result)
                if not result.input_changed:
                    failures = failures + 1 if result.failure else 0
                if failures == _FAILURES_IN_A_ROW:
                    raise StoreError(f"nothing succeeds any more: {result.failure}")
                refuse_hopeless(tally, self.error_limit, self.ledger.output)


class ShardBooks:
    """Writes a shard's statistics as soon as its last part is committed, beside the run."""

    def __init__(self, ledger: Ledger, task: Task, plan: Plan, committed: set[str]) -> None:
        self._ledger = ledger
        self._card = task.card
        self._fingerprint = task.fingerprint
        self._parts = plan.parts_by_shard()
        self._open = {shard: set(parts) - committed for shard, parts in self._parts.items()}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="books")

    def enter(self, result: PartResult) -> None:
        """Note a result; duplicates and failures change nothing."""
        left = self._open[result.shard]
        if result.failure is None and result.part in left:
            left.remove(result.part)
            if not left:
                parts = self._parts[result.shard]
                self._pool.submit(self._ledger.finish_shard, result.shard, parts, self._card, self._fingerprint)

    def __enter__(self) -> ShardBooks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is being written, and for what waits behind it unless the run broke off.

        What failed or was left is written by the end of the run, or of the one that resumes it.
        """
        self._pool.shutdown(cancel_futures=kind is not None)
