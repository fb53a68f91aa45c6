"""Metrics against independent oracles: scikit-learn for counts and IoU, worked examples for the conventions."""

import functools
import math
import operator
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from segment.metrics import CONVENTIONS, Confusion, image_scores, pixel_accuracy, score
from segment.models.classes import VOID

Pixels = NDArray[np.uint8]
Scene = tuple[int, Pixels, Pixels]


@st.composite
def scenes(draw: st.DrawFn, void: bool = True, most: int = 255) -> Scene:
    """A number of classes, a prediction, and a label that may hold void."""
    classes = draw(st.integers(1, most))
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    prediction = generator.integers(0, classes, shape, np.uint8)
    label = np.where(generator.random(shape) < draw(st.floats(0, 1)), prediction, generator.integers(0, classes, shape))
    if void:
        label = np.where(generator.random(shape) < draw(st.floats(0, 0.5)), VOID, label)
    return classes, prediction, label.astype(np.uint8)


def confusions(classes: int) -> st.SearchStrategy[Confusion]:
    """Counts as large as a bucket of images makes them."""
    size = (classes + 1) * classes
    counts = st.lists(st.integers(0, 2**48), min_size=size, max_size=size)
    return counts.map(lambda flat: Confusion(np.array(flat, np.int64).reshape(classes + 1, classes)))


# --- counting --------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_counts_are_scikit_learns(scene: Scene) -> None:
    classes, prediction, label = scene
    rows = np.where(label == VOID, classes, label.astype(int))
    oracle = confusion_matrix(rows.ravel(), prediction.ravel(), labels=range(classes + 1))[:, :classes]
    found = Confusion.of(prediction, label, classes)
    assert found.counts.dtype == np.int64
    assert np.array_equal(found.counts, oracle)
    assert found.classes == classes
    assert found.is_scored == bool((label != VOID).any())
    assert np.array_equal(found.predicted_pixels, np.bincount(prediction.ravel(), minlength=classes))
    assert np.array_equal(found.label_pixels, np.bincount(rows.ravel(), minlength=classes + 1)[:classes])


def test_uint8_does_not_wrap_with_as_many_classes_as_there_may_be() -> None:
    every = np.arange(255, dtype=np.uint8)[None]
    counts = Confusion.of(every, every, 255).counts
    assert np.array_equal(counts[:255], np.eye(255))
    assert counts[255].sum() == 0
    swapped = Confusion.of(every[:, ::-1], every, 255).counts
    assert np.array_equal(swapped[:255], np.eye(255)[::-1])


def test_without_a_label_every_pixel_is_void() -> None:
    prediction = np.array([[0, 1], [1, 2]], np.uint8)
    found = Confusion.of(prediction, None, 3)
    assert found.counts.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 2, 1]]
    assert not found.is_scored
    assert found == Confusion.of(prediction, np.full((2, 2), VOID, np.uint8), 3)


@given(classes=st.integers(1, 254), beyond=st.integers(0, 254))
def test_a_label_out_of_range_raises_instead_of_a_wrong_cell(classes: int, beyond: int) -> None:
    assume(classes <= beyond)
    prediction = np.zeros((2, 2), np.uint8)
    label = np.array([[0, 0], [0, beyond]], np.uint8)
    with pytest.raises(ValueError, match="label contains a value that is neither a class nor void"):
        Confusion.of(prediction, label, classes)


@given(classes=st.integers(1, 255), beyond=st.integers(0, 255))
def test_a_prediction_out_of_range_raises(classes: int, beyond: int) -> None:
    assume(classes <= beyond)
    prediction = np.array([[0, beyond]], np.uint8)
    for label in (np.zeros((1, 2), np.uint8), np.full((1, 2), VOID, np.uint8), None):
        with pytest.raises(ValueError, match=f"prediction contains {beyond}; the classes are 0 to {classes - 1}"):
            Confusion.of(prediction, label, classes)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"label \(2, 3\) and prediction \(3, 2\) differ in shape"):
        Confusion.of(np.zeros((3, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)


def test_no_pixel_is_no_count() -> None:
    assert Confusion.of(np.zeros((0, 5), np.uint8), np.zeros((0, 5), np.uint8), 3) == Confusion.zeros(3)


# --- merging ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 6))
def test_merging_is_exact_associative_and_order_free(data: st.DataObject, classes: int) -> None:
    items = data.draw(st.lists(confusions(classes), min_size=1, max_size=6))
    shuffled = data.draw(st.permutations(items))
    total = sum(items, Confusion.zeros(classes))
    assert total == sum(shuffled, Confusion.zeros(classes))
    assert total == functools.reduce(lambda right, left: left + right, reversed(items))  # folded from the other end
    cut = data.draw(st.integers(0, len(items)))
    assert total == sum(items[:cut], Confusion.zeros(classes)) + sum(items[cut:], Confusion.zeros(classes))
    exact = [sum(int(item.counts.flat[i]) for item in items) for i in range(total.counts.size)]
    assert total.counts.ravel().tolist() == exact


@settings(max_examples=60, deadline=None)
@given(scenes(most=12), st.integers(0, 12))
def test_the_sum_over_tiles_is_the_whole_picture(scene: Scene, cut: int) -> None:
    classes, prediction, label = scene
    tiles = [(prediction[:cut], label[:cut]), (prediction[cut:], label[cut:])]
    merged = functools.reduce(operator.add, [Confusion.of(p, t, classes) for p, t in tiles])
    assert merged == Confusion.of(prediction, label, classes)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 8))
