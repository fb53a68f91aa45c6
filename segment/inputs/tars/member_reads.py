"""Read the parts of tars by byte range; nothing is extracted."""

from __future__ import annotations

from collections.abc import Sequence

from segment.inputs.large_files import large_spans, select_tiffs
from segment.inputs.lookup import in_threads, refuse_changed
from segment.inputs.parts import Part, Sample, Span, samples_of_members, spans_to_read
from segment.job import InputOptions
from segment.store.client import Store

_GAP = 1 << 20  # bytes between two wanted ranges that are cheaper to read than another request


def read_webdataset(part: Part, options: InputOptions, store: Store, *, windowed: bool = False) -> list[Sample]:
    """Read the samples of a part of a tar by byte ranges, which are joined where they are close.

    Args:
        part, options, store: as in `segment.inputs.reads.read_part`.
        windowed: leave large TIFFs to the caller.

    Raises:
        InputChanged: the tar is not the planned one.
    """
    refuse_changed(part, store)
    large = select_tiffs(large_spans(part), store) if windowed else {}
    read = _read_spans(part, spans_to_read(part, options.max_image_bytes, large), store)
    return samples_of_members(part, read, options.max_image_bytes, large, options.kept_columns)


def _read_spans(part: Part, spans: Sequence[Span], store: Store) -> dict[Span, bytes]:
    """Read byte ranges of one object in few requests."""
    groups: list[list[Span]] = []
    end = 0
    for span in sorted((span for span in spans if span.size), key=lambda span: span.start):
        if groups and span.start - end <= _GAP:
            groups[-1].append(span)
        else:
            groups.append([span])
        end = span.start + span.size
    ranges = [(near[0].start, near[-1].start + near[-1].size) for near in groups]
    blocks = in_threads(lambda range_: store.read(part.url, *range_, part.etag), ranges)
    read = dict.fromkeys(spans, b"")
    for near, block in zip(groups, blocks, strict=True):
        for span in near:
            first = span.start - near[0].start
            read[span] = block[first : first + span.size]
    return read
