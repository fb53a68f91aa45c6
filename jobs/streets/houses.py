"""Houses along the street: walls, roofs, windows and shop fronts in perspective."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from jobs.streets.canvas import BUILDING, Canvas, Color, Points, quad
from jobs.streets.colors import PAINTS, ROOFS, WALLS, WARM, mix, pick


@dataclass(frozen=True)
class _House:
    """A box with its front along the street; metres, `front` and `back` to the right of the centre line."""

    front: float
    back: float
    z0: float
    z1: float
    height: float
    floors: int
    wall: Color
    trim: Color
    sunny: float  # how bright the front is

    def on_front(self, z0: float, z1: float, y0: float, y1: float) -> Points:
        """A rectangle [4, 3] on the front."""
        return quad(self.front, self.front, y0, y1, z0, z1)


def building(canvas: Canvas, rng: Generator, side: int, wall: float, z0: float, z1: float) -> None:
    """A house on the left (-1) or right (1): front `wall` metres from the centre line, `z0` to `z1` ahead."""
    color, height = pick(rng, WALLS), float(rng.uniform(5.5, 15.0))
    trim = mix(color, (236, 232, 222), 0.55)
    sunny = 1.04 if canvas.light.sun != side else 0.74
    floors = max(2, int(height / 3.1))
    house = _House(side * wall, side * (wall + 9.0), z0, z1, height, floors, color, trim, sunny)
    if rng.random() < 0.55:
        _roof(canvas, rng, house)
    canvas.polygon(quad(house.front, house.back, 0, height, z0, z0), color, BUILDING, 0.86)
    canvas.polygon(house.on_front(z0, z1, 0, height), color, BUILDING, sunny)
    canvas.polygon(house.on_front(z0, z1, height - 0.5, height), trim, BUILDING, sunny)
    _windows(canvas, rng, house)
    _ground_floor(canvas, rng, house)


def _roof(canvas: Canvas, rng: Generator, house: _House) -> None:
    """A pitched roof with its gable to the camera, sometimes with a chimney."""
    tiles, eaves = pick(rng, ROOFS), house.height
    ridge, top = (house.front + house.back) / 2, eaves + float(rng.uniform(2.0, 4.0))
    if rng.random() < 0.5:
        z = (house.z0 + house.z1) / 2
        canvas.polygon(quad(ridge - 0.5, ridge + 0.5, eaves, top + 1.2, z, z), house.wall, BUILDING, 0.7)
    near, far = (ridge, top, house.z0), (ridge, top, house.z1)
    edge = ((house.front, eaves, house.z0), (house.front, eaves, house.z1))
    canvas.polygon([edge[0], (house.back, eaves, house.z0), near], house.wall, BUILDING, 0.86)
    canvas.polygon([*edge, far, near], tiles, BUILDING)


def _windows(canvas: Canvas, rng: Generator, house: _House) -> None:
    """Rows of framed windows over the upper floors, some of them lit."""
    columns = max(1, int((house.z1 - house.z0) / float(rng.uniform(2.0, 3.2))))
    wide, tall = (house.z1 - house.z0) / columns, house.height / house.floors
    size = np.array([wide * float(rng.uniform(0.4, 0.7)), tall * float(rng.uniform(0.45, 0.66))])
    z = house.z0 + wide * (np.arange(columns) + 0.5)
    y = tall * (np.arange(1, house.floors) + 0.24)
    centers = np.stack(np.meshgrid(z, y), axis=-1).reshape(-1, 1, 2)
    corners = centers + np.array([[-0.5, 0], [0.5, 0], [0.5, 1], [-0.5, 1]]) * size
    panes = np.full((len(corners), 4, 3), house.front)
    panes[:, :, 2], panes[:, :, 1] = corners[..., 0], corners[..., 1]
    frames = panes + np.array([[0, -0.14, -0.12], [0, -0.14, 0.12], [0, 0.1, 0.12], [0, 0.1, -0.12]])
    canvas.polygons(frames, house.trim, BUILDING, house.sunny)
    lit = rng.random(len(panes)) < canvas.light.lit
    glass = mix((46, 54, 66), canvas.light.zenith, float(rng.uniform(0.05, 0.5)))
    canvas.polygons(panes[~lit], glass, BUILDING, 0.85)
    canvas.polygons(panes[lit], WARM, BUILDING, glow=True)


def _ground_floor(canvas: Canvas, rng: Generator, house: _House) -> None:
    """A shop with an awning, or a door with a window to either side."""
    lit = bool(rng.random() < canvas.light.lit)
    pane: Color = WARM if lit else (52, 58, 66)
    z0, z1, tall, front = house.z0 + 0.4, house.z1 - 0.4, house.height / house.floors, house.front
    if rng.random() < 0.5:
        canvas.polygons(house.on_front(z0, z1, 0.4, tall * 0.74)[None], pane, BUILDING, 0.9, lit)
        out, high, low = front - (1.3 if front > 0 else -1.3), tall * 0.98, tall * 0.76
        awning = [(front, high, z0), (front, high, z1), (out, low, z1), (out, low, z0)]
        canvas.polygon(awning, pick(rng, PAINTS), BUILDING, house.sunny)
        return
    z = z0 + (z1 - z0) * float(rng.uniform(0.25, 0.75))
    canvas.polygon(house.on_front(z - 0.75, z + 0.75, 0, 2.3), house.trim, BUILDING, house.sunny)
    canvas.polygon(house.on_front(z - 0.55, z + 0.55, 0, 2.15), pick(rng, PAINTS), BUILDING, house.sunny)
    for edge in (z - 2.6, z + 1.4):
        if z0 < edge and edge + 1.2 < z1:
            canvas.polygons(house.on_front(edge, edge + 1.2, 0.9, 2.2)[None], pane, BUILDING, 0.85, lit)
