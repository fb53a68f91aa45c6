"""The plan of a run: the frozen list of its parts, stored as `plan.parquet`."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.inputs.discovery import Discovery, Unindexed
from segment.inputs.findings import LeftOut, by_reason
from segment.inputs.parquet.copies import UnpacksTooLarge
from segment.inputs.parquet.row_batches import read_batches
from segment.inputs.parts import Part
from segment.output.part_members import AT_ONCE, MEMBERS, Facts, PackedMembers, PartSizes, facts_of
from segment.output.plan_rows import COLUMNS, PLAN_SCHEMA, WITHOUT_METADATA, checked_rows, parts_of, rows_of
from segment.output.tables import open_table, write_parquet

_ROW_GROUP = 1024  # parts of a row group of `plan.parquet`


class Plan:
    """The list of parts of a run. What is known of each part is a row of a table; its members are packed.

    A million images need no million Python objects, and their names and etags lie in a temporary file if they are many.

    Args:
        rows: one row per part, of `PLAN_SCHEMA`.
        left_out: objects and images of the input that are not planned, by reason and place.
        unindexed: tars whose images are planned while those of others are segmented; None if all are planned.

    Attributes:
        table: one row per part, of `PLAN_SCHEMA` without members.
    """

    def __init__(self, rows: pa.Table, left_out: Sequence[LeftOut] = (), unindexed: Unindexed | None = None) -> None:
        batches = rows.to_batches(max_chunksize=AT_ONCE)
        self._fill(map(pa.Table.from_batches, ([batch] for batch in batches)), left_out, unindexed)

    def _fill(self, rows: Iterable[pa.Table], left_out: Sequence[LeftOut], unindexed: Unindexed | None) -> None:
        """Take rows, at most `AT_ONCE` at a time."""
        members, tables = PackedMembers(), [PLAN_SCHEMA.empty_table().select(COLUMNS)]
        facts = [facts_of(pa.array([], MEMBERS))]
        for some in rows:
            own = some["members"].combine_chunks()
            facts.append(facts_of(own))
            members.append(own)
            tables.append(some.select(COLUMNS))
        every = {name: np.concatenate([held[name] for held in facts]) for name in facts[0]}
        places = np.arange(len(members), dtype=np.int64)
        self._set(pa.concat_tables(tables).combine_chunks(), members, {"place": places, **every}, left_out, unindexed)

    def _set(
        self,
        table: pa.Table,
        members: PackedMembers,
        facts: Facts,
        left_out: Sequence[LeftOut],
        unindexed: Unindexed | None,
    ) -> None:
        self.table, self._members, self._facts = table, members, facts
        self.left_out = tuple(sorted(left_out, key=lambda item: (item.place, item.reason)))
        self.unindexed = unindexed

    @staticmethod
    def of(parts: Iterable[Part], left_out: Sequence[LeftOut] = (), unindexed: Unindexed | None = None) -> Plan:
        """Build a plan from parts, some at a time; their order is kept."""
        plan, left = Plan.__new__(Plan), iter(parts)
        plan._fill(map(rows_of, iter(lambda: list(islice(left, AT_ONCE)), [])), left_out, unindexed)
        return plan

    @staticmethod
    def of_discovery(found: Discovery) -> Plan:
        """Build the plan of an input, or of the part of it that is indexed."""
        return Plan.of(found.each_part, found.left_out, found.unindexed)

    def with_left_out(self, left_out: Sequence[LeftOut], unindexed: Unindexed | None = None) -> Plan:
        """Return a plan of these parts of which all else is other."""
        plan = Plan.__new__(Plan)
        plan._set(self.table, self._members, self._facts, left_out, unindexed)
        return plan

    def taking(self, numbers: Sequence[int] | NDArray[np.int64]) -> Plan:
        """Return the plan of the parts with these numbers, in this order."""
        plan, picked = Plan.__new__(Plan), np.asarray(numbers, np.int64)
        facts = {name: values[picked] for name, values in self._facts.items()}
        plan._set(self.table.take(pa.array(picked)), self._members, facts, self.left_out, self.unindexed)
        return plan

    def rows(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Return the rows from `start` to `stop` (excluded; None: all that follow) of `PLAN_SCHEMA`."""
        stop = len(self) if stop is None else stop
        members = self._members.take(self._facts["place"][start:stop].tolist())
        return self.table.slice(start, stop - start).append_column(PLAN_SCHEMA.field("members"), members)

    def each_rows(self, number: int = AT_ONCE) -> Iterator[pa.Table]:
        """Yield all rows, so many at a time."""
        return (self.rows(start, start + number) for start in range(0, len(self), number))

    def each_members(self) -> Iterator[pa.ChunkedArray]:
        """Yield the members of all parts, of some parts at a time, without a Python object for each."""
        return (pc.list_flatten(rows["members"]) for rows in self.each_rows())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan) or (self.left_out, self.unindexed) != (other.left_out, other.unindexed):
            return False
        if not self.table.equals(other.table):
            return False
        return all(own.equals(its) for own, its in zip(self.each_rows(), other.each_rows(), strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan, (self.rows(), self.left_out, self.unindexed)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, unpacked."""
        return int(self.table.nbytes + self._members.nbytes * len(self) // max(1, len(self._members)))

    def _sum(self, fact: str) -> int:
        return int(self._facts[fact].sum())

    @property
    def images(self) -> int:
        """Number of planned images."""
        return int(pc.sum(pc.subtract(self.table["stop"], self.table["start"])).as_py() or 0)

    @property
    def expected_images(self) -> int:
        """Number of images of the whole input; an estimate where tars are not indexed yet."""
        return self.images + (self.unindexed.images if self.unindexed else 0)

    @property
    def tars_left(self) -> int:
        """Number of tars that are not indexed yet."""
        return len(self.unindexed.tars) if self.unindexed else 0

    def summary(self) -> dict[str, Any]:
        """Return the input summary of `run.json`: images, shards, and what is left out by reason."""
        left_out = [item.to_json() for item in by_reason(self.left_out)]
        return {"images": self.images, "shards": len(self.images_by_shard()), "left_out": left_out}

    @property
    def is_signed(self) -> bool:
        """Whether some images or labels are read by signed URLs; the plan does not store signatures."""
        return self._sum("signed") > 0

    @property
    def names_labels(self) -> bool:
        """Whether the plan holds labels; those of Parquet files are not in the plan."""
        return self._sum("labels") > 0

    @property
    def largest_part(self) -> int:
        """Number of images of the largest part; 0 without parts."""
        return int(pc.max(pc.subtract(self.table["stop"], self.table["start"])).as_py() or 0)

    @property
    def part_sizes(self) -> PartSizes:
        """What each part holds; where the plan has no members, in Parquet files, all images have the mean of bytes."""
        images = np.asarray(pc.subtract(self.table["stop"], self.table["start"]), np.int64)
        known, tiffs, others = (self._facts[name].astype(np.float64) for name in ("bytes", "tiffs", "others"))
        unnamed = self._facts["members"] == 0
        each = (self.input_bytes - known.sum()) / max(1, images[unnamed].sum())
        return PartSizes(images, np.where(unnamed, each * images, known), tiffs, np.where(unnamed, each, others))

    @property
    def input_bytes(self) -> int:
        """Bytes of the planned input whose size is known; a Parquet file counts by its share of planned rows."""
        total = self._sum("bytes")
        rows = self.table.filter(pc.field("format") == "parquet")
        rows = rows.append_column("images", pc.subtract(rows["stop"], rows["start"]))
        files = rows.group_by(["shard", "url"]).aggregate([("size", "max"), ("images", "sum"), ("stop", "max")])
        columns = (files[name].to_pylist() for name in ("size_max", "images_sum", "stop_max"))
        total += sum(size * images // stop for size, images, stop in zip(*columns, strict=True) if size > 0)
        return int(total)

    def images_by_shard(self) -> dict[str, int]:
        """Return the number of planned images by shard, in plan order."""
        images: dict[str, int] = {}
        columns = (self.table[name].to_pylist() for name in ("shard", "start", "stop"))
        for shard, start, stop in zip(*columns, strict=True):
            images[shard] = images.get(shard, 0) + stop - start
        return images

    def parts_by_shard(self) -> dict[str, list[str]]:
        """Return the part ids by shard, in plan order."""
        parts: dict[str, list[str]] = {}
        for shard, part in zip(self.table["shard"].to_pylist(), self.table["id"].to_pylist(), strict=True):
            parts.setdefault(shard, []).append(part)
        return parts

    def without(self, part_ids: set[str]) -> Plan:
        """Return the plan without these parts."""
        if not part_ids:
            return self
        return self.taking([number for number, part in enumerate(self.table["id"].to_pylist()) if part not in part_ids])

    def extended_by(self, new: Plan) -> Plan:
        """Return the plan with the parts of another one added, and with all else of the other one."""
        before = 0
        if new._members is not self._members:
            before = len(self._members)
            self._members.extend(new._members)
        facts = {name: np.concatenate([values, new._facts[name]]) for name, values in self._facts.items()}
        facts["place"][len(self) :] += before
        plan = Plan.__new__(Plan)
        table = pa.concat_tables([self.table, new.table]).combine_chunks()
        plan._set(table, self._members, facts, new.left_out, new.unindexed)
        return plan

    def __iter__(self) -> Iterator[Part]:
        return (part for rows in self.each_rows() for part in parts_of(rows))

    def parts(self) -> Iterator[Part]:
        """Yield the parts, in order."""
        return iter(self)

    def of_shards(self, urls: set[str]) -> Plan:
        """Return the plan of the shards with these URLs only."""
        kept = self.taking([number for number, url in enumerate(self.table["url"].to_pylist()) if url in urls])
        return kept.with_left_out([item for item in self.left_out if item.place in urls], self.unindexed)

    def since(self, before: Plan) -> Plan:
        """Return the parts that an earlier plan lacks."""
        return self.without(set(before.table["id"].to_pylist()))

    def between(self, start: int, stop: int) -> list[Part]:
        """Return the parts of the rows from `start` to `stop`, `stop` excluded."""
        return list(parts_of(self.rows(start, stop)))

    def write(self, file: BinaryIO) -> None:
        """Write `plan.parquet`; all else is in its metadata, so that one object freezes the whole plan."""
        metadata = {"left_out": json.dumps([item.to_json() for item in self.left_out])} if self.left_out else {}
        if self.unindexed:
            metadata["unindexed"] = json.dumps(self.unindexed.to_json())
        if metadata:  # only pages have checksums
            metadata["sha256"] = _digest(metadata)
        schema = PLAN_SCHEMA if self._sum("metadata") else WITHOUT_METADATA
        schema = schema.with_metadata(metadata) if metadata else schema
        groups = self.each_rows(_ROW_GROUP) if len(self) else [PLAN_SCHEMA.empty_table()]
        write_parquet(file, schema, (rows.cast(schema).combine_chunks() for rows in groups))

    def to_bytes(self) -> bytes:
        """Return the bytes of `plan.parquet`."""
        file = io.BytesIO()
        self.write(file)
        return file.getvalue()

    @staticmethod
    def read(file: BinaryIO) -> Plan:
        """Parse an open `plan.parquet`, some parts at a time.

        Raises:
            pa.ArrowException, LookupError, TypeError, ValueError: the file is no plan.
        """
        parquet, bounded = open_table(file)
        with parquet:
            metadata = {key.decode(): text.decode() for key, text in (parquet.schema_arrow.metadata or {}).items()}
            if metadata.pop("sha256", None) not in (None, _digest(metadata)):  # earlier versions wrote none
                raise ValueError("another text than was written")
            left_out = [LeftOut.from_json(item) for item in json.loads(metadata.get("left_out", "[]"))]
            unindexed = json.loads(metadata.get("unindexed", "null"))
            checked_rows(parquet.schema_arrow.empty_table())
            groups = range(parquet.num_row_groups)  # one after the other: it takes less memory
            names = parquet.schema_arrow.names
            found = (read_batches(parquet, bounded, group, names, AT_ONCE) for group in groups)
            batches = _within(bounded.most, chain.from_iterable(found))
            plan = Plan.__new__(Plan)
            rows = (checked_rows(pa.Table.from_batches([batch])) for batch in batches)
            plan._fill(rows, left_out, Unindexed.from_json(unindexed) if unindexed else None)
            if len(plan) != parquet.metadata.num_rows:  # a footer has no checksum, and tells the number twice
                raise ValueError("rows are missing")
        if pc.count_distinct(plan.table["id"]).as_py() != len(plan):
            raise ValueError("a part is planned twice")
        return plan

    @staticmethod
    def from_bytes(data: bytes) -> Plan:
        """Parse the bytes of `plan.parquet`; raises as `read`."""
        return Plan.read(io.BytesIO(data))


def _within(most: int, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches. Raises UnpacksTooLarge: what a plan holds of them, all but the members, takes more bytes."""
    held = 0
    for batch in batches:
        held += batch.select(COLUMNS).nbytes
        if held > most:
            raise UnpacksTooLarge(most)
        yield batch


def _digest(metadata: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()
