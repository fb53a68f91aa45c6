"""What `segment compare` takes for many images: seconds and memory, from the counts of two made-up runs.

    python jobs/compare_scale.py                     # a million images of 19 classes: some minutes, 4 GB of disk
    python jobs/compare_scale.py --images 100000

The runs are those of `jobs/score_scale.py`, which have counts and no masks, so that `--no-masks` is measured: matching
by id, counts of both runs, scores and paired intervals. Masks are read part by part, a few at a time, and their memory
does not depend on the number of images. The comparison is measured in a process of its own. Prints Markdown.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.scaling.figures import Figure
from jobs.score_scale import CLASSES, PRESENT, make_run, timed
from segment.metrics.bootstrap import RESAMPLES
from segment.output.ledger import Ledger
from segment.report.comparison.comparing import ComparisonRequest, compare_ledgers
from segment.store.client import Store


def measure(outputs: list[str]) -> list[Figure]:
    """Compare two runs as `segment compare --no-masks` does."""
    ledgers = [Ledger(Store(), output) for output in outputs]
    with timed() as took:
        found = compare_ledgers(ledgers, ComparisonRequest(masks=False))
    scores = found.against[0].overall.scores
    assert scores is not None
    assert scores.changes["miou"].interval is not None
    with timed() as ranked:
        found.against[0].lost_most(20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return [
        Figure(f"segment compare --no-masks, {RESAMPLES:,} resamples, s", took[0]),
        Figure("the images that lost most, s", ranked[0]),
        Figure("peak memory of the process, MB", f"{peak:,.0f}"),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segment-compare-") as folder:
        outputs = [make_run(Path(folder) / name, options.images, seed).output for seed, name in enumerate("ab")]
        print(
            f"two runs of {options.images:,} images of {CLASSES} classes, {PRESENT} an image\n\n"
            "| figure | measured |\n|---|---:|"
        )
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            for figure in pool.submit(measure, outputs).result():
                print(f"| {figure.name} | {figure.value} |")


if __name__ == "__main__":
    main()
