"""Checks of the rows of a masks file against the planned part."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segment.inputs.parts import Part, image_uri
from segment.models.sessions import MIXED
from segment.models.sessions.runtimes import PRECISIONS
from segment.output.mask_columns import NO_COLUMNS, ExtraColumns, masks_schema
from segment.output.tables import footer_of
from segment.store.names import count, shown

_LONGEST = 80  # characters of a foreign value in a message


def wrong_rows(
    table: pa.Table,
    part: Part,
    fingerprint: str,
    *,
    ids: Sequence[str] | None = None,
    deep: bool = False,
    extra: ExtraColumns = NO_COLUMNS,
) -> Iterator[tuple[str, str]]:
    """Yield the faults of a masks file: the kind, as in "10 more KIND", and words that follow the file name.

    Args:
        table: the rows, with the file's metadata; all columns if `deep`, else all but the masks.
        ids: ids of the part's images in the input, if the plan does not hold them.
        deep: check the schema, too.
        extra: columns of the run beside those of every run.
    """
    footer = footer_of(table)
    planned = table["index"].to_pylist() == list(range(part.start, part.stop))
    if not planned:
        words = f"holds {len(table)} rows that are not the planned images {part.start} to {part.stop - 1}"
        yield "masks files of other rows than planned", words
    if footer.get("part") != part.id or footer.get("rows") != len(table):
        words = f"has the footer of part {_brief(footer.get('part'))} with {_brief(footer.get('rows'))} rows"
        yield "masks files of another part by their footer", words
    if footer.get("fingerprint") != fingerprint:
        yield "masks files of another run", "was written by another run (fingerprint)"
    if planned and (wrong := _wrong_image(table, part, ids)):
        yield "masks files that name other images than planned", wrong
    if deep and not table.schema.equals(masks_schema(extra)):
        yield "masks files of other columns", "has other columns than this version writes"


def wrong_footer(table: pa.Table, contract: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield kind and words if the footer of a whole masks file does not go with its rows, or with its run's contract.

    Part, rows and fingerprint are `wrong_rows`' concern.
    """
    footer = footer_of(table)
    files = [path for path in pc.struct_field(table["mask"], ["path"]).to_pylist() if path]
    is_mixed = contract["runtime"]["precision"] == MIXED
    right = {
        "format": footer.get("format") == contract.get("format", footer.get("format")),
        "files": footer.get("files", files) == files,  # earlier versions wrote none
        "precision": footer.get("precision") in (PRECISIONS if is_mixed else (None,)),
    }
    for key in (key for key, is_right in right.items() if not is_right):
        yield "masks files of another footer than their rows", f"has a footer whose '{key}' is not that of its rows"


def repeated_ids(part: Part, table: pa.Table, seen: set[str]) -> Iterator[tuple[str, str]]:
    """Yield kind and words if ids of a Parquet shard are repeated; `seen` collects the ids of the shard."""
    twice = []
    errors = table["error"].to_pylist() if not part.members else []  # the plan holds the ids of members
    for name, error in zip(table["id"].to_pylist(), errors, strict=False):
        if name in seen and not (error or "").startswith("duplicate_id:"):
            twice.append(name)
        seen.add(name)
    if twice:
        words = f"repeats {count(len(twice), 'id')} of its shard, e.g. '{shown(twice[0])}'"
        yield "masks files that repeat ids of their shard", words


def _wrong_image(table: pa.Table, part: Part, ids: Sequence[str] | None) -> str | None:
    """Describe the first row that is not of the planned image; None if there is none."""
    for name, value in (("shard", part.shard), ("part", part.id)):
        if set(table[name].to_pylist()) - {value}:
            return f"has rows of another {name}"
    found = list(zip(table["id"].to_pylist(), table["uri"].to_pylist(), strict=True))
    if part.members:
        expected = [(member.id, image_uri(part, member.id, member.image)) for member in part.members]
    else:
        expected = [(name, image_uri(part, name)) for name in ids or [name for name, _ in found]]
    for index, (row, planned) in enumerate(zip(found, expected, strict=True), part.start):
        if row[0] != planned[0]:
            return f"names image {index} '{shown(row[0])}', planned is '{shown(planned[0])}'"
        if row[1] != planned[1]:
            return f"gives image {index} the URI {shown(row[1])}, planned is {shown(planned[1])}"
    return None


def _brief(value: object) -> str:
    """Return a value of a footer, which may be of any kind and size, for a message."""
    return shown(str(value)[:_LONGEST])
