"""Large TIFFs of a part: they are not read with it, but opened by the worker, which reads them by window."""

import heapq
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import BinaryIO, cast

from segment.errors import input_changed
from segment.images.magic import image_format
from segment.inputs.lookup import in_threads
from segment.inputs.parts import Part, Sample, Span
from segment.store.client import Store
from segment.store.names import IMAGE_SUFFIXES, shown
from segment.store.ranges import RangeReader

LARGE_BYTES = 64 << 20  # of a file from which on a TIFF is not read as a whole
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
OTHER_NAME = rf"(?i)(?:{'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES - TIFF_SUFFIXES)))})$"  # of a URL: of no TIFF
_HEAD = 16  # bytes that tell a TIFF


def large_spans(part: Part) -> dict[Span, Span]:
    """Return the images and labels of a part that are large, as planned, and with the URL and etag of their object."""
    spans = (span for member in part.members for span in (member.image, member.label) if span)
    return {span: _resolved(span, part) for span in spans if span.size >= LARGE_BYTES}


def select_tiffs(large: Mapping[Span, Span], store: Store) -> dict[Span, Span]:
    """Return those of `large_spans` that are TIFFs by their first bytes.

    Raises InputChanged: an object is not the planned one any more; StoreError: the store refused, or failed too often.
    """
    heads = in_threads(lambda span: open_span(span, store).read(_HEAD), list(large.values()))
    tiffs = (image_format(head) == "TIFF" for head in heads)
    return {span: where for (span, where), is_tiff in zip(large.items(), tiffs, strict=True) if is_tiff}


def _resolved(span: Span, part: Part) -> Span:
    return span if span.url else replace(span, url=part.url, etag=part.etag)


def open_span(span: Span, store: Store) -> BinaryIO:
    """Open the bytes of a span as a seekable file without a buffer: a read is a request, and checks the etag.

    Raises (when it is read):
        NotAllowed: the object is outside of the scope of the run.
        InputChanged: the object is not the planned one any more.
        StoreError: the store refused, or failed too often.
    """

    def read(start: int, stop: int) -> bytes:
        try:
            return store.inputs.read(span.url, span.start + start, span.start + stop, span.etag)
        except FileNotFoundError:
            raise input_changed(shown(span.url), "has vanished") from None

    return cast(BinaryIO, RangeReader(read, span.size))


def largest_tiffs(parts: Iterable[Part], most: int) -> list[Span]:
    """Return the largest images whose names may be of TIFFs, at most so many, with URL and etag of their object."""
    images = (_resolved(member.image, part) for part in parts for member in part.members)
    tiffs = (image for image in images if image.size > 0 and not re.search(OTHER_NAME, image.url))
    return heapq.nlargest(most, tiffs, key=lambda image: image.size)


def open_image_file(sample: Sample, store: Store) -> BinaryIO:
    """Open the image of a sample: its bytes, or a large TIFF where it is stored."""
    return open_span(sample.large_image, store) if sample.large_image else io.BytesIO(sample.image)


def open_label_file(sample: Sample, store: Store) -> BinaryIO | None:
    """Open the label of a sample as its image; None without one."""
    if sample.large_label:
        return open_span(sample.large_label, store)
    return None if sample.label is None else io.BytesIO(sample.label)


def encoded_size(samples: Iterable[Sample]) -> int:
    """Return the bytes of the images; of a large one all, though windows may not need all."""
    return sum(sample.large_image.size if sample.large_image else len(sample.image) for sample in samples)
