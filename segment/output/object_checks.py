"""Checks of what is listed below an output against its plan and its manifest; no object is read."""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from segment.output.faults import Fault, Faults
from segment.output.ledger import Ledger
from segment.output.manifest import FIGURES, masks_path, planned_names, stats_path
from segment.output.mask_files import masks_file_of
from segment.output.plan import Plan
from segment.store.client import Entry
from segment.store.local_files import is_link
from segment.store.names import count, shown

AGAIN = "run the same `segment run` again"
VERIFY = f"{AGAIN} with --verify"
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Objects:
    """The result of the listings.

    Attributes:
        committed: bytes by id of the committed parts.
        finished: shards with statistics.
        unfinished: the work that is left, in one line; None if there is none.
        entries: what was listed, by path below the output.
    """

    committed: dict[str, int]
    finished: list[str]
    unfinished: str | None
    entries: Mapping[str, Entry]


def check_objects(ledger: Ledger, plan: Plan, faults: Faults) -> Objects:
    """Compare the listings of `masks/` and `stats/` with the plan: all that is planned is there, and nothing else."""
    listed = ledger.entries("masks", irregular=True) | ledger.entries("stats", irregular=True)
    entries = {path: entry for path, entry in listed.items() if not entry.irregular}
    planned = set(planned_names(plan))
    images = plan.images_by_shard()
    finished = [shard for shard in images if stats_path(shard) in entries]
    committed: dict[str, int] = {}
    undone = 0
    columns = (plan.table[name].to_pylist() for name in ("shard", "id", "start", "stop"))
    with_statistics = set(finished)
    for shard, part, start, stop in zip(*columns, strict=True):
        path = masks_path(shard, part)
        entry = entries.get(path)
        if entry is not None:
            committed[part] = entry.size
        elif shard in with_statistics:
            line = f"{path} was committed and has been lost: {AGAIN}"
            faults.add_of(shard, part, [Fault("committed parts that have been lost", line)])
        else:
            undone += stop - start
    if not plan.unindexed:  # else what is not planned here may be planned by now
        faults.add(_strangers(ledger, plan, planned, listed))
    unfinished = None
    if plan.unindexed:
        unfinished = f"{count(plan.tars_left, 'tar is', 'tars are')} not indexed yet: {AGAIN}"
    elif undone:
        unfinished = f"{undone:,} of {plan.images:,} images not done yet: {AGAIN}"
    elif uncounted := len(images) - len(finished):
        unfinished = f"{count(uncounted, 'shard has', 'shards have')} no statistics yet: {AGAIN}"
    return Objects(committed, finished, unfinished, entries)


def _strangers(ledger: Ledger, plan: Plan, planned: set[str], listed: Mapping[str, Entry]) -> Iterator[Fault]:
    """Yield a fault for each object in no plan; one for all in a folder that is in a file's place, or behind a link.

    A link may lead to anybody's folder.
    """
    own = {".", "masks", "stats", *(f"masks/{shard}" for shard in plan.parts_by_shard())}
    named: set[str] = set()
    for path in sorted(listed.keys() - planned):
        if masks_file_of(path) and not listed[path].irregular:  # rows point to these, not the plan
            continue
        found, words = path, "is in no plan: delete it"
        for folder in (str(folder) for folder in PurePosixPath(path).parents if str(folder) not in own):
            if (folder in planned or masks_file_of(folder)) and folder not in listed:
                found, words = folder, "is a folder, and a file is expected: delete it"
            elif is_link(ledger.url(folder)):
                found, words = folder, "is a link to a folder, and in no plan: delete the link, not its target"
        if found not in named:
            named.add(found)
            yield Fault(f"objects under {path.split('/')[0]}/ that are in no plan", f"{shown(found)} {words}")


def wrong_sizes(ledger: Ledger, plan: Plan, objects: Objects) -> Iterator[tuple[str, str, Fault]]:
    """Compare sizes with what is known of the objects, and ETags where the store's are MD5s; find lost mask files.

    Yields:
        Shard, part (`""` for statistics) and fault.
    """
    compared = [
        (known, objects.entries[known.path]) for known in ledger.digests.objects() if known.path in objects.entries
    ]
    has_md5s = any(entry.etag == known.md5.hex() for known, entry in compared)  # not with some kinds of encryption
    owners = functools.cache(lambda: _owners(plan))  # of use for faults alone
    for path in sorted(item.path for item in ledger.digests.objects() if item.path not in objects.entries):
        if owner := owners().get(masks_file_of(path) or ""):
            yield *owner, Fault("mask files that have been lost", f"{shown(path)} has been lost: {VERIFY}")
    for known, entry in compared:
        if entry.size not in (known.size, -1):
            words = f"has {entry.size:,} bytes, and was written with {known.size:,}"
        elif has_md5s and _MD5.fullmatch(entry.etag) and entry.etag != known.md5.hex():
            words = "is not the object that was written (ETag)"
        else:
            continue
        fault = Fault("objects of another size or ETag", f"{shown(known.path)} {words}: {VERIFY}")
        yield *owners().get(masks_file_of(known.path) or known.path, ("", "")), fault


def check_manifest(ledger: Ledger, plan: Plan, objects: Objects, faults: Faults) -> None:
    """Compare what is planned and listed with the manifest, which lists all of a complete run."""
    planned = set(planned_names(plan))
    listed = {**objects.entries, **ledger.entries("report")}
    known = {item.path for item in ledger.digests.objects()}
    for path in sorted(known):
        name = masks_file_of(path) or path
        if name not in planned:
            what = f"{shown(path)} is in manifest.parquet and in no plan"
            remedy = f"restore plan.parquet, or delete it and {AGAIN}"
            faults.add([Fault("objects of the manifest that are in no plan", f"{what}: {remedy}")])
        elif path not in listed and path in FIGURES:  # other lost objects are missed by the plan
            faults.add([Fault("figures that have been lost", f"{path} has been lost: {AGAIN}")])
    for path in sorted((objects.entries.keys() | (listed.keys() & set(FIGURES))) - known):
        if path in planned:
            line = f"{shown(path)} is not in manifest.parquet: {VERIFY}"
            faults.add([Fault("objects that are not in the manifest", line)])
        elif masks_file_of(path):
            faults.add([Fault("mask files to which no row points", f"no row points to {shown(path)}: delete it")])


def _owners(plan: Plan) -> dict[str, tuple[str, str]]:
    """Return shard and part, or `""`, by the path of masks files and statistics."""
    shards = plan.parts_by_shard()
    owners = {masks_path(shard, part): (shard, part) for shard, parts in shards.items() for part in parts}
    return owners | {stats_path(shard): (shard, "") for shard in shards}
