"""Masks too large for a row: TIFF files beside the masks file, to which the row points.

Their names follow from the image's position and the file's content, and begin with an underscore, so that readers of
Parquet folders pass them over. A file is written before the masks file, whose write is the commit. One that no row
points to is left over from a part that was not committed, and does no harm.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.errors import SegmentError
from segment.images.codec import decode_mask
from segment.inputs.parts import Part
from segment.output.mask_tiff import MaskFile
from segment.output.stored import MOST, Stored
from segment.store.client import Store
from segment.store.fetching import digest_of, fetch
from segment.store.names import shown
from segment.store.urls import join_url

MOST_PNG_PIXELS = 100_000_000  # of a mask within its row
_PREVIEW_PIXELS = 4_000_000
_DIGITS = 16  # of the SHA-256 of the file, in its name
_REMEDY = "run the same `segment run` again with --verify"
_NAME = re.compile(rf"(?P<stem>.+)-(?P<digest>[0-9a-f]{{{_DIGITS}}})\.tif")
_STEM = re.compile(r"masks/(?P<shard>[^/]*[^/.][^/]*)/_(?P<part>[^/]+)-\d{6,}")


def write_mask_file(store: Store, output: str, shard: str, part: str, index: int, file: Path) -> Stored:
    """Copy a local file, the mask of the image at position `index` of its shard, into the output of a run.

    Returns:
        The object; its path below the output is `mask.path` of the row.
    """
    found = Stored.of_file("", file)
    found = found._replace(path=f"{_stem(shard, part, index)}-{found.sha256.hex()[:_DIGITS]}.tif")
    store.write(join_url(output, found.path), file)
    return found


def masks_file_of(path: str) -> str | None:
    """Return the path of the masks file that a mask in a file of its own belongs to; None for any other object."""
    named = _NAME.fullmatch(path)
    stem = _STEM.fullmatch(named["stem"]) if named else None
    return f"masks/{stem['shard']}/{stem['part']}.parquet" if stem else None


def read_mask(store: Store, output: str, mask: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return the mask of a row as `uint8[H, W]` of class indices.

    Args:
        mask: the row's struct of `bytes` and `path`.

    Raises:
        SegmentError: its file is damaged or lost.
    """
    if mask["bytes"] is not None:
        return _decode(mask["bytes"])
    with _opened(store, output, mask["path"]) as file:
        return np.concatenate(list(file.strips()))


def read_mask_preview(store: Store, output: str, mask: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return the mask of a row, as `read_mask`; of one in a file so few rows and columns that people can look at it."""
    if mask["bytes"] is not None:
        return _decode(mask["bytes"])
    found, done = [], 0
    with _opened(store, output, mask["path"]) as file:
        step = math.ceil(math.sqrt(math.prod(file.size) / _PREVIEW_PIXELS))
        for strip in file.strips():
            found.append(strip[-done % step :: step, ::step].copy())
            done += len(strip)
    return np.concatenate(found)


def _decode(data: bytes) -> NDArray[np.uint8]:
    try:
        return decode_mask(data)
    except ValueError as error:
        raise SegmentError(f"{error}: {_REMEDY}") from None


@contextmanager
def _opened(store: Store, output: str, path: str) -> Iterator[MaskFile]:
    """Open the file that a row points to; one that need not fit into memory. Raises as `read_mask_file`."""
    digest = _digest_in(path)
    try:
        opened = fetch(store, join_url(output, path))
    except FileNotFoundError:
        raise _lost(path) from None
    except OSError:
        raise _damaged(path) from None
    with opened:
        if digest_of(opened)[:_DIGITS] != digest:
            raise _damaged(path)
        opened.seek(0)
        yield MaskFile(opened)


def read_mask_file(store: Store, output: str, path: str) -> bytes:
    """Return the bytes of the file that a row points to. Raises SegmentError: it is damaged or lost."""
    digest = _digest_in(path)
    data = store.read_if_exists(join_url(output, path), most=MOST)
    if data is None:
        raise _lost(path)
    if hashlib.sha256(data).hexdigest()[:_DIGITS] != digest:
        raise _damaged(path)
    return data


def _digest_in(path: str) -> str:
    """Return the digits in the name of a mask's file. A path may name any object; what an output names is not trusted.

    Raises SegmentError: it is no path of a mask.
    """
    named = _NAME.fullmatch(path)
    if named is None or masks_file_of(path) is None:
        raise SegmentError(f"{shown(path)} is no path of a mask: {_REMEDY}")
    return named["digest"]


def _lost(path: str) -> SegmentError:
    return SegmentError(f"{shown(path)} has been lost: {_REMEDY}")


def _damaged(path: str) -> SegmentError:
    return SegmentError(f"{shown(path)} is damaged: {_REMEDY}")


def mask_paths(rows: pa.Table) -> dict[int, str]:
    """Return the paths of masks in files of their own, by the position of the image; columns `index` and `mask`."""
    masks = zip(rows["index"].to_pylist(), pc.struct_field(rows["mask"], ["path"]).to_pylist(), strict=True)
    return {index: path for index, path in masks if path}


def wrong_mask_files(part: Part, paths: Mapping[int, str], files: Mapping[str, Stored]) -> Iterator[tuple[str, str]]:
    """Yield the faults of the files that the rows of a part point to: kind and words, as `row_checks.wrong_rows`.

    Args:
        paths: those of `mask_paths`.
        files: the objects that were found at these paths.
    """
    for index, path in paths.items():
        named = _NAME.fullmatch(path)
        if named is None or named["stem"] != _stem(part.shard, part.id, index):
            yield "masks files that point to other masks", f"points to {shown(path)}, no mask of image {index}"
        elif path not in files or named["digest"] != files[path].sha256.hex()[:_DIGITS]:
            yield "masks that are damaged or lost", f"points to {shown(path)}, which is damaged or lost"


def _stem(shard: str, part: str, index: int) -> str:
    return f"masks/{shard}/_{part}-{index:06d}"
