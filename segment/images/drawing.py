"""Pictures for display: painted masks, overlays, contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray


def paint(mask: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour class indices `uint8[H, W]` by `palette` `uint8[C, 3]`, RGB; values beyond the palette become white."""
    table = np.full((256, 3), 255, dtype=np.uint8)
    table[: len(palette)] = palette
    return table[mask]


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], palette: NDArray[np.uint8], opacity: float = 0.55
) -> NDArray[np.uint8]:
    """Blend the coloured mask over its image, `uint8[H, W, 3]`, RGB. The mask has the image's size."""
    painted = paint(mask, palette)
    return np.asarray(cv2.addWeighted(image, 1 - opacity, painted, opacity, 0), dtype=np.uint8)


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
