"""How parts are put into blocks for Ray Data."""

from __future__ import annotations

import pyarrow as pa

from segment.output.plan import PLAN_SCHEMA, Plan

PACKED_SCHEMA = pa.schema([("parts", pa.list_(pa.struct(list(PLAN_SCHEMA))))])

_MAX_BUNDLES = 4000  # more blocks than this cost the driver more than they give, but where workers are many
_LONGEST = 4  # parts in a block, while that makes fewer blocks: so few go on being read when the model is behind
_BUNDLES_A_WORKER = 4


def bundle(plan: Plan, workers: int, *, isolate: bool) -> list[tuple[int, int]]:
    """Group consecutive parts into blocks: (first part, number of parts) each.

    Blocks are short, because a task that reads goes on to the end of its block, however far behind the model is, and
    what it has read lies in the object store. They are cut from what is left, a quarter of each worker's fair share at
    a time at most, and get shorter and shorter: so all workers end together (Polychronopoulos and Kuck, 'Guided
    self-scheduling', IEEE Transactions on Computers, 1987). The parts of a Parquet row group stay together, since a
    worker reads a row group once for all its parts.
    """
    count = len(plan)
    groups = _row_group_runs(plan)
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


def _row_group_runs(plan: Plan) -> list[tuple[int, int]]:
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


def packed(rows: pa.Table) -> pa.Table:
    """Rows of a plan as one row, which Ray Data hands to an actor in one call."""
    structs = rows.to_struct_array().combine_chunks()
    return pa.table([pa.ListArray.from_arrays([0, len(rows)], structs).cast(PACKED_SCHEMA.types[0])], PACKED_SCHEMA)


def unpacked(row: pa.Table) -> pa.Table:
    """The rows of a plan that `packed` made one row of."""
    return pa.Table.from_struct_array(row["parts"].combine_chunks().flatten())
