"""Inputs: discover them, cut them in shards and parts, read the samples of a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ShardFormat = Literal["files", "webdataset", "parquet"]


@dataclass(frozen=True, slots=True)
class Span:
    """Where one image (or its label) lies.

    Attributes:
        url: the object that holds it; empty for `webdataset`, where it is the shard's own.
        start: first byte in a tar, else 0.
        size: bytes; -1 if unknown.
    """

    url: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Member:
    """One planned image of a `files` or `webdataset` shard.

    Attributes:
        id: unique within the shard: path below the input for files, key for tars.
        image: where its bytes are.
        label: where its label's bytes are; None if it has none.
    """

    id: str
    image: Span
    label: Span | None


@dataclass(frozen=True, slots=True)
class Part:
    """Up to `part_size` consecutive images of one shard: the unit of work, memory, retry and commit.

    Attributes:
        id: `<hash of the shard's URL and etag>-<start>-<stop>`, unique in the run, nothing random.
        shard: id of the shard, `<readable name>-<hash>`.
        format: how to read it.
        url: absolute URL of the shard: the tar, the Parquet file, or the prefix or list of loose files.
        size: bytes of that object; for files the sum over the shard's images.
        etag: of that object; for files a digest over the URLs, sizes and etags of the shard's images and labels.
        start, stop: range of image positions within the shard, stop exclusive.
        row_group: for Parquet the row group that holds the range (a part never crosses one), else -1.
        members: one per image for `files` and `webdataset`; empty for Parquet.
    """

    id: str
    shard: str
    format: ShardFormat
    url: str
    size: int
    etag: str
    start: int
    stop: int
    row_group: int
    members: Sequence[Member]

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as read: bytes in, nothing decoded.

    Attributes:
        id: as in `Member.id`; for Parquet the id column, the image's path, or the row number.
        url: where the image is, for people: its own URL, or `<shard url>#<id>`.
        index: position in the shard.
        image: encoded bytes; empty when there is a fault.
        label: encoded bytes; None if the image has no label.
        fault: a `SampleError` code if the image cannot be used (`missing`, `duplicate_id`, `too_many_bytes`...), else None.
    """

    id: str
    url: str
    index: int
    image: bytes
    label: bytes | None
    fault: str | None = None
