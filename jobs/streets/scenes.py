"""Synthetic street scenes with pixel-exact labels, in the classes and the order of CamVid.

`scene(seed)` lays a street out, paints it from far to near and photographs it with an imperfect camera; the
same seed gives the same bytes. The weather, the hour, the road's bend, the houses and who is about all follow
from the seed. Walls, vehicles and the ground share their colours: colour alone does not give a class away.
"""

from collections.abc import Callable
from functools import partial
from math import pi

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from jobs.streets import props, roads, weather
from jobs.streets.canvas import CLASSES, OVERSAMPLING, Camera, Canvas
from jobs.streets.colors import FENCES, pick
from jobs.streets.houses import building
from jobs.streets.roads import Street
from jobs.streets.vehicles import vehicle

__all__ = ["CLASSES", "scene"]


def scene(seed: int, height: int = 192, width: int = 256) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Paint one street.

    Returns the picture uint8[height, width, 3] RGB and its labels uint8[height, width], indices into
    `CLASSES`.
    """
    rng = np.random.default_rng(seed)
    light, street = weather.daylight(rng), roads.plan(rng)
    canvas = Canvas(height, width, _camera(rng, height, width, street), light)
    weather.paint_sky(canvas, rng)
    weather.paint_backdrop(canvas, rng)
    roads.paint_ground(canvas, rng, street)
    queue = _Queue(canvas, rng)
    for side in (-1, 1):
        _place_houses(queue, street, side)
        _place_furniture(queue, street, side)
        _place_parked(queue, street, side)
        _place_people(queue, street, side)
    _place_traffic(queue, street)
    queue.paint()
    if rng.random() < 0.4:
        props.hood(canvas, rng)
    half = OVERSAMPLING // 2
    label = np.ascontiguousarray(canvas.pixels[half::OVERSAMPLING, half::OVERSAMPLING, 3])
    return weather.photograph(canvas, label, rng), label


def _camera(rng: Generator, height: int, width: int, street: Street) -> Camera:
    """A camera behind a windscreen in the lane one drives on, looking ahead along a road that may bend."""
    high, wide = height * OVERSAMPLING, width * OVERSAMPLING
    return Camera(
        focal=wide * float(rng.uniform(0.8, 1.05)),
        horizon=high * float(rng.uniform(0.38, 0.54)),
        center=wide * float(rng.uniform(0.4, 0.6)),
        height=float(rng.uniform(1.3, 2.1)),
        offset=street.drive * street.road * float(rng.uniform(0.2, 0.6)),
        yaw=float(rng.normal(0, 0.05)),
        bend=float(rng.normal(0, 1 / 900)) if rng.random() < 0.6 else 0.0,
        rise=float(np.clip(rng.normal(0, 1.0), -1.5, 1.5)) / 9000,
        roll=float(rng.normal(0, 0.01)),
    )


class _Queue:
    """What waits to be painted, from far to near."""

    def __init__(self, canvas: Canvas, rng: Generator) -> None:
        self.canvas, self.rng = canvas, rng
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def add(self, z: float, paint: Callable[[], None]) -> None:
        """Have something painted after everything that is further away than `z`."""
        self.waiting.append((z, paint))

    def prop(self, prop: props.Prop, s: float, z: float) -> None:
        """Add a prop if it can be in the picture."""
        if self.canvas.sees(s, z, 3.0):
            self.add(z, partial(prop, self.canvas, self.rng, s, z))

    def vehicle(self, s: float, z: float, kinds: str, heading: float) -> None:
        """Add one of the `kinds` of vehicle, with its near end at `(s, z)`."""
        kind = kinds.split()[int(self.rng.integers(len(kinds.split())))]
        if self.canvas.sees(s, z + 2.0, 3.0):
            self.add(z, partial(vehicle, self.canvas, self.rng, s, z, kind, heading))

    def paint(self) -> None:
        """Paint everything; of two at the same distance, the one added first."""
        for _, paint in sorted(self.waiting, key=lambda item: -item[0]):
            paint()


def _place_houses(queue: _Queue, street: Street, side: int) -> None:
    """A terrace at the pavement, houses in gardens behind a fence, or a park."""
    rng = queue.rng
    kind = str(rng.choice(["terrace", "gardens", "park"], p=[0.5, 0.3, 0.2]))
    wall, z = street.pavement, float(rng.uniform(1.2, 6))
    if kind != "terrace":
        wall += float(rng.uniform(2.5, 5))
        _place_fence(queue, side * (street.pavement + 0.15))
        reach, plants = (-0.4, 5) if kind == "gardens" else (14.0, 12)
        for _ in range(int(rng.integers(3, plants))):
            s = side * float(rng.uniform(street.pavement + 0.9, wall + reach))
            queue.prop(props.tree if rng.random() < 0.6 else props.bush, s, float(rng.uniform(5, 60)))
    while z < 70 and kind != "park":
        end = z + float(rng.uniform(6, 13))
        queue.add(end, partial(building, queue.canvas, rng, side, wall, z, end))
        alley = 5.0 if rng.random() < 0.25 else 0.0
        z = end + (alley if kind == "terrace" else float(rng.uniform(1, 9)))


def _place_fence(queue: _Queue, s: float) -> None:
    """Panels of one fence along the street, a few of them missing."""
    rng = queue.rng
    color, style, tall = pick(rng, FENCES), int(rng.integers(3)), float(rng.uniform(1.0, 1.7))
    for z in np.arange(1.5, float(rng.uniform(20, 45)), 2.8).tolist():
        if rng.random() < 0.86:
            queue.add(z + 2.8, partial(props.fence, queue.canvas, s, z, z + 2.8, color, style, tall))


def _place_furniture(queue: _Queue, street: Street, side: int) -> None:
    """What stands in a row along the kerb: lamps, signs, posts, bins and street trees."""
    rng = queue.rng
    line = side * (street.road + float(rng.uniform(0.45, 0.8)))
    rows: tuple[tuple[props.Prop, float, float, float], ...] = (  # what, how likely, metres between, farthest
        (props.lamp, 0.8, 11, 32),
        (props.sign, 0.75, 8, 30),
        (props.mast, 0.45, 9, 32),
        (props.litter_bin, 0.25, 12, 25),
        (props.tree, 0.4, 9, 50),
    )
    for prop, chance, gap, farthest in rows:
        z = float(rng.uniform(6, 13)) if rng.random() < chance else farthest
        while z < farthest:
            queue.prop(prop, line, z)
            z += gap * float(rng.uniform(0.8, 1.8))


def _place_parked(queue: _Queue, street: Street, side: int) -> None:
    """Vehicles parked at the kerb."""
    rng = queue.rng
    z = float(rng.uniform(4, 14)) if rng.random() < 0.5 else 45.0
    while z < 45:
        queue.vehicle(
            side * (street.road - 1.05), z, "sedan hatch sedan hatch van", 0.0 if side == street.drive else pi
        )
        z += float(rng.uniform(5.6, 16))


def _place_traffic(queue: _Queue, street: Street) -> None:
    """Vehicles in both lanes, now and then one that crosses, and cyclists."""
    rng = queue.rng
    for side, first in ((street.drive, 8.0), (-street.drive, 5.0)):
        z = first + float(rng.exponential(12))
        while z < 70:
            heading = 0.0 if side == street.drive else pi
            queue.vehicle(side * street.road * 0.42, z, "sedan hatch sedan hatch van bus", heading)
            z += 10 + float(rng.exponential(24))
    if rng.random() < 0.12:
        heading = 1.5 if rng.random() < 0.5 else -1.5
        queue.vehicle(float(rng.uniform(-4, 4)), float(rng.uniform(16, 30)), "sedan hatch", heading)
    for _ in range(int(rng.choice(4, p=[0.25, 0.4, 0.25, 0.1]))):
        queue.prop(props.bike, float(rng.uniform(-street.road, street.road)), float(rng.uniform(5.5, 16)))


def _place_people(queue: _Queue, street: Street, side: int) -> None:
    """People on the pavement and some on the road, alone or in groups; a bicycle left at the wall."""
    rng = queue.rng
    for _ in range(int(rng.poisson(1.7))):
        if rng.random() < 0.2:
            s, z = side * float(rng.uniform(0, street.road)), float(rng.uniform(7, 13))
        else:
            s = side * float(rng.uniform(street.road + 0.9, street.pavement - 0.3))
            z = float(rng.uniform(5, 24))
        for _ in range((1, 1, 2, 3)[int(rng.integers(4))]):
            queue.prop(props.person, s, z)
            s, z = s + float(rng.normal(0, 0.7)), z + float(rng.uniform(0.1, 1.2))
    if rng.random() < 0.35:
        queue.prop(props.bike, side * (street.pavement - 0.7), float(rng.uniform(6, 14)))
