"""What a rerun does beyond resuming: error rows anew, and input that is new."""

from __future__ import annotations

from segment.errors import InputChanged
from segment.ledger import Ledger
from segment.parts import InputOptions, Part
from segment.plan import Plan
from segment.shards import read_part


def forget_errors(ledger: Ledger, plan: Plan, options: InputOptions) -> tuple[int, int]:
    """Take back the commit of every part that holds an error row and can still be read as planned.

    What follows from a part goes before the part does, so that a kill in between leaves a run that resumes.

    Returns:
        How many error rows will be done again, and how many are left because their input has changed.
    """
    finished = ledger.finished_shards()
    stats = ledger.shard_stats(shard for shard in plan.parts_by_shard() if shard in finished)
    again = changed = 0
    for part in plan.parts():
        if part.shard in stats and not stats[part.shard].errors:
            continue
        errors = _errors(ledger, part)
        if not errors:
            continue
        if _is_unchanged(part, options, ledger):
            ledger.reopen(part.shard, [part.id])
            again += errors
        else:
            changed += errors
    return again, changed


def _errors(ledger: Ledger, part: Part) -> int:
    try:
        rows = ledger.read_rows(part.shard, part.id, ["status"])
    except FileNotFoundError:
        return 0
    return int(rows["status"].to_pylist().count("error"))


def _is_unchanged(part: Part, options: InputOptions, ledger: Ledger) -> bool:
    """Whether a part can be read: if not, its rows are better than none."""
    try:
        read_part(part, options, ledger.store)
    except (InputChanged, FileNotFoundError):
        return False
    return True


def known_input(plan: Plan) -> dict[str, str]:
    """What a plan covers: loose images by URL, tars and Parquet files by URL with their etags."""
    known: dict[str, str] = {}
    for part in plan.parts():
        if part.format == "files":
            known |= {member.image.url: "" for member in part.members}
        else:
            known[part.url] = part.etag
    return known
