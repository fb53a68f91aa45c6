"""Hold the places that a plan names against what its run may read: a plan is data, and may have been changed."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from segment.inputs.parts import REPEATED, UNKNOWN
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.store.names import count, examples, shown
from segment.store.scope import OUTSIDE, Scope

_MOST_KEPT = 100_000  # folders that are known to be allowed


def places_outside(plan: Plan, scope: Scope) -> list[str]:
    """Return the folders of objects that a plan is to read and `scope` does not allow, with a final slash.

    Folders are checked, not each of millions of objects; every object is checked by itself when it is read.
    """
    allowed, refused = set[str](), set[str]()
    for rows in plan.each_rows():
        for urls in _urls(rows):
            found = set(pc.unique(pc.replace_substring_regex(urls, "[^/]*$", "")).to_pylist()) - allowed
            refused |= {folder for folder in found if not scope.allows(f"{folder}x")}
            allowed = (allowed if len(allowed) < _MOST_KEPT else set()) | found - refused
    return sorted(refused)


def _urls(rows: pa.Table) -> Iterator[pa.ChunkedArray]:
    yield rows.filter(pc.field("format") != "files")["url"]
    members = pc.list_flatten(rows["members"])
    for name in ("image", "label"):
        spans = pc.struct_field(members, [name])
        sizes, urls = (pc.struct_field(spans, [field]) for field in ("size", "url"))
        is_read = pc.or_(pc.greater_equal(sizes, UNKNOWN), pc.equal(sizes, REPEATED))  # others are faults
        yield urls.filter(pc.and_(is_read, pc.not_equal(urls, "")), null_selection_behavior="drop")


def outside_of_run(plan: Plan, ledger: Ledger) -> str:
    """Return what a plan names outside of the scope of its run, in words; `""` if nothing."""
    places = places_outside(plan, ledger.store.scope or Scope())
    if not places:
        return ""
    return f"{shown(ledger.url('plan.parquet'))} names {count(len(places), 'folder')} {OUTSIDE}, {examples(places)}"
