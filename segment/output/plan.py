"""The plan of a run: the frozen list of its parts, stored as `plan.parquet`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segment.inputs.discover import Discovery, Member, Part, Span, Unindexed
from segment.inputs.findings import LeftOut, by_reason
from segment.output.tables import read_table, to_parquet

_SPAN = pa.struct([
    ("url", pa.string()), ("start", pa.int64()), ("size", pa.int64()), ("etag", pa.string()), ("signed", pa.bool_())
])  # fmt: skip
_MEMBER = pa.struct([("id", pa.string()), ("image", _SPAN), ("label", _SPAN)])
_WITH_METADATA = pa.struct([*_MEMBER, ("meta", pa.list_(pa.string())), ("meta_span", _SPAN)])
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
        ("members", pa.list_(_WITH_METADATA)),
    ]
)
_WITHOUT_METADATA = PLAN_SCHEMA.set(len(PLAN_SCHEMA) - 1, pa.field("members", pa.list_(_MEMBER)))  # as most are stored


class Plan:
    """The list of parts of a run, as an Arrow table: a million images need no million Python objects.

    Args:
        table: one row per part, of `PLAN_SCHEMA`.
        left_out: objects and images of the input that are not planned, by reason and place.
        unindexed: tars whose images are planned while those of others are segmented; None if all are planned.
    """

    def __init__(self, table: pa.Table, left_out: Sequence[LeftOut] = (), unindexed: Unindexed | None = None) -> None:
        self.table = table
        self.unindexed = unindexed
        self.left_out = tuple(sorted(left_out, key=lambda item: (item.place, item.reason)))

    @staticmethod
    def of(parts: Iterable[Part], left_out: Sequence[LeftOut] = ()) -> Plan:
        """Build a plan from parts; their order is kept."""
        rows = [{name: _to_plain(getattr(part, name)) for name in PLAN_SCHEMA.names} for part in parts]
        return Plan(pa.Table.from_pylist(rows, schema=PLAN_SCHEMA), left_out)

    @staticmethod
    def of_discovery(found: Discovery) -> Plan:
        """Build the plan of an input, or of the part of it that is indexed."""
        plan = Plan.of(found.parts, found.left_out)
        return Plan(plan.table, plan.left_out, found.unindexed)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return False
        return self.table.equals(other.table) and (self.left_out, self.unindexed) == (other.left_out, other.unindexed)

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.table)

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
        members = pc.list_flatten(self.table["members"])
        return any(pc.any(pc.struct_field(members, [name, "signed"])).as_py() for name in ("image", "label"))

    @property
    def names_labels(self) -> bool:
        """Whether the plan holds labels; those of Parquet files are not in the plan."""
        members = pc.list_flatten(self.table["members"])
        return bool(pc.any(pc.is_valid(pc.struct_field(members, ["label"]))).as_py())

    @property
    def names_tiffs(self) -> bool:
        """Whether the names of all images that the plan holds are those of TIFFs."""
        ids = pc.struct_field(pc.list_flatten(self.table["members"]), ["id"])
        return len(ids) > 0 and bool(pc.all(pc.match_substring_regex(ids, r"(?i)\.tiff?$")).as_py())

    @property
    def _has_metadata(self) -> bool:
        members = pc.list_flatten(self.table["members"])
        return any(pc.any(pc.is_valid(pc.struct_field(members, [name]))).as_py() for name in ("meta", "meta_span"))

    @property
    def largest_part(self) -> int:
        """Number of images of the largest part; 0 without parts."""
        return int(pc.max(pc.subtract(self.table["stop"], self.table["start"])).as_py() or 0)

    @property
    def input_bytes(self) -> int:
        """Bytes of the planned input whose size is known; a Parquet file counts by its share of planned rows."""
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
        keep = [part not in part_ids for part in self.table["id"].to_pylist()]
        return Plan(self.table.filter(pa.array(keep, pa.bool_())), self.left_out, self.unindexed)

    def extended_by(self, new: Plan) -> Plan:
        """Return the plan with the parts of another one added, and with all else of the other one."""
        return Plan(pa.concat_tables([self.table, new.table]), new.left_out, new.unindexed)

    def parts(self) -> Iterator[Part]:
        """Yield the parts, in order."""
        return parts_of(self.table)

    def of_shards(self, urls: set[str]) -> Plan:
        """Return the plan of the shards with these URLs only."""
        keep = [url in urls for url in self.table["url"].to_pylist()]
        left_out = [item for item in self.left_out if item.place in urls]
        return Plan(self.table.filter(pa.array(keep, pa.bool_())), left_out, self.unindexed)

    def since(self, before: Plan) -> Plan:
        """Return the parts that an earlier plan lacks."""
        return self.without(set(before.table["id"].to_pylist()))

    def between(self, start: int, stop: int) -> list[Part]:
        """Return the parts of the rows from `start` to `stop`, `stop` excluded."""
        return list(parts_of(self.table.slice(start, stop - start)))

    def to_bytes(self) -> bytes:
        """Return the bytes of `plan.parquet`; all else is in its metadata, so that one write freezes the whole plan."""
        metadata = {"left_out": json.dumps([item.to_json() for item in self.left_out])} if self.left_out else {}
        if self.unindexed:
            metadata["unindexed"] = json.dumps(self.unindexed.to_json())
        table = self.table if self._has_metadata else self.table.cast(_WITHOUT_METADATA)
        return to_parquet(table.replace_schema_metadata(metadata or None))

    @staticmethod
    def from_bytes(data: bytes) -> Plan:
        """Parse `plan.parquet`.

        Raises:
            pa.ArrowException, LookupError, TypeError, ValueError: the bytes are no plan.
        """
        table = read_table(data)
        metadata = table.schema.metadata or {}
        left_out = [LeftOut.from_json(item) for item in json.loads(metadata.get(b"left_out", b"[]"))]
        unindexed = json.loads(metadata.get(b"unindexed", b"null"))
        table = table.select(PLAN_SCHEMA.names).replace_schema_metadata(None)
        _check_names(table.schema.field("members").type, PLAN_SCHEMA.field("members").type)
        table = table.cast(PLAN_SCHEMA)
        _check(table)
        return Plan(table, left_out, Unindexed.from_json(unindexed) if unindexed else None)


def _check_names(found: pa.DataType, known: pa.DataType) -> None:
    """Raise ValueError if a field within `found` is not in `known`: a cast would leave it out without a word."""
    if pa.types.is_list(found) and pa.types.is_list(known):
        _check_names(found.value_type, known.value_type)
    elif pa.types.is_struct(found) and pa.types.is_struct(known):
        for field in found:
            if known.get_field_index(field.name) < 0:
                raise ValueError(f"an unknown field {field.name}")
            _check_names(field.type, known.field(field.name).type)


def _check(table: pa.Table) -> None:
    """Raise ValueError if a table is none of a plan: a value is missing, or ranges and members do not agree."""
    table.validate(full=True)  # that text is text, too
    members = table["members"]
    images = pc.struct_field(pc.list_flatten(members), ["image"])
    spans = [pc.struct_field(images, [name]) for name in _SPAN.names]
    needed = [*table.columns, pc.struct_field(pc.list_flatten(members), ["id"]), images, *spans]
    if any(column.null_count for column in needed):
        raise ValueError("a value is missing")
    lengths, held = pc.subtract(table["stop"], table["start"]), pc.list_value_length(members)
    fits = pc.or_(pc.equal(held, 0), pc.equal(pc.cast(held, pa.int64()), lengths))
    if not pc.all(pc.and_(fits, pc.greater(lengths, 0)), min_count=0).as_py():
        raise ValueError("a part of other images than it says")
    if any(pc.any(pc.match_substring_regex(table[name], r"/|^\.*$")).as_py() for name in ("id", "shard")):
        raise ValueError("a name that leads elsewhere")
    if pc.count_distinct(table["id"]).as_py() != len(table):
        raise ValueError("a part is planned twice")


def parts_of(table: pa.Table) -> Iterator[Part]:
    """Yield the parts of a slice of the plan's table."""
    for batch in table.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            yield Part(**{**row, "members": tuple(_member(member) for member in row["members"])})


def _to_plain(value: Any) -> Any:
    if isinstance(value, str | int):
        return value
    return [_member_to_plain(member) for member in value]


def _member_to_plain(member: Member) -> dict[str, Any]:
    spans = {name: _span_to_plain(getattr(member, name)) for name in ("image", "label", "meta_span")}
    return {"id": member.id, "meta": list(member.meta) or None, **spans}


def _span_to_plain(span: Span | None) -> dict[str, Any] | None:
    return None if span is None else {name: getattr(span, name) for name in _SPAN.names}


def _member(row: Mapping[str, Any]) -> Member:
    label, meta_span = (Span(**row[name]) if row[name] else None for name in ("label", "meta_span"))
    return Member(row["id"], Span(**row["image"]), label, tuple(row["meta"] or ()), meta_span)
