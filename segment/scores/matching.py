"""The images that two runs have in common: their rows, matched by image id."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.errors import SegmentError
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of, part_tables
from segment.output.plan import Plan

_SEPARATOR = "\n"  # between shard and id; no shard's name holds it


@dataclass(frozen=True, eq=False)
class RunRows:
    """The n rows of the committed parts of a run: 13 bytes a row, and the id.

    Attributes:
        ids: in the order of the input.
        shards: of each row, dictionary-encoded.
        part: `int32[n]`, number of the part in the plan.
        position: `int32[n]`, row within the part.
        sound: `bool[n]`, False for error rows.
    """

    ids: pa.ChunkedArray
    shards: pa.Array
    part: NDArray[np.int32]
    position: NDArray[np.int32]
    sound: NDArray[np.bool_]


def read_run_rows(ledger: Ledger, plan: Plan, parts: Collection[str]) -> RunRows:
    """Read the ids of the rows of committed parts; masks and counts are not fetched.

    Raises:
        SegmentError: a masks file is damaged or lost.
    """
    numbers = numbers_of(plan, parts)
    ids: list[pa.Array] = []
    sound = [np.empty(0, np.bool_)]
    lengths = []
    for _, table in part_tables(ledger, plan, numbers, ["id", "status"]):
        ids += table["id"].chunks
        sound.append(np.asarray(pc.equal(table["status"], "ok")))
        lengths.append(len(table))
    part = np.repeat(np.array(numbers, np.int32), lengths)
    return RunRows(
        pa.chunked_array(ids, pa.string()),
        plan.table["shard"].combine_chunks().dictionary_encode().take(pa.array(part)),
        part,
        np.concatenate([np.empty(0, np.int32), *(np.arange(length, dtype=np.int32) for length in lengths)]),
        np.concatenate(sound),
    )


@dataclass(frozen=True, eq=False)
class Matches:
    """The images that both runs have segmented, m of them, in A's order.

    Attributes:
        rows_a, rows_b: `int64[m]`, indices of their rows in `RunRows`.
        only_a, only_b: number of rows of which the other run has none.
        failed_a, failed_b: number of error rows.
        failed_of_a, failed_of_b: number of A's images that are error rows in B, and the other way round.
        by_shard: whether ids come several times, so that only shard and id together name an image.
    """

    rows_a: NDArray[np.intp]
    rows_b: NDArray[np.intp]
    only_a: int
    only_b: int
    failed_a: int
    failed_b: int
    failed_of_a: int
    failed_of_b: int
    by_shard: bool

    def __len__(self) -> int:
        return len(self.rows_a)


def match(a: RunRows, b: RunRows) -> Matches:
    """Match the rows of two runs by image id; where ids come several times in one of them, by shard and id.

    Raises:
        SegmentError: a shard has two sound rows of one id.
    """
    by_shard = any(map(_comes_in_several_shards, (a, b)))
    keys_a, keys_b = (_qualified(rows) if by_shard else rows.ids for rows in (a, b))
    sound_a, sound_b = np.flatnonzero(a.sound), np.flatnonzero(b.sound)
    wanted, held = keys_a.take(pa.array(sound_a)), keys_b.take(pa.array(sound_b))
    if not (_is_unique(wanted) and _is_unique(held)):
        raise SegmentError("a shard holds two images of one id: `segment audit` says which, and what to do")
    place = np.asarray(pc.fill_null(pc.index_in(wanted, value_set=held.combine_chunks()), -1))
    return Matches(
        sound_a[place >= 0],
        sound_b[place[place >= 0]],
        _missing(keys_a, keys_b),
        _missing(keys_b, keys_a),
        int(np.count_nonzero(~a.sound)),
        int(np.count_nonzero(~b.sound)),
        _missing(wanted, held) - _missing(wanted, keys_b),
        _missing(held, wanted) - _missing(held, keys_a),
        by_shard,
    )


def _missing(keys: pa.ChunkedArray, others: pa.ChunkedArray) -> int:
    return int(np.count_nonzero(~np.asarray(pc.is_in(keys, value_set=others.combine_chunks()))))


def _comes_in_several_shards(rows: RunRows) -> bool:
    """Whether an id does, also in an error row: the same id of another shard is another image."""
    return not _is_unique(rows.ids) and pc.count_distinct(_qualified(rows)) != pc.count_distinct(rows.ids)


def _is_unique(keys: pa.ChunkedArray) -> bool:
    return bool(pc.count_distinct(keys).as_py() == len(keys))


def _qualified(rows: RunRows) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(rows.shards.cast(pa.string()), rows.ids, _SEPARATOR)
