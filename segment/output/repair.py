"""Repairs of an existing run: reopen parts with error rows or damage, and update the plan to a changed input.

A reopened part is no longer committed, so the next round computes it again. Each change is ordered such that a run
killed in between can be resumed.
"""

from collections.abc import Iterator

import pyarrow.compute as pc

from segment.errors import InputChanged
from segment.inputs.changes import Known
from segment.inputs.discovery import Discovery
from segment.inputs.parts import Part
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.store.names import count


def reopen_errors(ledger: Ledger, plan: Plan, options: InputOptions) -> tuple[int, int]:
    """Reopen every part that holds error rows and whose input is unchanged (`--retry-errors`).

    Returns:
        The number of error rows in reopened parts, and in parts that stay because their input has changed.
    """
    finished = ledger.finished_shards()
    stats = ledger.shard_stats(shard for shard in plan.parts_by_shard() if shard in finished)
    reopened = changed = 0
    for part in plan.parts():
        if part.shard in stats and not stats[part.shard].errors:
            continue
        errors = _errors(ledger, part)
        if not errors:
            continue
        if _is_unchanged(part, options, ledger):
            ledger.reopen(part.shard, [part.id])
            reopened += errors
        else:
            changed += errors
    return reopened, changed


def reopen_damaged(ledger: Ledger) -> int:
    """Reopen every part in which a deep audit finds a fault, or that is lost (`--verify`).

    Statistics with a fault are deleted, to be summed again. What is in no plan stays.

    Returns:
        The number of reopened parts.
    """
    found = audit_run(ledger, deep=True)
    for shard, part in found.damaged:
        ledger.reopen(shard, [part])
    for shard in found.miscounted:
        ledger.reopen(shard, [])
    return len(found.damaged)


def _errors(ledger: Ledger, part: Part) -> int:
    """Return the number of error rows of a part; 0 if it is not committed."""
    try:
        rows = ledger.read_rows(part.shard, part.id, ["status"], rows=len(part))
    except FileNotFoundError:
        return 0
    return int(pc.sum(pc.equal(rows["status"], "error"), min_count=0).as_py())


def _is_unchanged(part: Part, options: InputOptions, ledger: Ledger) -> bool:
    """Return whether the input of a part can be read as planned; otherwise its old rows are better than none."""
    try:
        read_part(part, options, ledger.store, windowed=True)
    except (InputChanged, FileNotFoundError):
        return False
    return True


def follow_input(ledger: Ledger, plan: Plan, known: Known, found: Discovery) -> Plan:
    """Update a plan to the current input (`--update`): plan replaced input again and add new input.

    The statistics that depend on a part are deleted first, then the part, then its row of the plan, so that another
    update can finish one that was killed.

    Args:
        known: the planned input, compared with the current one by `found`.
        found: the parts of new and replaced input.

    Returns:
        The frozen plan.
    """
    stale: dict[str, list[str]] = {}
    for shard, parts in plan.parts_by_shard().items() if known.stale else ():
        if held := [part for part in parts if part in known.stale]:
            stale[shard] = held
    for shard, parts in stale.items():
        ledger.reopen(shard, parts)
    kept = [item for item in plan.left_out if item.place and item.place not in known.planned_anew]
    new = Plan.of(found.each_part, [*kept, *found.left_out])
    if len(new) or stale or plan.unindexed:  # whose tars are all planned now, or gone
        ledger.remove_success()
        return ledger.replace_plan(plan.without(known.stale).extended_by(new))
    if new.left_out == plan.left_out:
        return plan
    ledger.remove_success()  # which names the plan by its digest
    return ledger.replace_plan(plan.with_left_out(new.left_out))


def changes(known: Known, found: Discovery) -> Iterator[str]:
    """Yield a line for each kind of change of the input since it was planned."""
    new = known.new + sum(len(part) for part in found.each_part if part.url in known.new_objects)
    yield f"new in the input: {count(new, 'image')}"
    if known.replaced:
        parts = count(len(known.stale), "part")
        yield f"replaced in the input: {count(known.replaced, 'image')}, done again with {parts}"
    if known.renamed:
        yield f"another id in the input: {count(known.renamed, 'image')}; the planned ids stay"
    if known.gone:
        fate = "their committed rows stay"
        if known.dropped:
            fate += f", except for {known.dropped} in parts that are done again"
        yield f"gone from the input: {count(known.gone, 'image')}; {fate}"
