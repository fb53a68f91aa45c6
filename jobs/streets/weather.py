"""The hour and the weather: light, sky, the end of the street, and the lens it is all seen through."""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from jobs.streets.canvas import BUILDING, OVERSAMPLING, PAVEMENT, ROAD, SKY, TREE, Bytes, Canvas, Color, Light
from jobs.streets.colors import LEAVES, WALLS, pick

Floats = NDArray[np.float32]

_HOURS: tuple[tuple[float, Light], ...] = (  # a share of all scenes, and its light with the sun on the right
    (0.34, Light((92, 146, 208), (206, 222, 234), (1.06, 1.03, 0.96), 420, 0.5, 1, 0.6, 0.03, 0.0)),  # clear
    (
        0.18,
        Light((110, 134, 178), (250, 200, 146), (1.12, 0.95, 0.76), 230, 0.46, 1, 0.7, 0.2, 0.0),
    ),  # golden
    (
        0.20,
        Light((164, 174, 184), (214, 217, 218), (0.88, 0.9, 0.92), 260, 0.14, 1, 0.9, 0.1, 0.1),
    ),  # overcast
    (0.10, Light((186, 192, 196), (204, 208, 210), (0.86, 0.88, 0.9), 58, 0.08, 1, 0.2, 0.25, 0.15)),  # fog
    (0.10, Light((44, 58, 104), (226, 146, 128), (0.56, 0.54, 0.66), 200, 0.1, 1, 0.8, 0.5, 0.1)),  # dusk
    (0.08, Light((112, 122, 134), (168, 176, 182), (0.68, 0.72, 0.78), 130, 0.08, 1, 0.9, 0.35, 0.5)),  # rain
)
_GRAIN = np.array([0, 3, 2, 5, 6, 9, 1, 4, 1.5, 3, 3, 3], np.float32)  # roughness of each class's surface


def daylight(rng: Generator) -> Light:
    """Draw an hour and vary it."""
    base = _HOURS[int(rng.choice(len(_HOURS), p=[share for share, _ in _HOURS]))][1]
    return Light(
        zenith=pick(rng, (base.zenith,), 12),
        skyline=pick(rng, (base.skyline,), 10),
        gain=base.gain,
        visibility=base.visibility * float(rng.uniform(0.7, 1.4)),
        shadow=base.shadow * float(rng.uniform(0.7, 1.2)),
        sun=1 if rng.random() < 0.5 else -1,
        clouds=base.clouds * float(rng.uniform(0.3, 1.2)),
        lit=base.lit,
        wet=base.wet * float(rng.uniform(0.0, 1.2)),
    )


def paint_sky(canvas: Canvas, rng: Generator) -> None:
    """A gradient from the zenith to the skyline, a glow around the sun, and clouds."""
    rows, columns = canvas.pixels.shape[0] // 4, canvas.pixels.shape[1] // 4
    light = canvas.light
    zenith, skyline = np.array(light.zenith, np.float32), np.array(light.skyline, np.float32)
    fall = np.clip(np.arange(rows, dtype=np.float32) * 4 / canvas.camera.horizon, 0, 1)[:, None, None] ** 1.3
    sky = zenith + (skyline - zenith) * fall
    if light.shadow > 0.3:
        x = (np.arange(columns, dtype=np.float32) / columns - 0.5 - 0.42 * light.sun)[:, None]
        sky = sky + np.exp(-9 * (x**2 + 0.6 * (1 - fall) ** 2)) * np.array([46, 36, 14], np.float32)
    puffs = np.zeros((rows, columns), np.float32)
    for cells in (3, 7, 15):
        coarse = rng.standard_normal((cells, cells), dtype=np.float32)
        puffs += cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC) / cells**0.6
    cover = np.clip(puffs * 1.5 + light.clouds - 0.5, 0, 1)[:, :, None] * 0.75
    sky = sky + (np.minimum(skyline * 1.08 + 10, 255) - sky) * cover
    labelled = np.full((rows, columns, 4), SKY, np.uint8)
    labelled[:, :, :3] = np.clip(sky, 0, 255)
    cv2.resize(labelled, canvas.pixels.shape[1::-1], canvas.pixels, interpolation=cv2.INTER_LINEAR)


