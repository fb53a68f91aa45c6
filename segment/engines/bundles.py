"""How parts are put into blocks for Ray."""

from __future__ import annotations

from segment.plan import Plan

_MAX_BUNDLES = 4000  # more blocks than this cost the driver more than they give
_MIN_BUNDLES_A_WORKER = 4
_FAIR_BUNDLE, _FAIR_SHARE = 8, 8  # up to so many parts in a block while there are so many blocks a worker


def bundle(plan: Plan, workers: int, *, isolate: bool) -> list[tuple[int, int]]:
    """Group consecutive parts into blocks: (first part, number of parts) each.

    Parts share blocks, since a block costs the driver time and a worker fetches ahead within a block only, as far as
    that leaves every worker its fair share of blocks. The parts of a Parquet row group stay together on the same terms,
    since a worker reads a row group once for all its parts.
    """
    count = len(plan)
    size = 1 if isolate else max(1, count // _MAX_BUNDLES, min(_FAIR_BUNDLE, count // (_FAIR_SHARE * workers)))
    groups = _row_group_runs(plan)
    if isolate or len(groups) < _MIN_BUNDLES_A_WORKER * workers:
        groups = [(start, 1) for start in range(count)]
    bundles: list[tuple[int, int]] = []
    for start, length in groups:
        if bundles and bundles[-1][1] + length <= size:
            bundles[-1] = (bundles[-1][0], bundles[-1][1] + length)
        else:
            bundles.append((start, length))
    return bundles


def _row_group_runs(plan: Plan) -> list[tuple[int, int]]:
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
