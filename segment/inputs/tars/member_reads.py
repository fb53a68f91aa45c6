"""Read the parts of tars by byte range; nothing is extracted."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from segment.errors import InputChanged
from segment.inputs.large_files import large_spans, select_tiffs
from segment.inputs.lookup import in_threads, refuse_changed
from segment.inputs.parts import Part, Sample, Span, samples_of_members, spans_to_read
from segment.inputs.tars.grouping import METADATA_KEY, Fields
from segment.inputs.tars.index_files import index_url
from segment.inputs.tars.tar_damage import BLOCK
from segment.inputs.tars.told_names import BEFORE, names_told
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
    headed = {*spans, *large} if part.format == "webdataset-index" else set()
    # A file's name may be in what is before its header, 16 KiB at most: to go for each name later costs a request each.
    before = [(max(0, span.start - BLOCK - BEFORE), span.start) for span in headed]
    blocks = _read_blocks(part, [*before, *((span.start, _end(span)) for span in spans)], store)
    _refuse_wrong_index(part, headed, Fields.of(options), blocks)
    read = {span: blocks.between(span.start, _end(span)) for span in spans}
    return samples_of_members(part, read, options.max_image_bytes, large, options.keep)


@dataclass(frozen=True)
class _Blocks:
    """Bytes of an object: blocks in the order of their places, which do not overlap."""

    starts: Sequence[int]
    blocks: Sequence[bytes]

    def between(self, begin: int, end: int) -> bytes:
        """Return the bytes of a range that one of the blocks holds."""
        place = bisect_right(self.starts, begin) - 1
        first = self.starts[place]
        return self.blocks[place][begin - first : end - first]


def _read_blocks(part: Part, wanted: Iterable[tuple[int, int]], store: Store) -> _Blocks:
    """Read byte ranges of one object in few requests."""
    ranges: list[tuple[int, int]] = []
    for begin, end in sorted(wanted):
        if ranges and begin - ranges[-1][1] <= _GAP:
            ranges[-1] = ranges[-1][0], max(ranges[-1][1], end)
        else:
            ranges.append((begin, end))
    blocks = in_threads(lambda range_: store.read(part.url, *range_, part.etag), ranges)
    return _Blocks([begin for begin, _ in ranges], blocks)


def _end(span: Span) -> int:
    return span.start + span.size


def _refuse_wrong_index(part: Part, headed: Collection[Span], fields: Fields, blocks: _Blocks) -> None:
    """Refuse what an index file said of a tar, if the tar says otherwise.

    Raises:
        InputChanged: at a planned place there is no such image, label or metadata of the sample.
    """
    for member in part.members:
        planned = ((member.image, fields.is_image), (member.label, fields.is_label), (member.meta_span, _is_metadata))
        for span, is_kind in planned:
            if span is None or span not in headed:
                continue
            key, told = f"{member.id}.", names_told(blocks.between, span.start, span.size)
            if not any(name.startswith(key) and is_kind(name[len(key) :].lower()) for name in told):
                raise InputChanged(
                    f"{shown(index_url(part.url))}, by which this run was planned, is not the index of the tar beside "
                    f"it, which has no {shown(member.id)} of {span.size} bytes at byte {span.start}. Delete the index, "
                    "and run to another output"
                )


def _is_metadata(suffix: str) -> bool:
    return suffix == METADATA_KEY