def test_cells_round_trip(data: st.DataObject, classes: int) -> None:
    confusion = data.draw(confusions(classes))
    cells, counts = confusion.to_cells()
    assert (cells.dtype, counts.dtype) == (np.int32, np.int64)
    assert (np.diff(cells) > 0).all()
    assert (counts > 0).all()
    assert all(confusion.counts[c // classes, c % classes] == n for c, n in zip(cells, counts, strict=True))
    assert Confusion.from_cells(cells.tolist(), counts.tolist(), classes) == confusion


def test_equality_is_of_counts() -> None:
    assert Confusion.zeros(2) == Confusion.zeros(2)
    assert Confusion.zeros(2) != Confusion.zeros(3)
    assert Confusion.zeros(2) != np.zeros((3, 2))
    with pytest.raises(TypeError):
        hash(Confusion.zeros(2))


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 8), st.sampled_from([np.int64, np.uint64]))
def test_counts_add_up_with_arrays(data: st.DataObject, classes: int, kind: type[np.integer[Any]]) -> None:
    """Rows of a `Segmenter` hold arrays."""
    one, other = data.draw(confusions(classes)), data.draw(confusions(classes))
    array = other.counts.astype(kind)
    total = one + array
    assert total == one + other
    assert total.counts.dtype == np.int64
    assert sum([array, array], Confusion.zeros(classes)) == other + other
    np.testing.assert_array_equal(array + one, total.counts)


