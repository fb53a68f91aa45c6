"""Blocks of parts for Ray Data."""

import pyarrow as pa

from segment.output.plan import Plan
from segment.output.plan_rows import PLAN_SCHEMA

PACKED_SCHEMA = pa.schema([("parts", pa.list_(pa.struct(list(PLAN_SCHEMA))))])

_MAX_BLOCKS = 4000  # about; many more would keep the driver busy, unless there are many workers
# Parts of a block, unless that makes too many blocks. On GPUs a block is read to its end ahead of the model.
_LONGEST = 4
_BLOCKS_A_WORKER = 4  # of those that are left, so that all workers end together


def cut_blocks(plan: Plan, workers: int, *, isolate: bool) -> list[tuple[int, int]]:
    """Cut a plan into blocks of consecutive parts: (first part, number of parts) each.

    Blocks are short, because a task that reads goes on to the end of its block, however far behind the model is, and
    its images wait in the object store. A block has at most a quarter of a worker's fair share of the parts that are
    left, so that blocks get shorter and all workers end together (Polychronopoulos and Kuck, 'Guided
    self-scheduling', IEEE Transactions on Computers, 1987). The parts of a Parquet row group stay together, since a
    worker reads a row group once for all its parts.
    """
    count = len(plan)
    groups = _row_group_runs(plan)
    if isolate or len(groups) < _BLOCKS_A_WORKER * workers:
        groups = [(start, 1) for start in range(count)]
    longest = max(_LONGEST, count // max(_MAX_BLOCKS, 2 * _BLOCKS_A_WORKER * workers))
    blocks: list[tuple[int, int]] = []
    room = 0
    for start, length in groups:
        if length <= room:
            blocks[-1] = (blocks[-1][0], blocks[-1][1] + length)
        else:
            share = (count - start) // (_BLOCKS_A_WORKER * workers)
            room = 1 if isolate else max(1, min(longest, share))
            blocks.append((start, length))
        room -= length
    return blocks


def _row_group_runs(plan: Plan) -> list[tuple[int, int]]:
    """Return runs of parts of one Parquet row group, and each other part alone: (first part, number of parts) each."""
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
    """Pack rows of a plan into one row, which Ray Data hands to an actor in one call."""
    structs = rows.to_struct_array().combine_chunks()
    return pa.table([pa.ListArray.from_arrays([0, len(rows)], structs).cast(PACKED_SCHEMA.types[0])], PACKED_SCHEMA)


def unpacked(row: pa.Table) -> pa.Table:
    """Unpack the rows of a plan from a row that `packed` made."""
    return pa.Table.from_struct_array(row["parts"].combine_chunks().flatten())
