"""What a list names, what became of it, and what is to be told of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segment.errors import BadReference, SegmentError, UsageError
from segment.inputs.findings import Findings
from segment.inputs.loose.files import file_span
from segment.inputs.parts import BAD_REFERENCE, MISSING, UNREACHABLE, Member, Span
from segment.store.client import Entry
from segment.store.names import count, examples, shown, suffix_of
from segment.store.urls import is_http, query_parameters

_SHARDS = (".tar", ".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class Place:
    """What a cell of a list names.

    Attributes:
        url: the object, whoever signed its URL; of what can be no object the cell as text.
        given: its URL as listed, made absolute; `""` where it can be no object.
        line: of the list, for messages.
        fault: why it can be no object, or `""`.
    """

    url: str
    given: str
    line: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One listed image: its id, None where the list gives none; its place and that of its label, if it has one."""

    id: str | None
    image: Place
    label: Place | None


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of the places of a list: the objects that are there, and why others cannot be had."""

    there: Mapping[str, Entry]
    refused: Mapping[str, SegmentError]

    def span(self, place: Place) -> Span:
        """Where a place's object is, or its fault."""
        signed = bool(place.given) and place.given != place.url
        if place.url in self.there and not place.fault:
            span = file_span(self.there[place.url])
            return Span(span.url, span.start, span.size, span.etag, signed)
        fault = BAD_REFERENCE if place.fault else MISSING
        if not place.fault and (error := self.refused.get(place.url)):
            fault = BAD_REFERENCE if isinstance(error, BadReference) else UNREACHABLE
        return Span(place.url, 0, fault, signed=signed)


def refuse_useless(lines: Sequence[Line], found: Answers, name: str) -> None:
    """Refuse a list of which no image, or no label, can be had, or no object of one kind of store.

    Raises:
        UsageError: they do not exist, or can be no objects; or it is a list of archives or tables.
        StoreError: a store refuses them all.
    """
    images = [line.image for line in lines]
    labels = [line.label for line in lines if line.label]
    if lines and all(suffix_of(place.url) in _SHARDS for place in images):
        raise UsageError(
            f"{name} names tars or Parquet files, {examples(place.url for place in images)}, and a list names images: "
            "give the files' folder as input, or all of them at once, as in 'part-{000..099}.tar'"
        )
    for places, noun in ((images, "image"), (labels, "label")):
        if places and not any(place.url in found.there for place in places if not place.fault):
            _refuse_all(places, found, name, noun)
    asked = {place.url for place in (*images, *labels) if not place.fault}
    by_protocol: dict[str, set[str]] = {}
    for url in asked:
        by_protocol.setdefault(url.partition("://")[0], set()).add(url)
    for protocol, urls in by_protocol.items():  # which credentials belong to
        if protocol not in ("http", "https", "file") and urls <= found.refused.keys():
            error = found.refused[min(urls)]
            if not isinstance(error, BadReference):
                raise error


def _refuse_all(places: Sequence[Place], found: Answers, name: str, noun: str) -> None:
    total = count(len(places), noun)
    missing = [place.url for place in places if not place.fault and place.url not in found.refused]
    refused = [found.refused[place.url] for place in places if not place.fault and place.url in found.refused]
    if len(missing) == len(places):
        raise UsageError(f"{name}: none of its {total} exists, {examples(missing)}")
    stores = [error for error in refused if not isinstance(error, BadReference)]
    if len(stores) == len(places):
        raise stores[0]
    faults = [f"line {place.line}: {place.fault}" for place in places if place.fault] + [
        str(error) for error in refused
    ]
    raise UsageError(f"{name}: none of its {total} can be had, e.g. {faults[0]}")


def warn_listed(listed: Sequence[tuple[Line, Member]], found: Answers, findings: Findings) -> None:
    """Tell what of some listed images and labels cannot be had, and what they are told apart by."""
    lines, members = [line for line, _ in listed], [member for _, member in listed]
    total, warnings = count(len(members), "image"), findings.warnings
    images = [line.image for line in lines]
    labels = [line.label for line in lines if line.label]
    missing = [member.image.url for member in members if member.image.size == MISSING]
    if missing:
        warnings.append(f"{len(missing)} of {total} listed do not exist, {examples(missing)}")
    absent = [member.label.url for member in members if member.label and member.label.size == MISSING]
    if absent:
        warnings.append(f"{count(len(absent), 'listed label does', 'listed labels do')} not exist, {examples(absent)}")
    for places, noun in ((images, "image"), (labels, "label")):
        faults = [(place.line, place.fault or str(found.refused[place.url])) for place in places
                  if place.fault or place.url in found.refused]  # fmt: skip
        if faults:
            warnings.append(
                f"{len(faults)} of {count(len(places), noun)} listed cannot be had and will be error rows, e.g. line "
                f"{faults[0][0]}: {faults[0][1]}"
            )
    bare = [member.id for member in members if member.label is None]
    if bare and len(bare) < len(members):
        warnings.append(f"{len(bare)} of {total} listed without a label: segmented, not scored; {examples(bare)}")
    _tell_queries(lines, findings)


def _tell_queries(lines: Sequence[Line], findings: Findings) -> None:
    """Tell what of a query names an image and what signs it, where that can matter."""
    kept = Counter(name for line in lines for name in dict.fromkeys(query_parameters(line.image.url)))
    if kept and any(is_http(line.image.given) for line in lines):
        names = ", ".join(f"{shown(name)} x {number}" for name, number in kept.most_common(6))
        findings.notes.append(f"image URLs have queries, which say which image is meant and are kept: {names}")
    given: dict[str, Line] = {}
    same: list[str] = []
    for line in lines:
        first = given.setdefault(line.image.url, line)
        if first.image.given != line.image.given and first.id != line.id:
            same.append(line.image.url)
    if same:
        many = count(len(same), "image URL differs", "image URLs differ")
        findings.warnings.append(
            f"{many} from an earlier one by the signature alone, and {'is' if len(same) == 1 else 'are'} taken for the "
            f"same image, {examples(same)}"
        )