@pytest.mark.parametrize(
    ("other", "kind", "words"),
    [
        (np.zeros((3, 3), int), ValueError, r"integers \[C \+ 1, C\], the last row for void, not int64 \(3, 3\)"),
        (np.zeros((4, 3)), ValueError, "not float64"),
        (np.zeros((4, 3, 1), int), ValueError, "not int64"),
        (np.zeros((1, 4, 3), int), ValueError, "not int64"),
        (np.zeros((4, 3), int), ValueError, "counts of 2 and of 3 classes cannot be added"),
        (Confusion.zeros(3), ValueError, "counts of 2 and of 3 classes cannot be added"),
        (1, TypeError, "unsupported operand"),
        ("x", TypeError, "unsupported operand"),
        (None, TypeError, "unsupported operand"),
    ],
)
def test_what_is_no_counts_is_not_added(other: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        Confusion.zeros(2) + other


# --- scores ----------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(scenes(most=20))
def test_iou_is_scikit_learns_jaccard(scene: Scene) -> None:
    """With nothing ignored but void all conventions agree with each other, and with Jaccard's index."""
    classes, prediction, label = scene
    known = label != VOID
    assume(known.any())
    truth, guess = label[known], prediction[known]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = jaccard_score(truth, guess, average=None, labels=range(classes), zero_division=0)
    oracle[~np.isin(np.arange(classes), [*truth, *guess])] = np.nan  # sklearn has no 'does not occur'
    confusion = Confusion.of(prediction, label, classes)
    for convention in CONVENTIONS:
        found = score(confusion, (), convention)
        np.testing.assert_allclose(found.iou, oracle, rtol=0, atol=1e-9)
        assert found.miou == pytest.approx(np.nanmean(oracle), abs=1e-9)
        assert np.array_equal(found.tp + found.fn, confusion.label_pixels)
    assert pixel_accuracy(confusion, ()) == pytest.approx(accuracy_score(truth, guess), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(scenes(most=8), st.sets(st.integers(0, 7), max_size=3))
def test_ignored_classes_are_scikit_learns_jaccard_over_what_is_left(scene: Scene, ignored: set[int]) -> None:
    """`omz` leaves out pixels labelled or predicted as an ignored class; `cityscapes` only those so labelled."""
    classes, prediction, label = scene
    ignore = sorted(value for value in ignored if value < classes)
    counted = [c for c in range(classes) if c not in ignore]
    confusion = Confusion.of(prediction, label, classes)
    labelled = (label != VOID) & ~np.isin(label, ignore)
    for convention, kept in (("omz", labelled & ~np.isin(prediction, ignore)), ("cityscapes", labelled)):
        found = score(confusion, ignore, convention)  # type: ignore[arg-type]
        assert np.isnan(found.iou[ignore]).all()
        assert not found.tp[ignore].any()
        assert not found.fp[ignore].any()
        assert not found.fn[ignore].any()
        if not kept.any() or not counted:
            assert found.miou is None
            continue
        truth, guess = label[kept], prediction[kept]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle = jaccard_score(truth, guess, average=None, labels=counted, zero_division=0)
        occurs = np.isin(counted, [*truth, *guess])
        np.testing.assert_allclose(found.iou[counted], np.where(occurs, oracle, np.nan), rtol=0, atol=1e-9)
        assert found.miou == pytest.approx(oracle[occurs].mean(), abs=1e-9)


# Three classes, the third ignored. Ten pixels of class 0: six right, one called 1, three called 'ignored'.
HAND = Confusion(np.array([[6, 1, 3], [2, 8, 0], [5, 5, 5], [9, 9, 9]], np.int64))


def test_omz_by_hand() -> None:
    found = score(HAND, [2], "omz")
    assert (found.tp.tolist(), found.fp.tolist(), found.fn.tolist()) == ([6, 8, 0], [2, 1, 0], [1, 2, 0])
    assert found.iou[:2].tolist() == [6 / 9, 8 / 11]
    assert math.isnan(found.iou[2])
    assert found.miou == pytest.approx((6 / 9 + 8 / 11) / 2, abs=1e-15)


def test_cityscapes_by_hand_counts_what_was_called_ignored_as_missed() -> None:
    found = score(HAND, [2], "cityscapes")
    assert (found.tp.tolist(), found.fp.tolist(), found.fn.tolist()) == ([6, 8, 0], [2, 1, 0], [4, 2, 0])
    assert found.miou == pytest.approx((6 / 12 + 8 / 11) / 2, abs=1e-15)


def test_pixel_accuracy_by_hand_is_over_labelled_pixels() -> None:
    assert pixel_accuracy(HAND, [2]) == 14 / 20
    assert pixel_accuracy(HAND, []) == 19 / 35
    assert pixel_accuracy(Confusion.zeros(3), []) is None


def test_void_is_in_no_score() -> None:
    without = Confusion(np.vstack([HAND.counts[:3], np.zeros((1, 3), np.int64)]))
    for convention in CONVENTIONS:
        assert score(HAND, [2], convention).miou == score(without, [2], convention).miou


def test_classes_that_do_not_occur_are_left_out_of_the_mean() -> None:
    label = np.array([[0, 0, 1]], np.uint8)
    found = score(Confusion.of(label, label, 5), (), "omz")
    assert found.iou[:2].tolist() == [1, 1]
    assert np.isnan(found.iou[2:]).all()
    assert found.miou == 1
    # but one that is only predicted occurs, and is wrong
    wrong = score(Confusion.of(np.array([[0, 0, 4]], np.uint8), label, 5), (), "omz")
    assert wrong.iou[[0, 1, 4]].tolist() == [1, 0, 0]
    assert wrong.miou == pytest.approx(1 / 3)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_nothing_labelled_is_no_score(convention: Any) -> None:
    unlabelled = Confusion.of(np.zeros((3, 3), np.uint8), None, 3)
    assert score(unlabelled, [2], convention).miou is None
    assert image_scores(unlabelled, [2], convention) == (None, None)
    only_ignored = Confusion.of(np.zeros((3, 3), np.uint8), np.full((3, 3), 2, np.uint8), 3)
    assert image_scores(only_ignored, [2], convention) == (None, None)


def test_image_mean_is_the_omz_score_of_the_one_image() -> None:
    assert score(HAND, [2], "image-mean").miou == score(HAND, [2], "omz").miou
    assert image_scores(HAND, [2], "image-mean") == (14 / 20, score(HAND, [2], "omz").miou)


def test_scoring_changes_no_count() -> None:
    before = HAND.counts.copy()
    for convention in CONVENTIONS:
        score(HAND, [2], convention)
    pixel_accuracy(HAND, [2])
    assert np.array_equal(HAND.counts, before)


def test_counts_beyond_what_a_float_holds_are_exact() -> None:
    prediction = np.ones((4200, 4100), np.uint8)  # more than 2^24 pixels in one cell, and an odd number of them
    prediction[0, 0] = 0
    for label, row in ((prediction, 1), (None, 2)):
        assert Confusion.of(prediction, label, 2).counts[row, 1] == 4200 * 4100 - 1
