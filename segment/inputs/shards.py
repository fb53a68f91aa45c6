"""Shards: what each format plans, how loose files are grouped, and how shards are cut into parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Generic, TypeVar

from segment.inputs.parts import REPEATED, KeyRule, Member, Part, ShardFormat
from segment.job import InputOptions
from segment.store.client import Entry
from segment.store.names import basename, count, examples, slug

SHARD_IMAGES = 4096  # loose files in a shard
_MOST_AUTO = 64  # images of a part, at most; of an input of 256 such parts or more
_AUTO_PARTS = 256

T = TypeVar("T")


class Remade(Generic[T]):
    """Items that are made anew each time they are read, as there may be too many to keep.

    Args:
        make: makes them; the same ones each time.
    """

    def __init__(self, make: Callable[[], Iterator[T]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[T]:
        return self._make()


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard before it is cut into parts. Fields as in `Part`; part ids begin with `hash`.

    Attributes:
        runs: ranges that a part must not cross: `(row group or -1, first image, images, bytes per image)`.
            A shard with members has one run, whose `bytes per image` is not used.
    """

    name: str
    hash: str
    format: ShardFormat
    url: str
    size: int
    etag: str
    members: Sequence[Member]
    runs: Sequence[tuple[int, int, int, int]]

    @staticmethod
    def of_object(
        entry: Entry,
        format: ShardFormat,  # noqa: A002
        members: Sequence[Member] = (),
        runs: Sequence[tuple[int, int, int, int]] | None = None,
    ) -> Shard:
        """Return the shard of one object: a tar with its `members`, or a Parquet file with its `runs`."""
        return Shard(
            name=slug(basename(entry.url)),
            hash=shard_hash(entry.url, entry.etag, entry.size),
            format=format,
            url=entry.url,
            size=entry.size,
            etag=entry.etag,
            members=members,
            runs=[(-1, 0, len(members), 0)] if runs is None else runs,
        )

    @property
    def images(self) -> int:
        return sum(images for _, _, images, _ in self.runs)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a format plans for an input.

    Attributes:
        shards: all shards, in order; read several times.
        labels_known: whether members tell which images have labels. In Parquet with a label column only rows do.
        warn: adds warnings about images that cannot be read. Takes the shards of the selected images, or None where
            all images are selected.
        key_rule: where the keys of tar members end.
        not_indexed: the last tars of the input, if they are not planned.
        counts: numbers of images and of labelled ones, if they are known without reading the shards.
        ids_are_unique: whether no two images can have the same id.
    """

    shards: Iterable[Shard]
    labels_known: bool = True
    warn: Callable[[Iterable[Shard] | None], None] = lambda _: None
    key_rule: KeyRule = "first"
    not_indexed: Sequence[Entry] = ()
    counts: tuple[int, int] | None = None
    ids_are_unique: bool = False


def shard_hash(*identity: str | int) -> str:
    """Return 12 hexadecimal digits that follow from the identity of a shard: URL, etag, size."""
    return hashlib.sha256("\n".join(str(part) for part in identity).encode()).hexdigest()[:12]


def file_shards(url: str, members: Iterable[Member]) -> Iterator[Shard]:
    """Group loose files into shards of `SHARD_IMAGES` images."""
    left, number = iter(members), -1
    while held := list(islice(left, SHARD_IMAGES)):
        number += 1
        digest = hashlib.sha256()
        for member in held:
            for span in (member.image, member.label):
                digest.update(repr((span.url, span.size, span.etag) if span else ("", 0, "")).encode())
        etag = digest.hexdigest()
        yield Shard(
            name=f"{slug(basename(url))}-{number:05d}",
            hash=shard_hash(url, number, etag),
            format="files",
            url=url,
            size=sum(max(0, member.image.size) for member in held),
            etag=etag,
            members=held,
            runs=[(-1, 0, len(held), 0)],
        )


def auto_part_size(images: int) -> int:
    """Return the part size of `auto`: ceil(images / 256), clamped to 4 to 64."""
    return min(_MOST_AUTO, max(4, -(-images // _AUTO_PARTS)))


def _some_images(shards: Iterable[Shard]) -> int:
    """Return the number of images, or one that is large enough for `auto_part_size`."""
    images = 0
    for shard in shards:
        images += shard.images
        if images >= _MOST_AUTO * _AUTO_PARTS:
            break
    return images


def cut(shards: Iterable[Shard], options: InputOptions, alone: int | None = None) -> Iterator[Part]:
    """Yield the parts of shards; they keep to `part_size` and `part_bytes` and cross no run.

    An image of `alone` encoded bytes or more is a part by itself; None lets no size decide that. The bytes of images in
    Parquet files are not known.
    """
    size = options.part_size
    limit = auto_part_size(_some_images(shards)) if size == "auto" else size
    for shard in shards:
        for row_group, start, stop in _ranges(shard, limit, options.part_bytes, alone):
            yield Part(
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


def counted(shards: Iterable[Shard]) -> tuple[int, int]:
    """Return the numbers of images and of labelled ones."""
    images = labelled = 0
    for shard in shards:
        images += shard.images
        labelled += sum(member.label is not None for member in shard.members)
    return images, labelled


def _ranges(shard: Shard, limit: int, part_bytes: int, alone: int | None) -> Iterator[tuple[int, int, int]]:
    for row_group, first, images, image_bytes in shard.runs:
        end = first + images
        while first < end:
            stop = min(end, first + limit)
            if shard.members:
                stop = first + _fitting(shard.members[first:stop], part_bytes, alone)
            elif image_bytes:
                stop = min(stop, first + max(1, part_bytes // image_bytes))
            yield row_group, first, stop
            first = stop


def _fitting(members: Sequence[Member], part_bytes: int, alone: int | None) -> int:
    """Return how many of `members` fit in `part_bytes`, at least one, and no more than that if it has to be alone."""
    total = 0
    for position, member in enumerate(members):
        if alone is not None and member.image.size >= alone:
            return max(1, position)
        total += encoded_bytes(member)
        if total > part_bytes and position:
            return position
    return len(members)


def encoded_bytes(member: Member) -> int:
    """Return the bytes of a member's image and label; an unknown size counts as 0."""
    return max(0, member.image.size) + (max(0, member.label.size) if member.label else 0)


def mark_repeated(shards: Iterable[Shard], warnings: list[str]) -> Iterable[Shard]:
    """Return the shards with `REPEATED` set on each image whose id an earlier image of its shard has; warn of them.

    Call it after `select_images`: an image that is not selected must not be reported, nor turn its twin into an error
    row.
    """
    marked = Remade(lambda: (replace(shard, members=list(_marked(shard.members))) for shard in shards))
    ids = (member.id for shard in marked for member in shard.members if member.image.size == REPEATED)
    if first := next(ids, None):
        many = count(1 + sum(1 for _ in ids), "image has the id of an earlier one and will be an error row",
                     "images have the id of an earlier one and will be error rows")  # fmt: skip
        warnings.append(f"{many}, {examples([first])}")
    return marked


def _marked(members: Iterable[Member]) -> Iterator[Member]:
    seen: set[str] = set()
    for member in members:
        yield replace(member, image=replace(member.image, size=REPEATED)) if member.id in seen else member
        seen.add(member.id)
