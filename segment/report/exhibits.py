"""The pictures of an image on HTML pages: the image, masks over it and what differs between them, as data URIs.

They are small enough that a page of them stays one file that can be sent.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.images import codec
from segment.images.drawing import borders, paint
from segment.images.perceptual_hash import PerceptualHash
from segment.models.classes import VOID, Classes
from segment.report.pictures import ImageView
from segment.store.names import shown

_SIDES = (960, 640, 480, 320, 160, 80)  # longest side in pixels; the first one that fits the budget is used
_BUDGET = 400_000  # bytes of the data URIs of an exhibit: the 26 of a page stay below 11 MB
_QUALITY = 82  # of JPEG
_NO_LINE = np.uint8(255)
SAME = 0  # kind of difference of a pixel without one: transparent

Phrase = tuple[str, str]  # class of the style sheet, or "", and text


class Pane(NamedTuple):
    """One picture: the image alone (kind `photo`), or a layer over it (`mask`, or `wrongness` over a grey image).

    Attributes:
        title: what it shows.
        kind: class of the style sheet.
        layer: data URI.
        lines: data URI of the lines along the borders of a mask; None for other kinds.
    """

    title: str
    kind: str
    layer: str
    lines: str | None = None


@dataclass(frozen=True)
class Exhibit:
    """One image.

    Attributes:
        id, uri: printable, without secrets.
        width, height: size of the image in pixels.
        shown_width, shown_height: size of the embedded pictures in pixels.
        panes: its pictures; the image itself first, where there is a source.
        classes: indices of the classes that are seen in its masks.
        differences: kinds of differences that are seen.
    """

    id: str
    uri: str
    width: int
    height: int
    shown_width: int
    shown_height: int
    panes: tuple[Pane, ...]
    classes: tuple[int, ...]
    differences: tuple[int, ...]
    phrases: tuple[Phrase, ...]

    @property
    def has_photo(self) -> bool:
        """Whether the image itself is there."""
        return self.panes[0].kind == "photo"

    @property
    def is_pair(self) -> bool:
        """Whether there are two pictures at most: the image and one mask."""
        return len(self.panes) <= 2


@dataclass(frozen=True)
class Group:
    """Exhibits under one heading."""

    title: str
    note: str
    exhibits: tuple[Exhibit, ...]


@dataclass(frozen=True)
class Colours:
    """The colours of pictures.

    Attributes:
        classes: `uint8[C, 3]`, RGB, by class index.
        clear: class indices that are transparent, with `VOID`.
        differences: `uint8[N, 3]`, RGB, by kind of difference; `SAME` is transparent.
    """

    classes: NDArray[np.uint8]
    clear: tuple[int, ...]
    differences: NDArray[np.uint8]


def draw_exhibit(
    view: ImageView,
    masks: Sequence[tuple[str, NDArray[np.uint8]]],
    difference: NDArray[np.uint8] | None,
    colours: Colours,
    phrases: Iterable[Phrase],
) -> Exhibit:
    """Draw the pictures of one image, as large as the budget allows.

    Args:
        masks: title and class indices `uint8[H, W]` of each mask.
        difference: kinds of differences, `uint8[H, W]`; None for no such picture.
    """
    height, width = view.mask.shape
    for side in _SIDES:
        scale = min(1.0, side / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        panes = tuple(_panes(view.photo, masks, difference, colours, size))
        if sum(len(uri or "") for pane in panes for uri in (pane.layer, pane.lines)) <= _BUDGET:
            break
    return Exhibit(
        shown(view.id),
        shown(view.uri),
        width,
        height,
        size[1],
        size[0],
        panes,
        classes=_seen(size, colours.clear, [mask for _, mask in masks]),
        differences=_seen(size, (SAME,), [] if difference is None else [difference]),
        phrases=tuple(phrases),
    )


def _panes(
    photo: NDArray[np.uint8] | None,
    masks: Sequence[tuple[str, NDArray[np.uint8]]],
    difference: NDArray[np.uint8] | None,
    colours: Colours,
    size: tuple[int, int],
) -> Iterator[Pane]:
    if photo is not None:
        yield Pane("Image", "photo", _uri("jpeg", codec.encode_jpeg(smaller(photo, size, cv2.INTER_AREA), _QUALITY)))
    for title, mask in masks:
        yield Pane(title, "mask", *_mask_uris(mask, size, colours.classes, colours.clear))
    if difference is not None:
        yield Pane("Difference", "wrongness", _png_uri(smaller(difference, size), colours.differences, (SAME,)))


def _seen(size: tuple[int, int], clear: tuple[int, ...], drawn: Sequence[NDArray[np.uint8]]) -> tuple[int, ...]:
    """Return the values, ascending, that are seen in pictures `uint8[H, W]` as they are drawn at a size."""
    found = {value for pixels in drawn for value in np.unique(smaller(pixels, size)).tolist()}
    return tuple(sorted(found - {*clear, VOID}))


def look_of(view: ImageView, classes: Classes) -> PerceptualHash:
    """Return what an image looks like; without a source, what its mask looks like."""
    return PerceptualHash.of(paint(view.mask, classes.palette_array) if view.photo is None else view.photo)


# --- legends ---------------------------------------------------------------------------------------------------------


def classes_in(exhibits: Iterable[Exhibit]) -> list[int]:
    """Return the indices of the classes that are seen."""
    return sorted({index for one in exhibits for index in one.classes})


def differences_in(
    exhibits: Iterable[Exhibit], words: Mapping[int, str], palette: NDArray[np.uint8]
) -> list[tuple[int, str, list[int]]]:
    """Return kind, meaning and colour, RGB, of the differences that are seen."""
    kinds = sorted({kind for one in exhibits for kind in one.differences})
    return [(kind, words[kind], palette[kind].tolist()) for kind in kinds]


# --- data URIs -------------------------------------------------------------------------------------------------------


def smaller(
    pixels: NDArray[np.uint8], size: tuple[int, int], interpolation: int = cv2.INTER_NEAREST_EXACT
) -> NDArray[np.uint8]:
    """Resize pixels to `size` (height, width); by default to the nearest one, as class indices need it."""
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(cv2.resize(pixels, (size[1], size[0]), interpolation=interpolation), np.uint8)


def _mask_uris(
    mask: NDArray[np.uint8], size: tuple[int, int], palette: NDArray[np.uint8], clear: tuple[int, ...]
) -> tuple[str, str]:
    """Return the colours of a mask, and the lines along the borders of its classes, as two PNGs.

    Args:
        mask: class indices, `uint8[H, W]`.
        size: (height, width) of the pictures.
        palette: `uint8[C, 3]`, RGB.
        clear: values that are transparent; 255 is one of them.
    """
    small = smaller(mask, size)
    lines = np.where(borders(small, clear), small, _NO_LINE)
    return _png_uri(small, palette, clear), _png_uri(lines, palette, (int(_NO_LINE),))


def _png_uri(pixels: NDArray[np.uint8], palette: NDArray[np.uint8], clear: tuple[int, ...]) -> str:
    """Return indices `uint8[H, W]` as a PNG with a palette `uint8[N, 3]`; the indices `clear` are transparent."""
    return _uri("png", codec.encode_palette_png(pixels, palette, clear))


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
