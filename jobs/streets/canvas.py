"""What a street scene is painted with: a camera that follows the road, the light of the hour, and a canvas.

Street coordinates are metres: `(right of the road's centre line, above the ground, ahead of the camera)`. The
camera bends and lifts them along the road, so a prop never needs to know whether the street is straight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp

import cv2
import numpy as np
from numpy.typing import NDArray

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, VEHICLE, PEDESTRIAN, BIKE, UNLABELED = range(12)
CLASSES = (
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
    *("SignSymbol", "Fence", "Vehicle", "Pedestrian", "Bike", "Unlabeled"),
)

Color = tuple[float, float, float]
Bytes = NDArray[np.uint8]
Points = NDArray[np.float64]
Fixed = NDArray[np.int32]
Path = Sequence[tuple[float, float, float]]

OVERSAMPLING = 2  # the canvas is this much larger than the picture in both directions
_NEAR = 1.0  # metres; nothing is projected from closer
_SHIFT = 3  # binary digits of a pixel's fraction that OpenCV receives
_TURN = np.arange(16) * np.pi / 8
CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in a car; lengths of the picture in canvas pixels, of the street in metres."""

    focal: float
    horizon: float
    center: float
    height: float
    offset: float  # to the right of the centre line
    yaw: float  # radians, to the right
    bend: float  # the road is `bend * z**2` metres to the right of a straight one
    rise: float  # and `rise * z**2` metres above a flat one
    roll: float  # radians

    def project(self, points: Points) -> Points:
        """Street points float64[..., 3] to canvas points float64[..., 2] (x right, y down)."""
        across, origin, along, center = self._matrices
        z = np.maximum(points[..., 2:], _NEAR)
        return (points[..., :2] @ across + origin) / z + (z * along + center)

    @cached_property
    def _matrices(self) -> tuple[Points, Points, Points, Points]:
        """The projection as `(point @ across + origin) / z + z * along + center`: [2, 2], [2], [2], [2]."""
        rolled = np.array([[1.0, self.roll], [-self.roll, 1.0]])
        lens = self.focal * rolled
        return (
            np.array([[1.0, 0.0], [0.0, -1.0]]) @ lens,
            np.array([-self.offset, self.height]) @ lens,
            np.array([self.bend, -self.rise]) @ lens,
            np.array([-self.yaw, 0.0]) @ lens + (self.center, self.horizon),
        )

    def scale(self, z: float) -> float:
        """Canvas pixels of one metre at `z` metres ahead."""
        return self.focal / max(z, _NEAR)


@dataclass(frozen=True)
class Light:
    """The hour and the weather; colours are RGB in 0-255, gains are factors."""

    zenith: Color
    skyline: Color
    gain: Color
    visibility: float  # metres until a colour is 63 % haze
    shadow: float  # 0 none, 1 black
    sun: int  # -1: from the left, 1: from the right
    clouds: float
    lit: float  # share of windows that are lit
    wet: float  # share of a mirror in the road

    def tone(self, color: Color, z: float, shade: float = 1.0) -> Color:
        """The colour of a surface seen through `z` metres of air."""
        clear = exp(-z / self.visibility)
        haze, gain = 1.0 - clear, self.gain
        return (
            min(color[0] * shade * gain[0], 255.0) * clear + self.skyline[0] * haze,
            min(color[1] * shade * gain[1], 255.0) * clear + self.skyline[1] * haze,
            min(color[2] * shade * gain[2], 255.0) * clear + self.skyline[2] * haze,
        )


@dataclass(frozen=True)
class Face:
    """One polygon of a solid: points float64[N, 3], counter-clockwise seen from outside."""

    points: Points
    color: Color
    shade: float = 1.0
    glow: bool = False  # shines by itself: neither shaded nor hazy


