"""`objects`: so many loose objects of an S3 bucket are planned, the run is resumed and audited; none is segmented.

The server lists from memory, and the masks files of the run hold error rows, of which each is checked. Every step is a
process of its own, whose memory is its own.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from jobs.scaling.figures import Figure, Scale
from jobs.scaling.inputs import SIZE, write_model
from jobs.scaling.listing_store import numbered_keys
from jobs.scaling.resume import begin_only
from jobs.scaling.served import s3_options, served
from segment.errors import SampleError
from segment.inputs.parts import Part
from segment.job import Job
from segment.metrics import Confusion
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.output.manifest import stats_path
from segment.output.shard_stats import ShardStats, stats_table
from segment.output.tables import ImageRow, to_parquet, write_masks
from segment.store.client import Store

_LATENCY = 0.05  # seconds of a listed page
_ERROR = str(SampleError("undecodable"))
_UNFINISHED = 100  # every so many shards is unfinished when the run is resumed, and half of its parts are done


class Cost(NamedTuple):
    """What a step took: seconds, CPU seconds, and the peak of its memory, MB."""

    seconds: float
    cpu: float
    peak: float

    def __str__(self) -> str:
        return f"{self.seconds:.0f} ({self.cpu:.0f}), {self.peak:.0f} MB"


def measure_objects(scale: Scale) -> list[Figure]:
    """Discovery until the plan is frozen, resume until work would begin, and the audit."""
    folder = scale.folder / "objects"
    folder.mkdir(parents=True)
    model = write_model(folder, "null", SIZE)
    output = folder / "out"
    with served("jobs.scaling.listing_store", scale.images, _LATENCY) as url:
        job = Job(
            input="s3://folders/images", output=str(output), engine="local", storage_options=s3_options(url),
            runtime="openvino", precision="f32", **model,
        )  # fmt: skip
        steps = [
            ("nothing: modules and model", _alone(begin_only, _few(job, output))),
            ("listed, planned, plan frozen", _alone(begin_only, job)),
            ("the same named by a .csv, each with a label", _alone(begin_only, _named(job, output, scale.images))),
        ]
        _alone(_commit, str(output), False)
        steps.append(("resumed, 99 % finished", _alone(begin_only, job)))
    _alone(_commit, str(output), True)
    steps.append(("audited, all finished", _alone(_audit, str(output))))
    size = (output / "plan.parquet").stat().st_size / scale.images
    what = f"{scale.images:,} objects"
    figures = [Figure(f"{what}: {name}, s (of it CPU), peak memory", str(cost)) for name, cost in steps]
    return [*figures, Figure(f"{what}: plan.parquet, bytes each", f"{size:.1f}")]


def _few(job: Job, output: Path) -> Job:
    return job.model_copy(update={"input": f"{job.input}/000000", "output": f"{output}-few"})


def _named(job: Job, output: Path, images: int) -> Job:
    """Return the job of a list that names each object as an image, and the one after it as its label."""
    keys = numbered_keys(images, "folders")
    rows = (
        f"s3://folders/{image},s3://folders/{label}\n" for image, label in zip(keys, keys[1:] + keys[:1], strict=True)
    )
    table = output.parent / "objects.csv"
    with table.open("w", encoding="utf-8") as file:
        file.writelines(chain(["image,label\n"], rows))
    return job.model_copy(update={"input": str(table), "output": f"{output}-named", "allow_input": ("s3://folders/",)})


def _alone(step: Callable[..., None], *arguments: object) -> Cost:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, step, *arguments).result()


def _measured(step: Callable[..., None], *arguments: object) -> Cost:
    seconds, cpu = time.perf_counter(), time.process_time()
    step(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return Cost(time.perf_counter() - seconds, time.process_time() - cpu, peak)


def _commit(output: str, every: bool) -> None:
    """Write masks files as workers do, and the statistics of finished shards; what is there stays."""
    ledger = Ledger(Store(), f"file://{output}")
    run, plan = ledger.read_run_and_plan()
    card, fingerprint = ledger.card_of(run), run["fingerprint"]
    for number, (shard, parts) in enumerate(groupby(plan.parts(), key=attrgetter("shard"))):
        stats, folder, finished = Path(output, stats_path(shard)), Path(output, "masks", shard), number % _UNFINISHED
        if stats.exists():
            continue
        images = 0
        folder.mkdir(parents=True, exist_ok=True)
        for count, part in enumerate(parts):
            if every or finished or count % 2:
                (folder / f"{part.id}.parquet").write_bytes(_masks_file(part, fingerprint))
            images += len(part)
        if every or finished:
            stats.parent.mkdir(exist_ok=True)
            whole = ShardStats(Confusion.zeros(len(card.classes)), images, images, 0, 0.0)
            stats.write_bytes(to_parquet(stats_table(shard, whole, card)))


def _masks_file(part: Part, fingerprint: str) -> bytes:
    rows = [
        ImageRow(member.id, member.image.url, index, None, _ERROR, None, None, None, None)
        for index, member in enumerate(part.members, part.start)
    ]
    return write_masks(rows, shard=part.shard, part=part.id, fingerprint=fingerprint)


def _audit(output: str) -> None:
    found = audit_run(Ledger(Store(), f"file://{output}"))
    assert not found.problems, found.problems