def paint_backdrop(canvas: Canvas, rng: Generator) -> None:
    """Where the street ends: a ridge of trees, and sometimes a few blocks before it."""
    width, horizon = canvas.pixels.shape[1], canvas.camera.horizon
    z = min(130.0, canvas.light.visibility * 1.3)
    ridge = np.cumsum(rng.standard_normal(60)) * 2.0 + rng.uniform(8, 34) + rng.uniform(0, 4, 60)
    top = horizon - np.maximum(ridge, 4) * canvas.camera.focal / 460
    _screen(canvas, np.linspace(-20, width + 20, 60), top, pick(rng, LEAVES), TREE, z)
    for _ in range(int(rng.integers(0, 7))):
        left = float(rng.uniform(0, width))
        edges = np.array([left, left + float(rng.uniform(14, 60))])
        roof = np.full(2, horizon - float(rng.uniform(14, 76)))
        _screen(canvas, edges, roof, pick(rng, WALLS), BUILDING, z * 0.8)


def _screen(
    canvas: Canvas, x: NDArray[np.float64], top: NDArray[np.float64], color: Color, label: int, z: float
) -> None:
    """Fill from a skyline `top` [N] over `x` [N], in canvas pixels, down to below the horizon."""
    base = canvas.camera.horizon + 0.08 * canvas.camera.focal
    outline = np.stack([np.append(x, [x[-1], x[0]]), np.append(top, [base, base])], axis=1)
    paint = (*canvas.light.tone(color, z, 0.85), label)
    cv2.fillPoly(canvas.pixels, [outline.round().astype(np.int32)], paint)


def photograph(canvas: Canvas, label: Bytes, rng: Generator) -> Bytes:
    """The picture uint8[H, W, 3] as a camera sees it: rough surfaces, wet road, blur, exposure and noise."""
    rows, columns = label.shape
    small = cv2.resize(canvas.pixels, (columns, rows), interpolation=cv2.INTER_AREA)
    picture: Floats = small[:, :, :3].astype(np.float32)
    grain = _noise(rng, (rows, columns))
    coarse = cv2.resize(grain[: rows // 4, : columns // 4], (columns, rows), interpolation=cv2.INTER_CUBIC)
    rough = (grain * 0.6 + coarse * 0.55) * _GRAIN[label]
    picture += cv2.merge([rough, rough, rough])
    if canvas.light.wet > 0.05:
        _reflect(picture, label, int(canvas.camera.horizon) // OVERSAMPLING, canvas.light.wet)
    bloom = cv2.blur(np.maximum(picture - 190, 0), (9, 9))
    picture += bloom * (0.2 + 0.8 * canvas.light.lit)
    sigma = float(rng.uniform(0, 0.75))
    if sigma > 0.25:
        cv2.GaussianBlur(picture, (5, 5), sigma, picture)
    gains = float(rng.uniform(0.82, 1.16)) * rng.uniform(0.96, 1.04, 3)  # exposure and white balance
    cv2.transform(picture, np.diag(gains), picture)
    picture += _noise(rng, picture.shape) * np.float32(rng.uniform(0.8, 5.6))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _noise(rng: Generator, shape: tuple[int, ...]) -> Floats:
    """Uniform noise float32 of mean 0 and deviation 1."""
    noise: Floats = rng.random(shape, dtype=np.float32)
    noise -= np.float32(0.5)
    noise *= np.float32(12**0.5)
    return noise


def _reflect(picture: Floats, label: Bytes, horizon: int, wet: float) -> None:
    """Mirror the street in its wet ground, in place."""
    rows = min(horizon, len(picture) - horizon)
    mirror = cv2.blur(np.ascontiguousarray(picture[horizon - rows : horizon][::-1]), (3, 11))
    below, labels = picture[horizon : horizon + rows], label[horizon : horizon + rows]
    share = ((labels == ROAD) | (labels == PAVEMENT)) * np.float32(wet * 0.5)
    below += (mirror - below) * share[:, :, None]
