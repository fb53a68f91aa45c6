"""What a rerun does beyond resuming: error rows anew, and input that is new."""

from __future__ import annotations

from segment.ledger import Ledger
from segment.plan import Plan
from segment.tables import read_masks


def forget_errors(ledger: Ledger, plan: Plan) -> int:
    """Take back the commit of every part that holds an error row. Returns the number of such rows.

    Everything that follows from a part goes before the part does, so that a kill in between leaves a run that
    resumes.
    """
    parts = plan.parts_by_shard()
    finished = ledger.finished_shards()
    stats = ledger.shard_stats(shard for shard in parts if shard in finished)
    forgotten = 0
    for shard in parts:
        if shard in stats and not stats[shard].errors:
            continue
        bad = {part: errors for part in parts[shard] if (errors := _errors(ledger, shard, part))}
        if bad:
            ledger.reopen(shard, list(bad))
            forgotten += sum(bad.values())
    return forgotten


def _errors(ledger: Ledger, shard: str, part: str) -> int:
    try:
        with ledger.store.open(ledger.masks_url(shard, part), block_size=1 << 16) as file:
            return int(read_masks(file, ["status"])["status"].to_pylist().count("error"))
    except FileNotFoundError:
        return 0


def known_input(plan: Plan) -> dict[str, str]:
    """What a plan covers: loose images by URL, tars and Parquet files by URL with their etags."""
    known: dict[str, str] = {}
    for part in plan.parts():
        if part.format == "files":
            known |= {member.image.url: "" for member in part.members}
        else:
            known[part.url] = part.etag
    return known
