"""Rounds: run the parts that are not committed, read the ledger, and run the rest again.

A round is best effort: a worker that dies loses its parts, and an engine may report fewer parts than are committed. The
ledger decides after each round. The second round runs part by part and the third image by image, so that an image that
kills workers ends as one error row and costs no other image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import TracebackType

from segment.engines import Engine, Isolation
from segment.errors import InputChanged, StoreError, StoreRefused
from segment.inputs.discovery import Discovery, Unindexed
from segment.inputs.tars.instalments import Spread
from segment.models.weights import Weights
from segment.output.attempts import AttemptWriter
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.output.remarks import remark_lines
from segment.output.results import PartResult
from segment.pipeline.stages import Task
from segment.progress import Progress, Tally, ticking
from segment.runs.error_limits import refuse_hopeless
from segment.runs.forecast import forecast
from segment.runs.growth import PlanGrowth, planned_so_far
from segment.store.names import count
from segment.store.request_errors import RESUMABLE

_ROUNDS: tuple[Isolation, ...] = ("none", "part", "image")
_FAILURES_IN_A_ROW = 5  # after this many failed parts without a success the store or the input is gone


@dataclass
class Rounds:
    """One attempt at a plan.

    Attributes:
        task, weights: of the workers.
        plan: the frozen plan; it grows while tars are indexed.
        max_error_rate: share of images that may fail, 0-1.
        index: indexes the next tars, so many of them, with `Engine.spread`.
    """

    task: Task
    weights: Weights
    plan: Plan
    ledger: Ledger
    progress: Progress
    max_error_rate: float
    index: Callable[[Spread, Unindexed, int], Discovery]

    def run(self, engine: Callable[[], Engine]) -> bool:
        """Run rounds until every part is committed; `engine` is called only if a part is not.

        Returns:
            Whether there was a part to run.

        Raises:
            StoreError: parts are left after the last round, or too many parts fail in a row.
            InputChanged: the input of some parts has changed; all others are committed.
            TooManyErrors: there are more error rows than the limit, or no label can be used.
        """
        committed = self.ledger.committed(self.plan)
        pending = self.plan.without(committed)
        if not len(pending) and not self.plan.unindexed:
            state = "complete" if self.ledger.is_complete() else "committed"
            self.progress.note(f"{state} already: {count(self.plan.images, 'image')}, nothing to do")
            return False
        self.ledger.begin_work(pending)  # also of a complete run whose masks were deleted
        running = engine()
        first = pending if len(pending) else self.plan  # as large as what is indexed next, or larger
        expected = forecast(self.task, self.weights, first, running)
        tally = self._tally(pending, running.name, expected.workers)
        self.progress.note(expected.words())
        record = AttemptWriter(
            self.ledger,
            engine=running.name,
            device=self.task.runtime.device,
            workers=min(tally.workers, len(first)),
            images=tally.images - tally.done,
            expected_memory=expected.memory,
        )
        for line in record.others():
            self.progress.note(line)
        self.progress.begin(tally)

        def tick() -> None:
            tally.tick()
            running.publish(tally)

        try:
            with (
                ticking(tick),
                ShardStatistics(self.ledger, self.task, self.plan, committed) as statistics,
                PlanGrowth(self.plan.unindexed, self.index, running.spread, lambda: tally.parts > 0) as growth,
            ):
                pending = self._all_rounds(running, pending, tally, record, statistics)
                while not len(pending) and self.plan.unindexed:
                    pending = self._grow(growth, tally, statistics)
                    pending = self._all_rounds(running, pending, tally, record, statistics)
        except StoreRefused as error:
            advice = "Committed parts stay; after the cause is fixed, the same command resumes the run."
            raise type(error)(f"{error}. {advice}") from None
        finally:
            tally.retries.update(self.ledger.store.take_retries())
            running.publish(tally, ended=True)
            record.close(tally.retries, tally.remarks)  # first, because the display may fail: its terminal may be gone
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
            f"{len(pending)} of {count(len(self.plan), 'part')} not committed after {count(len(_ROUNDS), 'round')}: "
            f"{reason}. Committed parts stay; the same command resumes the run."
        )

    def _grow(self, growth: PlanGrowth, tally: Tally, statistics: ShardStatistics) -> Plan:
        """Extend the plan by tars that have been indexed; return the new parts."""
        before = self.plan
        with self._showing_stop():
            grown, lines = growth.next(before)
        for line in lines:
            self.progress.note(line)
        self.plan = self.ledger.extend_plan(grown)
        self.progress.note(planned_so_far(self.plan))
        new = self.plan.since(before)
        statistics.extend(new)
        tally.images, tally.is_estimate = self.plan.expected_images, self.plan.unindexed is not None
        return new

    def _all_rounds(
        self, engine: Engine, pending: Plan, tally: Tally, record: AttemptWriter, statistics: ShardStatistics
    ) -> Plan:
        """Run rounds until every part is committed, at most one of each isolation; return the parts that are left."""
        for number, isolation in enumerate(_ROUNDS, 1):
            if not len(pending):
                break
            self._round(engine, pending, number, isolation, tally, record, statistics)
            pending = pending.without(self.ledger.committed(pending) | tally.changed.keys())
        return pending

    @contextmanager
    def _showing_stop(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            raise
        except BaseException:  # a signal; the workers may need time to stop
            self.progress.stopping()
            raise

    def _tally(self, pending: Plan, engine: str, workers: int) -> Tally:
        done, images = self.plan.images - pending.images, self.plan.expected_images
        is_estimate = self.plan.unindexed is not None
        if done:
            self.progress.note(f"resuming: {done:,} of {'about ' * is_estimate}{images:,} images are committed already")
        runtime = self.task.runtime
        self.progress.note(
            f"{self.task.card.name} on {engine}: {workers} x {runtime.name} {runtime.version}, "
            f"{runtime.device}, {runtime.precision}"
        )
        title = f"{self.task.card.name} · {engine} · {runtime.name} {runtime.device} {runtime.precision}"
        return Tally(self.task.card, images, done, done, workers, title, is_estimate)

    def _round(
        self,
        engine: Engine,
        pending: Plan,
        number: int,
        isolation: Isolation,
        tally: Tally,
        record: AttemptWriter,
        statistics: ShardStatistics,
    ) -> None:
        if number > 1:
            how = "image by image" if isolation == "image" else "one by one"
            tally.failures = 0
            self.progress.note(f"round {number}: {count(len(pending), 'part')} left, {how}")
        failures = 0
        results = engine.run(self.task, self.weights, pending, isolation=isolation)
        with closing(results), self._showing_stop():
            for result in results:
                record.add(result, number)
                if result.objects:
                    self.ledger.digests.made(*result.objects)
                tally.add(result)
                self.progress.update(tally)
                statistics.add(result)
                if not result.input_changed:
                    failures = failures + 1 if result.failure else 0
                if failures == _FAILURES_IN_A_ROW:
                    raise StoreError(f"{_FAILURES_IN_A_ROW} parts failed in a row: {result.failure}")
                refuse_hopeless(tally, self.max_error_rate, self.ledger.output)


class ShardStatistics:
    """Writes the statistics of a shard as soon as its last part is committed, in a thread of its own."""

    def __init__(self, ledger: Ledger, task: Task, plan: Plan, committed: set[str]) -> None:
        self._ledger = ledger
        self._card = task.card
        self._fingerprint = task.fingerprint
        self._parts = plan.parts_by_shard()
        self._open = {shard: set(parts) - committed for shard, parts in self._parts.items()}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="statistics")

    def extend(self, new: Plan) -> None:
        """Add parts of shards that were not planned before."""
        parts = new.parts_by_shard()
        self._parts |= parts
        self._open |= {shard: set(held) for shard, held in parts.items()}

    def add(self, result: PartResult) -> None:
        """Take a result into account; duplicates and failures have no effect."""
        left = self._open[result.shard]
        if result.failure is None and result.part in left:
            left.remove(result.part)
            if not left:
                parts = self._parts[result.shard]
                self._pool.submit(self._ledger.finish_shard, result.shard, parts, self._card, self._fingerprint)

    def __enter__(self) -> ShardStatistics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the current write, and for the queued ones unless the run was interrupted.

        Missing statistics are written at the end of the run, or of the one that resumes it.
        """
        self._pool.shutdown(cancel_futures=kind is not None)
