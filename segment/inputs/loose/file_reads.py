"""Read the parts of loose and listed files."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from segment.errors import InputChanged, OverLimit, TooSlow, input_changed
from segment.inputs.large_files import large_spans, select_tiffs
from segment.inputs.lookup import in_threads
from segment.inputs.parts import NOT_ALLOWED, UNKNOWN, Part, Sample, Span, fault_of, samples_of_members, spans_to_read
from segment.job import InputOptions
from segment.store.client import Store
from segment.store.names import shown
from segment.store.scope import NotAllowed, Scope
from segment.store.urls import is_http


def read_files(part: Part, options: InputOptions, store: Store, *, windowed: bool = False) -> list[Sample]:
    """Read the images and labels of a part concurrently. One outside of the scope of the store is a fault of its row.

    Args:
        part, options, store: as in `segment.inputs.reads.read_part`.
        windowed: leave large TIFFs to the caller.

    Raises:
        InputChanged: a file does not exist any more, or its etag or size differs from the plan.
    """
    scope = store.scope or Scope()
    part = _without(part, lambda span: not scope.allows(span.url))
    try:
        return _read_files(part, options, store, windowed=windowed)
    except NotAllowed:  # the target of a redirect, which only a request shows
        part = _without(part, lambda span: _is_refused(span, options.max_image_bytes, store))
        return _read_files(part, options, store, windowed=windowed)


def _without(part: Part, is_refused: Callable[[Span], bool]) -> Part:
    """Mark what may not be read as a fault of its image, which names it all the same."""

    def marked(span: Span) -> Span:
        return span if span.is_absent or not is_refused(span) else replace(span, size=NOT_ALLOWED)

    members = [replace(m, image=marked(m.image), label=marked(m.label) if m.label else None) for m in part.members]
    return replace(part, members=members)


def _is_refused(span: Span, most: int, store: Store) -> bool:
    try:
        store.read_if_exists(span.url, span.etag, most)
    except NotAllowed:
        return True
    except OverLimit:  # another fault of this image, found when it is read again
        pass
    return False


def _read_files(part: Part, options: InputOptions, store: Store, *, windowed: bool) -> list[Sample]:
    large = large_spans(part) if windowed else {}
    for span in [*spans_to_read(part, options.max_image_bytes, large), *large]:
        if span.signed and store.lacks_signature(span.url):
            raise InputChanged(
                f"{shown(span.url)} is not in its list any more, so its signature is unknown. Put its signed URL back "
                "into the list, or start a new run to plan the list as it is now"
            )
    large = select_tiffs(large, store)
    wanted = spans_to_read(part, options.max_image_bytes, large)
    found = _read_each(wanted, options.max_image_bytes, store)
    given_up = {span: fault_of(data) for span, data in found.items() if isinstance(data, OverLimit)}
    read = {span: _unchanged(span, data) for span, data in found.items() if not isinstance(data, OverLimit)}
    return samples_of_members(part, read, options.max_image_bytes, large, given_up=given_up)


def _read_each(spans: Sequence[Span], most: int, store: Store) -> dict[Span, bytes | OverLimit | None]:
    """Return the bytes of objects, read concurrently where they are remote; None for a missing one.

    A read that is given up is a fault of its own image: other images may be on other servers. A store that is too slow
    is trouble of all.
    """

    def read(span: Span) -> bytes | OverLimit | None:
        try:
            return store.read_if_exists(span.url, span.etag, most)
        except OverLimit as error:
            if isinstance(error, TooSlow) and not is_http(span.url):
                raise
            return error

    if all(span.url.startswith("file://") for span in spans):
        return {span: read(span) for span in spans}
    return dict(zip(spans, in_threads(read, spans), strict=True))


def _unchanged(span: Span, data: bytes | None) -> bytes:
    if data is None:
        raise input_changed(shown(span.url), "has vanished")
    if span.size not in (UNKNOWN, len(data)):
        raise input_changed(shown(span.url), "has changed")
    return data
