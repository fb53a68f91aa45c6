"""The ground of a street: land, pavement, road, markings, the shadows on it and the haze over it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from jobs.streets.canvas import PAVEMENT, ROAD, TREE, Bytes, Canvas, Color, ground
from jobs.streets.colors import ASPHALT, GRASS, PAVING, YARD, mix, pick

_FAR = 140.0  # metres; the road ends there


@dataclass(frozen=True)
class Street:
    """A cross section: distances from the centre line in metres, and what it is made of."""

    road: float  # to the kerb
    pavement: float  # to its far edge
    drive: int  # 1 where one drives on the right, -1 on the left
    asphalt: Color
    paving: Color
    land: Color
    green: bool  # whether the land behind the pavement is grass


def plan(rng: Generator) -> Street:
    """Draw a street."""
    road = float(rng.uniform(3.2, 5.2))
    green = bool(rng.random() < 0.35)
    return Street(
        road=road,
        pavement=road + float(rng.uniform(2.0, 4.0)),
        drive=1 if rng.random() < 0.5 else -1,
        asphalt=pick(rng, ASPHALT, 10),
        paving=pick(rng, PAVING, 10),
        land=pick(rng, GRASS if green else YARD, 10),
        green=green,
    )


def paint_ground(canvas: Canvas, rng: Generator, street: Street) -> None:
    """Land, pavement with its kerb and slabs, road with its markings; shadows and haze over all of it."""
    kerb = street.road + 0.28
    _strip(canvas, -70, 70, street.land, TREE if street.green else PAVEMENT)
    _strip(canvas, -street.pavement, street.pavement, street.paving, PAVEMENT)
    if rng.random() < 0.7:
        _slabs(canvas, street)
    _strip(canvas, -kerb, kerb, mix(street.paving, (196, 192, 186), 0.5), PAVEMENT)
    _strip(canvas, -street.road, street.road, street.asphalt, ROAD)
    _markings(canvas, rng, street)
    first = max(int(canvas.camera.horizon), 0) + 1
    _shade(canvas, _house_shadows(canvas, rng, street)[first:], first)


def _strip(canvas: Canvas, s0: float, s1: float, color: Color, label: int, z0: float = 1.0, z1: float = _FAR) -> None:
    """A band of ground between two distances from the centre line, following the road."""
    edge = np.zeros((28 if z1 == _FAR else 3, 3))
    edge[:, 2] = np.geomspace(z0, z1, len(edge))
    outline = np.concatenate([edge, edge[::-1]])
    outline[:, 0] = np.repeat((s0, s1), len(edge))
    canvas.polygons(outline[None], canvas.light.tone(color, 0.0), label, glow=True)


def _slabs(canvas: Canvas, street: Street) -> None:
    """The joints of the paving, as far as one can make them out."""
    z = np.arange(2.0, 26.0, 1.2)
    joints = np.zeros((2 * len(z), 2, 3))
    joints[:, :, 0] = np.repeat([[-street.pavement, -street.road], [street.road, street.pavement]], len(z), axis=0)
    joints[:, :, 2] = np.tile(z, 2)[:, None]
    canvas.lines(joints, 0.01, mix(street.paving, (70, 68, 66), 0.3), PAVEMENT)


def _markings(canvas: Canvas, rng: Generator, street: Street) -> None:
    """Patches of newer asphalt, edge lines, a broken centre line and now and then a zebra crossing."""
    paint = mix((232, 230, 222), street.asphalt, float(rng.uniform(0.0, 0.4)))
    for _ in range(int(rng.integers(0, 4))):
        s, z = float(rng.uniform(-street.road, street.road - 1.0)), float(rng.uniform(3, 30))
        tar = mix(street.asphalt, (40, 40, 44), float(rng.uniform(0.1, 0.4)))
        _strip(canvas, s, min(s + float(rng.uniform(0.6, 2)), street.road), tar, ROAD, z, z * 1.25)
    if rng.random() < 0.45:
        for side in (-1, 1):
            _strip(canvas, side * (street.road - 0.35), side * (street.road - 0.22), paint, ROAD)
    if rng.random() < 0.8:
        for z in np.arange(float(rng.uniform(1, 6)), 70, 6).tolist():
            _strip(canvas, -0.08, 0.08, paint, ROAD, z, z + 3)
    if rng.random() < 0.3:
        z = float(rng.uniform(6, 18))
        for s in np.arange(-street.road + 0.3, street.road - 0.5, 1.0).tolist():
            _strip(canvas, s, s + 0.5, paint, ROAD, z, z + 3)


def _house_shadows(canvas: Canvas, rng: Generator, street: Street) -> Bytes:
    """A soft mask uint8[H, W] of the shadows that the houses on the sunny side throw over the street."""
    mask = np.zeros(canvas.pixels.shape[:2], np.uint8)
    sun, z = canvas.light.sun, 1.0
    while z < 60:
        deep = float(rng.uniform(4, 11))
        reach = street.pavement - float(rng.uniform(-1, street.pavement * 1.3))
        outline = canvas.camera.project(ground(sun * 30, sun * reach, z, z + deep))
        cv2.fillPoly(mask, [outline.astype(np.int32)], 255)
        z += deep + (3.0 if rng.random() < 0.5 else 0.0)
    soft: Bytes = cv2.blur(mask, (5, 3)).astype(np.uint8, copy=False)
    return soft


def _shade(canvas: Canvas, shadow: Bytes, first: int) -> None:
    """Darken the ground, from canvas row `first` down, where `shadow` is, and lay each row's haze over it."""
    camera, light = canvas.camera, canvas.light
    depth = camera.focal * camera.height / np.arange(1, len(shadow) + 1, dtype=np.float32)
    clear = np.exp(-np.minimum(depth, _FAR) / light.visibility)[:, None]
    dark = ((255 - shadow.astype(np.float32) * light.shadow) * clear).astype(np.uint8)
    haze = ((1 - clear) * np.array([*light.skyline, 0], np.float32)).astype(np.uint8)[:, None]
    below = canvas.pixels[first:]
    cv2.multiply(below, cv2.merge([dark, dark, dark, np.full_like(dark, 255)]), below, 1 / 255)
    cv2.add(below, np.repeat(haze, shadow.shape[1], axis=1), below)
