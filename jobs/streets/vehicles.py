"""Cars, vans and buses: small solids in perspective, seen from any side."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, sin

import numpy as np
from numpy.random import Generator

from jobs.streets.canvas import CIRCLE, VEHICLE, Canvas, Color, Face, Points
from jobs.streets.colors import BUSES, GLASS, PAINTS, mix, pick

_RUBBER: Color = (24, 24, 26)
_HUB: Color = (146, 148, 150)


@dataclass(frozen=True)
class Body:
    """A vehicle's shape in metres, `along` from its rear bumper."""

    outline: tuple[tuple[float, float], ...]  # `(along, up)` from the rear bumper over the roof to the front one
    half: float  # of its width
    wheel: float  # radius
    axles: tuple[float, float]
    sill: float  # lower edge of the side windows
    windows: tuple[tuple[float, float, float, float], ...]  # along: at the sill, twice at the top, at the sill
    taper: float  # how much narrower the roof is

    @property
    def length(self) -> float:
        """From bumper to bumper."""
        return self.outline[-1][0]

    @property
    def top(self) -> float:
        """Height of the roof."""
        return max(y for _, y in self.outline)

    def width(self, y: float) -> float:
        """Half the width at height `y`."""
        return self.half * (1 - self.taper * min(max(y - 0.95, 0.0), 0.6) / 0.6)


BODIES = {
    "sedan": Body(
        ((0, 0.3), (0, 0.9), (0.8, 1.02), (1.45, 1.46), (2.9, 1.46), (3.6, 1.0), (4.4, 0.82), (4.45, 0.3)),
        *(0.9, 0.33, (0.8, 3.6), 1.0, ((0.95, 1.5, 2.1, 2.1), (2.2, 2.2, 2.8, 3.4)), 0.2),
    ),
    "hatch": Body(
        ((0, 0.3), (0, 0.95), (0.5, 1.52), (2.3, 1.52), (3.0, 1.02), (3.8, 0.85), (3.85, 0.3)),
        *(0.86, 0.32, (0.7, 3.05), 1.02, ((0.35, 0.65, 1.3, 1.3), (1.4, 1.4, 2.25, 2.8)), 0.2),
    ),
    "van": Body(
        ((0, 0.35), (0, 1.2), (0.12, 2.2), (3.7, 2.2), (4.4, 1.25), (5.1, 1.05), (5.15, 0.35)),
        *(1.0, 0.36, (0.9, 4.2), 1.3, ((3.0, 3.0, 3.65, 4.2),), 0.05),
    ),
    "bus": Body(
        ((0, 0.4), (0, 1.2), (0.1, 3.0), (8.8, 3.0), (9.0, 1.1), (9.05, 0.4)),
        *(
            1.25,
            0.46,
            (1.8, 7.4),
            1.35,
            tuple((a, a, a + 1.2, a + 1.2) for a in (0.4, 1.8, 3.2, 4.6, 6, 7.4)),
        ),
        0.03,
    ),
}


def vehicle(canvas: Canvas, rng: Generator, s: float, z: float, kind: str, heading: float) -> None:
    """A vehicle with its near end at `(s, z)`; `heading` in radians, 0 away from us, pi towards us."""
    body = BODIES[kind]
    paint = pick(rng, BUSES if kind == "bus" else PAINTS)
    crossing = abs(sin(heading)) > 0.5
    z += body.half if crossing else body.length / 2
    canvas.contact(s, z, *((2.4, 1.2) if crossing else (body.half * 1.15, body.length * 0.54)))
    sunny = 1 if canvas.light.sun * cos(heading) > 0 else -1
    faces = [
        *_treads(body),
        *_shell(body, paint, cos(heading) > 0),
        *_ends(body, paint, canvas.light.lit > 0.25),
    ]
    faces += [face for x in (-1, 1) for face in _flank(body, paint, x, 1.02 if x == sunny else 0.78)]
    right, forward = (cos(heading), 0.0, -sin(heading)), (sin(heading), 0.0, cos(heading))
    frame = np.array([right, (0.0, 1.0, 0.0), forward])
    canvas.solid(faces, frame, np.array([s, 0.0, z]) - frame[2] * body.length / 2, VEHICLE)


