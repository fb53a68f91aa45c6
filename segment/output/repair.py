"""What a rerun does beyond resuming: error rows anew, damaged parts anew, input that is new or has been replaced."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from segment.errors import InputChanged, SegmentError, StoreError
from segment.inputs.discover import Discovery, Known, read_part
from segment.inputs.parts import Part
from segment.job import InputOptions
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.store.names import count


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


def follow_input(ledger: Ledger, plan: Plan, known: Known, found: Discovery) -> Plan:
    """Bring a plan up to date: parts whose input was replaced are planned anew, what is new is added.

    What follows from a part goes first, then the part, then its line in the plan: a kill in between leaves a run that
    the next update brings to its end.
    """
    stale: dict[str, list[str]] = {}
    for shard, parts in plan.parts_by_shard().items() if known.stale else ():
        if held := [part for part in parts if part in known.stale]:
            stale[shard] = held
    for shard, parts in stale.items():
        ledger.reopen(shard, parts)
    kept = [item for item in plan.left_out if item.place and item.place not in known.planned_anew]
    new = Plan.of(found.parts, [*kept, *found.left_out])
    if found.parts or stale:
        return ledger.extend_plan(plan.without(known.stale), new)
    return plan if new.left_out == plan.left_out else ledger.recount(plan, new.left_out)


def changes(known: Known, found: Discovery) -> Iterator[str]:
    """Say what has become of the input since it was planned, a line each."""
    new = known.new + sum(len(part) for part in found.parts if part.url in known.new_objects)
    yield f"new in the input: {count(new, 'image')}"
    if known.replaced:
        parts = count(len(known.stale), "part")
        yield f"replaced in the input: {count(known.replaced, 'image')}, done again with {parts}"
    if known.renamed:
        yield f"another id in the input: {count(known.renamed, 'image')}; the planned ids stay"
    if known.gone:
        fate = "what is committed of them stays"
        if known.dropped:
            fate += f", but for {known.dropped} in parts that are done again"
        yield f"gone from the input: {count(known.gone, 'image')}; {fate}"
