"""Index the tars of an input in instalments, so that its first images are segmented before its last tar is indexed.

A tar has to be read nearly whole to know its members. The first tars decide what holds for all: where keys end, and how
many images a part has. Which tars these are follows from the listing alone, and what the others add to the plan does
not depend on how many are indexed at once, so the whole plan is always the same.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from segment.errors import UsageError, input_changed
from segment.inputs.discovery import Discovery, Unindexed
from segment.inputs.findings import Findings
from segment.inputs.lookup import in_threads
from segment.inputs.shards import Planned, auto_part_size, counted, cut, mark_repeated
from segment.inputs.tars.archive import Archive, read_headers
from segment.inputs.tars.webdataset import plan_archives, refuse_same_keys
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.names import shown

FIRST_BYTES = 256 << 20  # of the tars that are indexed first
WHOLE_BYTES = 2 << 30  # an input of fewer bytes is indexed at once

A = TypeVar("A")
B = TypeVar("B")


class Spread(Protocol):
    """Calls a function for many items, at once where that is possible; `segment.inputs.lookup.in_threads` is one."""

    def __call__(self, function: Callable[[A], B], items: Sequence[A], /) -> list[B]:
        """Return `[function(item) for item in items]`."""
        ...


def plan_first_tars(entries: Sequence[Entry], options: InputOptions, store: Store, findings: Findings) -> Planned:
    """Plan the first tars of an input: those of `FIRST_BYTES`, and with `limit` as many as hold these images.

    Where they hold no image, or not what an option names, more are indexed before that is an error.

    Raises:
        UsageError: as `plan_webdataset`, of all tars.
    """
    refuse_same_keys(options)
    number, archives = _number_of_first(entries), list[Archive]()
    while True:
        archives += in_threads(partial(read_headers, store=store), entries[len(archives) : number])
        found = deepcopy(findings)
        try:
            planned = plan_archives(entries[:number], archives, options, store, found)
        except UsageError:
            if number == len(entries):
                raise
        else:
            images = sum(shard.images for shard in planned.shards)
            if number == len(entries) or images >= (options.limit or 0):
                findings.adopt(found)
                return replace(planned, not_indexed=entries[number:])
        number = min(len(entries), 2 * number)


def _number_of_first(entries: Sequence[Entry]) -> int:
    """Return how many tars to index first: all of a small input, and where the store does not tell the size of one."""
    total = sum(entry.size for entry in entries)
    if total < WHOLE_BYTES or any(entry.size < 0 for entry in entries):
        return len(entries)
    held = number = 0
    while held < FIRST_BYTES:
        held += entries[number].size
        number += 1
    return number


def unindexed_of(planned: Planned, entries: Sequence[Entry], options: InputOptions) -> Unindexed | None:
    """Return the tars that are not planned, with what the others decide for them; None if all are planned.

    Args:
        planned: the plan of the first tars.
        entries: all tars of the input.
        options: `part_size`; `auto` follows from the number of images to expect.
    """
    if not planned.not_indexed:
        return None
    total, left = (sum(entry.size for entry in tars) for tars in (entries, planned.not_indexed))
    density = sum(shard.images for shard in planned.shards) / (total - left)
    size = auto_part_size(round(density * total)) if options.part_size == "auto" else options.part_size
    return Unindexed(tuple(planned.not_indexed), planned.key_rule, size, density)


def index_more(
    unindexed: Unindexed, number: int, options: InputOptions, store: Store, alone: int | None, spread: Spread
) -> Discovery:
    """Index the next `number` tars, and cut their images into parts.

    Args:
        unindexed: the tars that are left.
        number: of tars to index.
        options, store, alone: as in `segment.inputs.discover.discover`.
        spread: where headers are read.

    Raises:
        InputChanged: a tar that was listed is gone.
        UsageError: a tar is compressed, or has too many members.
        StoreError: the store refused.
    """
    findings, store = Findings(), store.inputs
    entries = unindexed.tars[:number]
    archives = spread(partial(_listed_headers, store=store), entries)
    planned = plan_archives(entries, archives, options, store, findings, rule=unindexed.key_rule)
    shards = mark_repeated(planned.shards, findings.warnings)
    parts = list(cut(shards, options.model_copy(update={"part_size": unindexed.part_size}), alone))
    images, labelled = counted(shards)
    left = unindexed.tars[number:]
    return Discovery(
        parts,
        images,
        labelled,
        warnings=findings.warnings,
        notes=findings.notes,
        left_out=findings.left_out,
        unindexed=Unindexed(left, unindexed.key_rule, unindexed.part_size, unindexed.density) if left else None,
    )


def _listed_headers(entry: Entry, store: Store) -> Archive:
    """Read the headers of a tar that was listed earlier; the run has begun, so an error says how it goes on."""
    try:
        return read_headers(entry, store)
    except FileNotFoundError:
        raise input_changed(shown(entry.url), "has vanished") from None
    except UsageError as error:
        raise UsageError(f"{error}. Then run the same command with --update, which lists the input again") from None
