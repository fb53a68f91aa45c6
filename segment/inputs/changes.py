"""Changes of an input since it was planned: new, replaced and missing images."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa

from segment.inputs.parts import REPEATED, Member, Part, Span
from segment.inputs.shards import Remade
from segment.store.client import Entry
from segment.store.sorted_rows import SortedRows

_TEXT = pa.binary()
_IMAGES = pa.schema([
    ("url", _TEXT), ("place", pa.int64()), ("part", _TEXT), ("id", _TEXT), ("size", pa.int64()), ("etag", _TEXT),
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

        Those of the plan and of today are sorted by URL together, so that only those of one URL are in memory at once.
        """
        planned = ((member, part.id) for part in self.parts if part.format == "files" for member in part.members)
        images = SortedRows(chain(_rows(planned), _rows((member, _NEW) for member in members)), _IMAGES)
        gone = Counter[str]()
        by_url = ([_image(*row) for row in same] for _, same in groupby(images, key=itemgetter(0)))
        fates = SortedRows((fate for same in by_url for fate in self._fates(same, gone)), _FATES)
        self.gone = sum(gone.values())
        self.dropped = sum(number for part, number in gone.items() if part in self.stale)

        def to_plan() -> Iterator[Member]:
            for member, (_, part) in zip(members, fates, strict=True):
                if part == _NEW or part in self.stale:
                    yield member

        return Remade(to_plan)

    def _fates(self, images: Sequence[_Image], gone: Counter[str]) -> Iterator[tuple[int, str]]:
        """Yield the place of each image of today, and the part it was planned in; count those that are gone.

        All are of one URL. The planned image is the one with the same id, else the next one.
        """
        now = list(_keyed(image for image in images if image[2] == _NEW))
        left = dict(_keyed(image for image in images if image[2] != _NEW))
        same = {key: left.pop(key) for key, _ in now if key in left}
        others = iter(left.values())
        for key, (place, _, _, member) in now:
            old = same.get(key)
            if old is None and (old := next(others, None)):
                self.renamed += 1
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
        gone.update(part for _, _, part, _ in others)

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


def _rows(members: Iterable[tuple[Member, str]]) -> Iterator[tuple[Any, ...]]:
    """Yield a row of `_IMAGES` for each image and its part."""
    for place, (member, part) in enumerate(members):
        image, label = member.image, member.label or _NO_LABEL
        yield (
            image.url, place, part, member.id, image.size, image.etag, member.label is not None, label.url, label.size,
            label.etag, list(member.meta),
        )  # fmt: skip


def _image(
    url: str, place: int, part: str, name: str, size: int, etag: str, labelled: bool, label_url: str, label_size: int,
    label_etag: str, meta: list[str | None],
) -> _Image:  # fmt: skip
    label = Span(label_url, 0, label_size, label_etag) if labelled else None
    return place, name, part, Member(name, Span(url, 0, size, etag), label, tuple(meta))


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
