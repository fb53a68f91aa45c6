"""The bootstrap: its draws, its sums, its intervals and what they cover."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from jobs.interval_coverage import coverage, multinomial, poisson, simulate
from segment.metrics import Score
from segment.metrics.bootstrap import Bootstrap, Interval, interval, score_of_resamples


def test_draws_are_the_same_in_any_order_and_in_blocks_of_any_size() -> None:
    bootstrap, units = Bootstrap(37, seed=3), np.random.default_rng(0).permutation(500)
    found = bootstrap.draws(units)
    assert found.shape == (500, 37)
    assert np.array_equal(found[np.argsort(units)], bootstrap.draws(np.arange(500)))
    blocks = [bootstrap.draws(units[start : start + 7]) for start in range(0, 500, 7)]
    assert np.array_equal(np.vstack(blocks), found)
    again = bootstrap.draws(np.array([5, 2**64 - 1, 5], np.uint64))
    assert np.array_equal(again[0], again[2])
    assert np.array_equal(again[0], bootstrap.draws(np.array([5]))[0])
    assert bootstrap.draws(np.empty(0, np.uint64)).shape == (0, 37)


def test_draws_are_the_seeds() -> None:
    units = np.arange(2000)
    assert np.array_equal(Bootstrap(10, 3).draws(units), Bootstrap(10, 3).draws(units))
    assert not np.array_equal(Bootstrap(10, 3).draws(units), Bootstrap(10, 4).draws(units))
    assert Bootstrap(10, 10**30).draws(units).mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("units", [np.arange(400), np.arange(400, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)])
def test_draws_are_poissons_and_independent(units: NDArray[Any]) -> None:
    """Of units in a row, as images have them, and of scattered ones, as groups have."""
    found = Bootstrap(4000).draws(units.astype(np.uint64))
    seen = np.bincount(found.astype(int).ravel(), minlength=9)
    wanted = stats.poisson(1).pmf(np.arange(7)) * found.size
    assert stats.chisquare([*seen[:7], seen[7:].sum()], [*wanted, found.size - wanted.sum()]).pvalue > 1e-4
    for values in (found, found.T):  # between units, and between resamples
        between = np.corrcoef(values[:200])[np.triu_indices(200, 1)]
        assert np.abs(between).max() < 5.5 / np.sqrt(values.shape[1])
        assert between.std() == pytest.approx(1 / np.sqrt(values.shape[1]), rel=0.05)


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


def test_95_of_100_intervals_hold_the_truth() -> None:
    point, features, truth = simulate(repeats=800, videos=400, frames=1)
    assert 0.93 <= coverage(features, point, truth, poisson(400)) <= 0.97


@pytest.mark.slow
def test_frames_of_a_video_are_drawn_together_or_the_intervals_are_too_narrow() -> None:
    point, features, truth = simulate(repeats=800, videos=200, frames=4)
    assert coverage(features, point, truth, poisson(800)) < 0.75
    videos = features.reshape(200, 4, -1).sum(axis=1)
    shares = [coverage(videos, point, truth, draw(200)) for draw in (poisson, multinomial)]
    assert all(0.93 <= share <= 0.97 for share in shares)
