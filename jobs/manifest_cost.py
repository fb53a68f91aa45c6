"""What it costs that a run proves itself: the manifest of a run, `audit` of many parts, and `audit --deep`.

    python jobs/manifest_cost.py                     # 20,000 small images, then 100,000 parts: half an hour, 1 GB
    python jobs/manifest_cost.py --images 2000 --parts 1000

The model of the run costs nothing, so that the share of the digests is the largest there can be. They are measured by
computing them once more, one after the other, of all that was written; in the run a thread computes them beside the
model. The audits are commands, so that their CPU seconds and their memory are told. Prints Markdown.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.scaling.figures import Figure, Scale, timed
from jobs.scaling.inputs import make_inputs
from jobs.scaling.resume import begin_only
from segment import Confusion, Job, run
from segment.images.mask_png import encode_mask
from segment.inputs.parts import Part
from segment.output.audit import audit_listing, audit_run
from segment.output.ledger import Ledger
from segment.output.manifest import part_objects
from segment.output.plan import Plan
from segment.output.stored import Stored
from segment.output.success import load_digests, write_success
from segment.output.tables import ImageRow, write_masks
from segment.progress import Progress
from segment.report.aggregate import load_report, write_report
from segment.store.client import Store

SIDE = 512  # pixels of the masks that are decoded
SHARD = 64  # parts


def measure_run(folder: Path, images: int) -> list[Figure]:
    """A run of a model that costs nothing, and the seconds of it that the manifest takes; then its deep audit."""
    scale = Scale(folder, images=images, shards=max(1, images // 2000))
    make_inputs(scale)
    output = scale.output("run")
    with timed() as whole:
        run(Job(output=str(output), engine="local", **scale.job), Progress())
    objects = [path for name in ("masks", "stats", "report") for path in (output / name).rglob("*") if path.is_file()]
    contents = [path.read_bytes() for path in objects]
    ledger = Ledger(Store(), f"file://{output}")
    record, plan = ledger.read_run_and_plan()
    load_digests(ledger)
    totals = audit_run(ledger).totals

    def digests() -> None:
        for data in contents:
            Stored.of("", data)

    def seal() -> None:
        list(write_success(ledger, plan, totals, record["fingerprint"]))

    cost = _fastest(digests) + _fastest(seal)
    return [
        Figure(f"run of {images:,} images of 64 x 64 pixels, s", f"{whole[0]:.1f}"),
        Figure("its digests and manifest, s", f"{cost:.3f}"),
        Figure("images a second, with a manifest ÷ without", f"{1 - cost / whole[0]:.4f}", "≥ 0.99"),
    ]


def _fastest(work: Callable[[], None]) -> float:
    """Seconds of the fastest of five times: the machine may have other work."""
    seconds = []
    for _ in range(5):
        with timed() as passed:
            work()
        seconds += passed
    return min(seconds)


def measure_audit(folder: Path, parts: int) -> list[Figure]:
    """The audit of many parts of one image, and how many images a second a deep audit checks."""
    ledger, images = make_run(folder, parts)
    size = sum(item.size for item in ledger.digests.objects())
    masks = f"{images:,} masks of {SIDE} x {SIDE}, {size / 1e6:,.0f} MB"
    shallow, _ = _audited(ledger.output, f"audit of {parts:,} parts")
    deep, seconds = _audited(ledger.output, f"audit --deep of {masks}", "--deep")
    return [*shallow, *deep, Figure("audit --deep, images/s", f"{images / seconds:,.0f}")]


def _audited(output: str, name: str, *how: str) -> tuple[list[Figure], float]:
    """Audit a run that has no fault by the command, from the start of its process to its end."""
    with timed() as passed:
        process = subprocess.Popen([sys.executable, "-m", "segment", "audit", output, *how], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    told = f"{passed[0]:.1f} ({used.ru_utime + used.ru_stime:.1f} of CPU; {used.ru_maxrss / 1e3:,.0f} MB at peak)"
    return [Figure(f"{name}, s", told)], passed[0]


def make_run(folder: Path, parts: int) -> tuple[Ledger, int]:
    """Write a run of so many parts of one image; its masks are all the same.

    Masks files are written without the store, which waits for the disk after each: 11 ms, and 4 ms for all else.
    """
    scale = Scale(folder, images=4, shards=1)
    make_inputs(scale)
    output = scale.output("out")
    begin_only(Job(output=str(output), engine="local", **scale.job))
    ledger = Ledger(Store(), f"file://{output}")
    record, _ = ledger.read_run_and_plan()
    plan, fingerprint = ledger.replace_plan(Plan.of(map(_part, range(parts)))), record["fingerprint"]
    ledger.record_input(plan, fingerprint)
    card = ledger.card_of(record)
    mask = (np.indices((SIDE, SIDE)).sum(axis=0) // 40 % 2).astype(np.uint8)
    png, counts = encode_mask(mask), Confusion.of(mask, None, len(card.classes))
    for part in plan.parts():
        name = f"{part.start}.jpg"
        row = ImageRow(name, f"{part.url}#{name}", part.start, mask.shape, None, png, counts, None, None)
        data = write_masks([row], shard=part.shard, part=part.id, fingerprint=fingerprint)
        objects = part_objects(part, [row], data)
        file = output / objects[0].path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        ledger.digests.made(*objects)
    for shard, ids in plan.parts_by_shard().items():
        ledger.finish_shard(shard, ids, card, fingerprint)
    write_report(ledger, load_report(ledger))
    list(write_success(ledger, plan, audit_listing(ledger, plan, card).totals, fingerprint))
    return ledger, parts


def _part(number: int) -> Part:
    shard, start = f"shard-{number // SHARD:05}", number % SHARD
    place = f"file:///nowhere/{shard}.parquet"
    return Part(f"{shard}-{start:06}", shard, "parquet", place, 1, "e", start, start + 1, 0, ())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--parts", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segment-manifest-") as folder:
        print("| figure | measured | goal |\n|---|---:|---|")
        for measure, number in ((measure_run, options.images), (measure_audit, options.parts)):
            (place := Path(folder) / measure.__name__).mkdir()
            for figure in measure(place, number):
                print(f"| {figure.name} | {figure.value} | {figure.goal} |", flush=True)


if __name__ == "__main__":
    main()
