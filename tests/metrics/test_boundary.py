"""Boundary IoU: against the definition of its authors, class by class, and in strips; known answers and refusals."""

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segment.metrics import BoundaryCounts, boundary_counts
from segment.metrics.boundary import BoundaryScore, BoundaryStrips, boundary_distance, boundary_region
from segment.models.card import load_card
from segment.models.classes import VOID

Mask = NDArray[np.uint8]


def region(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """The mask minus its erosion by `distance` steps of 3 x 3, where the outside is not the mask: as in the paper."""
    eroded = np.pad(mask, 1)
    for _ in range(distance):
        rows = eroded[:-2] & eroded[1:-1] & eroded[2:]
        eroded = np.pad(rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:], 1)
    return mask & ~eroded[1:-1, 1:-1]


def plain(prediction: Mask, label: Mask, classes: int, distance: int, ignore: tuple[int, ...]) -> NDArray[np.int64]:
    """`BoundaryCounts.counts`, class by class."""
    counted = ~np.isin(label, [VOID, *ignore])
    found = np.zeros((3, classes), np.int64)
    for index in {*label.flat, *prediction.flat} - {VOID, *ignore}:
        sides = [region(plane == index, distance) & counted for plane in (label, prediction)]
        found[:, index] = [np.count_nonzero(sides[0] & sides[1]), *map(np.count_nonzero, sides)]
    return found


def shapes(generator: np.random.Generator, size: tuple[int, int], values: list[int], specks: float) -> Mask:
    """Rectangles of random values, and some single pixels."""
    plane = np.full(size, generator.choice(values), np.uint8)
    for _ in range(generator.integers(0, 8)):
        (top, left), (height, width) = generator.integers(0, size), generator.integers(1, np.add(size, 1))
        plane[top : top + height, left : left + width] = generator.choice(values)
    spots = generator.random(size) < specks
    plane[spots] = generator.choice(values, np.count_nonzero(spots))
    return plane


