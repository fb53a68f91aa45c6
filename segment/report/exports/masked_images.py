"""The images that an export reads: the committed rows with a mask, in the order of the plan, in bounded memory."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.images import codec
from segment.images.magic import image_format
from segment.images.mask_png import encode_mask, mask_size
from segment.images.raster import Georeference
from segment.images.resize import restore_mask
from segment.inputs.parts import Span
from segment.models.card_input import Input
from segment.output.ledger import Ledger
from segment.output.mask_files import read_mask_file
from segment.output.mask_tiff import MaskFile
from segment.output.part_rows import numbers_of, part_tables
from segment.output.plan import Plan
from segment.output.readable_rows import check_indices, damaged

_COLUMNS = ["id", "uri", "shard", "index", "width", "height", "mask"]
_PARTS_AHEAD = 2  # parts whose masks are held at once


@dataclass(frozen=True)
class MaskedImage:
    """An image and its mask.

    Attributes:
        shard, id, uri: which image it is; an id may come in several shards.
        number: its position in the plan, from 1 on, whatever else is committed.
        is_file: whether `uri` is the URL of a file of its own, not of a tar or Parquet file.
        source: where its bytes were when the run was planned; None in Parquet files.
        stored: the mask at the size of the image: a PNG, or the TIFF of a large one.
    """

    shard: str
    id: str
    uri: str
    number: int
    is_file: bool
    source: Span | None
    stored: bytes

    @property
    def is_in_file(self) -> bool:
        """Whether the mask is too large for its row, and in a TIFF beside it."""
        return image_format(self.stored) == "TIFF"

    @property
    def png(self) -> bytes:
        """The mask as a PNG."""
        return encode_mask(self.mask()) if self.is_in_file else self.stored

    def mask(self) -> NDArray[np.uint8]:
        """Decode the mask, `uint8[H, W]` of class indices; 255 is no class."""
        if self.is_in_file:
            return np.concatenate(list(self._file.strips()))
        return codec.decode_mask(self.stored)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the mask, in pixels."""
        return self._file.size if self.is_in_file else mask_size(self.stored)

    @property
    def _file(self) -> MaskFile:
        return MaskFile(io.BytesIO(self.stored))

    @property
    def georeference(self) -> Georeference | None:
        """Of the mask, which only a TIFF holds."""
        return self._file.georeference if self.is_in_file else None

    def strips(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the mask from the top, `uint8[n, W]`; a large one is never held."""
        if self.is_in_file:
            yield from self._file.strips()
        else:
            yield self.mask()


class MaskedImages:
    """Iterates over the committed images of a run that have a mask, and counts the others.

    Attributes:
        without_mask: error rows passed so far.
        resized: masks passed so far that the run holds at the size of the model: tools lay a mask over its image.
        not_done: planned images that are not committed.
        tars_left: tars whose images are not known yet.
    """

    def __init__(self, ledger: Ledger, plan: Plan, spec: Input) -> None:
        self._ledger, self._plan, self._spec = ledger, plan, spec
        self._numbers = numbers_of(plan, ledger.committed(plan))
        starts, stops = (np.asarray(plan.table[name]) for name in ("start", "stop"))
        self.without_mask = self.resized = 0
        self.tars_left = plan.tars_left
        self.not_done = plan.images - int((stops - starts)[self._numbers].sum())

    def __iter__(self) -> Iterator[MaskedImage]:
        first, before = {}, 1
        for shard, images in self._plan.images_by_shard().items():
            first[shard] = before
            before += images
        for number, table in part_tables(self._ledger, self._plan, self._numbers, _COLUMNS, ahead=_PARTS_AHEAD):
            (part,) = self._plan.between(number, number + 1)
            check_indices(np.asarray(table["index"]) - part.start, len(part), "an index")
            for row in table.to_pylist():
                if row["mask"] is None:
                    self.without_mask += 1
                    continue
                position = first[part.shard] + row["index"]
                source = part.members[row["index"] - part.start].image if part.members else None
                if source is not None and not source.url:
                    source = replace(source, url=part.url, etag=part.etag)
                is_file = part.format == "files"
                yield MaskedImage(part.shard, row["id"], row["uri"], position, is_file, source, self._stored(row))

    def _stored(self, row: Mapping[str, Any]) -> bytes:
        stored: bytes | None = row["mask"]["bytes"]
        if stored is None:
            return read_mask_file(self._ledger.store, self._ledger.output, row["mask"]["path"])
        size = row["height"], row["width"]
        try:
            if mask_size(stored) == size:
                return stored
            mask = codec.decode_mask(stored)
        except ValueError:
            raise damaged("a mask") from None
        self.resized += 1
        return encode_mask(restore_mask(mask, self._spec, size))
