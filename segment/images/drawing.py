"""Pictures for display: painted masks, overlays, contact sheets."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

LINES = 1.8  # opacity of the lines along borders, in that of the colours
_FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)  # its scale and the width of its lines in pixels
_FRAME = (150, 150, 150)
_LONGEST_NAME = 32  # characters


def paint(mask: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour class indices `uint8[H, W]` by `palette` `uint8[C, 3]`, RGB; values beyond the palette become white."""
    table = np.full((256, 3), 255, dtype=np.uint8)
    table[: len(palette)] = palette
    return table[mask]


def overlay(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    palette: NDArray[np.uint8],
    opacity: float = 0.55,
    clear: Sequence[int] = (),
) -> NDArray[np.uint8]:
    """Blend the coloured mask over its image, `uint8[H, W, 3]`, RGB, with a stronger line along every border.

    Args:
        image: `uint8[H, W, 3]`, RGB.
        mask: class indices, `uint8[H, W]`.
        palette: `uint8[C, 3]`, RGB.
        opacity: of the colours, 0-1; that of the lines is `LINES` times as high, at most 1.
        clear: classes that are not drawn, such as the background.
    """
    painted = paint(mask, palette)
    drawn, lines = ~np.isin(mask, clear), borders(mask, clear)
    blended = image.copy()
    for pixels, share in ((drawn & ~lines, opacity), (lines, min(1.0, LINES * opacity))):
        mixed = cv2.addWeighted(image, 1 - share, painted, share, 0)
        blended[pixels] = mixed[pixels]
    return blended


def borders(mask: NDArray[np.uint8], clear: Sequence[int] = ()) -> NDArray[np.bool_]:
    """Return the pixels along the borders of classes, `bool[H, W]`, on both sides but for the classes in `clear`.

    The line is a pixel wide, and wider in a picture of more than 640 pixels, which is shown smaller.
    """
    width = max(1, round(max(mask.shape) / 640))
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    is_border = (cv2.dilate(mask, kernel) != mask) | (cv2.erode(mask, kernel) != mask)
    return np.asarray(is_border & ~np.isin(mask, clear), np.bool_)


def grid(tiles: Sequence[NDArray[np.uint8]], columns: int, tile_width: int = 320, gap: int = 6) -> NDArray[np.uint8]:
    """Arrange RGB pictures in rows of `columns` on white, each scaled to `tile_width` pixels with a `gap` in pixels."""
    scaled = [
        cv2.resize(t, (tile_width, max(1, round(t.shape[0] * tile_width / t.shape[1]))), interpolation=cv2.INTER_AREA)
        for t in tiles
    ]
    rows = [scaled[i : i + columns] for i in range(0, len(scaled), columns)]
    heights = [max(t.shape[0] for t in row) for row in rows]
    canvas = np.full((sum(heights) + gap * (len(rows) + 1), columns * (tile_width + gap) + gap, 3), 255, np.uint8)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            left = gap + column * (tile_width + gap)
            canvas[top : top + tile.shape[0], left : left + tile_width] = tile
        top += height + gap
    return canvas


def legend(names: Sequence[str], colours: Sequence[Sequence[int] | None], width: int) -> NDArray[np.uint8]:
    """Draw names beside their colours on white, in columns as wide as the longest.

    Args:
        names: texts; long ones are cut.
        colours: RGB; None for what is not drawn, an empty frame.
        width: in pixels.
    """
    texts = [_valid(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}...") for name in names]
    column = 36 + max((cv2.getTextSize(text, *_FONT)[0][0] for text in texts), default=0)
    per_line = max(1, width // column)
    strip = np.full((-(-len(texts) // per_line) * 24 + 8, width, 3), 255, np.uint8)
    for place, (text, colour) in enumerate(zip(texts, colours, strict=True)):
        left, top = (place % per_line) * column + 8, (place // per_line) * 24 + 4
        if colour is not None:
            cv2.rectangle(strip, (left, top), (left + 14, top + 14), tuple(map(int, colour)), -1)
        cv2.rectangle(strip, (left, top), (left + 14, top + 14), _FRAME, 1)
        write(strip, text, (left + 20, top + 12))
    return strip


def write(picture: NDArray[np.uint8], text: str, at: tuple[int, int]) -> None:
    """Write a line into a picture, in place, its left end on the base line at `at`, x and y in pixels."""
    cv2.putText(picture, _valid(text), at, _FONT[0], _FONT[1], (40, 40, 40), _FONT[2], cv2.LINE_AA)


def _valid(text: str) -> str:
    """Replace what UTF-8 cannot hold, such as bytes in names of files: OpenCV crashes on it."""
    return text.encode("utf-8", "replace").decode()
