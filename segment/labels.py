"""What a class is: names, palettes, ignored classes, and label images as class indices."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from segment.errors import SampleError

Colour = tuple[
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
]
Encoding = Literal["auto", "index", "colour"]

VOID = 255  # in a decoded label: this pixel is ignored and is no class
UNKNOWN = -1  # while decoding: nobody has said what this value or colour is
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # of images and labels; no other decoder of Pillow ever runs

_SUSPECT = 254  # while mapping: unknown, unless there are so many classes
_NAMED = 3  # values or colours that an error names

Image.init()  # or `formats` knows only those that were opened before
# Sizes are checked before a pixel is decoded, against limits of our own. Pillow's would refuse what those allow, and
# its warnings cannot be silenced for the time of a call: `catch_warnings` is not safe in threads.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")


def open_header(data: bytes) -> Image.Image:
    """Open an image or label with Pillow: size and mode are known, no pixel is decoded. Raises whatever Pillow does."""
    return Image.open(io.BytesIO(data), formats=FORMATS)


class Classes(BaseModel):
    """The classes of a data set.

    Attributes:
        names: class names by index.
        palette: RGB colour by index, as many as names.
        ignore: label values left out of every metric. A value below `len(names)` is a class that is
            ignored (CamVid's 'Unlabeled'); any other is 'void', such as VOC's 255.
        void_colours: RGB colours that mean 'void' in colour-coded labels, such as VOC's (224, 224, 192).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: tuple[str, ...] = Field(min_length=1, max_length=255)
    palette: tuple[Colour, ...]
    ignore: tuple[Annotated[int, Field(ge=0, le=255)], ...] = ()
    void_colours: tuple[Colour, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Classes:
        if len(self.palette) != len(self.names):
            raise ValueError(
                f"{len(self.names)} names but {len(self.palette)} palette colours: give one colour a class"
            )
        if len(set(self.names)) != len(self.names):
            raise ValueError("class names must differ from each other")
        return self

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ignored_classes(self) -> tuple[int, ...]:
        """Indices of the classes that no metric counts."""
        return tuple(sorted(value for value in set(self.ignore) if value < len(self.names)))

    @property
    def void_values(self) -> tuple[int, ...]:
        """Label values that are ignored and are no class."""
        return tuple(sorted(value for value in set(self.ignore) if value >= len(self.names)))

    def index(self, name: str) -> int:
        """Return the index of a class name (case does not matter). Raises KeyError."""
        lowered = [known.lower() for known in self.names]
        if name.lower() not in lowered:
            raise KeyError(name)
        return lowered.index(name.lower())

    @property
    def palette_array(self) -> NDArray[np.uint8]:
        """The palette as `uint8[C, 3]`, RGB."""
        return np.asarray(self.palette, dtype=np.uint8)


class LabelDecoder:
    """Turns the bytes of a label image into class indices.

    Three encodings are known: an 8-bit image whose value is the class index, a palette image whose palette
    index is the class index, and an image whose colour is the class (by the card's palette, or by `remap`).
    `auto` takes grey for values and RGB for colours. A palette image is taken for

    - indices if its palette begins as the card's does;
    - colours if its palette holds nothing but colours of the card (or of `remap`), which is what tools leave that
      sort or shrink palettes;
    - indices if its palette is another one - unless all colours in use are the card's and name other classes than
      the indices: then it is refused as `label_ambiguous`.

    A remap of values (and of no colours) says that palette images are indices, too.

    Args:
        classes: the model's classes.
        encoding: `auto`, `index` or `colour`.
        remap: from a label value (`"7"`) or colour (`"64,0,128"` or `"#400080"`) to a class name, a class
            index, or `"ignore"`. What it does not name keeps its meaning; `"*"` names all the rest.

    Raises:
        ValueError: a remap key or value cannot be understood.
    """

    def __init__(
        self, classes: Classes, encoding: Encoding = "auto", remap: Mapping[str, str | int] | None = None
    ) -> None:
        self.classes = classes
        self.encoding = encoding
        self._by_value = np.full(256, UNKNOWN, dtype=np.int16)
        self._by_value[: len(classes)] = np.arange(len(classes))
        by_colour = {_pack(colour): index for index, colour in enumerate(classes.palette)}
        self._rest = UNKNOWN  # what a colour is that nobody named
        remap = dict(remap or {})
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
        self._palettes_are_indices = encoding == "index" or (bool(values) and len(values) == len(sources))

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
        raise ValueError(f"remap to {target!r}: not a class name, a class index below {len(self.classes)} or 'ignore'")

    def decode(self, data: bytes, height: int, width: int) -> NDArray[np.uint8]:
        """Decode the label of an image of `height` x `width` pixels.

        Returns:
            `uint8[height, width]` of class indices; `VOID` (255) where the pixel is ignored and is no class.

        Raises:
            SampleError: `label_empty`, `label_undecodable`, `label_size`, `label_value`, `label_colour` or
                `label_ambiguous`.
        """
        if not data:
            raise SampleError("label_empty")
        pixels, palette = _label_pixels(data, height, width, as_colour=self.encoding == "colour")
        if palette is not None:
            return self._from_palette(pixels, palette)
        if pixels.ndim == 2:
            return self._from_values(pixels)
        if self.encoding != "index":
            return self._from_colours(pixels)
        if not _is_grey(pixels):
            raise SampleError("label_value", "it is a picture in colours; its values were asked for")
        return self._from_values(pixels[:, :, 0])

    def _from_values(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return _mapped(values, self._by_value)

    def _from_palette(self, values: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Decode palette indices `uint8[H, W]`; `palette` is `uint8[n, 3]`, RGB."""
        own = self.classes.palette_array[: len(palette)]
        if self._palettes_are_indices or np.array_equal(palette[: len(own)], own):
            return self._from_values(values)
        by_colour = np.full(256, UNKNOWN, dtype=np.int16)
        by_colour[: len(palette)] = self._look_up(_packed(palette))
        named = len(palette)
        while named and by_colour[named - 1] < 0 and not palette[named - 1].any():
            named -= 1  # palettes are filled up with black
        if named and by_colour[:named].min() >= 0:
            return _mapped(values, np.where(by_colour < 0, np.where(self._by_value == VOID, VOID, UNKNOWN), by_colour))
        used = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
        known = by_colour[used].min(initial=0) >= 0 and not (palette[used] == used[:, None]).all()  # no ramp of greys
        if known and not np.array_equal(by_colour[used], self._by_value[used]):
            raise SampleError("label_ambiguous")
        return self._from_values(values)

    def _from_colours(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        packed = _packed(rgb)
        mapped = self._look_up(packed)
        if mapped.min(initial=0) < 0:
            unknown = np.unique(packed[mapped < 0])
            raise SampleError("label_colour", _some(f"{c >> 16},{c >> 8 & 255},{c & 255}" for c in unknown))
        return mapped.astype(np.uint8)

    def _look_up(self, packed: NDArray[np.int32]) -> NDArray[np.int16]:
        """Return the classes of packed colours; `UNKNOWN` for those that are none."""
        position = np.minimum(np.searchsorted(self._colours, packed), len(self._colours) - 1)
        return np.where(self._colours[position] == packed, self._colour_classes[position], np.int16(self._rest))


def _mapped(values: NDArray[np.uint8], table: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Replace each value by what `table` has for it; one below zero is refused. Many times as fast as indexing."""
    mapped = np.asarray(cv2.LUT(values, np.where(table < 0, _SUSPECT, table).astype(np.uint8)), dtype=np.uint8)
    if _SUSPECT in mapped.tobytes():
        used = np.unique(values)
        if unknown := used[table[used] < 0].tolist():
            raise SampleError("label_value", _some(str(value) for value in unknown))
    return mapped


def _label_pixels(
    data: bytes, height: int, width: int, *, as_colour: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return `uint8[H, W]` values or `uint8[H, W, 3]` RGB, and of a palette image the palette, `uint8[n, 3]`.

    Pillow, because OpenCV applies palettes.
    """
    try:
        image = open_header(data)
        if image.size != (width, height):
            raise SampleError("label_size", f"{image.width}x{image.height} for an image of {width}x{height}")
        if image.mode == "P" and not as_colour:
            palette = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
            return np.asarray(image), palette
        if image.mode in ("L", "1") and not as_colour:
            return _unscaled(np.asarray(image).astype(np.uint8), image, data), None
        if image.mode in ("I", "I;16", "I;16B", "I;16L") and not as_colour:
            values = np.asarray(image)
            if values.min() < 0 or values.max() > 255:
                raise SampleError(
                    "label_value", _some(str(v) for v in np.unique(values[(values < 0) | (values > 255)]))
                )
            return values.astype(np.uint8), None
        return np.asarray(image.convert("RGB")), None
    except SampleError:
        raise
    except Exception as error:  # Pillow raises many types on damaged files
        raise SampleError("label_undecodable") from error


def _some(found: Iterable[str]) -> str:
    """Name the first few: `77, 80, 81 and 4 more`."""
    names = list(found)
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _unscaled(values: NDArray[np.uint8], image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    """Undo the scaling to 0-255 that Pillow applies to grey PNG and TIFF of 2 or 4 bits."""
    if image.mode != "L":
        return values
    depth = data[24] if image.format == "PNG" else getattr(image, "tag_v2", {}).get(258, (8,))[0]
    return values // np.uint8(255 // (2**depth - 1)) if depth in (2, 4) else values


def _pack(colour: Colour) -> int:
    red, green, blue = colour
    return (red << 16) | (green << 8) | blue


def _packed(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    return (rgb[..., 0].astype(np.int32) << 16) | (rgb[..., 1].astype(np.int32) << 8) | rgb[..., 2]


def parse_source(key: str) -> int | Colour:
    """Return the label value or colour that a remap's key names. Raises ValueError."""
    text = key.strip()
    try:
        if text.startswith("#") and len(text) == 7:
            red, green, blue = bytes.fromhex(text[1:])
            return red, green, blue
        numbers = [int(part) for part in text.replace(",", " ").split()]
        if all(0 <= number <= 255 for number in numbers):
            if len(numbers) == 1:
                return numbers[0]
            if len(numbers) == 3:
                return numbers[0], numbers[1], numbers[2]
    except ValueError:
        pass
    raise ValueError(f"remap from {key!r}: not a label value (0-255) or a colour ('R,G,B' or '#rrggbb')")


def _is_grey(rgb: NDArray[np.uint8]) -> bool:
    return np.array_equal(rgb[:, :, 0], rgb[:, :, 1]) and np.array_equal(rgb[:, :, 0], rgb[:, :, 2])
