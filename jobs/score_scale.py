"""What scores, comparisons and the report take for many images: seconds and memory, from the counts of made-up runs.

    python jobs/score_scale.py                       # a million images of 19 classes: some minutes, 2 GB of disk
    python jobs/score_scale.py --measure compare     # two such runs: twice the disk
    python jobs/score_scale.py --images 100000

The runs have the files of real ones, parts of 64 images and a few classes an image, but no masks, so that `segment
compare --no-masks` is measured: matching by id, counts of both runs, scores and paired intervals. (Masks are read part
by part, a few at a time, and their memory does not depend on the number of images.) Each is measured in a process of
its own, so that its memory is its own. Prints Markdown.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.scaling.figures import Figure, Scale
from jobs.scaling.inputs import make_inputs
from jobs.scaling.resume import begin_only
from segment import Confusion, Job
from segment.inputs.parts import Part
from segment.metrics.bootstrap import RESAMPLES
from segment.models.card import ModelCard
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of
from segment.output.plan import Plan
from segment.output.run_folder import to_json
from segment.output.tables import ImageRow, write_masks
from segment.report.aggregate import load_report
from segment.report.comparison.comparing import ComparisonRequest, compare_ledgers
from segment.report.image_list import list_images
from segment.report.notable import read_notable
from segment.report.rows import read_scores
from segment.report.run_score import Request, score_run
from segment.store.client import Store

CLASSES = 19
PART, SHARD = 64, 64 * 64  # images
PRESENT = 6  # classes of an image
GROUP = 100  # images of a video


def make_run(folder: Path, images: int, seed: int = 0) -> Ledger:
    """Write a run of so many images: `run.json`, plan, masks files without masks, and statistics."""
    small = Scale(folder / "small", images=4, shards=1)
    make_inputs(small)
    begin_only(Job(output=str(folder / "out"), engine="local", **small.job))
    ledger = Ledger(Store(), f"file://{folder / 'out'}")
    run = ledger.read_run()
    assert run is not None
    names = [f"class {number}" for number in range(CLASSES)]
    run["card"]["classes"] |= {"names": names, "palette": [[number, 0, 0] for number in range(CLASSES)]}
    ledger.store.write(ledger.url("run.json"), to_json(run))
    plan = ledger.replace_plan(Plan.of(parts_of(images)))
    generator = np.random.default_rng(seed)
    for part in plan.parts():
        rows = [row(generator, part.shard, part.start + number) for number in range(len(part))]
        data = write_masks(rows, shard=part.shard, part=part.id, fingerprint=run["fingerprint"])
        ledger.store.write(ledger.masks_url(part.shard, part.id), data)
    card = ModelCard.model_validate(run["card"])
    for shard, ids in plan.parts_by_shard().items():
        ledger.finish_shard(shard, ids, card, run["fingerprint"])
    return ledger


def parts_of(images: int) -> Iterator[Part]:
    """Parts of a made-up Parquet input."""
    for first in range(0, images, PART):
        shard, start = divmod(first, SHARD)
        stop = min(start + PART, images - shard * SHARD)
        name = f"shard-{shard:05}"
        yield Part(f"{name}-{start:06}", name, "parquet", f"s3://bucket/{name}.parquet", 1, "e", start, stop, 0, ())


def row(generator: np.random.Generator, shard: str, index: int) -> ImageRow:
    """The row of an image: a few classes, each of which is mostly found."""
    classes = generator.choice(CLASSES, PRESENT, replace=False)
    counts = np.zeros((CLASSES + 1, CLASSES), np.int64)
    counts[np.ix_(classes, classes)] = generator.poisson(500, (PRESENT, PRESENT))
    counts[classes, classes] += generator.integers(1_000, 100_000, PRESENT)
    name = f"{shard}/video-{index // GROUP:03}/{index:06}.jpg"
    return ImageRow(name, f"s3://bucket/{name}", index, (512, 512), None, None, Confusion(counts), 0.9, 0.5)


@contextmanager
def timed() -> Iterator[list[str]]:
    """Give a list whose one item tells, afterwards, the seconds that passed, and those of CPU."""
    told: list[str] = []
    start, cpu = time.perf_counter(), time.process_time()
    yield told
    told.append(f"{time.perf_counter() - start:.1f} ({time.process_time() - cpu:.1f} of CPU)")


def measure_score(output: str) -> list[Figure]:
    """Choose and list the images of the report's page; score as `segment score` does: images, and videos."""
    ledger = Ledger(Store(), output)
    figures = [*measure_page(ledger)]
    for words, asked in (("", Request()), (" --group-by folder", Request(group_by="folder"))):
        with timed() as scored:
            found = score_run(ledger, asked)
        assert found.overall.intervals["miou"] is not None
        units = f"{found.overall.units:,} {found.units}"
        figures.append(Figure(f"segment score{words}, {units}, {RESAMPLES:,} resamples, s", scored[0]))
        figures.append(peak_memory())
    return figures


def measure_page(ledger: Ledger) -> list[Figure]:
    """Read what `segment report` reads of all images; pictures apart, of which it draws a few."""
    report = load_report(ledger)
    plan = ledger.read_run_and_plan()[1]
    with timed() as read:
        scores = read_scores(ledger, plan, report.parts)
        numbers = numbers_of(plan, report.parts)
        notable = read_notable(ledger, plan, report.card, report.total.confusion, numbers)
        images = list_images(ledger, scores)
    assert len(notable.worst) == CLASSES
    assert len(images.rows) == min(10_000, len(scores))
    return [Figure(f"images of the report's page, of {len(scores):,}, s", read[0]), peak_memory()]


def measure_compare(*outputs: str) -> list[Figure]:
    """Compare two runs as `segment compare --no-masks` does."""
    ledgers = [Ledger(Store(), output) for output in outputs]
    with timed() as took:
        found = compare_ledgers(ledgers, ComparisonRequest(masks=False))
    scores = found.against[0].overall.scores
    assert scores is not None
    assert scores.changes["miou"].interval is not None
    with timed() as ranked:
        found.against[0].lost_most(20)
    return [
        Figure(f"segment compare --no-masks, {RESAMPLES:,} resamples, s", took[0]),
        Figure("the images that lost most, s", ranked[0]),
        peak_memory(),
    ]


def peak_memory() -> Figure:
    """Return the most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return Figure("peak memory of the process until then, MB", f"{peak:,.0f}")


MEASURES: dict[str, tuple[int, Callable[..., list[Figure]]]] = {
    "score": (1, measure_score),
    "compare": (2, measure_compare),
}  # by name: number of runs, and what is measured of them


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--measure", choices=MEASURES, default="score")
    options = parser.parse_args()
    number, measure = MEASURES[options.measure]
    with tempfile.TemporaryDirectory(prefix="segment-score-") as folder:
        outputs = [make_run(Path(folder) / str(seed), options.images, seed).output for seed in range(number)]
        runs = f"{number} run{'s' * (number > 1)} of {options.images:,} images of {CLASSES} classes, {PRESENT} an image"
        print(f"{runs}\n\n| figure | measured |\n|---|---:|")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            for figure in pool.submit(measure, *outputs).result():
                print(f"| {figure.name} | {figure.value} |")


if __name__ == "__main__":
    main()