def _treads(body: Body) -> list[Face]:
    """The wheels as one sees them under the rear and the front."""
    faces = []
    for x in (-1, 1):
        inner, outer = sorted((x * body.half, x * (body.half - 0.25)))
        for rear, along in ((True, body.axles[0] - body.wheel), (False, body.axles[1] + body.wheel)):
            faces.append(Face(_panel(inner, outer, 0, body.wheel * 2, along, rear), _RUBBER))
    return faces


def _shell(body: Body, paint: Color, leaving: bool) -> list[Face]:
    """Bands of body and glass from the rear bumper over the roof to the front, the far ones first."""
    faces = []
    bands = list(pairwise(body.outline))
    for (a0, y0), (a1, y1) in reversed(bands) if leaving else bands:
        faces.append(Face(_band(body, a0, y0, a1, y1, 0.0), paint, 0.92 if abs(y1 - y0) > 0.2 else 1.12))
        if abs(y1 - y0) > 0.35 and min(y0, y1) > 0.9:
            rim = (y1 - y0) * 0.08
            faces.append(Face(_band(body, a0, y0 + rim, a1, y1 - rim, 0.1), GLASS))
    return faces


def _ends(body: Body, paint: Color, on: bool) -> list[Face]:
    """Bumper, number plate and lamps of the rear and the front."""
    faces = []
    half, base = body.half, body.top * 0.2 + 0.28
    for rear in (False, True):
        along = 0.0 if rear else body.length
        lamp: Color = (214, 30, 30) if rear else (250, 246, 224)
        plate: Color = (226, 214, 150) if rear else (232, 232, 228)
        bumper = _panel(-half, half, body.wheel, base - 0.12, along, rear)
        faces.append(Face(bumper, mix(paint, (36, 38, 42), 0.6)))
        faces.append(Face(_panel(-0.26, 0.26, base - 0.1, base + 0.04, along, rear), plate))
        for x in (-0.95, 0.62):
            lamps = _panel(half * x, half * (x + 0.33), base + 0.04, base + 0.24, along, rear)
            faces.append(Face(lamps, lamp, 0.9, on))
    return faces


def _flank(body: Body, paint: Color, x: int, shade: float) -> list[Face]:
    """The left (-1) or right (1) side with its windows and wheels."""
    faces = [Face(_outline(body, x, body.outline), paint, shade)]
    for a0, a1, a2, a3 in body.windows:
        pane = ((a0, body.sill), (a1, body.top - 0.12), (a2, body.top - 0.12), (a3, body.sill))
        faces.append(Face(_outline(body, x, pane), GLASS))
    for along in body.axles:
        for size, color in ((body.wheel, _RUBBER), (body.wheel * 0.55, _HUB)):
            rim = np.full((16, 3), x * body.half)
            rim[:, 2:0:-1] = CIRCLE[::x] * size + (along, body.wheel)
            faces.append(Face(rim, color))
    return faces


def _panel(x0: float, x1: float, y0: float, y1: float, along: float, rear: bool) -> Points:
    """A rectangle [4, 3] across the vehicle that faces backwards or forwards."""
    corners = np.array([[x0, y0, along], [x1, y0, along], [x1, y1, along], [x0, y1, along]])
    return corners if rear else corners[::-1]


def _band(body: Body, a0: float, y0: float, a1: float, y1: float, inset: float) -> Points:
    """A strip [4, 3] of the shell between two points of its outline, from one flank to the other."""
    w0, w1 = body.width(y0) - inset, body.width(y1) - inset
    return np.array([[-w0, y0, a0], [w0, y0, a0], [w1, y1, a1], [-w1, y1, a1]])


def _outline(body: Body, x: int, points: Sequence[tuple[float, float]]) -> Points:
    """`(along, up)` points as a polygon [N, 3] on one flank."""
    return np.array([(x * body.width(y), y, along) for along, y in points])[::-x]
