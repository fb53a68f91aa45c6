"""Look up the objects that a list names, and report those that cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segment.errors import BadReference, SegmentError, UsageError
from segment.inputs.findings import Findings
from segment.inputs.metadata import Values
from segment.inputs.parts import ABSENT, MISSING, Member, Span
from segment.inputs.references import Absent, reference_fault
from segment.store.client import Entry
from segment.store.names import count, examples, shown, suffix_of
from segment.store.scope import OUTSIDE, advice
from segment.store.urls import is_http, query_parameters

_SIZES = {fault: size for size, fault in ABSENT.items()}  # of spans that stand for faults
_SHARDS = (".tar", ".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class Reference:
    """A cell of a list that names an object.

    Attributes:
        url: the object's URL without signature; for an invalid reference the text of the cell.
        given: the absolute URL as listed, signature included; `""` for an invalid reference.
        line: line of the list, for messages.
        fault: why the reference is invalid, or `""`.
        kind: what kind of fault that is.
    """

    url: str
    given: str
    line: int
    fault: str = ""
    kind: Absent = "bad_reference"


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image of a list: its id (None if the list has none), its reference, that of its label, if any, and metadata.

    Attributes:
        meta: the values to keep.
    """

    id: str | None
    image: Reference
    label: Reference | None
    meta: Values = ()


@dataclass(frozen=True, slots=True)
class LookupResult:
    """Result of looking up the objects of a list: entries of those that exist, and errors, both by URL."""

    found: Mapping[str, Entry]
    errors: Mapping[str, SegmentError]

    def span(self, reference: Reference) -> Span:
        """Return the span of the object, or one that carries its fault."""
        signed = bool(reference.given) and reference.given != reference.url
        if not reference.fault and reference.url in self.found:
            return Span.of(self.found[reference.url], signed=signed)
        error = self.errors.get(reference.url)
        fault = reference.kind if reference.fault else reference_fault(error) if error else "missing"
        return Span(reference.url, 0, _SIZES[fault], signed=signed)


def refuse_useless(listed: Sequence[ListedImage], result: LookupResult, name: str) -> None:
    """Refuse a list without any usable image, without any usable label, or with no access to one kind of store.

    Raises:
        UsageError: none of them exists or has a valid reference; or the list names archives or tables.
        StoreError: a store refuses access to all of its objects.
    """
    images = [item.image for item in listed]
    labels = [item.label for item in listed if item.label]
    if listed and all(suffix_of(image.url) in _SHARDS for image in images):
        raise UsageError(
            f"{name} names tars or Parquet files, {examples(image.url for image in images)}, and a list names images: "
            "give the files' folder as input, or all of them at once, as in 'part-{000..099}.tar'"
        )
    for references, noun in ((images, "image"), (labels, "label")):
        if references and not any(item.url in result.found for item in references if not item.fault):
            _refuse_all(references, result, name, noun)
    by_protocol: dict[str, set[str]] = {}  # credentials are valid for a protocol
    for item in (*images, *labels):
        if not item.fault:
            by_protocol.setdefault(item.url.partition("://")[0], set()).add(item.url)
    for protocol, urls in by_protocol.items():
        if protocol not in ("http", "https", "file") and urls <= result.errors.keys():
            error = result.errors[min(urls)]
            if not isinstance(error, BadReference):
                raise error


def _refuse_all(references: Sequence[Reference], result: LookupResult, name: str, noun: str) -> None:
    total = count(len(references), noun)
    if len(outside := _outside(references)) == len(references):
        raise UsageError(f"{name}: all of its {total} lie {OUTSIDE}, {examples(outside)}; {advice(outside)}")
    missing = [item.url for item in references if not item.fault and item.url not in result.errors]
    errors = [result.errors[item.url] for item in references if not item.fault and item.url in result.errors]
    if len(missing) == len(references):
        raise UsageError(f"{name}: none of its {total} exists, {examples(missing)}")
    stores = [error for error in errors if not isinstance(error, BadReference)]
    if len(stores) == len(references):
        raise stores[0]
    faults = [f"line {item.line}: {item.fault}" for item in references if item.fault] + [str(e) for e in errors]
    raise UsageError(f"{name}: none of its {total} can be read, e.g. {faults[0]}")


def warn_listed(pairs: Sequence[tuple[ListedImage, Member]], result: LookupResult, findings: Findings) -> None:
    """Warn of listed images and labels that cannot be read, and of URLs that differ by their signature only."""
    listed, members = [item for item, _ in pairs], [member for _, member in pairs]
    total, warnings = count(len(members), "image"), findings.warnings
    images = [item.image for item in listed]
    labels = [item.label for item in listed if item.label]
    missing = [member.image.url for member in members if member.image.size == MISSING]
    if missing:
        warnings.append(f"{len(missing)} of {total} listed do not exist, {examples(missing)}")
    absent = [member.label.url for member in members if member.label and member.label.size == MISSING]
    if absent:
        warnings.append(f"{count(len(absent), 'listed label does', 'listed labels do')} not exist, {examples(absent)}")
    for references, noun in ((images, "image"), (labels, "label")):
        if outside := _outside(references):
            warnings.append(
                f"{len(outside)} of {count(len(references), noun)} listed will be error rows, as they are {OUTSIDE}, "
                f"{examples(outside)}; {advice(outside)}"
            )
        faults = [(item.line, item.fault or str(result.errors[item.url])) for item in references
                  if item.kind != "not_allowed" and (item.fault or item.url in result.errors)]  # fmt: skip
        if faults:
            warnings.append(
                f"{len(faults)} of {count(len(references), noun)} listed cannot be read and will be error rows, e.g. "
                f"line {faults[0][0]}: {faults[0][1]}"
            )
    bare = [member.id for member in members if member.label is None]
    if bare and len(bare) < len(members):
        warnings.append(f"{len(bare)} of {total} listed without a label: segmented, not scored; {examples(bare)}")
    _report_queries(listed, findings)


def _outside(references: Sequence[Reference]) -> list[str]:
    """Return the URLs of objects that the list may not name."""
    return [item.url for item in references if item.kind == "not_allowed"]


def _report_queries(listed: Sequence[ListedImage], findings: Findings) -> None:
    """Note which query parameters name an image; warn of URLs that differ in their signature only."""
    kept = Counter(name for item in listed for name in dict.fromkeys(query_parameters(item.image.url)))
    if kept and any(is_http(item.image.given) for item in listed):
        names = ", ".join(f"{shown(name)} x {number}" for name, number in kept.most_common(6))
        findings.notes.append(f"queries of image URLs are part of the image's name and are kept: {names}")
    first_of: dict[str, ListedImage] = {}
    same: list[str] = []
    for item in listed:
        first = first_of.setdefault(item.image.url, item)
        if first.image.given != item.image.given and first.id != item.id:
            same.append(item.image.url)
    if same:
        many = count(len(same), "image URL differs", "image URLs differ")
        findings.warnings.append(
            f"{many} from an earlier one by the signature alone, and {'is' if len(same) == 1 else 'are'} taken for the "
            f"same image, {examples(same)}"
        )
