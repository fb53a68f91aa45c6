"""What stands and moves along the street: trees, lamps, signs, fences, people, bicycles and clutter.

Each function paints one thing at `s` metres right of the road's centre line and `z` metres ahead.
"""

from collections.abc import Callable
from math import cos, pi, sin

import cv2
import numpy as np
from numpy.random import Generator

from jobs.streets.canvas import (
    BIKE,
    CIRCLE,
    FENCE,
    PEDESTRIAN,
    POLE,
    SIGN,
    TREE,
    UNLABELED,
    Canvas,
    Color,
    quad,
)
from jobs.streets.colors import BARK, CLOTHES, HAIR, LEAVES, PAINTS, SKIN, mix, pick

Prop = Callable[[Canvas, Generator, float, float], None]

_WHITE: Color = (238, 238, 232)
_RED: Color = (200, 36, 40)


def tree(canvas: Canvas, rng: Generator, s: float, z: float) -> None:
    """A trunk under a crown of leaves."""
    height = float(rng.uniform(4.5, 9.0))
    wide, lean = height * float(rng.uniform(0.2, 0.42)), float(rng.normal(0, 0.2))
    trunk = [(s, 0.0, z), (s + lean, height * 0.55, z)]
    canvas.line(trunk, float(rng.uniform(0.22, 0.45)), pick(rng, BARK), TREE, 0.8)
    _crown(canvas, rng, (s + lean, height * 0.68, z), wide, height * 0.32, 26 if z < 45 else 10)


def bush(canvas: Canvas, rng: Generator, s: float, z: float) -> None:
    """A shrub that sits on the ground."""
    size = float(rng.uniform(0.5, 1.1))
    _crown(canvas, rng, (s, size * 0.7, z), size, size * 0.7, 9)


def _crown(
    canvas: Canvas, rng: Generator, center: tuple[float, float, float], wide: float, tall: float, blobs: int
) -> None:
    """Ragged blobs in an ellipse: dark ones low and behind, bright ones high and to the sun."""
    angle, radius = rng.uniform(0, 2 * pi, blobs), np.sqrt(rng.random(blobs))
    right, up = radius * np.cos(angle), radius * np.sin(angle)
    shade = 0.82 + 0.24 * up + 0.16 * right * canvas.light.sun + rng.normal(0, 0.07, blobs)
    turn = np.arange(14) * pi / 7
    size = 0.42 * (1.25 - 0.6 * radius[:, None]) * (1 + 0.16 * rng.standard_normal((blobs, 14)))
    leaves = np.full((blobs, 14, 3), center[2])
    leaves[:, :, 0] = center[0] + 0.85 * wide * (right[:, None] + size * np.cos(turn))
    leaves[:, :, 1] = np.maximum(center[1] + 0.85 * tall * (up[:, None] + size * np.sin(turn)), 0.02)
    order = np.argsort(shade)
    canvas.layers(leaves[order], pick(rng, LEAVES), TREE, shade[order].tolist())


def lamp(canvas: Canvas, rng: Generator, s: float, z: float) -> None:
    """A street lamp that holds its arm over the road."""
    height, end = float(rng.uniform(5.0, 7.5)), s - (1.3 if s > 0 else -1.3)
    color = pick(rng, ((70, 74, 78), (140, 144, 148), (48, 66, 58)))
    canvas.line([(s, 0, z), (s, height, z), (end, height + 0.25, z)], 0.2, color, POLE, 0.9)
    canvas.line([(s, 0, z), (s, 1.0, z)], 0.34, color, POLE, 0.8)
    lit = canvas.light.lit > 0.3
    head = quad(end - 0.35, end + 0.35, height + 0.02, height + 0.32, z, z)[None]
    canvas.polygons(head, (255, 236, 190) if lit else (206, 208, 206), POLE, glow=lit)


def mast(canvas: Canvas, rng: Generator, s: float, z: float) -> None:
    """A bollard, or a telegraph pole with its cross arm."""
    if rng.random() < 0.35:
        canvas.line([(s, 0, z), (s, 1.05, z)], 0.26, pick(rng, ((60, 60, 64), (196, 190, 180))), POLE)
        return
    wood, height = pick(rng, ((104, 88, 72), (128, 126, 120))), float(rng.uniform(6.0, 8.5))
    canvas.line([(s, 0, z), (s, height, z)], 0.28, wood, POLE, 0.9)
    canvas.line([(s - 0.9, height - 0.6, z), (s + 0.9, height - 0.6, z)], 0.16, wood, POLE, 0.8)


