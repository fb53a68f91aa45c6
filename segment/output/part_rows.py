"""The rows of committed parts, read part by part; only the columns that are asked for are fetched."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segment.errors import SegmentError
from segment.output.damage import read_checked
from segment.output.ledger import LOST, Ledger
from segment.output.plan import Plan
from segment.output.readable_rows import check_readable
from segment.store.background import in_order
from segment.store.names import shown

_AHEAD = 64  # parts read ahead


def part_tables(
    ledger: Ledger, plan: Plan, numbers: Sequence[int], columns: Sequence[str], ahead: int = _AHEAD
) -> Iterator[tuple[int, pa.Table]]:
    """Yield number and rows (given columns) of committed parts, in order; up to `ahead` parts are read ahead.

    Raises SegmentError: a masks file is damaged or lost.
    """
    shards, parts = plan.table["shard"], plan.table["id"]
    images = pc.subtract(plan.table["stop"], plan.table["start"])

    def read(number: int) -> tuple[int, pa.Table]:
        shard, part, planned = (column[number].as_py() for column in (shards, parts, images))
        return number, read_part_rows(ledger, shard, part, planned, columns)

    return in_order(read, numbers, name="rows", ahead=ahead)


def read_part_rows(ledger: Ledger, shard: str, part: str, images: int, columns: Sequence[str]) -> pa.Table:
    """Read the given columns of a committed part, of so many planned images.

    Raises SegmentError: its masks file is damaged, holds another number of rows, or is lost.
    """

    added = [] if "status" in columns else ["status"]  # what a row has follows from it

    def read() -> pa.Table:
        table = ledger.read_rows(shard, part, [*columns, *added], rows=images)
        check_readable(table)
        return table.drop_columns(added)

    try:
        return read_checked(ledger.masks_url(shard, part), read)
    except FileNotFoundError:
        raise SegmentError(f"{shown(ledger.masks_url(shard, part))} was committed and {LOST}") from None


def numbers_of(plan: Plan, parts: Collection[str], most: int | None = None) -> list[int]:
    """Return the numbers of the plan's parts with these ids, in plan order; at most `most`, evenly spread."""
    numbers = [number for number, part in enumerate(plan.table["id"].to_pylist()) if part in parts]
    if most is None or len(numbers) <= most:
        return numbers
    return [numbers[index] for index in np.linspace(0, len(numbers) - 1, most).round().astype(int).tolist()]
