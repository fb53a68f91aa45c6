"""`--limit` and `--sample`: some of an input's images instead of all."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice

from segment.inputs.cutting import Shard, encoded_bytes, shard_hash
from segment.inputs.findings import Findings
from segment.job import InputOptions
from segment.store.urls import relative_url, without_query


def choose(shards: Sequence[Shard], options: InputOptions, base: str, findings: Findings) -> list[Shard]:
    """Return the shards with those images alone that `limit` or `sample` takes; count the others as left out.

    A sample is of the images with the lowest SHA-256 of their names: spread evenly, the same in every run and wherever
    the input lies, and little changed where the input grows. A name is the path below the input, the file's and the
    key for an image of a tar, the file's and the row's number for one of a Parquet file.

    Args:
        shards: all of the input, in its order.
        options: what is asked.
        base: URL of the folder that names are relative to.
        findings: told how many are left out.
    """
    if options.limit is None and options.sample is None:
        return list(shards)
    places = ((number, position) for number, shard in enumerate(shards) for position in range(shard.images))
    if options.limit is not None:
        taken = list(islice(places, options.limit))
    else:
        ranked = zip(_ranks(shards, base), places, strict=True)
        taken = sorted(place for _, place in heapq.nsmallest(options.sample or 0, ranked))
    left = sum(shard.images for shard in shards) - len(taken)
    findings.omit("beyond_limit" if options.limit is not None else "not_sampled", left)
    return [
        _reduced(shards[number], [position for _, position in group])
        for number, group in groupby(taken, key=lambda place: place[0])
    ]


def _ranks(shards: Sequence[Shard], base: str) -> Iterator[bytes]:
    """Digests by which images are sampled, in the input's order."""
    for shard in shards:
        place = "" if shard.format == "files" else relative_url(without_query(shard.url), base)
        names = (member.id for member in shard.members) if shard.members else map(str, range(shard.images))
        for name in names:
            yield hashlib.sha256(f"{place}\n{name}".encode()).digest()


def _reduced(shard: Shard, positions: Sequence[int]) -> Shard:
    """A shard with only the images at some positions; of a Parquet file these stay the rows' numbers."""
    if len(positions) == shard.images:
        return shard
    if not shard.members:
        return replace(shard, runs=list(_rows(shard, positions)))
    members = [shard.members[position] for position in positions]
    size = sum(map(encoded_bytes, members)) if shard.format == "files" else shard.size
    # its images are numbered anew, so that its parts must not have the names of the whole shard's
    name = shard_hash(shard.hash, *positions)
    return replace(shard, hash=name, size=size, members=members, runs=[(-1, 0, len(members), 0)])


def _rows(shard: Shard, positions: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Runs of consecutive rows, none of them across row groups."""
    taken = iter(positions)
    position = next(taken, None)
    for row_group, start, images, image_bytes in shard.runs:
        first = position
        while position is not None and position < start + images:
            following = next(taken, None)
            if following != position + 1 or following == start + images:
                assert first is not None
                yield row_group, first, position + 1 - first, image_bytes
                first = following
            position = following
