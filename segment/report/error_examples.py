"""The first error rows of a run."""

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow.compute as pc

from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of, part_tables
from segment.output.plan import Plan

_MOST = 20


@dataclass(frozen=True)
class ErrorExample:
    """An error row: its shard, its id and the text of its error."""

    shard: str
    id: str
    error: str


def read_error_examples(
    ledger: Ledger, plan: Plan, parts: Collection[str], shards: Collection[str]
) -> tuple[ErrorExample, ...]:
    """Read the first error rows; only parts of `shards`, which have errors, are read."""
    held = plan.table["shard"].to_pylist()
    numbers = [number for number in numbers_of(plan, parts) if held[number] in shards]
    examples: list[ErrorExample] = []
    for number, table in part_tables(ledger, plan, numbers, ["id", "error"], ahead=16):
        rows = table.filter(pc.is_valid(table["error"])).to_pylist()
        examples += [ErrorExample(held[number], row["id"], row["error"]) for row in rows]
        if len(examples) >= _MOST:
            break
    return tuple(examples[:_MOST])
