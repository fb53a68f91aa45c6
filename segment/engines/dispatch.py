"""Which parts a pool's workers get next, and how many at a time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator

from segment.engines.ray_blocks import row_group_runs
from segment.inputs.discover import Part
from segment.output.plan import Plan

_RUN = 32  # parts that a worker takes off the plan at a time, to be given them bit by bit
_MOST_DEATHS = 3  # of workers that held a part, until it is left for the next round


class Dispatch:
    """The parts of a plan that nobody has been given yet.

    A worker takes a run of neighbours off the plan: the parts of a Parquet row group, which it reads once for all of
    them, or some others. When no run is left, it takes half of what another one has before it; so all end together.
    What came back from a worker that died comes last, lest it kills others before the innocent parts are done.

    Args:
        plan: the parts.
        alone: give a worker one part at a time.

    Attributes:
        left: parts to be given yet.
    """

    def __init__(self, plan: Plan, *, alone: bool) -> None:
        self._plan = plan
        self._alone = alone
        self._runs = deque(_runs(plan))
        self._own: dict[Hashable, range] = {}
        self._returned: deque[Part] = deque()
        self._deaths: Counter[str] = Counter()
        self.left = len(plan)

    def room(self, held: int, results: int, workers: int) -> int:
        """How many parts more a worker should be given.

        One is being computed and one read meanwhile. Who told of many at once is given enough until it tells again,
        but never more than a fair share. Of the last ones each waits for the worker that is free first, and of what
        came back as well, lest an innocent part dies with a guilty one once more.

        Args:
            held: parts that it was given and has not told of.
            results: in what it told last.
            workers: that are at work.
        """
        if self._alone or self.left < workers or self.left == len(self._returned):
            return 1 - held
        return 2 + min(2 * results, self.left // (2 * workers)) - held

    def take(self, worker: Hashable, most: int) -> list[Part]:
        """Take so many parts, or what is left, for a worker; of what came back one."""
        taken: list[Part] = []
        while len(taken) < most and (rows := self._next_rows(worker, most - len(taken))):
            taken += self._plan.between(rows.start, rows.stop)
        if most > 0 and not taken and self._returned:
            taken.append(self._returned.popleft())
        self.left -= len(taken)
        return taken

    def give_back(self, worker: Hashable, held: Iterable[Part]) -> None:
        """A worker died: what it held is for others, unless too many have died of it."""
        if rest := self._own.pop(worker, None):
            self._runs.appendleft(rest)
        for part in held:
            self._deaths[part.id] += 1
            if self._deaths[part.id] < _MOST_DEATHS:
                self._returned.append(part)
                self.left += 1

    def _next_rows(self, worker: Hashable, most: int) -> range:
        run = self._own.get(worker) or self._next_run()
        self._own[worker] = run[most:]
        return run[:most]

    def _next_run(self) -> range:
        if self._runs:
            return self._runs.popleft()
        owner = max(self._own, key=lambda other: len(self._own[other]), default=None)
        if owner is None:
            return range(0)
        run = self._own[owner]
        self._own[owner] = run[: len(run) // 2]
        return run[len(run) // 2 :]


def _runs(plan: Plan) -> Iterator[range]:
    """Rows of the plan in whole row groups, as many as make `_RUN` parts together."""
    start = stop = 0
    for first, length in row_group_runs(plan):
        if stop > start and first + length - start > _RUN:
            yield range(start, stop)
            start = first
        stop = first + length
    if stop > start:
        yield range(start, stop)
