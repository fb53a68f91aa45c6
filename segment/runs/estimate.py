"""`segment plan`: the extent, duration and cost of a run, estimated by segmenting a few of its images."""

import dataclasses
import datetime
import itertools
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from segment.engines import Engine
from segment.errors import SegmentError
from segment.inputs.findings import images_in_words
from segment.inputs.parts import Part
from segment.job import Job
from segment.models.card import load_card
from segment.models.sessions import Runtime
from segment.models.weights import Weights, load_weights
from segment.output.attempts import timings_table
from segment.output.plan import Plan
from segment.output.results import PartResult
from segment.output.speed import Price, Speed
from segment.pipeline.stages import Task
from segment.progress import Progress
from segment.progress.tally import clock_time
from segment.runs.forecast import Forecast, forecast
from segment.runs.proof import prove
from segment.runs.resolve import check_options, choose_batch, choose_runtime, discover_for, make_engine, task_of
from segment.store.client import Store
from segment.store.names import count, rate, size

_PROBE = 16  # images of the probe, by default
_PROBE_PART = 4  # images of a part of the probe, at most
_PROBE_TILES = 64  # of an image that is segmented in tiles, at most
_PARTS_PER_WORKER = 2  # the first part of a worker is not measured


@dataclass(frozen=True)
class Estimate:
    """The estimate of a run.

    Attributes:
        images: number of images, in words.
        engine: `local` or `ray`.
        runtime: the resolved runtime.
        forecast: work, workers and memory.
        start: seconds until work on the first part began.
        rate: images per second of the pool when all workers run.
        speed: speed of the probe.
        tiles, tiles_left: tiles of the probe, and those of its images that it left out.
    """

    images: str
    engine: str
    runtime: Runtime
    forecast: Forecast
    start: float
    rate: float
    speed: Speed
    tiles: int = 0
    tiles_left: int = 0

    @property
    def seconds(self) -> float:
        """Duration of the run, start included."""
        return self.start + self.forecast.images / self.rate


def estimate(job: Job, progress: Progress, images: int = _PROBE) -> Estimate:
    """Plan a job and segment a few of its images; the masks are discarded.

    Args:
        job: the job; its output is neither read nor written.
        images: how many to segment, spread over the input; more where workers would get less than two each.

    Raises:
        UsageError: the job is impossible.
        SegmentError: no image could be segmented.
    """
    store = Store(job.storage_options, seconds=job.stall_timeout)
    card = load_card(job.model, store)
    check_options(job, card)
    weights = load_weights(card, job.weights, store=store, progress=progress.download)
    found = discover_for(job, card, store, early=True)
    for line in found.lines:
        progress.note(line)
    plan = Plan.of_discovery(found)
    with closing(make_engine(job, plan.expected_images)) as engine:
        chosen = choose_runtime(job, card, weights, engine, progress)
        runtime, _ = prove(job, card, weights, chosen, plan, engine, store, progress)
        batch = choose_batch(job, card, weights, runtime, plan, lambda: engine, progress)
        task = task_of(job, card, runtime, batch, store, "probe")
        workers = engine.workers(runtime.device)
        expected = forecast(task, weights, plan, engine)
        began, sample = time.time(), _sample(plan, workers, images)
        progress.phase(f"segmenting {count(sample.images, 'image')} of the probe")
        results = _probe(task, weights, sample, engine)
    facts = {
        "began": datetime.datetime.fromtimestamp(began, datetime.UTC).isoformat(),
        "engine": engine.name,
        "device": runtime.device,
        "workers": min(workers, len(results)),
        "expected_memory": expected.memory,
    }
    speed = Speed.of(timings_table(results), facts)
    if speed is None:
        reason = next((result.failure for result in results if result.failure), "the workers died")
        raise SegmentError(f"no image of the probe could be segmented: {reason}")
    planned = "about " * bool(plan.unindexed) + images_in_words(plan.expected_images, plan.left_out)
    tiles, left = sum(result.tiles for result in results), sum(result.tiles_left for result in results)
    return Estimate(planned, engine.name, runtime, expected, speed.start, _steady(results, workers), speed, tiles, left)


