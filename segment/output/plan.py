"""The plan: the frozen list of parts, as `plan.parquet` keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from segment.inputs.discover import Member, Part, Span
from segment.inputs.findings import LeftOut, by_reason
from segment.output.tables import to_parquet

_SPAN = pa.struct([
    ("url", pa.string()), ("start", pa.int64()), ("size", pa.int64()), ("etag", pa.string()), ("signed", pa.bool_())
])  # fmt: skip
_MEMBER = pa.struct([("id", pa.string()), ("image", _SPAN), ("label", _SPAN)])
PLAN_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("shard", pa.string()),
        ("format", pa.string()),
        ("url", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("row_group", pa.int32()),
        ("members", pa.list_(_MEMBER)),
    ]
)


class Plan:
    """The frozen list of parts, kept in Arrow: a million images need no million Python objects.

    Args:
        table: one row per part.
        left_out: what the input holds besides, by reason and place.
    """

    def __init__(self, table: pa.Table, left_out: Sequence[LeftOut] = ()) -> None:
        self.table = table
        self.left_out = tuple(sorted(left_out, key=lambda item: (item.place, item.reason)))

    @staticmethod
    def of(parts: Iterable[Part], left_out: Sequence[LeftOut] = ()) -> Plan:
        """Build a plan from parts, in their order."""
        rows = [{name: _plain(getattr(part, name)) for name in PLAN_SCHEMA.names} for part in parts]
        return Plan(pa.Table.from_pylist(rows, schema=PLAN_SCHEMA), left_out)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.table.equals(other.table) and self.left_out == other.left_out

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def images(self) -> int:
        """Planned images."""
        return int(pc.sum(pc.subtract(self.table["stop"], self.table["start"])).as_py() or 0)

    def summary(self) -> dict[str, Any]:
        """What `run.json` says of the input: images and shards, and what is left out by reason."""
        left_out = [item.to_json() for item in by_reason(self.left_out)]
        return {"images": self.images, "shards": len(self.images_by_shard()), "left_out": left_out}

    @property
    def is_signed(self) -> bool:
        """Whether some images or labels are read by signed URLs, which the plan does not keep."""
        members = pc.list_flatten(self.table["members"])
        return any(pc.any(pc.struct_field(members, [name, "signed"])).as_py() for name in ("image", "label"))

    @property
    def names_labels(self) -> bool:
        """Whether some images have labels by the plan; it does not know those of Parquet files."""
        members = pc.list_flatten(self.table["members"])
        return bool(pc.any(pc.is_valid(pc.struct_field(members, ["label"]))).as_py())

    @property
    def largest_part(self) -> int:
        """Images of the largest part; 0 without parts."""
        return int(pc.max(pc.subtract(self.table["stop"], self.table["start"])).as_py() or 0)

    @property
    def input_bytes(self) -> int:
        """Bytes of the planned input, as far as sizes are known; of a Parquet file by its share of planned rows."""
        members = pc.list_flatten(self.table["members"])
        spans = [pc.struct_field(members, [name, "size"]) for name in ("image", "label")]
        total = sum(pc.sum(pc.max_element_wise(sizes, 0)).as_py() or 0 for sizes in spans)
        rows = self.table.filter(pc.field("format") == "parquet")
        rows = rows.append_column("images", pc.subtract(rows["stop"], rows["start"]))
        files = rows.group_by(["shard", "url"]).aggregate([("size", "max"), ("images", "sum"), ("stop", "max")])
        columns = (files[name].to_pylist() for name in ("size_max", "images_sum", "stop_max"))
        total += sum(size * images // stop for size, images, stop in zip(*columns, strict=True) if size > 0)
        return int(total)

    def images_by_shard(self) -> dict[str, int]:
        """Planned images of each shard, in plan order."""
        images: dict[str, int] = {}
        columns = (self.table[name].to_pylist() for name in ("shard", "start", "stop"))
        for shard, start, stop in zip(*columns, strict=True):
            images[shard] = images.get(shard, 0) + stop - start
        return images

    def parts_by_shard(self) -> dict[str, list[str]]:
        """Part ids of each shard, in plan order."""
        parts: dict[str, list[str]] = {}
        for shard, part in zip(self.table["shard"].to_pylist(), self.table["id"].to_pylist(), strict=True):
            parts.setdefault(shard, []).append(part)
        return parts

    def without(self, part_ids: set[str]) -> Plan:
        """The plan less these parts."""
        if not part_ids:
            return self
        keep = [part not in part_ids for part in self.table["id"].to_pylist()]
        return Plan(self.table.filter(pa.array(keep, pa.bool_())), self.left_out)

    def parts(self) -> Iterator[Part]:
        """The parts, in order."""
        return parts_of(self.table)

    def between(self, start: int, stop: int) -> list[Part]:
        """The parts from row `start` up to, not including, row `stop`."""
        return list(parts_of(self.table.slice(start, stop - start)))

    def to_bytes(self) -> bytes:
        """`plan.parquet`; what is left out is in its metadata, so that one write freezes both."""
        words = {"left_out": json.dumps([item.to_json() for item in self.left_out])} if self.left_out else None
        return to_parquet(self.table.replace_schema_metadata(words))

    @staticmethod
    def from_bytes(data: bytes) -> Plan:
        """Read `plan.parquet`. Raises what Arrow raises, LookupError, TypeError or ValueError, if it is no plan."""
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        words = json.loads((table.schema.metadata or {}).get(b"left_out", b"[]"))
        left_out = [LeftOut.from_json(item) for item in words]
        return Plan(table.select(PLAN_SCHEMA.names).replace_schema_metadata(None).cast(PLAN_SCHEMA), left_out)


def parts_of(table: pa.Table) -> Iterator[Part]:
    """Turn plan rows (any slice of the table) into parts."""
    for batch in table.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            yield Part(**{**row, "members": tuple(_member(member) for member in row["members"])})


def _plain(value: Any) -> Any:
    if isinstance(value, str | int):
        return value
    return [{"id": m.id, "image": _plain_span(m.image), "label": _plain_span(m.label)} for m in value]


def _plain_span(span: Span | None) -> dict[str, Any] | None:
    return None if span is None else {name: getattr(span, name) for name in _SPAN.names}


def _member(row: Mapping[str, Any]) -> Member:
    return Member(row["id"], Span(**row["image"]), Span(**row["label"]) if row["label"] else None)
