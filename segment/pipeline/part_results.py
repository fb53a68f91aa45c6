"""The results of parts: skipped, failed or committed."""

import logging
import socket
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from segment.errors import InputChanged, SegmentError, StoreError, StoreRefused
from segment.inputs.parts import Part
from segment.metrics import Confusion
from segment.output.results import PartResult
from segment.output.tables import ImageRow
from segment.pipeline.stages import Clock
from segment.store.urls import redact_text

log = logging.getLogger("segment.pipeline.part_results")


def failed_or_raise(part: Part, error: Exception) -> PartResult:
    """Return the result of a part that raised an error: of a store, of its input, or a bug, of ours or of a library.

    Raises SegmentError, MemoryError: an error that does not concern this part alone.
    """
    if isinstance(error, (SegmentError, MemoryError)) and not isinstance(error, (StoreError, InputChanged)):
        raise error
    if not isinstance(error, SegmentError):
        log.warning("part %s: %s", part.id, _reason(error))
    return failed(part, error)


def failed(part: Part, error: Exception) -> PartResult:
    """Return the result of a part that could not be committed.

    Raises StoreRefused: the store would refuse every other part, too: the run ends.
    """
    if isinstance(error, StoreRefused):
        raise error
    return PartResult(part.id, part.shard, failure=_reason(error), input_changed=isinstance(error, InputChanged))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, SegmentError) else redact_text(f"{type(error).__name__}: {error}")


def skipped(part: Part) -> PartResult:
    """Return the result of a part that was committed before."""
    return PartResult(part.id, part.shard, images=len(part), skipped=True)


def committed(part: Part, rows: Sequence[ImageRow], clock: Clock, read_bytes: int, written_bytes: int) -> PartResult:
    """Return the result of a part that this process has committed, with the sizes of what was read and written."""
    confusions = [row.confusion.counts for row in rows if row.confusion is not None]
    errors = [(row.error.partition(":")[0], row.error) for row in rows if row.error]
    return PartResult(
        part.id,
        part.shard,
        images=len(rows),
        errors=dict(Counter(code for code, _ in errors)),
        error_texts=dict(reversed(errors)),
        remarks=dict(Counter(remark for row in rows for remark in row.remarks)),
        labelled=sum(row.labelled for row in rows),
        confusion=Confusion(np.sum(confusions, axis=0)) if confusions else None,
        seconds=dict(clock.seconds), read_bytes=read_bytes, written_bytes=written_bytes,
        host=socket.gethostname(), began=clock.began, ended=time.time(), memory=clock.memory, precision=clock.precision,
        tiles=clock.tiles, tiles_left=clock.tiles_left, seconds_left=clock.seconds_left,
    )  # fmt: skip
