"""`--limit` and `--sample`: select some of the images of an input."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice

from segment.inputs.findings import Findings
from segment.inputs.shards import Shard, encoded_bytes, shard_hash
from segment.job import InputOptions
from segment.store.urls import relative_url, without_query


def select_images(
    shards: Iterable[Shard], options: InputOptions, base: str, findings: Findings, *, whole: bool = True
) -> Iterable[Shard]:
    """Return the shards with only the images that `limit` or `sample` selects; count the others as left out.

    A sample consists of the images whose names have the lowest SHA-256. It is evenly spread, it is the same in every
    run and wherever the input is stored, and it changes little when the input grows. The name of a loose image is its
    path below the input. For tars it is the path of the tar and the key; for Parquet the path of the file and the row
    number.

    Args:
        shards: the input, in order.
        options: `limit` and `sample`; with neither all images are selected.
        base: URL of the folder that names are relative to.
        findings: counts the images that are left out.
        whole: whether `shards` is the whole input.
    """
    if options.limit is None and options.sample is None:
        return shards
    places = ((number, position) for number, shard in enumerate(shards) for position in range(shard.images))
    if options.limit is not None:
        taken = list(islice(places, options.limit))
    else:
        ranked = zip(_ranks(shards, base), places, strict=True)
        taken = sorted(place for _, place in heapq.nsmallest(options.sample or 0, ranked))
    left = sum(shard.images for shard in shards) - len(taken)
    findings.omit("beyond_limit" if options.limit is not None else "not_sampled", left, exact=whole)
    chosen = {number: [at for _, at in group] for number, group in groupby(taken, key=lambda place: place[0])}
    return [_reduced(shard, chosen[number]) for number, shard in enumerate(shards) if number in chosen]


def _ranks(shards: Iterable[Shard], base: str) -> Iterator[bytes]:
    """Yield the digest of each image's name, in the input's order."""
    for shard in shards:
        place = "" if shard.format == "files" else relative_url(without_query(shard.url), base)
        names = (member.id for member in shard.members) if shard.members else map(str, range(shard.images))
        for name in names:
            yield hashlib.sha256(f"{place}\n{name}".encode()).digest()


def _reduced(shard: Shard, positions: Sequence[int]) -> Shard:
    """Return a shard with only the images at `positions`. Rows of a Parquet file keep their row numbers."""
    if len(positions) == shard.images:
        return shard
    if not shard.members:
        return replace(shard, runs=list(_rows(shard, positions)))
    members = [shard.members[position] for position in positions]
    size = sum(map(encoded_bytes, members)) if shard.format == "files" else shard.size
    # Positions are numbered anew, so part ids must differ from those of the whole shard.
    name = shard_hash(shard.hash, *positions)
    return replace(shard, hash=name, size=size, members=members, runs=[(-1, 0, len(members), 0)])


def _rows(shard: Shard, positions: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield runs of consecutive rows; none crosses a row group."""
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
