"""What a class is: names, palettes, ignored classes, and label images as class indices."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Annotated, Literal

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
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # of images and labels; no other decoder of Pillow ever runs

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

    Three encodings are known: an 8-bit image whose value is the class index, a palette PNG whose palette
    index is the class index, and an RGB image whose colour is the class (by the card's palette, or by
    `remap`). `auto` tells them apart by the number of channels.

    Args:
        classes: the model's classes.
        encoding: `auto`, `index` or `colour`.
        remap: from a label value (`"7"`) or colour (`"64,0,128"` or `"#400080"`) to a class name, a class
            index, or `"ignore"`. With a remap, values and colours it does not name are errors, but for those that
            `classes` calls void.

    Raises:
        ValueError: a remap key or value cannot be understood.
    """

    def __init__(
        self, classes: Classes, encoding: Encoding = "auto", remap: Mapping[str, str | int] | None = None
    ) -> None:
        self.classes = classes
        self.encoding = encoding
        self._by_value = np.full(256, -1, dtype=np.int16)
        self._by_value[list(classes.void_values)] = VOID
        self._by_colour = {_pack(colour): VOID for colour in classes.void_colours}
        if remap:
            self._learn_remap(remap)
        else:
            self._by_value[: len(classes)] = np.arange(len(classes))
            self._by_colour |= {_pack(colour): index for index, colour in enumerate(classes.palette)}
        self._colours = np.array(sorted(self._by_colour), dtype=np.int32)
        self._colour_classes = np.array([self._by_colour[int(c)] for c in self._colours], dtype=np.uint8)

    def _learn_remap(self, remap: Mapping[str, str | int]) -> None:
        for key, target in remap.items():
            source = _parse_source(key)
            value = self.parse_target(target)
            if isinstance(source, int):
                self._by_value[source] = value
            else:
                self._by_colour[_pack(source)] = value

    def parse_target(self, target: str | int) -> int:
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
            SampleError: `label_empty`, `label_undecodable`, `label_size`, `label_value` or `label_colour`.
        """
        if not data:
            raise SampleError("label_empty")
        pixels = _label_pixels(data, height, width, as_colour=self.encoding == "colour")
        if pixels.ndim == 2:
            return self._from_values(pixels)
        if self.encoding != "index":
            return self._from_colours(pixels)
        if not _is_grey(pixels):
            raise SampleError("label_value")
        return self._from_values(pixels[:, :, 0])

    def _from_values(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        mapped = self._by_value[values]
        if mapped.min(initial=0) < 0:
            raise SampleError("label_value")
        return mapped.astype(np.uint8)

    def _from_colours(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        packed = (rgb[:, :, 0].astype(np.int32) << 16) | (rgb[:, :, 1].astype(np.int32) << 8) | rgb[:, :, 2]
        position = np.searchsorted(self._colours, packed)
        position = np.minimum(position, len(self._colours) - 1)
        if not len(self._colours) or not np.array_equal(self._colours[position], packed):
            raise SampleError("label_colour")
        return self._colour_classes[position]


def _label_pixels(data: bytes, height: int, width: int, *, as_colour: bool) -> NDArray[np.uint8]:
    """Return `uint8[H, W]` values or `uint8[H, W, 3]` RGB. Pillow, because OpenCV applies palettes."""
    try:
        image = open_header(data)
        if image.size != (width, height):
            raise SampleError("label_size")
        if as_colour:
            return np.asarray(image.convert("RGB"))
        if image.mode in ("L", "P", "1"):
            return _unscaled(np.asarray(image).astype(np.uint8), image, data)
        if image.mode in ("I", "I;16", "I;16B", "I;16L"):
            values = np.asarray(image)
            if values.min() < 0 or values.max() > 255:
                raise SampleError("label_value")
            return values.astype(np.uint8)
        return np.asarray(image.convert("RGB"))
    except SampleError:
        raise
    except Exception as error:  # Pillow raises many types on damaged files
        raise SampleError("label_undecodable") from error


def _unscaled(values: NDArray[np.uint8], image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    """Undo the scaling to 0-255 that Pillow applies to grey PNG and TIFF of 2 or 4 bits."""
    if image.mode != "L":
        return values
    depth = data[24] if image.format == "PNG" else getattr(image, "tag_v2", {}).get(258, (8,))[0]
    return values // np.uint8(255 // (2**depth - 1)) if depth in (2, 4) else values


def _pack(colour: Colour) -> int:
    red, green, blue = colour
    return (red << 16) | (green << 8) | blue


def _parse_source(key: str) -> int | Colour:
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
