"""The images that an export reads: the committed rows with a mask, in the order of the plan, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.images import codec
from segment.output.ledger import Ledger
from segment.output.mask_files import read_mask
from segment.output.plan import Plan
from segment.report.rows import numbers_of, part_tables

_COLUMNS = ["id", "uri", "shard", "index", "mask"]
_PARTS_AHEAD = 2  # parts whose masks are held at once


@dataclass(frozen=True)
class MaskedImage:
    """An image and its mask.

    Attributes:
        shard, id, uri: which image it is; an id may come in several shards.
        number: its position in the plan, from 1 on, whatever else is committed.
        is_file: whether `uri` is the URL of a file of its own, not of a tar or Parquet file.
        png: the mask, as `masks/` holds it; a mask in a file of its own is encoded anew.
    """

    shard: str
    id: str
    uri: str
    number: int
    is_file: bool
    png: bytes

    def mask(self) -> NDArray[np.uint8]:
        """Decode the mask, `uint8[H, W]` of class indices; 255 is no class."""
        return codec.decode_mask(self.png)


class MaskedImages:
    """Iterates over the committed images of a run that have a mask, and counts the others.

    Attributes:
        without_mask: error rows passed so far.
        not_done: planned images that are not committed.
    """

    def __init__(self, ledger: Ledger, plan: Plan) -> None:
        self._ledger, self._plan = ledger, plan
        self._numbers = numbers_of(plan, ledger.committed(plan))
        self._formats = plan.table["format"].to_pylist()
        starts, stops = (np.asarray(plan.table[name]) for name in ("start", "stop"))
        self.without_mask = 0
        self.not_done = plan.images - int((stops - starts)[self._numbers].sum())

    def __iter__(self) -> Iterator[MaskedImage]:
        first, before = {}, 1
        for shard, images in self._plan.images_by_shard().items():
            first[shard] = before
            before += images
        for part, table in part_tables(self._ledger, self._plan, self._numbers, _COLUMNS, ahead=_PARTS_AHEAD):
            is_file = self._formats[part] == "files"
            for row in table.to_pylist():
                if row["mask"] is None:
                    self.without_mask += 1
                    continue
                number = first[row["shard"]] + row["index"]
                yield MaskedImage(row["shard"], row["id"], row["uri"], number, is_file, self._png(row["mask"]))

    def _png(self, mask: Mapping[str, Any]) -> bytes:
        if mask["bytes"] is not None:
            return bytes(mask["bytes"])
        return codec.encode_mask(read_mask(self._ledger.store, self._ledger.output, mask))
