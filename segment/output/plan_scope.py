"""Hold the places that a plan names against what its run may read: a plan is data, and may have been changed."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from segment.inputs.parts import REPEATED, UNKNOWN
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.store.names import count, examples, shown
from segment.store.scope import OUTSIDE, Scope


def places_outside(plan: Plan, scope: Scope) -> list[str]:
    """Return the folders of objects that a plan is to read and `scope` does not allow, with a final slash.

    Folders are checked, not each of millions of objects; every object is checked by itself when it is read.
    """
    members = pc.list_flatten(plan.table["members"])
    columns = [plan.table.filter(pc.field("format") != "files")["url"]]
    for name in ("image", "label"):
        spans = pc.struct_field(members, [name])
        sizes, urls = (pc.struct_field(spans, [field]) for field in ("size", "url"))
        is_read = pc.or_(pc.greater_equal(sizes, UNKNOWN), pc.equal(sizes, REPEATED))  # others are faults
        columns.append(urls.filter(pc.and_(is_read, pc.not_equal(urls, "")), null_selection_behavior="drop"))
    folders: set[str] = set()
    for column in columns:
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            folders.update(pc.unique(pc.replace_substring_regex(chunk, "[^/]*$", "")).to_pylist())
    return sorted(folder for folder in folders if not scope.allows(f"{folder}x"))


def outside_of_run(plan: Plan, ledger: Ledger) -> str:
    """Return what a plan names outside of the scope of its run, in words; `""` if nothing."""
    places = places_outside(plan, ledger.store.scope or Scope())
    if not places:
        return ""
    return f"{shown(ledger.url('plan.parquet'))} names {count(len(places), 'folder')} {OUTSIDE}, {examples(places)}"
