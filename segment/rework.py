"""What a rerun does beyond resuming: error rows anew, damaged parts anew, and input that is new."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from segment.errors import InputChanged, SegmentError, StoreError
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


def verify(ledger: Ledger, plan: Plan, fingerprint: str) -> int:
    """Take back the commit of every part whose masks file is damaged, cut off, lost or of another run.

    By the ends of the files alone, where part id, rows and fingerprint are: one small request each. Statistics that
    cannot be read or count other images than planned go too. A flipped bit of a mask is not seen (`audit --deep` does).

    Returns:
        How many parts will be done again.
    """
    listed, finished = ledger.listed_parts(), ledger.finished_shards()
    ranges = zip(*(plan.table[name].to_pylist() for name in ("shard", "id", "start", "stop")), strict=True)

    def is_sound(planned: tuple[str, str, int, int]) -> bool:
        shard, part, start, stop = planned
        if (shard, part) not in listed:
            return shard not in finished  # else it is simply not done yet
        said = {"part": part, "fingerprint": fingerprint, "rows": stop - start, "held": stop - start}
        try:
            return said.items() <= ledger.read_footer(shard, part, listed[shard, part]).items()
        except StoreError:
            raise
        except SegmentError:
            return False

    planned = list(ranges)
    with ThreadPoolExecutor(16, thread_name_prefix="verify") as pool:
        sound = list(pool.map(is_sound, planned))
    again = [(shard, part) for (shard, part, _, _), good in zip(planned, sound, strict=True) if not good]
    for shard, part in again:
        ledger.reopen(shard, [part])
    for shard, images in plan.images_by_shard().items():
        if shard in finished and not _counts(ledger, shard, images):
            ledger.reopen(shard, [])
    return len(again)


def _counts(ledger: Ledger, shard: str, images: int) -> bool:
    try:
        return ledger.shard_stats([shard])[shard].images == images
    except FileNotFoundError:
        return True  # taken back with a part
    except StoreError:
        raise
    except SegmentError:
        return False


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
