"""The strips and tiles of a TIFF, some of which are cut out as a TIFF of their own.

Such an excerpt holds the segments (strips or tiles) as they are stored, under tags that say the same of them. So
whatever decodes a whole file decodes a window of it, to the same pixels: kinds of pixels, compressions and refusals
are not decided a second time for large images.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segment.images.tiff_fax import FAX, check_fax
from segment.images.tiff_tags import LONG, SHORT, Field, TiffError, TiffPage, encode_directory, file_header
from segment.images.tiff_unpacking import (
    DAMAGED,
    JPEG,
    LEFT_TO_US,
    LZW,
    NONE,
    PACKBITS,
    PREDICTED_BITS,
    UNPACKERS,
    Unpacker,
    blank_samples,
    check_packed,
    interleaved,
    is_whole_jpeg,
    plain_samples,
    strips_of_tiles,
)

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_SAMPLES, _STRIP_ROWS, _PLANAR, _PREDICTOR, _EXTRA = 277, 278, 284, 317, 338
_TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT, _JPEG_TABLES = 322, 323, 339, 347
_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES = 273, 279, 324, 325
# What tells how segments are decoded; also options of fax (292, 293), inks (332), colour map (320), YCbCr (529-532).
_KEPT = (_BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES, _PLANAR, _PREDICTOR, _EXTRA, _SAMPLE_FORMAT,
         _JPEG_TABLES, 292, 293, 320, 332, 529, 530, 531, 532)  # fmt: skip
_TURNING = (274, 700)  # orientation: a tag, or within XMP
_OLD_JPEG, _YCBCR = 6, 6  # a compression; a photometric interpretation
_OFFSETS = {3: "u2", 4: "u4", 16: "u8"}

_MOST_PIXELS = 1 << 25  # of a segment that is read by window
_MOST_SEGMENTS = 1 << 24
_TILE_STEP = 16  # sides of tiles are multiples of it
_MOST_BYTES = 1 << 28  # of a segment in all planes, unpacked
RUN_BYTES = 1 << 26  # of the segments that are cut out at once, unpacked
_CHOPPED = 1 << 20  # bytes of the strips into which a larger one is cut, if it is not compressed
_SLACK = 1 << 16  # bytes that a segment may have beyond four times its pixels


class Run(NamedTuple):
    """A rectangle of segments."""

    row: int
    column: int
    rows: int
    columns: int


class TiffSegments:
    """The segments of the first page of a TIFF.

    Attributes:
        segment_height, segment_width: of a segment, in pixels.
        compression: the number that TIFF has for it.
        bits: of a sample.
        is_sparse: whether some segments are not stored; they have the value that the page names for 'no data', else 0.

    Raises (every method):
        TiffError: no TIFF, a damaged one, or one of too large segments.
    """

    def __init__(self, page: TiffPage) -> None:
        self._page = page
        self.compression = page.number(_COMPRESSION, NONE)
        samples, self.bits = page.number(_SAMPLES, 1), page.number(_BITS, 1)
        self._planes, self._samples = (samples, 1) if page.number(_PLANAR, 1) == 2 else (1, samples)
        if min(samples, self.bits) < 1:
            raise TiffError("it has no samples, or samples of no bits")
        self.is_tiled = _TILES in page.tags
        self._most_rows = page.number(_TILE_HEIGHT, 0) if self.is_tiled else page.number(_STRIP_ROWS, page.height)
        self.segment_height = self._most_rows if self.is_tiled else min(self._most_rows, page.height)
        self.segment_width = page.number(_TILE_WIDTH, 0) if self.is_tiled else page.width
        self._set_segments()
        is_plain = self.compression == NONE and not self.is_tiled and self._planes == 1 and not self.is_sparse
        is_subsampled = page.number(_PHOTOMETRIC, 0) == _YCBCR  # of which rows are no runs of bytes
        is_left = (is_plain and not self._is_swapped) or is_subsampled or page.number(_FILL_ORDER, 1) == 2
        self._unpacker = None if is_left or self._is_old_lzw else UNPACKERS.get(self.compression)
        is_with_predictor = self._unpacker is not None and self.compression not in (NONE, PACKBITS)
        self._predictor = page.number(_PREDICTOR, 1) if is_with_predictor else 1
        if self.bits not in PREDICTED_BITS.get(self._predictor, ()) and self._predictor != 1:
            raise TiffError("its predictor is not known")

    def _set_segments(self) -> None:
        if min(self.segment_height, self.segment_width) < 1 or self.compression == _OLD_JPEG:
            raise TiffError("its strips or tiles cannot be told apart")
        if self.is_tiled and self.segment_width * self._samples * self.bits % 8:
            raise TiffError("the rows of its tiles do not fill whole bytes")
        self._count()
        starts, sizes = (_TILES, _TILE_SIZES) if self.is_tiled else (_STRIPS, _STRIP_SIZES)
        self._starts, self._sizes = self._positions(starts), self._positions(sizes)
        if not self.is_tiled and self.compression == NONE:
            self._chop()
        if self._starts[: len(self._sizes)][self._sizes[: len(self._starts)] == 0].any():
            raise TiffError("a strip or tile begins somewhere and has no bytes")
        self.is_sparse = not self._sizes.all()
        if min(len(self._starts), len(self._sizes)) < self._number:
            raise TiffError("it lists fewer strips or tiles than its size needs")

    def check_size(self, *, by_window: bool) -> None:
        """Refuse too large segments. Of a file that is read as a whole they may be as large as its page."""
        beyond = max(self.segment_height - self._page.height, self.segment_width - self._page.width)
        is_large = self.segment_height * self.segment_width > _MOST_PIXELS or self._bytes > _MOST_BYTES
        if is_large and (by_window or beyond >= _TILE_STEP):
            raise TiffError(
                f"its {'tiles' if self.is_tiled else 'strips'} are of {self.segment_width}x{self.segment_height} "
                "pixels, too large to be read one by one: write it with tiles of 256 or 512 pixels"
            )

    @property
    def _is_swapped(self) -> bool:
        """Whether numbers are of more than a byte, the first of which is the highest; an excerpt turns them round."""
        return self._page.file.order == ">" and self.bits in (16, 32, 64)

    @property
    def _is_old_lzw(self) -> bool:
        """Whether it is LZW from before TIFF 6.0, of the other order of bits, which OpenCV and Pillow read."""
        stored = np.flatnonzero(self._sizes > 1)[:1]
        if self.compression != LZW or not len(stored):
            return False
        first, second = self._page.file.read(start := int(self._starts[stored[0]]), start + 2)
        return first == 0 and second & 1 == 1

    def _count(self) -> None:
        self.down = -(-self._page.height // self.segment_height)
        self.across = -(-self._page.width // self.segment_width)
        self._number = self._planes * self.down * self.across
        if not 0 < self._number <= _MOST_SEGMENTS:
            raise TiffError("it has more strips or tiles than any image needs")

    def _positions(self, number: int) -> NDArray[np.int64]:
        """Return the bytes where segments begin, or their sizes."""
        tag = self._page.tags.get(number)
        if tag is None or tag.kind not in _OFFSETS or tag.count > _MOST_SEGMENTS:
            raise TiffError("it does not say where its strips or tiles are, or that they are more than any image needs")
        stored = np.frombuffer(self._page.file.encoded(tag), dtype=self._page.file.order + _OFFSETS[tag.kind])
        return np.minimum(stored.astype(np.uint64), np.uint64(1 << 62)).astype(np.int64)

    def _chop(self) -> None:
        """Cut the one strip of a page into smaller ones, if it is not compressed: many programs write such pages."""
        length = self._row_bytes * self._page.height  # in subsampled YCbCr it is shorter
        rows = max(1, _CHOPPED // self._row_bytes)
        if self.down > 1 or rows >= self._page.height or any(self._sizes[: self._planes] != length):
            return
        self.segment_height = rows
        self._count()
        first = np.arange(0, self._page.height, rows)
        self._starts = (self._starts[: self._planes, None] + first * self._row_bytes).ravel()
        self._sizes = np.tile(np.minimum(rows, self._page.height - first) * self._row_bytes, self._planes)

    @property
    def _bytes(self) -> int:
        """Bytes of a segment in all planes, unpacked."""
        return self.segment_height * self._row_bytes * self._planes

    @property
    def _row_bytes(self) -> int:
        """Bytes of a row of a segment, unpacked."""
        return self._bytes_of(self.segment_width)

    def _bytes_of(self, pixels: int) -> int:
        """Bytes of so many pixels of a row, unpacked."""
        return -(-pixels * self._samples * self.bits // 8)

    def runs(self, wanted: Sequence[tuple[int, int]]) -> Iterator[Run]:
        """Yield the fewest runs of a bounded number of pixels that make up segments.

        Args:
            wanted: (row, column) of each, in ascending order.
        """
        most = max(1, RUN_BYTES // max(self._bytes, _SLACK))  # of segments of a pixel, too, not all are held at once
        first = 0
        for i in range(1, len(wanted) + 1):
            row, column = wanted[first]
            next_one = (row + i - first, 0) if self.across == 1 else (row, column + i - first)
            if i == len(wanted) or wanted[i] != next_one or i - first == most:
                number = i - first
                yield Run(row, column, number, 1) if self.across == 1 else Run(row, column, 1, number)
                first = i

    def excerpt(self, run: Run | None = None) -> bytes:
        """Return a TIFF of the segments of a run, or of all of them; not turned upright.

        Segments are taken over as they are stored, tiles as a whole: some of OpenCV's decoders read cut ones wrong.
        Those of some compressions and byte orders are unpacked; tiles become one strip then, of what is inside.
        """
        if self._planes == 2 and not self._interleaves:
            raise TiffError("grey with alpha in planes, of a compression in which it is not read: write it interleaved")
        run = run or Run(0, 0, self.down, self.across)
        rows, columns = np.arange(run.rows) + run.row, np.arange(run.columns) + run.column
        held = (rows[:, None] * self.across + columns).ravel()
        numbers = (np.arange(self._planes)[:, None] * self.down * self.across + held).ravel()
        stored = self._read(numbers)
        height, width = run.rows * self.segment_height, run.columns * self.segment_width
        if not self.is_tiled or self._unpacker:
            height = min(height, self._page.height - run.row * self.segment_height)
            width = min(width, self._page.width - run.column * self.segment_width)
        if (unpack := self._unpacker) is None:
            file_of = partial(self._file_of, height, width, as_tiles=self.is_tiled)
            check_packed(stored, self.compression)
            if self.compression in FAX:
                check_fax(self._page, stored, file_of)
            return file_of(stored)
        segments = [self._unpacked(unpack, data, int(n)) for data, n in zip(stored, numbers, strict=True)]
        if self.is_tiled:
            shape = (self._planes, run.rows, run.columns, self.segment_height, self._row_bytes)
            segments = strips_of_tiles(segments, shape, height, self._bytes_of(width))
        if self._interleaves:
            segments = interleaved(segments, self._planes, self.bits)
        return self._file_of(height, width, segments)

    @property
    def _interleaves(self) -> bool:
        """Whether an excerpt holds the samples of each pixel side by side, though the file holds them in planes."""
        return self._planes > 1 and self._unpacker is not None and self.bits in (8, 16, 32, 64)

    def inside(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return those pixels of an excerpt of all segments that are of the page."""
        return pixels[: self._page.height, : self._page.width]

    def stored(self) -> Iterator[bytes]:
        """Yield all segments as they are stored, nothing of one that is not: of a small file they may be gigabytes."""
        for start, size in zip(self._starts[: self._number], self._sizes[: self._number], strict=True):
            yield self._page.file.read(int(start), int(start) + int(size))

    @property
    def is_unreadable(self) -> bool:
        """Whether OpenCV, or Pillow for colours with alpha, cannot read the file, or reads it wrong."""
        is_odd = self.compression == NONE and self.segment_height * self._row_bytes % 1024 > 0
        is_turned = self._page.number(_TURNING[0], 1) > 1
        is_plain = self.bits == 8 and self._samples != 2
        # of grey with alpha OpenCV takes both planes for grey; Pillow gives the bytes of 16 bits to the wrong pixels
        is_in_planes = self._planes == 2 or (self._planes > 1 and self.compression in (NONE, PACKBITS))
        is_ragged = self._page.height % self.segment_height > 0 or self._page.width % self.segment_width > 0
        return (
            (self.compression in LEFT_TO_US and self._unpacker is not None)
            or self.compression in FAX
            or (self.compression == JPEG and not all(map(is_whole_jpeg, self.stored())))
            or self.is_sparse
            or is_in_planes
            or (self._is_swapped and self._unpacker is not None)
            or (self._page.file.order == ">" and self._page.file.big)
            or (self.is_tiled and (is_odd or is_turned or (is_ragged and not is_plain)))
        )

    def header(self) -> bytes:
        """Return a TIFF of the page's tags and no pixels: all that tells its size, its kind, and how it is turned."""
        return self._file_of(self._page.height, self._page.width, [], (*_KEPT, *_TURNING))

    def _file_of(
        self, height: int, width: int, segments: Sequence[bytes], kept: Sequence[int] = _KEPT, as_tiles: bool = False
    ) -> bytes:
        order = "<" if self._unpacker else self._page.file.order
        at = len(file_header(0, big=False))
        starts, sizes = (_TILES, _TILE_SIZES) if as_tiles else (_STRIPS, _STRIP_SIZES)
        lengths = [len(segment) for segment in segments] or [0]
        fields = [Field(_WIDTH, LONG, [width]), Field(_HEIGHT, LONG, [height]), *self._copied(kept)]
        if as_tiles:
            fields += [Field(_TILE_WIDTH, LONG, [self.segment_width]), Field(_TILE_HEIGHT, LONG, [self.segment_height])]
        else:
            rows = height if self.is_tiled else min(self.segment_height, height)
            fields += [Field(_STRIP_ROWS, LONG, [rows])]

        def directory(first: int) -> bytes:
            offsets = np.cumsum([first, *lengths[:-1]]).tolist()
            places = [Field(starts, LONG, offsets), Field(sizes, LONG, lengths)]
            return encode_directory([*fields, *places], at, 0, big=False, order=order)

        behind = at + len(directory(0))
        return b"".join([file_header(at, big=False, order=order), directory(behind), *segments])

    def _copied(self, kept: Sequence[int]) -> Iterator[Field]:
        for number in kept:
            if number == _COMPRESSION and self._unpacker:
                yield Field(number, SHORT, [NONE])
            elif number == _PLANAR and self._interleaves:
                yield Field(number, SHORT, [1])
            elif number in self._page.tags and not (number == _PREDICTOR and self._unpacker):
                tag = self._page.tags[number]
                yield Field(number, tag.kind, self._page.file.encoded(tag, "<" if self._unpacker else None))

    def _unpacked(self, unpack: Unpacker, segment: bytes, number: int) -> bytes:
        """Return the samples of a segment; one that is not stored as blank."""
        rows = self.segment_height
        if not self.is_tiled:  # the last strip has those that are left
            rows = min(rows, self._page.height - number % self.down * rows)
        wanted = rows * self._row_bytes
        if not segment:
            return blank_samples(self._page, self.bits, wanted)
        most = self._most_rows if self._most_rows * self._row_bytes <= _MOST_BYTES else self.segment_height
        data = unpack(segment, most, self.segment_width, self._samples, self.bits)
        # some programs fill the last strip, or the only one
        is_whole = len(data) in (wanted, self.segment_height * self._row_bytes, most * self._row_bytes)
        if len(data) < wanted or (self.compression == LZW and not is_whole):  # which has no checksum
            raise TiffError(f"{DAMAGED}: it does not hold the pixels that its size needs")
        shape = (rows, self.segment_width, self._samples)
        return plain_samples(data[:wanted], self._predictor, self.bits, self._page.file.order, shape)

    def _read(self, numbers: NDArray[np.int64]) -> list[bytes]:
        """Return segments as they are stored, nothing of one that is not."""
        starts, sizes = self._starts[numbers], self._sizes[numbers]
        if sizes.max() > 4 * (pixels := self.segment_height * self._row_bytes) + _SLACK:
            raise TiffError("a strip or tile has more bytes than its pixels need")
        if sizes.sum() > max(self._page.file.size, len(sizes) * pixels) + RUN_BYTES:
            raise TiffError("its strips or tiles are the same bytes again and again")
        return self._page.file.gather(starts.tolist(), sizes.tolist())
