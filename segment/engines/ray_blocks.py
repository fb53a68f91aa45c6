"""How parts are put into blocks for Ray Data, and results into rows."""

from __future__ import annotations

import time
from collections.abc import Iterator

from segment.errors import SegmentError
from segment.output.plan import Plan
from segment.output.results import PartResult

_MAX_BUNDLES = 4000  # more blocks than this cost the driver more than they give, but where workers are many
_LONGEST = 4  # parts in a block, while that makes fewer blocks: so few go on being read when the model is behind
_BUNDLES_A_WORKER = 4
_TELL_SECONDS = 0.5


def bundle(plan: Plan, workers: int, *, isolate: bool) -> list[tuple[int, int]]:
    """Group consecutive parts into blocks: (first part, number of parts) each.

    Blocks are short, because a task that reads goes on to the end of its block, however far behind the model is, and
    what it has read lies in the object store. They are cut from what is left, a quarter of each worker's fair share at
    a time at most, and get shorter and shorter: so all workers end together (Polychronopoulos and Kuck, 'Guided
    self-scheduling', IEEE Transactions on Computers, 1987). The parts of a Parquet row group stay together, since a
    worker reads a row group once for all its parts.
    """
    count = len(plan)
    groups = row_group_runs(plan)
    if isolate or len(groups) < _BUNDLES_A_WORKER * workers:
        groups = [(start, 1) for start in range(count)]
    least = max(1, count // max(_MAX_BUNDLES, 2 * _BUNDLES_A_WORKER * workers))
    bundles: list[tuple[int, int]] = []
    room = 0
    for start, length in groups:
        if length <= room:
            bundles[-1] = (bundles[-1][0], bundles[-1][1] + length)
        else:
            share = (count - start) // (_BUNDLES_A_WORKER * workers)
            room = 1 if isolate else max(least, min(_LONGEST, share))
            bundles.append((start, length))
        room -= length
    return bundles


def gather(results: Iterator[PartResult]) -> Iterator[list[PartResult]]:
    """Put results that follow each other within half a second together: a row costs worker and driver a millisecond.

    Raises:
        SegmentError: as `results` does, after what came before it.
    """
    held: list[PartResult] = []
    told = time.monotonic()
    try:
        for result in results:
            held.append(result)
            if time.monotonic() - told >= _TELL_SECONDS:
                yield held
                held, told = [], time.monotonic()
    except SegmentError:
        yield held
        raise
    if held:
        yield held


def row_group_runs(plan: Plan) -> list[tuple[int, int]]:
    """Consecutive parts of one Parquet row group, and each other part alone: (first part, number of parts) each."""
    runs: list[tuple[int, int]] = []
    last: tuple[str, int] | None = None
    columns = (plan.table[name].to_pylist() for name in ("shard", "row_group"))
    for index, (shard, row_group) in enumerate(zip(*columns, strict=True)):
        if row_group >= 0 and last == (shard, row_group):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
        last = (shard, row_group)
    return runs
