"""How many of the 95 % intervals of `segment score` hold the truth, in simulated data sets whose mIoU is known.

    python jobs/interval_coverage.py                 # a table as Markdown; a minute on one core
    python jobs/interval_coverage.py --repeats 100   # some seconds, and less exact

Each row draws `--repeats` data sets and counts the intervals that hold the true mIoU: of images that are independent,
of frames of videos that are drawn one by one (which is wrong: their intervals are too narrow) and as whole videos
(`--group-by`), and of few images. Beside the Poisson draws of `segment.metrics.bootstrap`, which need not know how many
images there are, stand the multinomial ones of the textbook, which draw as many as there are.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segment.metrics import Score
from segment.metrics.bootstrap import Bootstrap, interval, score_of_resamples

RESAMPLES = 500
# By words: videos, frames of each, whether whole videos are drawn.
CASES = {
    "400 images": (400, 1, False),
    "200 videos of 4 frames, frames drawn": (200, 4, False),
    "200 videos of 4 frames, videos drawn (--group-by)": (200, 4, True),
    "30 images": (30, 1, False),
    "10 images": (10, 1, False),
}


def simulate(repeats: int, videos: int, frames: int) -> tuple[Score, NDArray[np.float64], float]:
    """Return the score of each of many simulated data sets, the features of its images, and the true mIoU.

    Frames of a video share what is in them and how hard it is; the third class is rare. A feature is a sum of pixels,
    `float64[images, 3 * repeats * 3]`: TP, FP and FN of each data set and class.
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


def coverage(features: NDArray[np.float64], point: Score, truth: float, draws: NDArray[np.float64]) -> float:
    """Return the share of the data sets whose 95 % interval of the mIoU holds the truth.

    Args:
        features, point, truth: see `simulate`; a row of `features` is what is drawn.
        draws: how often each resample draws each row, `float64[rows, resamples]`.
    """
    sums = (draws.T @ features).reshape(draws.shape[1], len(point.tp), -1)
    mious = score_of_resamples(sums, point).figures()["miou"]
    bounds = [interval(mious[:, repeat]) for repeat in range(mious.shape[1])]
    return float(np.mean([found is not None and found.low <= truth <= found.high for found in bounds]))


def poisson(units: int) -> NDArray[np.float64]:
    """Return the draws of `segment score`."""
    return Bootstrap(RESAMPLES, seed=2).draws(np.arange(units))


def multinomial(units: int) -> NDArray[np.float64]:
    """Return the draws of the textbook: as many as there are units, each of any of them."""
    return np.random.default_rng(2).multinomial(units, np.full(units, 1 / units), RESAMPLES).T.astype(np.float64)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=800)
    repeats = parser.parse_args().repeats
    print(f"{repeats} data sets a row, {RESAMPLES} resamples: intervals that hold the true mIoU\n")
    print("| data | Poisson draws % | multinomial draws % |\n|---|---:|---:|")
    for words, (videos, frames, whole) in CASES.items():
        point, features, truth = simulate(repeats, videos, frames)
        if whole:
            features = features.reshape(videos, frames, -1).sum(axis=1)
        shares = (coverage(features, point, truth, draw(len(features))) for draw in (poisson, multinomial))
        print(f"| {words} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |")


if __name__ == "__main__":
    main()
