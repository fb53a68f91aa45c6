"""The bootstrap: how far a score would lie from itself on other images of the same kind.

A resample draws each unit (an image, or a group of images) a random number of times, by the Poisson distribution of
mean 1; a score of its summed counts is one draw of the score. The interval holds the middle 95 % of the draws
(percentile bootstrap: Efron and Tibshirani, 'An Introduction to the Bootstrap', 1993, chapter 13).

How often a resample draws a unit depends on nothing but the seed, the resample and the number of the unit. So units are
drawn as they are read, in any order and in blocks of any size, and their number need not be known: to draw as many as
there are would need all of them at once. Scores are ratios of sums, so that how many a resample draws makes no
difference to them (Poisson bootstrap: Chamandy et al., 'Estimating Uncertainty for Massive Data Streams', 2012).

A class that has labels, but none in a resample, is left out of that resample: of its means and of the interval of the
class. To count it with IoU 0, for what little was predicted as it, would measure which images were drawn, not how well
the model finds the class. A class that has no labels at all counts as it does in the score itself.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segment.metrics.conventions import Score

RESAMPLES = 1000
MOST_RESAMPLES = 10_000  # they take 8 kB each
LEVEL = 0.95
CHUNK = 1024  # units whose draws are in memory at once; they are the same with another number
FEWEST = 2  # units from which there is an interval

_BITS = 16  # of the random number behind a draw
_UNITS_OF_COUNTER = 256 // _BITS  # random numbers that Philox makes at each value of its counter


def _poisson_table() -> NDArray[np.uint8]:
    """Return the draw by random number, `uint8[2 ** 16]`: as often 0, 1, 2, ... as Poisson's distribution has it."""
    shares = [math.exp(-1) / math.factorial(number) for number in range(12)]
    limits = np.round(np.cumsum(shares) * (1 << _BITS))
    return np.searchsorted(limits, np.arange(1 << _BITS), side="right").astype(np.uint8)


_POISSON = _poisson_table()


@dataclass(frozen=True)
class Interval:
    """The bounds of an interval, in the unit of its score."""

    low: float
    high: float


def bounds_of(interval: Interval | None) -> list[float] | None:
    """Return the bounds of an interval as a list; None for None."""
    return [interval.low, interval.high] if interval else None


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of units, which are numbers from 0 on.

    Attributes:
        resamples: number of resamples.
        seed: from 0 on; of another seed the draws are others.
    """

    resamples: int = RESAMPLES
    seed: int = 0

    @cached_property
    def _key(self) -> NDArray[np.uint64]:
        return np.asarray(np.random.SeedSequence(self.seed).generate_state(2, np.uint64), np.uint64)

    def draws(self, units: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return how often each resample draws each of m units: whole numbers `float64[m, resamples]`.

        A unit has its own section of the random numbers of a counter-based generator (Salmon et al., 'Parallel Random
        Numbers: As Easy as 1, 2, 3', 2011), so that the same unit always gets the same draws.

        >>> bootstrap = Bootstrap(resamples=1000, seed=3)
        >>> several = bootstrap.draws(np.array([7, 8, 2**60, 7]))
        >>> bool((several[[0, 3]] == bootstrap.draws(np.array([7]))).all())
        True
        """
        different, place = np.unique(units, return_inverse=True)
        steps = -(-self.resamples // _UNITS_OF_COUNTER)
        runs = np.split(different, np.flatnonzero(np.diff(different) != 1) + 1)  # of consecutive numbers
        numbers = np.concatenate(
            [
                np.empty(0, np.uint16),
                *(self._numbers(int(run[0]) * steps, len(run) * steps) for run in runs if len(run)),
            ]
        )
        drawn = _POISSON[numbers].reshape(len(different), steps * _UNITS_OF_COUNTER)[:, : self.resamples]
        return np.asarray(drawn[place], np.float64)

    def _numbers(self, first: int, steps: int) -> NDArray[np.uint16]:
        raw = np.random.Philox(key=self._key, counter=first).random_raw(4 * steps)
        return np.asarray(np.asarray(raw).astype("<u8", copy=False).view("<u2"), np.uint16)


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