class Canvas:
    """Picture and labels as one array, so that no stroke can paint one without the other.

    `pixels` is uint8[H, W, 4]: RGB and the class index, `OVERSAMPLING` times the size of the scene.
    """

    def __init__(self, height: int, width: int, camera: Camera, light: Light) -> None:
        """An empty canvas for a scene of `height` x `width` pixels."""
        self.pixels: Bytes = np.zeros((height * OVERSAMPLING, width * OVERSAMPLING, 4), np.uint8)
        self.camera = camera
        self.light = light

    def sees(self, s: float, z: float, margin: float) -> bool:
        """Whether something `margin` metres wide to either side of `(s, z)` can be in the picture."""
        x = float(self.camera.project(np.array([s, 0.0, z]))[0])
        reach = margin * self.camera.scale(z)
        return bool(-reach < x < self.pixels.shape[1] + reach)

    def polygons(self, points: Points, color: Color, label: int, shade: float = 1.0, glow: bool = False) -> None:
        """Fill polygons float64[M, N, 3] that do not overlap; `glow` leaves the light of the scene out."""
        if len(points):
            z = float(points[0, 0, 2] + points[-1, 2, 2]) / 2
            paint = color if glow else self.light.tone(color, z, shade)
            cv2.fillPoly(self.pixels, list(self._fixed(points)), (*paint, label), cv2.LINE_8, _SHIFT)

    def polygon(self, points: Path | Points, color: Color, label: int, shade: float = 1.0) -> None:
        """Fill one polygon of street points [N, 3]."""
        self.polygons(np.asarray(points, np.float64)[None], color, label, shade)

    def solid(self, faces: Sequence[Face], frame: Points, origin: Points, label: int) -> None:
        """Fill those faces whose outside the camera sees, in the order given.

        A face's points are its solid's own; `points @ frame + origin` is where they are in the street.
        """
        street = np.concatenate([face.points for face in faces]) @ frame + origin
        corners, start = self._fixed(street), 0
        for face in faces:
            first, start = start, start + len(face.points)
            outline = corners[first:start]
            if cv2.contourArea(outline, oriented=True) < 0:
                z = float(street[first, 2] + street[first + 2, 2]) / 2
                paint = face.color if face.glow else self.light.tone(face.color, z, face.shade)
                cv2.fillPoly(self.pixels, [outline], (*paint, label), cv2.LINE_8, _SHIFT)

    def layers(self, points: Points, color: Color, label: int, shades: Sequence[float]) -> None:
        """Fill overlapping polygons float64[M, N, 3] one over the other, each in its own shade."""
        z = float(points[0, 0, 2])
        for outline, shade in zip(self._fixed(points), shades, strict=True):
            paint = (*self.light.tone(color, z, shade), label)
            cv2.fillPoly(self.pixels, [outline], paint, cv2.LINE_8, _SHIFT)

    def lines(self, points: Points, width: float, color: Color, label: int, shade: float = 1.0) -> None:
        """Draw round-ended polylines float64[M, N, 3], `width` metres thick."""
        z = float(points[0, 0, 2] + points[-1, -1, 2]) / 2
        thickness = max(1, round(width * self.camera.scale(z)))
        paint = (*self.light.tone(color, z, shade), label)
        cv2.polylines(self.pixels, list(self._fixed(points)), False, paint, thickness, cv2.LINE_8, _SHIFT)

    def line(self, points: Path, width: float, color: Color, label: int, shade: float = 1.0) -> None:
        """Draw one round-ended polyline of street points [N, 3]."""
        self.lines(np.asarray(points, np.float64)[None], width, color, label, shade)

    def disc(
        self, center: tuple[float, float, float], radius: float, color: Color, label: int, glow: bool = False
    ) -> None:
        """Fill a disc that faces the camera, `radius` in metres."""
        ring = np.full((1, 16, 3), center[2])
        ring[0, :, :2] = radius * CIRCLE + center[:2]
        self.polygons(ring, color, label, 1.0, glow)

    def contact(self, s: float, z: float, wide: float, deep: float) -> None:
        """Darken the road or pavement under something that stands there; the label stays."""
        ring = np.zeros((16, 3))
        ring[:, ::2] = CIRCLE * (wide, deep) + (s, z)
        x, y = (int(at) for at in self.camera.project(np.array([s, 0.0, z - deep])))
        rows, columns = self.pixels.shape[:2]
        if 0 <= x < columns and 0 <= y < rows and self.pixels[y, x, 3] in (ROAD, PAVEMENT):
            red, green, blue, label = (int(value) for value in self.pixels[y, x])
            self.polygons(ring[None], (red * 0.5, green * 0.5, blue * 0.52), label, glow=True)

    def _fixed(self, points: Points) -> Fixed:
        """Street points float64[..., 3] as OpenCV's fixed point canvas coordinates int32[..., 2]."""
        return (self.camera.project(points) * (1 << _SHIFT)).astype(np.int32)


def quad(s0: float, s1: float, y0: float, y1: float, z0: float, z1: float) -> Points:
    """An upright rectangle float64[4, 3] from the bottom edge `(s0, y0, z0)-(s1, y0, z1)` up to `y1`."""
    return np.array([[s0, y0, z0], [s1, y0, z1], [s1, y1, z1], [s0, y1, z0]])


def ground(s0: float, s1: float, z0: float, z1: float) -> Points:
    """A rectangle float64[4, 3] that lies on the ground."""
    return np.array([[s0, 0, z0], [s1, 0, z0], [s1, 0, z1], [s0, 0, z1]])
