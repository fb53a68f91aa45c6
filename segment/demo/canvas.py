"""What a street scene is painted with: a camera that follows the road, the light of the hour, and a canvas.

Street coordinates are metres: `(right of the road's centre line, above the ground, ahead of the camera)`. The camera
bends and lifts them along the road, so a prop never needs to know whether the street is straight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
Points = NDArray[np.float64]
Bytes = NDArray[np.uint8]

OVERSAMPLING = 2  # the canvas is this much larger than the picture in both directions
_NEAR = 1.0  # metres; nothing is projected from closer
_SHIFT = 3  # binary digits of a pixel's fraction that OpenCV receives
_CIRCLE = np.stack([np.cos(np.arange(16) * np.pi / 8), np.sin(np.arange(16) * np.pi / 8)], axis=1)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in a car; lengths of the picture in canvas pixels, of the street in metres."""

    focal: float
    horizon: float
    center: float
    height: float
    offset: float
    yaw: float
    bend: float  # the road is `bend * z**2` metres to the right, `rise * z**2` metres up
    rise: float
    roll: float  # radians

    def project(self, points: Points) -> Points:
        """Street points float64[..., 3] to canvas points float64[..., 2] (x right, y down)."""
        z = np.maximum(points[..., 2], _NEAR)
        right = points[..., 0] - self.offset - self.yaw * z + self.bend * z * z
        up = points[..., 1] - self.height + self.rise * z * z
        u, v = self.focal * right / z, -self.focal * up / z
        return np.stack([self.center + u - self.roll * v, self.horizon + v + self.roll * u], axis=-1)

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
    lit: float  # share of lit windows and lamps
    wet: float

    def tone(self, color: Color, z: float, shade: float = 1.0) -> Color:
        """The colour of a surface seen through `z` metres of air."""
        clear = exp(-z / self.visibility)
        return (
            min(color[0] * shade * self.gain[0], 255.0) * clear + self.skyline[0] * (1.0 - clear),
            min(color[1] * shade * self.gain[1], 255.0) * clear + self.skyline[1] * (1.0 - clear),
            min(color[2] * shade * self.gain[2], 255.0) * clear + self.skyline[2] * (1.0 - clear),
        )


class Canvas:
    """Picture and labels as one array, so that no stroke can paint one without the other.

    `pixels` is uint8[H, W, 4]: RGB and the class index, `OVERSAMPLING` times the size of the scene.
    """

    def __init__(self, height: int, width: int, camera: Camera, light: Light) -> None:
        self.pixels: Bytes = np.zeros((height * OVERSAMPLING, width * OVERSAMPLING, 4), np.uint8)
        self.camera = camera
        self.light = light

    def polygons(self, points: Points, color: Color, label: int, shade: float = 1.0, glow: bool = False) -> None:
        """Fill polygons float64[M, N, 3] that do not overlap; `glow` leaves the light of the scene out."""
        if len(points):
            z = float(points[..., 2].mean())
            paint = color if glow else self.light.tone(color, z, shade)
            cv2.fillPoly(self.pixels, _fixed(self.camera.project(points)), (*paint, label), cv2.LINE_8, _SHIFT)

    def polygon(self, points: Sequence[Sequence[float]] | Points, color: Color, label: int, shade: float = 1.0) -> None:
        """Fill one polygon given as street points [N, 3]."""
        self.polygons(np.asarray(points, np.float64)[None], color, label, shade)

    def line(
        self, points: Sequence[Sequence[float]] | Points, width: float, color: Color, label: int, shade: float = 1.0
    ) -> None:
        """Draw a round-ended polyline through street points [N, 3], `width` metres thick."""
        street = np.asarray(points, np.float64)
        z = float(street[:, 2].mean())
        thickness = max(1, round(width * self.camera.scale(z)))
        paint = (*self.light.tone(color, z, shade), label)
        cv2.polylines(self.pixels, _fixed(self.camera.project(street)[None]), False, paint, thickness, cv2.LINE_8, _SHIFT)

    def disc(
        self, center: Sequence[float], radius: float, color: Color, label: int, shade: float = 1.0, glow: bool = False
    ) -> None:
        """Fill a disc that faces the camera, `radius` in metres."""
        ring = np.empty((1, 16, 3))
        ring[0, :, :2] = np.asarray(center[:2]) + radius * _CIRCLE
        ring[0, :, 2] = center[2]
        self.polygons(ring, color, label, shade, glow)


def _fixed(points: Points) -> list[NDArray[np.int32]]:
    """Canvas points float64[M, N, 2] as OpenCV's fixed point numbers, one array for each polygon."""
    return list((np.clip(points, -16000, 16000) * (1 << _SHIFT)).round().astype(np.int32))


def quad(s0: float, s1: float, y0: float, y1: float, z0: float, z1: float) -> Points:
    """An upright rectangle float64[4, 3] from the bottom edge `(s0, y0, z0)-(s1, y0, z1)` up to `y1`."""
    return np.array([[s0, y0, z0], [s1, y0, z1], [s1, y1, z1], [s0, y1, z0]])


def ground(s0: float, s1: float, z0: float, z1: float) -> Points:
    """A rectangle float64[4, 3] that lies on the ground."""
    return np.array([[s0, 0, z0], [s1, 0, z0], [s1, 0, z1], [s0, 0, z1]])
