"""The images that two runs have in common: their rows, matched by image id."""

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.errors import SegmentError
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of, part_tables
from segment.output.plan import Plan

_HASH = 8  # bytes of the hash of an id, by which images are matched


@dataclass(frozen=True, eq=False)
class RunRows:
    """The n rows of the committed parts of a run: 9 bytes a row.

    Attributes:
        keys: `uint64[n]`, the hash of each id; who reads the rows of a match compares the ids.
        sound: `bool[n]`, False for error rows.
        parts: `int32[p]`, numbers of the parts in the plan, in order.
        starts: `int64[p + 1]`: the rows of part i are those from `starts[i]` to `starts[i + 1]`.
        first_id: of the first row, if there is one.
    """

    keys: NDArray[np.uint64]
    sound: NDArray[np.bool_]
    parts: NDArray[np.int32]
    starts: NDArray[np.int64]
    first_id: str | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def places(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the number of the part of each row, and its place within the part."""
        index = np.searchsorted(self.starts, rows, side="right") - 1
        return self.parts[index], rows - self.starts[index]


def read_run_rows(ledger: Ledger, plan: Plan, parts: Collection[str]) -> RunRows:
    """Read the ids of the rows of committed parts; masks and counts are not fetched.

    Raises:
        SegmentError: a masks file is damaged or lost.
    """
    numbers = numbers_of(plan, parts)
    keys, sound = [np.empty(0, np.uint64)], [np.empty(0, np.bool_)]
    first_id = None
    for _, table in part_tables(ledger, plan, numbers, ["id", "status"]):
        ids = table["id"].to_pylist()
        first_id = ids[0] if first_id is None and ids else first_id
        keys.append(np.array([key_of(name, b"id") for name in ids], np.uint64))
        sound.append(np.asarray(pc.equal(table["status"], "ok")))
    starts = np.append(0, np.cumsum([len(some) for some in keys[1:]], dtype=np.int64))
    return RunRows(np.concatenate(keys), np.concatenate(sound), np.array(numbers, np.int32), starts, first_id)


def key_of(text: str, kind: bytes = b"") -> int:
    """Return the key of a name, a hash of 64 bits: of a group, or of another kind."""
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=_HASH, person=kind).digest()
    return int.from_bytes(digest, "big")


def rows_at(
    listed: RunRows, rows: NDArray[np.intp], read: Callable[[list[int]], Iterable[tuple[int, pa.Table]]]
) -> pa.Table:
    """Return rows of a run, in the order in which they are asked for.

    Args:
        listed: the rows of the run.
        rows: their numbers.
        read: returns number and rows of each of some parts, in order, as `part_tables` does.
    """
    part, position = listed.places(rows)
    order = np.argsort(part, kind="stable")
    numbers, starts = np.unique(part[order], return_index=True)
    groups = np.split(position[order], starts[1:])
    tables = [
        table.take(pa.array(some)).replace_schema_metadata(None)
        for (_, table), some in zip(read(numbers.tolist()), groups, strict=True)
    ]
    back = np.empty(len(rows), np.intp)
    back[order] = np.arange(len(rows))
    return pa.concat_tables(tables).take(pa.array(back))


@dataclass(frozen=True, eq=False)
class Matches:
    """The images that both runs have segmented, m of them, in A's order.

    Attributes:
        rows_a, rows_b: `int64[m]`, indices of their rows in `RunRows`.
        only_a, only_b: number of rows of which the other run has none.
        failed_a, failed_b: number of error rows.
        failed_of_a: number of A's images that are error rows in B.
        by_shard: whether ids come several times, so that only shard and id together name an image.
    """

    rows_a: NDArray[np.intp]
    rows_b: NDArray[np.intp]
    only_a: int
    only_b: int
    failed_a: int
    failed_b: int
    failed_of_a: int
    by_shard: bool

    def __len__(self) -> int:
        return len(self.rows_a)


def match(a: RunRows, b: RunRows, plan_a: Plan, plan_b: Plan) -> Matches:
    """Match the rows of two runs by image id; where ids come several times in one of them, by shard and id.

    Raises:
        SegmentError: a shard has two sound rows of one id.
    """
    keys_a, keys_b = a.keys, b.keys
    by_shard = _comes_in_several_shards(a, plan_a) or _comes_in_several_shards(b, plan_b)
    if by_shard:
        keys_a, keys_b = _with_shard(a, plan_a), _with_shard(b, plan_b)
    wanted, held = keys_a[a.sound], keys_b[b.sound]
    if not (_are_different(wanted) and _are_different(held)):
        raise SegmentError("a shard holds two images of one id: `segment audit` says which, and what to do")
    place = _places_of(wanted, held)
    return Matches(
        np.flatnonzero(a.sound)[place >= 0],
        np.flatnonzero(b.sound)[place[place >= 0]],
        _missing(keys_a, keys_b),
        _missing(keys_b, keys_a),
        int(np.count_nonzero(~a.sound)),
        int(np.count_nonzero(~b.sound)),
        int(np.count_nonzero(place < 0)) - _missing(wanted, keys_b),
        by_shard,
    )


def _missing(keys: NDArray[np.uint64], others: NDArray[np.uint64]) -> int:
    return int(np.count_nonzero(_places_of(keys, others) < 0))


def _places_of(wanted: NDArray[np.uint64], held: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the index of each key in `held`, -1 where it is not there."""
    order = np.argsort(held)
    place = np.searchsorted(held, wanted, sorter=order)
    found = order[np.minimum(place, len(order) - 1)] if len(order) else np.full(len(wanted), -1)
    return np.where(held[found] == wanted, found, -1) if len(order) else found


def _are_different(keys: NDArray[np.uint64]) -> bool:
    return len(np.unique(keys)) == len(keys)


def _comes_in_several_shards(rows: RunRows, plan: Plan) -> bool:
    """Whether an id does, also in an error row: the same id of another shard is another image."""
    different = len(np.unique(rows.keys))
    return different < len(rows) and len(np.unique(_with_shard(rows, plan))) != different


def _with_shard(rows: RunRows, plan: Plan) -> NDArray[np.uint64]:
    """Return the keys of shard and id; the shard's hash is of another kind, or equal names would cancel out."""
    shards = plan.table["shard"]
    of_part = np.array([key_of(shards[number].as_py(), b"shard") for number in rows.parts.tolist()], np.uint64)
    return rows.keys ^ np.repeat(of_part, np.diff(rows.starts))