def case(seed: int) -> tuple[Mask, Mask, int, float, tuple[int, ...]]:
    generator = np.random.default_rng(seed)
    size = (int(generator.integers(1, 50)), int(generator.integers(1, 50)))
    classes = (1, 2, 5, 255)[seed % 4]
    ignore = tuple(index for index in (0, 3) if index < classes - 1 and generator.random() < 0.5)
    values = sorted({0, 1 % classes, classes // 2, classes - 1})
    specks = 0.02 * (seed % 3)
    prediction = shapes(generator, size, values, specks)
    return prediction, shapes(generator, size, [*values, VOID], specks), classes, generator.uniform(0.001, 0.3), ignore


@pytest.mark.parametrize("seed", range(60))
def test_counts_are_those_of_the_definition_also_in_strips(seed: int) -> None:
    prediction, label, classes, fraction, ignore = case(seed)
    distance = boundary_distance((prediction.shape[0], prediction.shape[1]), fraction)
    expected = plain(prediction, label, classes, distance, ignore)
    found = BoundaryCounts.of(prediction, label, classes, fraction=fraction, ignore=ignore)
    np.testing.assert_array_equal(found.counts, expected)
    assert found == boundary_counts(prediction, label, classes=classes, fraction=fraction, ignore=ignore)
    for most in (1, 3, 20):
        strips = BoundaryStrips(prediction.shape, classes, fraction=fraction, ignore=ignore)
        generator, top = np.random.default_rng(seed), 0
        while top < len(prediction):
            rows = slice(top, top + int(generator.integers(1, most + 1)))
            buffer = prediction[rows].copy()
            strips.add(buffer, label[rows])
            buffer[:], top = 0, rows.stop  # whoever gives strips may use them again
        assert strips.total == found


def test_cases_are_various() -> None:
    counts = [BoundaryCounts.of(*case(seed)[:3], fraction=case(seed)[3]).counts for seed in range(60)]
    assert sum(bool(count[0].any()) for count in counts) > 30
    regions = [boundary_region(case(seed)[0], 2) for seed in range(60)]
    assert sum(bool(found.any() and not found.all()) for found in regions) > 30


def test_the_distance_is_rounded_and_one_at_least() -> None:
    assert [boundary_distance((360, 480), fraction) for fraction in (0.02, 0.0001)] == [12, 1]
    assert boundary_distance((3, 4), 0.3) == 2  # 1.5, to the even number, as the authors' code rounds
    assert boundary_distance((3, 4), 0.5) == 2  # 2.5


def test_scores_and_sums() -> None:
    label = np.zeros((40, 40), np.uint8)
    label[10:30, 10:30] = 1
    moved = np.roll(label, 2, axis=1)
    same = boundary_counts(label, label, classes=3, fraction=0.02)  # d = 1
    assert same.score.iou[:2].tolist() == [1.0, 1.0]
    assert np.isnan(same.score.iou[2])  # no boundary on either side
    shifted = boundary_counts(moved, label, classes=3, fraction=0.02)
    outline = 4 * 19
    top_and_bottom = 2 * 18  # of the outline, what the shifted one has in common
    assert shifted.counts[:, 1].tolist() == [top_and_bottom, outline, outline]
    total = sum([same, shifted])
    assert isinstance(total, BoundaryCounts)
    assert total.score.iou[1] == (outline + top_and_bottom) / (outline + 2 * outline - top_and_bottom)
    score = BoundaryScore(0.02, total.score)
    assert score.mean == pytest.approx(total.score.iou[:2].mean())
    assert BoundaryScore(0.02, total.score, chosen=(1, 2)).mean == total.score.iou[1]
    assert BoundaryScore(0.02, BoundaryCounts.zeros(3).score).mean is None


def test_void_and_ignored_labels_are_not_counted() -> None:
    label = np.zeros((20, 20), np.uint8)
    label[:, 10:] = VOID
    wrong = np.zeros((20, 20), np.uint8)
    wrong[:, 15:] = 1  # within the void
    counts = boundary_counts(wrong, label, classes=2, fraction=0.02)
    assert counts.counts[:, 1].tolist() == [0, 0, 0]
    label[:, 10:] = 1
    assert boundary_counts(wrong, label, classes=2, fraction=0.02, ignore=[1]) == counts


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fraction": 0.0}, "fraction = 0.0: give a number above 0"),
        ({"fraction": float("nan")}, "fraction = nan"),
        ({"ignore": [2]}, "2 is no class of 2"),
        ({"label": np.zeros((3, 4), int)}, "the label's shape"),
        ({"mask": np.full((4, 4), 2)}, "the mask holds 2"),
        ({"mask": np.zeros((1, 4, 4), int), "label": np.zeros((1, 4, 4), int)}, "give one image"),
    ],
)
def test_what_cannot_be_counted_is_refused(changes: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"mask": np.zeros((4, 4), int), "label": np.zeros((4, 4), int), "classes": 2} | changes
    with pytest.raises(ValueError, match=words):
        boundary_counts(given.pop("mask"), given.pop("label"), **given)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("fraction", [0.005, 0.02])
def test_camvid_labels_are_counted_as_by_the_definition(shared: Path, fraction: float) -> None:
    """Labels against those of the next frame, counted with the erosions of OpenCV that the authors' code uses."""
    card = load_card("unet-camvid-onnx-0001")
    classes, ignore = len(card.classes), tuple(card.classes.ignored_classes)
    files = sorted((shared / "camvid" / "labels").glob("*.png"))[::10]
    planes = [np.asarray(Image.open(file)) for file in files]
    total, expected = BoundaryCounts.zeros(classes), np.zeros((3, classes), np.int64)
    for label, other in itertools.pairwise(planes):
        prediction = np.where(other < classes, other, 0).astype(np.uint8)
        label = np.where(label < classes, label, VOID).astype(np.uint8)
        total += BoundaryCounts.of(prediction, label, classes, fraction=fraction, ignore=ignore)
        distance = boundary_distance((label.shape[0], label.shape[1]), fraction)
        counted = ~np.isin(label, [VOID, *ignore])
        for index in set(range(classes)) - set(ignore):
            sides = []
            for plane in (label, prediction):
                mask = cv2.copyMakeBorder((plane == index).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
                inside = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=distance)
                sides.append(((mask - inside)[1:-1, 1:-1] > 0) & counted)
            expected[:, index] += [np.count_nonzero(sides[0] & sides[1]), *map(np.count_nonzero, sides)]
    assert total.counts.sum() > 100_000
    np.testing.assert_array_equal(total.counts, expected)
