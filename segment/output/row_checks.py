"""What is wrong with the rows of a masks file, held against the part that was planned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from segment.inputs.discover import Part, image_uri
from segment.output.tables import MASKS_SCHEMA, footer_of
from segment.store.names import count, shown


def wrong_rows(
    table: pa.Table, part: Part, fingerprint: str, *, ids: Sequence[str] | None = None, deep: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong: its kind, as in "10 more KIND", and how it is told of the file.

    Args:
        table: rows of the file with its own words in the metadata; all columns if `deep`, else all but the masks.
        part: as planned.
        fingerprint: of the run.
        ids: of the part's images as they are in the input, where the plan does not know them.
        deep: look at the columns and masks, too.
    """
    footer = footer_of(table)
    planned = table["index"].to_pylist() == list(range(part.start, part.stop))
    if not planned:
        words = f"holds {len(table)} rows that are not the planned images {part.start} to {part.stop - 1}"
        yield "masks files of other rows than planned", words
    if footer.get("part") != part.id or footer.get("rows") != len(table):
        words = f"says in its footer that it is part {footer.get('part')} of {footer.get('rows')} rows"
        yield "masks files of another part by their footer", words
    if footer.get("fingerprint") != fingerprint:
        yield "masks files of another run", "was written by another run (fingerprint)"
    if planned and (wrong := _wrong_image(table, part, ids)):
        yield "masks files that name other images than planned", wrong
    if deep and not table.schema.equals(MASKS_SCHEMA):
        yield "masks files of other columns", "has other columns than this version writes"
    if deep and _without_mask(table):
        yield "masks files without a mask", "has an image without error and without mask"


def repeated_ids(part: Part, table: pa.Table, seen: set[str]) -> Iterator[tuple[str, str]]:
    """Yield kind and words if ids of a Parquet shard come twice; `seen` are those of its parts so far, and grows."""
    twice = []
    errors = table["error"].to_pylist() if not part.members else []  # the ids of members are the plan's
    for name, error in zip(table["id"].to_pylist(), errors, strict=False):
        if name in seen and not (error or "").startswith("duplicate_id:"):
            twice.append(name)
        seen.add(name)
    if twice:
        words = f"has {count(len(twice), 'id')} of other rows of its shard, e.g. '{shown(twice[0])}'"
        yield "masks files with ids of other rows", words


def _wrong_image(table: pa.Table, part: Part, ids: Sequence[str] | None) -> str | None:
    """Return how the first row that says it is of another image than the planned one says so."""
    for name, value in (("shard", part.shard), ("part", part.id)):
        if set(table[name].to_pylist()) - {value}:
            return f"has rows that say they belong to another {name}"
    found = list(zip(table["id"].to_pylist(), table["uri"].to_pylist(), strict=True))
    if part.members:
        expected = [(member.id, image_uri(part, member.id, member.image)) for member in part.members]
    else:
        expected = [(name, image_uri(part, name)) for name in ids or [name for name, _ in found]]
    for index, (row, planned) in enumerate(zip(found, expected, strict=True), part.start):
        if row[0] != planned[0]:
            return f"names image {index} '{shown(row[0])}', planned is '{shown(planned[0])}'"
        if row[1] != planned[1]:
            return f"says of image {index} that it is at {shown(row[1])}, planned is {shown(planned[1])}"
    return None


def _without_mask(table: pa.Table) -> bool:
    masked = pc.is_valid(pc.struct_field(table["mask"].combine_chunks(), "bytes"))
    return bool(pc.any(pc.and_(pc.equal(table["status"], "ok").combine_chunks(), pc.invert(masked))).as_py())