def _probe(task: Task, weights: Weights, sample: Plan, engine: Engine) -> list[PartResult]:
    """Run the parts of a sample. The workers write them to their own memory."""
    output = f"memory://segment-probe-{uuid.uuid4().hex}"
    discarding = dataclasses.replace(task, output=output, most_tiles=_PROBE_TILES)
    with closing(engine.run(discarding, weights, sample, isolation="none")) as running:
        return list(running)


def _sample(plan: Plan, workers: int, images: int) -> Plan:
    """Return a plan of small parts, evenly spread over the plan: the same ones for the same numbers."""
    least = _PARTS_PER_WORKER * workers
    each = max(1, min(_PROBE_PART, images // least))
    wanted = max(least, -(-images // each))
    spread = plan.taking([i * len(plan) // min(len(plan), wanted) for i in range(min(len(plan), wanted))])
    cuts = [list(_cut(part, each)) for part in spread.parts()]
    by_turns = (part for turn in itertools.zip_longest(*cuts) for part in turn if part is not None)
    return Plan.of(list(itertools.islice(by_turns, wanted)))


def _cut(part: Part, each: int) -> Iterator[Part]:
    """Yield the parts of `each` images of which a part consists."""
    name = part.id.rsplit("-", 2)[0]
    for start in range(part.start, part.stop, each):
        stop = min(part.stop, start + each)
        members = part.members[start - part.start : stop - part.start]
        yield dataclasses.replace(part, id=f"{name}-{start}-{stop}", start=start, stop=stop, members=members)


def _steady(results: list[PartResult], workers: int) -> float:
    """Return images per second without the first part of each worker, if there are other parts.

    Tiles that were left out count with the time that they would have taken.
    """
    done = sorted((result for result in results if result.ended), key=lambda result: result.ended)
    first = done[: workers if len(done) > workers else 0]
    since = first[-1].ended if first else min(result.began for result in done)
    counted = done[len(first) :]
    left = sum(result.seconds_left for result in counted) / min(workers, len(counted))
    return sum(result.images for result in counted) / max(1e-9, done[-1].ended - since + left)


def _probed(found: Estimate) -> str:
    images = count(found.speed.images, "image")
    if not found.tiles_left:
        return images
    return f"{found.tiles:,} of {found.tiles + found.tiles_left:,} tiles of {images}, taken for all"


def _assumed(found: Estimate) -> str:
    known = found.speed.read_bytes / max(1, found.speed.images)
    each = f" ({size(known)} each on average)" if known else ""
    return f"the others are like these{each}, workers busy to the end, no retries"


def estimate_lines(found: Estimate, price: Price | None) -> list[str]:
    """Return the lines of an estimate, with what it assumes, and the cost if the price is known."""
    work, runtime, total = found.forecast, found.runtime, clock_time(found.seconds)
    lines = [
        f"{found.images} in {count(work.shards, 'shard')}, {count(work.parts, 'part')}",
        f"{found.engine}: {work.workers} x {runtime.name} {runtime.version}, {runtime.device}, {runtime.precision}",
        work.words(),
        f"probe: {_probed(found)} in {found.speed.seconds:.1f} s, spread over the input; nothing written",
        f"expected: {rate(found.rate)} images/s, {total} in total, {found.start:.0f} s of it to start",
        f"assumed: {_assumed(found)}",
    ]
    if price is not None:
        cost = price.per_hour * found.seconds / 3600
        each = price.amount(1000 * cost / max(1, work.images), 4)
        lines.append(f"cost: {price.amount(cost, 2 if cost >= 1 else 4)} in total, {each} per 1,000 images, at {price}")
    return lines