def sign(canvas: Canvas, rng: Generator, s: float, z: float) -> None:
    """A traffic sign, a direction board or a traffic light on its post."""
    kind, height = int(rng.integers(5)), float(rng.uniform(2.3, 2.9))
    canvas.line([(s, 0, z), (s, height + 0.5, z)], 0.16, (132, 136, 138), POLE, 0.9)
    if kind == 0:
        canvas.disc((s, height, z), 0.52, _RED, SIGN)
        canvas.disc((s, height, z), 0.36, _WHITE, SIGN)
    elif kind == 1:
        for size, color in ((1.0, _RED), (0.6, _WHITE)):
            corners = ((-0.62, -0.42), (0.62, -0.42), (0.0, 0.66))
            canvas.polygon([(s + x * size, height + y * size, z) for x, y in corners], color, SIGN)
    elif kind == 2:
        canvas.disc((s, height, z), 0.5, (34, 88, 168), SIGN)
        canvas.line([(s - 0.2, height - 0.2, z), (s + 0.2, height + 0.2, z)], 0.13, _WHITE, SIGN)
    elif kind == 3:
        _board(canvas, rng, s, height, z)
    else:
        _signals(canvas, rng, s, height, z)


def _board(canvas: Canvas, rng: Generator, s: float, height: float, z: float) -> None:
    """A direction board with two lines of writing."""
    wide, face = float(rng.uniform(0.6, 0.95)), pick(rng, ((28, 84, 160), (26, 108, 76), (232, 230, 222)))
    canvas.polygon(quad(s - wide, s + wide, height - 0.45, height + 0.5, z, z), _WHITE, SIGN)
    canvas.polygon(quad(s - wide + 0.1, s + wide - 0.1, height - 0.36, height + 0.41, z, z), face, SIGN)
    writing = np.array([[(s + x * wide, height + y, z) for x in (-0.6, 0.5)] for y in (-0.14, 0.18)])
    canvas.lines(writing, 0.1, _WHITE if face[0] < 150 else (40, 44, 48), SIGN)


def _signals(canvas: Canvas, rng: Generator, s: float, height: float, z: float) -> None:
    """Three lamps in a dark box, one of them on."""
    canvas.polygon(quad(s - 0.26, s + 0.26, height - 0.45, height + 0.75, z, z), (34, 36, 38), SIGN)
    on = int(rng.integers(3))
    for row, color in enumerate(((70, 230, 130), (250, 190, 60), (245, 60, 50))):
        center = (s, height - 0.24 + 0.38 * row, z)
        canvas.disc(center, 0.16, color if row == on else (62, 60, 58), SIGN, glow=row == on)


def fence(canvas: Canvas, s: float, z0: float, z1: float, color: Color, style: int, tall: float) -> None:
    """One panel along the street: planks (0), railings (1) or railings on a low wall (2)."""
    sunny = 1.0 if canvas.light.sun * s < 0 else 0.76
    slats = np.full((max(3, int((z1 - z0) / (0.3 if z0 < 18 else 0.6))), 2, 3), s)
    slats[:, :, 1], slats[:, :, 2] = (0.05, tall), np.linspace(z0, z1, len(slats))[:, None]
    panel = quad(s, s, 0, tall, z0, z1)
    if style == 0:
        canvas.polygon(panel, color, FENCE, sunny)
        canvas.lines(slats, 0.03, color, FENCE, sunny * 0.66)
        return
    canvas.polygon(panel, mix(color, (110, 112, 104), 0.75), FENCE, 0.62)
    canvas.lines(slats, 0.07, color, FENCE, sunny)
    rails = np.array([[(s, y, z0), (s, y, z1)] for y in (tall - 0.06, 0.2)])
    canvas.lines(rails, 0.08, color, FENCE, sunny)
    if style == 2:
        canvas.polygon(quad(s, s, 0, tall * 0.5, z0, z1), (150, 138, 124), FENCE, sunny)


