"""Read the parts of tars by byte range; nothing is extracted."""

from collections.abc import Mapping, Sequence

from segment.errors import InputChanged
from segment.inputs.large_files import large_spans, select_tiffs
from segment.inputs.lookup import in_threads, refuse_changed
from segment.inputs.parts import Part, Sample, Span, samples_of_members, spans_to_read
from segment.inputs.tars.grouping import METADATA_KEY, Fields
from segment.inputs.tars.index_files import index_url
from segment.inputs.tars.tar_damage import BLOCK
from segment.inputs.tars.told_names import names_told
from segment.job import InputOptions
from segment.store.client import Store
from segment.store.names import shown

_GAP = 1 << 20  # bytes between two wanted ranges that are cheaper to read than another request


def read_webdataset(part: Part, options: InputOptions, store: Store, *, windowed: bool = False) -> list[Sample]:
    """Read the samples of a part of a tar by byte ranges, which are joined where they are close.

    Args:
        part, options, store: as in `segment.inputs.reads.read_part`.
        windowed: leave large TIFFs to the caller.

    Raises:
        InputChanged: the tar is not the planned one, or was planned by an index file that is not its.
    """
    refuse_changed(part, store)
    large = select_tiffs(large_spans(part), store) if windowed else {}
    spans = spans_to_read(part, options.max_image_bytes, large)
    headed = [*spans, *large] if part.format == "webdataset-index" else []
    read, headers = _read_spans(part, spans, headed, store)
    _refuse_wrong_index(part, headers, Fields.of(options), store)
    return samples_of_members(part, read, options.max_image_bytes, large, options.keep)


def _read_spans(
    part: Part, spans: Sequence[Span], headed: Sequence[Span], store: Store
) -> tuple[dict[Span, bytes], dict[Span, bytes]]:
    """Read byte ranges of one object in few requests, and the block before each of `headed`, which hold them."""
    groups: list[list[tuple[int, int]]] = []
    end = 0
    wanted = [(span.start - BLOCK, span.start) for span in headed] + [(span.start, _end(span)) for span in spans]
    for range_ in sorted(wanted):
        if groups and range_[0] - end <= _GAP:
            groups[-1].append(range_)
        else:
            groups.append([range_])
        end = max(end, range_[1])
    ranges = [(near[0][0], max(stop for _, stop in near)) for near in groups]
    blocks = in_threads(lambda range_: store.read(part.url, *range_, part.etag), ranges)
    read = {
        range_: block[range_[0] - first : range_[1] - first]
        for near, (first, _), block in zip(groups, ranges, blocks, strict=True)
        for range_ in near
    }
    return (
        {span: read[span.start, _end(span)] for span in spans},
        {span: read[span.start - BLOCK, span.start] for span in headed},
    )


def _end(span: Span) -> int:
    return span.start + span.size


def _refuse_wrong_index(part: Part, headers: Mapping[Span, bytes], fields: Fields, store: Store) -> None:
    """Refuse what an index file said of a tar, if the tar says otherwise.

    Raises:
        InputChanged: at a planned place there is no such image, label or metadata of the sample.
    """

    def read(begin: int, end: int) -> bytes:
        return store.read(part.url, begin, end, part.etag)

    for member in part.members:
        planned = ((member.image, fields.is_image), (member.label, fields.is_label), (member.meta_span, _is_metadata))
        for span, is_kind in planned:
            if span is None or span not in headers:
                continue
            key, told = f"{member.id}.", names_told(read, span.start, span.size, headers[span])
            if not any(name.startswith(key) and is_kind(name[len(key) :].lower()) for name in told):
                raise InputChanged(
                    f"{shown(index_url(part.url))}, by which this run was planned, is not the index of the tar beside "
                    f"it, which has no {shown(member.id)} of {span.size} bytes at byte {span.start}. Delete the index, "
                    "and run to another output"
                )


def _is_metadata(suffix: str) -> bool:
    return suffix == METADATA_KEY
