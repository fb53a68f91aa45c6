"""Decode labels: map the values, palette indices or colours of a label image to classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.errors import SampleError, UsageError, did_you_mean
from segment.images.label_images import read_label
from segment.images.label_pixels import LabelPixels, first_few
from segment.images.label_sources import parse_source, unambiguous
from segment.job import LabelEncoding
from segment.models.classes import VOID, Classes, Colour, named

UNKNOWN = -1  # while decoding: this value or colour has no class

_GREY_ADVICE = "; if its grey levels are class indices, use --label-encoding index"
_WHITE = 0xFFFFFF
_WHITE_ADVICE = "; if white is a class (as in masks of black and white), name it with --label-remap 255,255,255=CLASS"
_SUSPECT = 254  # while mapping: unknown, or class 254


@dataclass(frozen=True)
class Label:
    """A decoded label.

    Attributes:
        classes: `uint8[H, W]` of class indices; `VOID` (255) where the pixel is ignored and is no class.
        remarks: codes of `segment.output.remarks.REMARKS`.
    """

    classes: NDArray[np.uint8]
    remarks: tuple[str, ...] = ()


class LabelDecoder:
    """Decodes label images to class indices.

    A label is read by the same rules as its image: the EXIF orientation is applied, and of several frames the first is
    read. Its pixels are read as they are stored, or refused (`segment.images.label_pixels`).

    There are three encodings: an 8-bit image whose value is the class index, a palette image whose palette index is
    the class index, and an image whose colour is the class (by the card's palette or by `remap`). `auto` reads grey as
    values and RGB as colours. It reads a palette image as

    - indices if its palette begins as the card's does;
    - colours if its palette holds only colours of the card (or of `remap`): tools that sort or shrink palettes write
      such files;
    - values equal to its grey levels if the levels in use rise and are classes or void: tools that shrink palettes (of
      GIFs always) turn a grey label into this;
    - indices if it has another palette. If all colours in use are the card's and name other classes than the indices,
      the label is refused as `label_ambiguous`.

    A remap of values (and of no colours) means that palette images are indices, too.

    A label that is an array already (`read_pixels`) has no encoding but its shape. 255 is void there, as in what a
    decoder returns, unless the remap says what it means.

    Args:
        encoding: `auto`, `index` or `colour`.
        remap: from a label value (`"7"`) or colour (`"64,0,128"` or `"#400080"`) to a class name, a class
            index, or `"ignore"`. Values and colours that it does not name keep their meaning; `"*"` names all of them.
            The order of its entries makes no difference.
        allow_lossy: accept labels with lossy compression (JPEG, lossy WebP).

    Raises:
        UsageError: there is no such encoding, or a key or target of the remap is invalid; the message begins with
            `label_encoding` or `label_remap`.
    """

    def __init__(
        self,
        classes: Classes,
        encoding: LabelEncoding = "auto",
        remap: Mapping[str, str | int] | None = None,
        *,
        allow_lossy: bool = False,
    ) -> None:
        if encoding not in get_args(LabelEncoding):
            known = ", ".join(get_args(LabelEncoding))
            advice = did_you_mean(str(encoding), get_args(LabelEncoding))
            raise UsageError(f"label_encoding: {encoding!r} is none of {known}.{advice}")
        self.classes = classes
        self.encoding = encoding
        self.allow_lossy = allow_lossy
        try:
            self._set_tables(unambiguous(remap or {}, self.parse_target))
        except ValueError as error:
            raise UsageError(f"label_remap: {error}") from None

    def _set_tables(self, remap: dict[str, str | int]) -> None:
        """Set the class of each value and colour. Raises ValueError: a key or target of the remap is invalid."""
        classes = self.classes
        self._by_value = np.full(256, UNKNOWN, dtype=np.int16)
        self._by_value[: len(classes)] = np.arange(len(classes))
        by_colour = {_pack(colour): index for index, colour in enumerate(classes.palette)}
        self._rest = UNKNOWN  # class of colours that no entry names
        if "*" in remap:
            self._rest = self.parse_target(remap.pop("*"))
            self._by_value[:] = self._rest
            by_colour = {}
        self._by_value[list(classes.void_values)] = VOID
        by_colour |= {_pack(colour): VOID for colour in classes.void_colours}
        sources = {parse_source(key): self.parse_target(target) for key, target in remap.items()}
        values = {source: target for source, target in sources.items() if isinstance(source, int)}
        for value, target in values.items():
            self._by_value[value] = target
        by_colour |= {_pack(source): target for source, target in sources.items() if not isinstance(source, int)}
        self._colours = np.array(sorted(by_colour) or [-1], dtype=np.int32)
        self._colour_classes = np.array([by_colour.get(int(c), self._rest) for c in self._colours], dtype=np.int16)
        self._palettes_are_indices = self.encoding == "index" or (bool(values) and len(values) == len(sources))
        self._by_value_of_arrays = self._by_value.copy()
        if self._by_value_of_arrays[VOID] == UNKNOWN:
            self._by_value_of_arrays[VOID] = VOID

    def parse_target(self, target: str | int) -> int:
        """Return the class index that a remap's target names, or `VOID`. Raises ValueError."""
        if isinstance(target, int) or target.isdecimal():
            if 0 <= int(target) < len(self.classes):
                return int(target)
        elif target.lower() == "ignore":
            return VOID
        else:
            try:
                return self.classes.index(target)
            except KeyError:
                pass
        raise ValueError(f"remap to {target!r}: no class. Give 'ignore' or one of {named(self.classes.names)}")

    def decode(self, data: bytes, height: int, width: int) -> NDArray[np.uint8]:
        """Return the classes of `read` for an image without an orientation."""
        return self.read(data, height, width).classes

    def read(self, data: bytes, height: int, width: int, image_orientation: int = 1) -> Label:
        """Decode the label of an image.

        Args:
            height, width: size of the image, upright, in pixels.
            image_orientation: EXIF orientation of the image, 1-8.

        Raises:
            SampleError: `label_empty`, `label_undecodable`, `label_lossy`, `label_size`, `label_pixels`, `label_alpha`,
                `label_value`, `label_colour` or `label_ambiguous`.
        """
        pixels, remarks = read_label(
            data, (height, width), image_orientation, as_colour=self.reads_colours, allow_lossy=self.allow_lossy
        )
        return Label(self.classes_of(pixels), remarks)

    @property
    def reads_colours(self) -> bool:
        """Whether grey and palette images are read as the colours they show."""
        return self.encoding == "colour"

    def classes_of(self, pixels: LabelPixels) -> NDArray[np.uint8]:
        """Return the classes `uint8[H, W]` of the pixels of a label. Of a palette image the indices in use count.

        Raises SampleError: `label_value`, `label_colour` or `label_ambiguous`.
        """
        if pixels.colours is not None:
            return self._from_rgb(pixels.colours, self._by_value)
        assert pixels.values is not None
        if pixels.palette is not None:
            return self._from_palette(pixels.values, pixels.palette)
        return self._from_values(pixels.values)

    def read_pixels(self, pixels: NDArray[np.uint8]) -> Label:
        """Return the classes of a label that is decoded already: `uint8[H, W]` values, or `uint8[H, W, 3]` RGB colours.

        The value 255 is void unless the remap names it: in an array it can be no class. What this returns is read
        again to the same classes, if no encoding and no remap is given the second time.

        Raises SampleError: `label_value` or `label_colour`.
        """
        if self.encoding == "colour" and pixels.ndim == 2:
            pixels = np.repeat(pixels[:, :, np.newaxis], 3, axis=2)
        if pixels.ndim == 2:
            return Label(_mapped(np.ascontiguousarray(pixels), self._by_value_of_arrays, advise=True))
        return Label(self._from_rgb(pixels, self._by_value_of_arrays))

    def _from_rgb(self, rgb: NDArray[np.uint8], by_value: NDArray[np.int16]) -> NDArray[np.uint8]:
        if self.encoding != "index":
            return self._from_colours(rgb)
        if not _is_grey(rgb):
            raise SampleError("label_value", "it is a picture in colours; its values were asked for")
        return _mapped(np.ascontiguousarray(rgb[:, :, 0]), by_value, advise=True)

    def _from_values(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return _mapped(np.ascontiguousarray(values), self._by_value, advise=True)

    def _from_palette(self, values: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Decode palette indices `uint8[H, W]`; `palette` is `uint8[n, 3]`, RGB."""
        own = self.classes.palette_array[: len(palette)]
        if self._palettes_are_indices or np.array_equal(palette[: len(own)], own):
            return self._from_values(values)
        by_colour = np.full(256, UNKNOWN, dtype=np.int16)
        by_colour[: len(palette)] = self._look_up(_packed(palette))
        named = _without_filler(palette, bool((by_colour[: len(palette)][~palette.any(axis=1)] >= 0).any()))
        if named and by_colour[:named].min() >= 0:
            by_colour[named:] = np.where(self._by_value[named:] == VOID, VOID, UNKNOWN)
            return _mapped(values, by_colour)
        used = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
        if self._are_grey_levels(used, palette):
            levels = np.zeros(256, dtype=np.uint8)
            levels[: len(palette)] = palette[:, 0]
            return self._from_values(levels[values])
        known = by_colour[used].min(initial=0) >= 0 and not (palette[used] == used[:, None]).all()  # no ramp of greys
        if known and not np.array_equal(by_colour[used], self._by_value[used]):
            raise SampleError("label_ambiguous")
        return self._from_values(values)

    def _are_grey_levels(self, used: NDArray[np.int64], palette: NDArray[np.uint8]) -> bool:
        """Return whether a palette holds values: rising greys, each a class or void, one neither black nor white.

        With black and white alone the index is the class: binary masks are shown that way.
        """
        if used.max(initial=0) >= len(palette):
            return False
        colours = palette[used]
        levels = colours[:, 0]
        rise = (colours == levels[:, None]).all() and (levels[1:] > levels[:-1]).all() and (levels != used).any()
        return bool(rise and self._by_value[levels].min(initial=0) >= 0 and ((levels > 0) & (levels < VOID)).any())

    def _from_colours(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        packed = _packed(rgb)
        mapped = self._look_up(packed)
        if mapped.min(initial=0) < 0:
            unknown = np.unique(packed[mapped < 0])
            named = first_few(f"{c >> 16},{c >> 8 & 255},{c & 255}" for c in unknown)
            advice = _WHITE_ADVICE if unknown.tolist() == [_WHITE] else _GREY_ADVICE if _is_grey(rgb) else ""
            raise SampleError("label_colour", named + advice)
        return mapped.astype(np.uint8)

    def _look_up(self, packed: NDArray[np.int32]) -> NDArray[np.int16]:
        """Return the classes of packed colours; `UNKNOWN` for colours without a class."""
        position = np.minimum(np.searchsorted(self._colours, packed), len(self._colours) - 1)
        return np.where(self._colours[position] == packed, self._colour_classes[position], np.int16(self._rest))


def _mapped(values: NDArray[np.uint8], table: NDArray[np.int16], *, advise: bool = False) -> NDArray[np.uint8]:
    """Replace each value by its entry in `table`; an entry below zero is refused. cv2.LUT is much faster than indexing.

    Args:
        values: `uint8[H, W]`.
        table: `int16[256]`, class of each value.
        advise: whether to suggest a remap. It would not help where palette colours decide.

    Raises:
        SampleError: `label_value`.
    """
    mapped = np.asarray(cv2.LUT(values, np.where(table < 0, _SUSPECT, table).astype(np.uint8)), dtype=np.uint8)
    if _SUSPECT in mapped.tobytes():
        used = np.unique(values)
        if unknown := used[table[used] < 0].tolist():
            advice = _advice(unknown, used[table[used] >= 0].tolist()) if advise else ""
            raise SampleError("label_value", first_few(str(value) for value in unknown) + advice)
    return mapped


def _advice(unknown: list[int], known: list[int]) -> str:
    """Return what 255 may mean if it is the only unknown value: void beside classes, or foreground of a binary mask."""
    if unknown != [VOID]:
        return ""
    if set(known) <= {0}:
        return (
            "; if 255 is a class (as in masks of 0 and 255), name it with --label-remap 255=CLASS, and if it marks "
            "pixels without a class, with --label-remap 255=ignore"
        )
    return "; if 255 marks pixels without a class, use --label-remap 255=ignore"


def _without_filler(palette: NDArray[np.uint8], black_is_a_class: bool) -> int:
    """Return the number of palette entries without trailing black filler.

    If black is a class that no earlier entry has, the first black of the filler is its entry.
    """
    used = int(np.flatnonzero(palette.any(axis=1)).max(initial=-1)) + 1
    has_black = used == len(palette) or not palette[:used].any(axis=1).all()
    return used + (black_is_a_class and not has_black)


def _pack(colour: Colour) -> int:
    red, green, blue = colour
    return (red << 16) | (green << 8) | blue


def _packed(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    return (rgb[..., 0].astype(np.int32) << 16) | (rgb[..., 1].astype(np.int32) << 8) | rgb[..., 2]


def _is_grey(rgb: NDArray[np.uint8]) -> bool:
    return np.array_equal(rgb[:, :, 0], rgb[:, :, 1]) and np.array_equal(rgb[:, :, 0], rgb[:, :, 2])
