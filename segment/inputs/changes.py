"""Changes of an input since it was planned: new, replaced and missing images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa

from segment.inputs.parts import REPEATED, Member, Part, Span
from segment.inputs.shards import Remade
from segment.store.client import Entry
from segment.store.sorted_rows import SortedRows

_TEXT = pa.binary()
_IMAGES = pa.schema([
    ("url", _TEXT), ("place", pa.int64()), ("id", _TEXT), ("size", pa.int64()), ("etag", _TEXT), ("part", _TEXT),
    ("labelled", pa.bool_()), ("label_url", _TEXT), ("label_size", pa.int64()), ("label_etag", _TEXT),
    ("meta", pa.list_(pa.string())),
])  # fmt: skip
_FATES = pa.schema([("place", pa.int64()), ("part", _TEXT)])
_NO_LABEL = Span("", 0, 0)
_NEW = ""  # in place of the part that an image was planned in
_Image = tuple[int, str, str, Member]  # place in the list or plan, id, part, and what is compared


@dataclass(slots=True)
class _Object:
    size: int
    etag: str
    images: int
    parts: list[str]


@dataclass
class Known:
    """The input that a plan covers. `images_to_plan` and `objects_to_plan` compare it with the input of today.

    Attributes:
        parts: the planned parts.
        stale: ids of parts whose input has changed. A part is committed as a whole, so all of its remaining input is
            planned again.
        new, replaced, gone: numbers of images that were not planned, have other content now, or do not exist any more.
            A tar or Parquet file counts with the images it was planned with. `new` excludes the images of new tars and
            Parquet files: their number is known after planning.
        renamed: images that have another id in the list now; they keep the planned id.
        dropped: number of `gone` images in stale parts.
        new_objects: URLs of tars and Parquet files that were not planned.
        planned_anew: URLs of all tars and Parquet files whose planned parts are invalid: new, replaced or gone.
    """

    parts: Iterable[Part]
    stale: set[str] = field(default_factory=set)
    new: int = 0
    replaced: int = 0
    gone: int = 0
    renamed: int = 0
    dropped: int = 0
    new_objects: set[str] = field(default_factory=set)
    planned_anew: set[str] = field(default_factory=set)

    def images_to_plan(self, members: Iterable[Member]) -> Iterable[Member]:
        """Return the loose images that are new or belong to a stale part; `members` are read several times.

        Both the plan and the input of today are sorted by URL, and read side by side.
        """
        planned = _by_url((member, part.id) for part in self.parts if part.format == "files" for member in part.members)
        gone = Counter[str]()
        fates = SortedRows(self._fates(planned, _by_url((member, _NEW) for member in members), gone), _FATES)
        self.gone = sum(gone.values())
        self.dropped = sum(number for part, number in gone.items() if part in self.stale)

        def to_plan() -> Iterator[Member]:
            for member, (_, part) in zip(members, fates, strict=True):
                if part == _NEW or part in self.stale:
                    yield member

        return Remade(to_plan)

    def _fates(self, planned: SortedRows, now: SortedRows, gone: Counter[str]) -> Iterator[tuple[int, str]]:
        """Yield the place of each image of today, and the part it was planned in; count in `gone` those of the plan."""
        nothing: tuple[str, list[_Image]] = "", []
        left = _grouped(planned)
        url, old = next(left, nothing)
        for name, images in _grouped(now):
            while url and url < name:
                gone.update(part for _, _, part, _ in old)
                url, old = next(left, nothing)
            yield from self._compared(old if url == name else [], images, gone)
            if url == name:
                url, old = next(left, nothing)
        while url:
            gone.update(part for _, _, part, _ in old)
            url, old = next(left, nothing)

    def _compared(
        self, planned: Sequence[_Image], now: Sequence[_Image], gone: Counter[str]
    ) -> Iterator[tuple[int, str]]:
        """Compare the images of one URL. A planned image is the one with the same id, else the next one."""
        left = dict(_keyed(planned))
        same = {key: left.pop(key) for key, _ in _keyed(now) if key in left}
        others = iter(left.values())
        used = 0
        for key, (place, _, _, member) in _keyed(now):
            old = same.get(key)
            if old is None and (old := next(others, None)):
                self.renamed, used = self.renamed + 1, used + 1
            if old is None:
                self.new += 1
                yield place, _NEW
                continue
            _, _, part, before = old
            same_label = not member.label or not _differs(before.label, member.label)
            if _differs(before.image, member.image) or not same_label or before.meta != member.meta:
                self.stale.add(part)
                self.replaced += 1
            yield place, part
        gone.update(part for _, _, part, _ in list(left.values())[used:])

    def objects_to_plan(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the tars or Parquet files that are new or replaced."""
        planned: dict[str, _Object] = {}
        for part in self.parts:
            held = planned.setdefault(part.url, _Object(part.size, part.etag, 0, []))
            held.images += len(part)
            held.parts.append(part.id)
        taken = []
        for entry in entries:
            old = planned.pop(entry.url, None)
            if old is None:
                self.new_objects.add(entry.url)
            elif (old.size, old.etag) != (entry.size, entry.etag):
                self.stale.update(old.parts)
                self.replaced += old.images
            else:
                continue
            taken.append(entry)
        self.gone = sum(held.images for held in planned.values())
        self.planned_anew = {*planned, *(entry.url for entry in taken)}
        return taken


def _by_url(members: Iterable[tuple[Member, str]]) -> SortedRows:
    """Sort images, with their part, by URL; those of one URL stay in their order."""
    return SortedRows(
        (
            (image.url, place, member.id, image.size, image.etag, part, member.label is not None, label.url, label.size,
             label.etag, list(member.meta))
            for place, (member, part) in enumerate(members)
            for image, label in [(member.image, member.label or _NO_LABEL)]
        ),
        _IMAGES,
    )  # fmt: skip


def _grouped(rows: SortedRows) -> Iterator[tuple[str, list[_Image]]]:
    """Yield each URL, with its images."""
    for url, same in groupby(rows, key=itemgetter(0)):
        yield url, [_image(url, *row) for _, *row in same]


def _image(url: str, place: int, name: str, size: int, etag: str, part: str, labelled: bool, *label: Any) -> _Image:
    *span, meta = label
    image, its_label = Span(url, 0, size, etag), Span(span[0], 0, *span[1:]) if labelled else None
    return place, name, part, Member(name, image, its_label, tuple(meta))


def _keyed(images: Iterable[_Image]) -> Iterator[tuple[tuple[str, int], _Image]]:
    """Yield images of one URL by their id, and how often it is named before."""
    seen: Counter[str] = Counter()
    for image in images:
        yield (image[1], seen[image[1]]), image
        seen[image[1]] += 1


def _differs(old: Span | None, now: Span) -> bool:
    """Return whether the object has other content now. An object that does not exist any more is no difference."""
    if now.is_absent or (old is not None and old.size == REPEATED):
        return False
    if old is None or old.is_absent or old.url != now.url:
        return True
    return (old.size != now.size and now.size >= 0) or bool(old.etag and now.etag and old.etag != now.etag)