def person(canvas: Canvas, rng: Generator, s: float, z: float) -> None:
    """Somebody who walks or stands, sometimes with a bag."""
    tall, stride, arm = (
        float(rng.uniform(1.5, 1.9)),
        float(rng.uniform(0.03, 0.3)),
        float(rng.uniform(0.04, 0.12)),
    )
    coat, legs = pick(rng, CLOTHES), pick(rng, CLOTHES)
    canvas.contact(s, z, 0.34, 0.3)
    steps = np.array([[(s + x * 0.08, tall * 0.48, z), (s + x * stride, 0.06, z)] for x in (-1, 1)])
    canvas.lines(steps, 0.17, legs, PEDESTRIAN, 0.9)
    torso = ((-0.17, 0.44), (0.17, 0.44), (0.24, 0.8), (0.12, 0.86), (-0.12, 0.86), (-0.24, 0.8))
    canvas.polygon([(s + x, tall * y, z) for x, y in torso], coat, PEDESTRIAN)
    arms = np.array([[(s + x * 0.22, tall * 0.8, z), (s + x * (0.24 + arm), tall * 0.5, z)] for x in (-1, 1)])
    canvas.lines(arms, 0.12, coat, PEDESTRIAN, 0.84)
    canvas.disc((s, tall * 0.93, z), 0.135, pick(rng, HAIR), PEDESTRIAN)
    canvas.disc((s, tall * 0.91, z), 0.105, pick(rng, SKIN), PEDESTRIAN)
    if rng.random() < 0.3:
        bag = quad(s + 0.22, s + 0.48, tall * 0.32, tall * 0.5, z, z)
        canvas.polygon(bag, pick(rng, PAINTS), PEDESTRIAN)


def bike(canvas: Canvas, rng: Generator, s: float, z: float) -> None:
    """A bicycle seen more or less from its side, mostly with its rider."""
    turn, facing = float(rng.uniform(-1.0, 1.0)), 1.0 if rng.random() < 0.5 else -1.0
    frame, coat = pick(rng, PAINTS), pick(rng, CLOTHES)

    def at(*points: tuple[float, float]) -> list[tuple[float, float, float]]:
        """`(along, up)` points in the bicycle's own plane."""
        return [(s + facing * along * cos(turn), up, z + along * sin(turn) * 0.6) for along, up in points]

    canvas.contact(s, z, 0.8 * cos(turn) + 0.1, 0.3)
    for hub in (-0.56, 0.56):
        rim = at(*((hub + 0.36 * float(x), 0.36 + 0.36 * float(y)) for x, y in (*CIRCLE, CIRCLE[0])))
        canvas.polygon(rim, (124, 124, 122), BIKE, 0.72)
        canvas.line(rim, 0.08, (26, 26, 28), BIKE)
    diamond = at((-0.56, 0.36), (-0.12, 0.36), (0.4, 0.86), (-0.2, 0.84), (-0.56, 0.36))
    for tube in (diamond, at((-0.12, 0.36), (-0.24, 0.98)), at((0.56, 0.36), (0.38, 1.05), (0.5, 1.08))):
        canvas.line(tube, 0.08, frame, BIKE)
    if rng.random() < 0.25:
        return
    trousers = pick(rng, CLOTHES)
    for foot, shade in ((0.2, 0.75), (0.5, 0.95)):
        canvas.line(at((-0.2, 1.0), (0.18, 0.72), (-0.05, foot)), 0.16, trousers, BIKE, shade)
    canvas.line(at((-0.2, 1.02), (0.12, 1.5)), 0.34, coat, BIKE)
    canvas.line(at((0.14, 1.48), (0.42, 1.1)), 0.12, coat, BIKE, 0.84)
    canvas.disc(at((0.22, 1.76))[0], 0.14, pick(rng, PAINTS), BIKE)
    canvas.disc(at((0.24, 1.71))[0], 0.1, pick(rng, SKIN), BIKE)


def litter_bin(canvas: Canvas, rng: Generator, s: float, z: float) -> None:
    """Clutter that is none of the classes: a bin with its lid."""
    color = pick(rng, ((58, 74, 62), (70, 72, 78), (150, 120, 84)))
    canvas.contact(s, z, 0.5, 0.35)
    canvas.polygon(quad(s - 0.34, s + 0.34, 0, 1.0, z, z), color, UNLABELED)
    canvas.polygon(quad(s - 0.4, s + 0.4, 1.0, 1.14, z, z), color, UNLABELED, 0.66)


def hood(canvas: Canvas, rng: Generator) -> None:
    """The front of the camera's own car, which is no class either."""
    height, width = canvas.pixels.shape[:2]
    rise, paint = float(rng.uniform(0.04, 0.1)) * height, pick(rng, PAINTS)
    x = np.linspace(0, width, 24)
    for drop, shade in ((0.0, 0.5), (0.3, 0.8), (0.62, 0.62)):
        y = height - rise * (1 - drop) + (x / width - 0.5) ** 2 * rise * 2.4
        outline = np.concatenate([np.stack([x, y], axis=1), [(width, height), (0, height)]])
        color = (*canvas.light.tone(paint, 0.0, shade), UNLABELED)
        cv2.fillPoly(canvas.pixels, [outline.round().astype(np.int32)], color)
