"""The bootstrap: how far a score would lie from itself on other images of the same kind.

A resample draws as many units (images, or groups of images) as there are, with replacement; a score of its summed
counts is one draw of the score. The interval holds the middle 95 % of the draws (percentile bootstrap: Efron and
Tibshirani, 'An Introduction to the Bootstrap', 1993, chapter 13).

A class that has labels, but none in a resample, is left out of that resample: of its means and of the interval of the
class. To count it with IoU 0, for what little was predicted as it, would measure which images were drawn, not how well
the model finds the class. A class that has no labels at all counts as it does in the score itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.metrics.conventions import Score

RESAMPLES = 1000
MOST_RESAMPLES = 10_000  # they take 8 kB each
LEVEL = 0.95
CHUNK = 1024  # units whose draws are in memory at once; other draws follow from another number
FEWEST = 2  # units from which there is an interval


@dataclass(frozen=True)
class Interval:
    """The bounds of an interval, in the unit of its score."""

    low: float
    high: float


def resample_counts(units: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """Yield how often each resample draws each of the next m <= `CHUNK` units: whole numbers `float64[resamples, m]`.

    The same arguments give the same draws, so that two runs over the same units can be compared draw by draw. How many
    of a resample's draws fall into a chunk is binomial, given how many are left: the chunks together are multinomial,
    and memory does not grow with `units`.

    >>> draws = np.hstack(list(resample_counts(3000, resamples=4)))
    >>> draws.shape, draws.sum(axis=1).tolist()
    ((4, 3000), [3000.0, 3000.0, 3000.0, 3000.0])
    """
    generator = np.random.default_rng(seed)
    left = np.full(resamples, units)
    small = np.int32 if resamples * CHUNK < 1 << 31 else np.int64  # drawn and counted in half the time
    for start in range(0, units, CHUNK):
        size = min(CHUNK, units - start)
        drawn = generator.binomial(left, size / (units - start))
        left -= drawn
        cells: NDArray[Any] = np.repeat(np.arange(resamples, dtype=small) * size, drawn)
        cells += generator.integers(0, size, len(cells), dtype=np.uint16)
        yield np.bincount(cells, minlength=resamples * size).reshape(resamples, size).astype(np.float64)


def resampled_sums(
    features: Iterable[NDArray[np.float64]], units: int, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Return the sum of the drawn units' features: `float64[resamples, F]`; sums of counts are exact below 2^53.

    Args:
        features: `float64[m, F]` of the next m <= `CHUNK` units, as `resample_counts` counts them. For a paired
            comparison, the features of both sides beside each other.
        units: number of units of all chunks.
        resamples, seed: see `resample_counts`.
    """
    total: NDArray[np.float64] | None = None
    for draws, some in zip(resample_counts(units, resamples, seed), features, strict=True):
        added = draws @ some
        total = added if total is None else total + added
    return np.empty((resamples, 0)) if total is None else total


def score_of_resamples(sums: NDArray[np.float64], point: Score) -> Score:
    """Return the scores of resamples; classes without a label in a resample are left out of it (see the module).

    Args:
        sums: `float64[resamples, 3 * C]`: TP, FP and FN by class.
        point: the score of all units.
    """
    tp, fp, fn = (part.copy() for part in np.split(sums, 3, axis=-1))
    fp[(tp + fn == 0) & (point.labelled > 0)] = 0
    return Score(tp, fp, fn)


def interval(draws: NDArray[np.float64], level: float = LEVEL) -> Interval | None:
    """Return the middle of the draws `float64[resamples]`; NaNs are left out, and None if nothing else is there."""
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(low, high)
