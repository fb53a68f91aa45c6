"""The bootstrap: its draws, its sums, its intervals and what they cover."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from segment.metrics import Score
from segment.metrics.bootstrap import CHUNK, Interval, interval, resample_counts, resampled_sums, score_of_resamples


def draws(units: int, resamples: int, seed: int = 0) -> NDArray[np.float64]:
    return np.hstack(list(resample_counts(units, resamples, seed)))


@pytest.mark.parametrize("units", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_every_resample_draws_as_many_units_as_there_are(units: int) -> None:
    found = draws(units, 20)
    assert found.shape == (20, units)
    assert (found.sum(axis=1) == units).all()
    assert (found >= 0).all()
    assert (found == found.astype(int)).all()
    assert all(some.shape[1] <= CHUNK for some in resample_counts(units, 2))


def test_draws_are_the_seeds() -> None:
    assert np.array_equal(draws(2000, 10, seed=3), draws(2000, 10, seed=3))
    assert not np.array_equal(draws(2000, 10, seed=3), draws(2000, 10, seed=4))


def test_draws_are_multinomial() -> None:
    """The number of times a unit is drawn is binomial, of n and 1 / n; the number of draws in a chunk is, too."""
    units = CHUNK + 200
    found = draws(units, 4000)
    seen = np.bincount(found.astype(int).ravel(), minlength=8)
    wanted = stats.binom(units, 1 / units).pmf(np.arange(8)) * found.size
    assert stats.chisquare([*seen[:7], seen[7:].sum()], [*wanted[:7], found.size - wanted[:7].sum()]).pvalue > 1e-4
    firsts, lasts = found[:, :CHUNK].sum(axis=1), found[:, CHUNK:].sum(axis=1)
    assert firsts.var() == pytest.approx(units * (CHUNK / units) * (200 / units), rel=0.1)
    assert np.array_equal(firsts + lasts, np.full(4000, units))


def test_sums_are_those_of_a_loop_over_the_drawn_units() -> None:
    units = 101
    generator = np.random.default_rng(7)
    features = generator.integers(0, 10**6, (units, 9)).astype(np.float64)
    found = resampled_sums([features], units, resamples=50, seed=5)
    for row, counts in zip(found, draws(units, 50, seed=5), strict=True):
        drawn = [unit for unit in range(units) for _ in range(int(counts[unit]))]
        assert len(drawn) == units
        assert row.tolist() == [sum(int(features[unit, k]) for unit in drawn) for k in range(9)]


def test_sums_are_exact_where_a_float32_would_not_be() -> None:
    features = np.full((3, 1), 2.0**40 + 1)
    assert resampled_sums([features], 3, resamples=4).tolist() == [[3 * 2**40 + 3]] * 4


def test_both_sides_of_a_pair_get_the_same_draws() -> None:
    one = np.random.default_rng(0).integers(0, 100, (500, 3)).astype(np.float64)
    both = resampled_sums([np.hstack([one, one + 1])], 500, resamples=30)
    assert (both[:, 3:] - both[:, :3] == 500).all()
    assert np.array_equal(both[:, :3], resampled_sums([one], 500, resamples=30))


def test_features_must_come_in_the_chunks_of_the_draws() -> None:
    with pytest.raises(ValueError, match="zip"):
        resampled_sums([np.ones((10, 2))] * 2, 10)


def test_an_interval_is_the_middle_of_the_draws() -> None:
    middle = interval(np.arange(1001.0), level=0.9)
    assert middle is not None
    assert (middle.low, middle.high) == (pytest.approx(50), pytest.approx(950))
    assert interval(np.array([np.nan, 3, np.nan])) == Interval(3, 3)
    assert interval(np.full(5, np.nan)) is None


def test_a_class_without_a_label_in_a_resample_is_left_out_of_it() -> None:
    """Class 1 is labelled; class 2 is only predicted, so that it counts as in the score itself: IoU 0."""
    point = Score(np.array([50, 3, 0]), np.array([5, 4, 2]), np.array([5, 1, 0]))
    sums = np.array([[50.0, 0, 0, 5, 4, 2, 5, 0, 0], [50, 3, 0, 5, 4, 2, 5, 1, 0]])
    found = score_of_resamples(sums, point)
    assert np.isnan(found.iou[0, 1])
    assert found.iou[0, [0, 2]].tolist() == [50 / 60, 0]
    assert found.figures()["miou"].tolist() == [pytest.approx(50 / 60 / 2), pytest.approx(point.miou)]
    assert sums[0, 4] == 4  # the sums stay as they are


def simulate(repeats: int, videos: int, frames: int) -> tuple[Score, NDArray[np.float64], float]:
    """Return the score of each of many simulated data sets, the features of its images, and the true mIoU.

    Frames of a video share what is in them and how hard it is; the third class is rare.
    """
    generator = np.random.default_rng(11)
    pixels, presence, skill = np.array([600.0, 250, 40]), np.array([1.0, 0.8, 0.2]), np.array([0.9, 0.7, 0.5])
    size = (videos, 1, repeats, 3)
    scene = generator.gamma(4, 1 / 4, size) * (generator.random(size) < presence)
    share = generator.beta(8 * skill, 8 * (1 - skill), size)
    each = (videos, frames, repeats, 3)
    labelled = generator.poisson(pixels * scene, each)
    tp = generator.binomial(labelled, share)
    counts = [part.reshape(-1, repeats, 3) for part in (tp, generator.poisson(0.1 * pixels, each), labelled - tp)]
    truth = skill * presence / (presence + 0.1)  # of the expected counts
    features = np.concatenate(counts, axis=2).reshape(videos * frames, -1).astype(np.float64)
    return Score(*(part.sum(axis=0) for part in counts)), features, float(truth.mean())


def coverage(features: NDArray[np.float64], point: Score, truth: float) -> float:
    """Return the share of the repeated simulations whose 95 % interval of the mIoU holds the truth."""
    chunks = [features[start : start + CHUNK] for start in range(0, len(features), CHUNK)]
    sums = resampled_sums(chunks, len(features), resamples=500, seed=2).reshape(500, len(point.tp), -1)
    mious = score_of_resamples(sums, point).figures()["miou"]
    bounds = [interval(mious[:, repeat]) for repeat in range(mious.shape[1])]
    return float(np.mean([found is not None and found.low <= truth <= found.high for found in bounds]))


def test_95_of_100_intervals_hold_the_truth() -> None:
    point, features, truth = simulate(repeats=800, videos=400, frames=1)
    assert 0.93 <= coverage(features, point, truth) <= 0.97


@pytest.mark.slow
def test_frames_of_a_video_are_drawn_together_or_the_intervals_are_too_narrow() -> None:
    point, features, truth = simulate(repeats=800, videos=200, frames=4)
    assert coverage(features, point, truth) < 0.75
    assert 0.93 <= coverage(features.reshape(200, 4, -1).sum(axis=1), point, truth) <= 0.97
