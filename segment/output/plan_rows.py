"""The rows of a plan, one for each part: their schema, and parts made of them."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from segment.inputs.parts import Part
from segment.output.part_members import AT_ONCE, MEMBER, MEMBERS, members_array, members_of

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
        ("members", MEMBERS),
    ]
)
WITHOUT_METADATA = PLAN_SCHEMA.set(len(PLAN_SCHEMA) - 1, pa.field("members", pa.list_(MEMBER)))  # as most are stored
COLUMNS = PLAN_SCHEMA.names[:-1]


def checked_rows(table: pa.Table) -> pa.Table:
    """Return rows of a stored plan as those of `PLAN_SCHEMA`; raises as `Plan.read`."""
    table = table.select(PLAN_SCHEMA.names).replace_schema_metadata(None)
    _check_names(table.schema.field("members").type, PLAN_SCHEMA.field("members").type)
    table = table.cast(PLAN_SCHEMA)
    _check(table)
    return table


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
    spans = [pc.struct_field(images, [field.name]) for field in images.type]
    needed = [*table.columns, pc.struct_field(pc.list_flatten(members), ["id"]), images, *spans]
    if any(column.null_count for column in needed):
        raise ValueError("a value is missing")
    lengths = pc.subtract(table["stop"], table["start"])
    held = pc.if_else(pc.equal(table["format"], "parquet"), 0, lengths)
    fits = pc.and_(pc.equal(pc.cast(pc.list_value_length(members), pa.int64()), held), pc.greater(lengths, 0))
    if not pc.all(pc.and_(fits, pc.greater_equal(table["start"], 0)), min_count=0).as_py():
        raise ValueError("a part of other images than it says")
    if any(pc.any(pc.match_substring_regex(table[name], r"/|^\.*$")).as_py() for name in ("id", "shard")):
        raise ValueError("a name that leads elsewhere")


def parts_of(rows: pa.Table) -> Iterator[Part]:
    """Yield the parts of rows of a plan."""
    for batch in rows.to_batches(max_chunksize=AT_ONCE):
        columns = (batch[name].to_pylist() for name in COLUMNS)
        for *values, members in zip(*columns, members_of(batch["members"]), strict=True):
            yield Part(**dict(zip(COLUMNS, values, strict=True)), members=members)


def rows_of(parts: Sequence[Part]) -> pa.Table:
    columns = [pa.array([getattr(part, name) for part in parts], PLAN_SCHEMA.field(name).type) for name in COLUMNS]
    return pa.table([*columns, members_array([part.members for part in parts])], PLAN_SCHEMA)
