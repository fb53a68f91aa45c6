"""The perceptual hash: what is a near-duplicate, and what is not."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from segment.images import codec
from segment.images.perceptual_hash import PerceptualHash


def picture(seed: int, size: tuple[int, int] = (120, 160)) -> NDArray[np.uint8]:
    """A picture of smooth shapes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def is_near(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    return PerceptualHash.of(one).is_near(PerceptualHash.of(other))


@pytest.mark.parametrize("seed", range(4))
def test_other_sizes_encodings_and_the_next_frame_are_near(seed: int) -> None:
    made = picture(seed)
    noise = np.random.default_rng(seed).normal(0, 6, made.shape)
    for other in (
        cv2.resize(made, (90, 70), interpolation=cv2.INTER_AREA),
        codec.decode(codec.encode_jpeg(made, 40), 10**6),
        np.clip(made * 0.9 + noise, 0, 255).astype(np.uint8),
        np.roll(made, 2, axis=1),
    ):
        assert is_near(made, np.asarray(other, np.uint8))


def test_other_pictures_are_not() -> None:
    looks = [PerceptualHash.of(picture(seed)) for seed in range(40)]
    assert not any(one.is_near(other) for n, one in enumerate(looks) for other in looks[:n])
    assert not is_near(picture(1), picture(1)[:, ::-1])


def test_even_pictures_differ_by_their_colour() -> None:
    grey = [np.full((50, 50, 3), value, np.uint8) for value in (20, 30, 200)]
    assert is_near(grey[0], grey[1])
    assert not is_near(grey[0], grey[2])


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3000, 3), (3000, 1, 3)])
def test_any_size_has_one(shape: tuple[int, int, int]) -> None:
    assert is_near(np.full(shape, 7, np.uint8), np.full(shape, 7, np.uint8))
