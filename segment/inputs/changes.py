"""Changes of an input since it was planned: new, replaced and missing images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from segment.inputs.metadata import Values
from segment.inputs.parts import REPEATED, Member, Part, Span
from segment.store.client import Entry

_Key = tuple[str, str, int]  # id and URL of a loose image, and how often the list names it before


@dataclass(frozen=True, slots=True)
class _Image:
    part: str
    image: Span
    label: Span | None
    meta: Values


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

    def images_to_plan(self, members: Sequence[Member]) -> list[Member]:
        """Return the loose images that are new or belong to a stale part."""
        planned = {
            key: _Image(part.id, member.image, member.label, member.meta)
            for part, members in self._of_files()
            for key, member in members
        }
        now = list(_keyed(members, Counter()))
        same = self._same(planned, [key for key, _ in now])
        for key, member in now:
            if key not in same:
                self.new += 1
                continue
            old = planned[same[key]]
            same_label = not member.label or not _differs(old.label, member.label)
            if _differs(old.image, member.image) or not same_label or old.meta != member.meta:
                self.stale.add(old.part)
                self.replaced += 1
        gone = [planned[key].part in self.stale for key in planned.keys() - same.values()]
        self.gone, self.dropped = len(gone), sum(gone)
        return [member for key, member in now if key not in same or planned[same[key]].part in self.stale]

    def _same(self, planned: Iterable[_Key], now: Sequence[_Key]) -> dict[_Key, _Key]:
        """Map each of `now` to its planned image: the one with the same id and URL, else one with the same URL."""
        left = dict.fromkeys(planned)
        same = {key: key for key in now if key in left}
        by_url: dict[str, list[_Key]] = {}
        for key in left:
            if key not in same:
                by_url.setdefault(key[1], []).append(key)
        for key in now:
            if key not in same and by_url.get(key[1]):
                same[key] = by_url[key[1]].pop(0)
                self.renamed += 1
        return same

    def _of_files(self) -> Iterator[tuple[Part, list[tuple[_Key, Member]]]]:
        seen: Counter[tuple[str, str]] = Counter()
        for part in self.parts:
            if part.format == "files":
                yield part, list(_keyed(part.members, seen))

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


def _keyed(members: Iterable[Member], seen: Counter[tuple[str, str]]) -> Iterator[tuple[_Key, Member]]:
    for member in members:
        name = (member.id, member.image.url)
        yield (*name, seen[name]), member
        seen[name] += 1


def _differs(old: Span | None, now: Span) -> bool:
    """Return whether the object has other content now. An object that does not exist any more is no difference."""
    if now.is_absent or (old is not None and old.size == REPEATED):
        return False
    if old is None or old.is_absent or old.url != now.url:
        return True
    return (old.size != now.size and now.size >= 0) or bool(old.etag and now.etag and old.etag != now.etag)
