"""Shards as formats plan them: their ids, images of the same id, and how they are cut in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from segment.inputs.parts import REPEATED, Member, Part, ShardFormat
from segment.job import InputOptions
from segment.store.names import count, examples


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard before it is cut. Fields as in `Part`; `hash` is the shared start of its part ids.

    Attributes:
        runs: how it may be cut: `(row group or -1, first image, images, bytes per image)`. A part stays within one
            run. With members there is one run, and its `bytes per image` is not used.
    """

    name: str
    hash: str
    format: ShardFormat
    url: str
    size: int
    etag: str
    members: Sequence[Member]
    runs: Sequence[tuple[int, int, int, int]]

    @property
    def images(self) -> int:
        return sum(images for _, _, images, _ in self.runs)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a format has planned of an input.

    Attributes:
        shards: all of it, in order.
        labels_known: whether its members say which images have labels. Of Parquet with a label column only rows do.
        warn: to be called with the shards of which a run takes some images only, else with None; tells what of its
            images cannot be had.
    """

    shards: list[Shard]
    labels_known: bool = True
    warn: Callable[[Sequence[Shard] | None], None] = lambda _: None


def shard_hash(*identity: str | int) -> str:
    """Return 12 hexadecimal digits that follow from what identifies a shard: its URL, etag, size."""
    return hashlib.sha256("\n".join(str(part) for part in identity).encode()).hexdigest()[:12]


def auto_part_size(images: int) -> int:
    """Return the part size that `auto` means: ceil(images / 256), at least 4, at most 64."""
    return min(64, max(4, -(-images // 256)))


def cut(shards: Sequence[Shard], options: InputOptions) -> list[Part]:
    """Cut shards in parts: never across a run, by `part_size`, and by `part_bytes`."""
    size = options.part_size
    limit = auto_part_size(sum(shard.images for shard in shards)) if size == "auto" else size
    return [
        Part(
            id=f"{shard.hash}-{start:06d}-{stop:06d}",
            shard=f"{shard.name}-{shard.hash}",
            format=shard.format,
            url=shard.url,
            size=shard.size,
            etag=shard.etag,
            start=start,
            stop=stop,
            row_group=row_group,
            members=tuple(shard.members[start:stop]),
        )
        for shard in shards
        for row_group, start, stop in _ranges(shard, limit, options.part_bytes)
    ]


def _ranges(shard: Shard, limit: int, part_bytes: int) -> Iterator[tuple[int, int, int]]:
    for row_group, first, images, image_bytes in shard.runs:
        end = first + images
        while first < end:
            stop = min(end, first + limit)
            if shard.members:
                stop = first + _fitting(shard.members[first:stop], part_bytes)
            elif image_bytes:
                stop = min(stop, first + max(1, part_bytes // image_bytes))
            yield row_group, first, stop
            first = stop


def _fitting(members: Sequence[Member], part_bytes: int) -> int:
    """Return how many of `members` fit in `part_bytes`, at least one."""
    total = 0
    for position, member in enumerate(members):
        total += encoded_bytes(member)
        if total > part_bytes and position:
            return position
    return len(members)


def encoded_bytes(member: Member) -> int:
    """Return the bytes that reading a member takes, as far as known."""
    return max(0, member.image.size) + (max(0, member.label.size) if member.label else 0)


def mark_repeated(shards: Iterable[Shard], warnings: list[str]) -> list[Shard]:
    """Return shards with every image `REPEATED` whose id an earlier one of its shard has; warn of these.

    What a run does not take is to be left out before: it would be told as an error row, or make one of its twin.
    """
    marked = [replace(shard, members=list(_marked(shard.members))) for shard in shards]
    ids = [member.id for shard in marked for member in shard.members if member.image.size == REPEATED]
    if ids:
        many = count(len(ids), "image has the id of an earlier one and will be an error row",
                     "images have the id of an earlier one and will be error rows")  # fmt: skip
        warnings.append(f"{many}, {examples(ids)}")
    return marked


def _marked(members: Iterable[Member]) -> Iterator[Member]:
    seen: set[str] = set()
    for member in members:
        yield replace(member, image=replace(member.image, size=REPEATED)) if member.id in seen else member
        seen.add(member.id)
